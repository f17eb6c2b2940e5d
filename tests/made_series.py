"""Made CT series, as files: one that has a liver and one that has none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from m3node.evaluation.ct_writer import axial_geometry, write_ct_series
from m3node.evaluation.phantom import SMALL, abdomen_phantom


def bare_series(folder: Path, seed: object, *, slices: int = 12, **attributes: Any) -> tuple[Path, ...]:
    """Write a small series without a liver; ``attributes`` by keyword."""
    shape = (slices, 32, 32)
    hu = np.random.default_rng(1).integers(-50, 50, shape)
    return write_ct_series(folder, hu, axial_geometry(shape, (2.0, 1.0, 1.0)), seed=seed, attributes=attributes)


def phantom_series(folder: Path, seed: int, **attributes: Any) -> tuple[Path, ...]:
    """Write the small abdomen phantom of a seed, which is the series' seed as well."""
    phantom = abdomen_phantom(seed=seed, **SMALL)
    return write_ct_series(folder, np.asarray(phantom.hu), phantom.geometry, seed=seed, attributes=attributes)
