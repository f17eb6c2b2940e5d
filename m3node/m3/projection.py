"""From a view's boxes back to the volume's slices."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from m3node.detectors.protocols import AttentionGrid, Box2D, SliceAttention, View, ViewBox
from m3node.imaging.mask import BoolArray, VoxelMask


@dataclass(frozen=True, slots=True)
class Frame:
    """What is kept of a view once it was read: where it lay.

    Attributes
    ----------
    number : int
        Running number of the view.
    slice_index : int
        ``k``.
    box : Box2D
        The crop in the volume's rows and columns.
    padding : float
        The view's.
    """

    number: int
    slice_index: int
    box: Box2D
    padding: float = 0.0

    @classmethod
    def of(cls, view: View, number: int) -> Frame:
        """Remember a view."""
        (r0, c0), (rows, columns) = view.origin, view.hu.shape
        box = Box2D(r0, c0, r0 + rows, c0 + columns)
        return cls(number=number, slice_index=view.slice_index, box=box, padding=view.padding)


@dataclass(frozen=True, slots=True, eq=False)
class PlaneMask:
    """Voxels on one slice: a block and where it begins in rows and columns."""

    origin: tuple[int, int]
    data: BoolArray


@dataclass(frozen=True, slots=True, eq=False)
class ProjectedBox:
    """A view's box in the volume's rows and columns.

    Attributes
    ----------
    view : int
        Number of the view it came from.
    mask : PlaneMask or None
        Voxels, where the detector gave them.
    """

    slice_index: int
    view: int
    box: Box2D
    score: float
    mask: PlaneMask | None


def project(frame: Frame, found: ViewBox) -> ProjectedBox | None:
    """Move a box from its view into the volume.

    Returns
    -------
    ProjectedBox or None
        None for a box that is no box: not finite, empty, or outside its crop. What sticks out is cut off.
    """
    box = found.box
    if not all(math.isfinite(value) for value in (box.r0, box.c0, box.r1, box.c1, found.score)):
        return None
    r, c = frame.box.r0, frame.box.c0
    moved = Box2D(
        r0=max(box.r0 + r, frame.box.r0),
        c0=max(box.c0 + c, frame.box.c0),
        r1=min(box.r1 + r, frame.box.r1),
        c1=min(box.c1 + c, frame.box.c1),
    )
    if moved.r1 <= moved.r0 or moved.c1 <= moved.c0:
        return None
    return ProjectedBox(
        slice_index=frame.slice_index,
        view=frame.number,
        box=moved,
        score=found.score,
        mask=_plane_mask(found.mask, (int(r), int(c))),
    )


def project_attention(frame: Frame, grid: AttentionGrid, box: Box2D | None) -> SliceAttention:
    """Move a view's attention into the volume; ``box``, of the volume already, is the one whose words looked there."""
    r, c, area = frame.box.r0, frame.box.c0, grid.area
    return SliceAttention(
        slice_index=frame.slice_index,
        grid=AttentionGrid(
            values=grid.values, area=Box2D(r0=area.r0 + r, c0=area.c0 + c, r1=area.r1 + r, c1=area.c1 + c)
        ),
        box=box,
        padding=frame.padding,
    )


def share_inside(box: Box2D, envelope: VoxelMask, k: int) -> float:
    """Share of the box's voxels that lie in the envelope on slice ``k``, 0…1."""
    # The voxels whose centres lie in the box; the one under its middle for a box smaller than a voxel.
    r0, r1 = math.ceil(box.r0 - 0.5), math.ceil(box.r1 - 0.5)
    c0, c1 = math.ceil(box.c0 - 0.5), math.ceil(box.c1 - 0.5)
    if r1 <= r0:
        r0 = math.floor((box.r0 + box.r1) / 2)
        r1 = r0 + 1
    if c1 <= c0:
        c0 = math.floor((box.c0 + box.c1) / 2)
        c1 = c0 + 1
    return float(np.mean(envelope.within(((k, k + 1), (r0, r1), (c0, c1)))))


def _plane_mask(mask: BoolArray | None, origin: tuple[int, int]) -> PlaneMask | None:
    if mask is None:
        return None
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if rows.size == 0:
        return None
    r0, r1, c0, c1 = int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1
    return PlaneMask(origin=(origin[0] + r0, origin[1] + c0), data=mask[r0:r1, c0:c1].copy())
