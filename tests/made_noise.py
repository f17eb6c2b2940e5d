"""Series of noise, and the one slice in 19 transfer syntaxes."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import numpy.typing as npt

from m3node.evaluation.ct_writer import axial_geometry, write_ct_series
from m3node.intake.series.manifest import Manifest, make_manifest
from m3node.intake.series.stacks import group_stacks
from made_stacks import headers_of


def noise(shape: tuple[int, int, int], seed: int = 0) -> npt.NDArray[np.int16]:
    """HU without any order."""
    return np.random.default_rng(seed).integers(-1024, 3000, shape, dtype=np.int16)


def noise_series(folder: Path) -> Path:
    """Write a series of 12 slices of noise."""
    write_ct_series(folder, noise((12, 16, 20)), axial_geometry((12, 16, 20), (2.0, 0.7, 0.7)), seed="s")
    return folder


def one_of_19(test_data: Path) -> dict[str, Manifest]:
    """A manifest of each file of ct_transfer_syntaxes, by file name."""
    folder = test_data / "ct_transfer_syntaxes"
    made = {}
    for header in headers_of(folder):
        (stack,) = group_stacks([header])
        made[header.path] = make_manifest(stack, root=folder)
    return made


def of_syntax(manifests: dict[str, Manifest], ending: str) -> Manifest:
    """The one whose transfer syntax ends so."""
    (found,) = (m for name, m in manifests.items() if name.endswith(f"_1.2.840.10008.{ending}.dcm"))
    return found


def ending_stream() -> bytes:
    """Something like baseline JPEG, over which GDCM 3.2 ends its process instead of saying that it cannot decode it."""
    chance = random.Random(4)
    beginnings = ("ffd8ffe000104a46494600010100", "ffd8ffc0000b080040004001011100ffda0008010100003f00", "")
    beginning = bytes.fromhex(chance.choice(beginnings))
    return beginning + chance.randbytes(chance.choice((2, 100, 4000)))
