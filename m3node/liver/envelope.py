"""The liver's envelope: generous where the parenchyma is exact, so that no lesion at the border falls outside.

It is made in 3-D and in this order: closing joins what lies apart and bridges bites that a lesion or a fissure took
out of the border, holes are filled, each axial slice becomes convex over all its parts, and the whole is dilated.
Convex by slice and not in space: the hull in space would span from the dome to the tip of the right lobe over kidney
and bowel, while the views that the envelope crops are axial slices.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage as ndi
from scipy.spatial import ConvexHull

from m3node.imaging.geometry import PatientGeometry
from m3node.imaging.mask import BoolArray, VoxelMask
from m3node.liver.morphology import any_in_block, dilate, erode, fill_axial_holes
from m3node.settings import LiverSettings

GRID_MM = 2.0
"""Grid on which the envelope is made; 5 mm of dilation need no finer one, and 500 thin slices no more memory."""


def make_envelope(parenchyma: VoxelMask, geometry: PatientGeometry, settings: LiverSettings) -> VoxelMask:
    """Make the envelope of a parenchyma.

    Parameters
    ----------
    parenchyma : VoxelMask
        Liver tissue.
    geometry : PatientGeometry
        The grid, for its spacing.
    settings : LiverSettings
        ``envelope_closing_mm`` and ``envelope_dilation_mm``.

    Returns
    -------
    VoxelMask
        Holds the parenchyma and everything within ``envelope_dilation_mm`` of it or of its hull on an axial slice;
        at most two steps of ``GRID_MM`` more. Clipped to the grid. Empty for an empty parenchyma.
    """
    tissue = parenchyma.cropped()
    if tissue.count == 0:
        return VoxelMask.empty(parenchyma.shape)
    factors = [max(1, int(GRID_MM / step)) for step in geometry.spacing]
    spacing = tuple(step * factor for step, factor in zip(geometry.spacing, factors, strict=True))
    reach = settings.envelope_closing_mm + settings.envelope_dilation_mm + 2 * GRID_MM
    pads = [int(np.ceil(reach / step)) + 1 for step in spacing]

    coarse = np.pad(any_in_block(tissue.data, factors), [(pad, pad) for pad in pads])
    coarse = (
        erode(dilate(coarse, settings.envelope_closing_mm, spacing), settings.envelope_closing_mm, spacing) | coarse
    )
    coarse = fill_axial_holes(ndi.binary_fill_holes(coarse))
    for k in np.flatnonzero(coarse.any(axis=(1, 2))):
        coarse[k] = convex(coarse[k])
    # Between centres of blocks two voxels may be farther apart than they are: that much is added.
    rounding = float(np.linalg.norm([step * (k - 1) for step, k in zip(geometry.spacing, factors, strict=True)]))
    coarse = dilate(coarse, settings.envelope_dilation_mm + rounding, spacing)

    start = [tissue.start[a] - pads[a] * factors[a] for a in range(3)]
    return _clipped(coarse, factors, start, parenchyma.shape)


def convex(plane: BoolArray) -> BoolArray:
    """Fill the convex hull of a plane's true pixels, whole pixels taken."""
    rows, columns = np.nonzero(plane)
    # Only a row's ends can be corners of the hull.
    used, first = np.unique(rows, return_index=True)
    last = np.append(first[1:], rows.size) - 1
    points = np.concatenate([np.stack([used, columns[first]], 1), np.stack([used, columns[last]], 1)]).astype(
        np.float64
    )
    corners = (points[:, None, :] + np.array([[-0.5, -0.5], [-0.5, 0.5], [0.5, -0.5], [0.5, 0.5]])).reshape(-1, 2)
    sides = ConvexHull(corners).equations
    r0, r1, c0, c1 = rows.min(), rows.max() + 1, columns.min(), columns.max() + 1
    grid_r, grid_c = np.mgrid[r0:r1, c0:c1]
    inside = np.ones(grid_r.shape, dtype=np.bool_)
    for along_r, along_c, offset in sides:
        inside &= along_r * grid_r + along_c * grid_c + offset <= 1e-9
    hull = np.zeros_like(plane)
    hull[r0:r1, c0:c1] = inside
    return hull


def _clipped(coarse: BoolArray, factors: list[int], start: list[int], shape: tuple[int, int, int]) -> VoxelMask:
    """Repeat coarse voxels on the fine grid, slice by slice of it, inside its borders."""
    index = [
        (np.arange(max(0, start[a]), min(shape[a], start[a] + coarse.shape[a] * factors[a])) - start[a]) // factors[a]
        for a in range(3)
    ]
    data = coarse[np.ix_(*index)]
    origin = tuple(max(0, start[a]) for a in range(3))
    return VoxelMask(shape=shape, start=(origin[0], origin[1], origin[2]), data=data).cropped()
