"""Many small series with a liver, each in a fraction of a second, and how a node answers them fast."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

import numpy as np

from m3node.evaluation.ct_writer import seeded_uid, write_ct_series
from m3node.evaluation.phantom import Phantom, abdomen_phantom

SLICES = 12
PLUGINS = Path(__file__).parent / "plugins"
STEPS, SECONDS = "M3NODE_TEST_STEPS", "M3NODE_TEST_DETECT_SECONDS"
"""Variables of the detector: a file for every step that a worker begins, and how long it looks at a series."""


def quick_environment(**more: object) -> dict[str, str]:
    """Environment of a node that can load the detector ``quick``."""
    inherited = os.environ.get("PYTHONPATH")
    path = os.pathsep.join([str(PLUGINS), *([inherited] if inherited else [])])
    return {"PYTHONPATH": path, **{name: str(value) for name, value in more.items()}}


def quick_series(folder: Path, seed: object, number: int = 0, **attributes: object) -> tuple[Path, ...]:
    """Write a series of a coarse abdomen; those of other numbers differ in every slice. ``attributes`` by keyword."""
    phantom = _abdomen(number % 4)
    hu = np.asarray(phantom.hu) + np.int16(number // 4)
    return write_ct_series(folder, hu, phantom.geometry, seed=seed, attributes=attributes)


def series_uid(seed: object) -> str:
    """Series Instance UID of what was written with a seed."""
    return seeded_uid(seed, "series")


@cache
def _abdomen(seed: int) -> Phantom:
    return abdomen_phantom(seed=seed + 1, shape=(SLICES, 64, 64), spacing=(16.0, 6.0, 6.0))
