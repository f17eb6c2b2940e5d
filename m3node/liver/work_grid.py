"""A small copy of a volume in the patient's own axes: what the coarse part of the segmentation looks at.

500 slices of 512×512 are 131 million voxels; organs are decided on about 3 mm, where they are 3 million. The copy's
axes rise towards the patient's head, back and left (z, y, x of LPS), however the series was stored.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from m3node.imaging.geometry import FloatArray
from m3node.imaging.mask import BoolArray
from m3node.imaging.volume import CTVolume

FloatVolume = npt.NDArray[np.float32]

Box = tuple[slice, slice, slice]
T = TypeVar("T", bound=np.generic)

TARGET_MM = 3.0
AIR_HU, METAL_HU = -1024, 1500


@dataclass(frozen=True, slots=True)
class Axes:
    """Which voxel axis runs along which patient axis, and whether against it.

    Attributes
    ----------
    order : tuple of int
        Voxel axes that lie closest to the patient's z, y and x.
    reversed : tuple of bool
        Whether that voxel axis runs against the patient's.
    """

    order: tuple[int, int, int]
    reversed: tuple[bool, bool, bool]

    @classmethod
    def of(cls, affine: FloatArray) -> Axes:
        """Assign each voxel axis to the patient axis that it is closest to, z first."""
        directions = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
        free = [0, 1, 2]
        order: list[int] = []
        for patient_axis in (2, 1, 0):
            best = max(free, key=lambda axis: abs(float(directions[patient_axis, axis])))
            free.remove(best)
            order.append(best)
        against = [bool(directions[p, a] < 0) for p, a in zip((2, 1, 0), order, strict=True)]
        return cls(order=(order[0], order[1], order[2]), reversed=(against[0], against[1], against[2]))

    def view(self, array: npt.NDArray[T]) -> npt.NDArray[T]:
        """Show a (k, r, c) array in (z, y, x) order, without a copy."""
        return array.transpose(self.order)[tuple(slice(None, None, -1 if flip else 1) for flip in self.reversed)]

    def view_back(self, array: npt.NDArray[T]) -> npt.NDArray[T]:
        """Show a (z, y, x) array in (k, r, c) order, without a copy."""
        flipped = array[tuple(slice(None, None, -1 if flip else 1) for flip in self.reversed)]
        return flipped.transpose(tuple(int(i) for i in np.argsort(self.order)))


@dataclass(frozen=True, slots=True, eq=False)
class WorkGrid:
    """The copy.

    Attributes
    ----------
    hu : ndarray of float32, shape (z, y, x)
        Block means, clipped to −1024…1500 HU.
    axes : Axes
        How its axes lie in the volume.
    factors : tuple of int
        Voxels of the volume along z, y and x in one of its own.
    spacing : tuple of float
        mm along z, y, x.
    origin : ndarray, shape (3,)
        Patient mm (x, y, z) of its first voxel's centre.
    steps : ndarray, shape (3, 3)
        Patient mm (x, y, z) of one step along z, y, x; a column each.
    first : tuple of int
        Where it begins in the copy of the whole volume.
    """

    hu: FloatVolume
    axes: Axes
    factors: tuple[int, int, int]
    spacing: tuple[float, float, float]
    origin: FloatArray
    steps: FloatArray
    first: tuple[int, int, int] = (0, 0, 0)

    def cropped(self, box: Box) -> WorkGrid:
        """Keep a box; the whole grid's indices are lost, ``first`` keeps count of them."""
        first = np.array([sl.start for sl in box])
        return replace(
            self,
            hu=self.hu[box],
            origin=self.origin + self.steps @ first,
            first=(self.first[0] + int(first[0]), self.first[1] + int(first[1]), self.first[2] + int(first[2])),
        )

    def patient_axis(self, axis: int) -> FloatVolume:
        """Patient coordinate (0 for x, 1 for y, 2 for z; mm, LPS) of every voxel, broadcastable to ``hu``."""
        depth, height, width = self.hu.shape
        return np.asarray(
            self.origin[axis]
            + self.steps[axis, 0] * np.arange(depth)[:, None, None]
            + self.steps[axis, 1] * np.arange(height)[None, :, None]
            + self.steps[axis, 2] * np.arange(width)[None, None, :],
            dtype=np.float32,
        )


def make_work_grid(volume: CTVolume, target_mm: float = TARGET_MM) -> WorkGrid:
    """Average the volume in blocks of about ``target_mm``; never holds more than a block of slices in float."""
    axes = Axes.of(volume.geometry.affine)
    view = axes.view(volume.hu)
    fine = [volume.geometry.spacing[axis] for axis in axes.order]
    factors = [max(1, int(target_mm / step + 0.05)) for step in fine]
    starts = [np.arange(0, size, factor) for size, factor in zip(view.shape, factors, strict=True)]
    hu = np.empty(tuple(len(s) for s in starts), dtype=np.float32)
    counts = [np.diff(np.append(s, size)).astype(np.float32) for s, size in zip(starts, view.shape, strict=True)]
    for i, first in enumerate(starts[0]):
        slab = np.clip(view[first : first + factors[0]], AIR_HU, METAL_HU)
        plane = slab.sum(axis=0, dtype=np.float32) / np.float32(len(slab))
        rows = np.add.reduceat(plane, starts[1], axis=0) / counts[1][:, None]
        hu[i] = np.add.reduceat(rows, starts[2], axis=1) / counts[2][None, :]
    affine = volume.geometry.affine
    fine_steps = np.stack(
        [affine[:3, a] * (-1.0 if r else 1.0) for a, r in zip(axes.order, axes.reversed, strict=True)], 1
    )
    first_voxel = np.zeros(3)
    for axis, against in zip(axes.order, axes.reversed, strict=True):
        first_voxel[axis] = volume.hu.shape[axis] - 1 if against else 0
    half_block = fine_steps @ ((np.asarray(factors) - 1) / 2.0)
    return WorkGrid(
        hu=hu,
        axes=axes,
        factors=(factors[0], factors[1], factors[2]),
        spacing=(fine[0] * factors[0], fine[1] * factors[1], fine[2] * factors[2]),
        origin=volume.geometry.to_patient(first_voxel) + half_block,
        steps=fine_steps * np.asarray(factors),
    )


def box_around(mask: BoolArray, margin_mm: float, spacing: tuple[float, float, float]) -> Box | None:
    """Bounding box of a mask's true voxels with a margin, inside the array; None when there is none."""
    slices: list[slice] = []
    for axis in range(3):
        hits = np.flatnonzero(mask.any(axis=tuple(a for a in range(3) if a != axis)))
        if hits.size == 0:
            return None
        margin = int(np.ceil(margin_mm / spacing[axis]))
        slices.append(slice(max(0, int(hits[0]) - margin), min(mask.shape[axis], int(hits[-1]) + 1 + margin)))
    return slices[0], slices[1], slices[2]
