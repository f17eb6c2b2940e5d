"""A lesion's voxels: the detector's own, else a split of HU inside its boxes, else an ellipsoid inside them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from skimage.filters import threshold_otsu

from m3node.detectors.protocols import Box2D, Candidate, SliceBox
from m3node.imaging.mask import BoolArray, Extent, VoxelMask
from m3node.imaging.volume import CTVolume
from m3node.m3.lesion import MaskOrigin

_SMOOTHING_MM = 1.2
_MIN_CONTRAST_HU = 10.0
_FAR_FROM_LIVER_HU = 130.0
"""Fat, air and bone in a box's corners take no part in the split."""
_FILL = (0.25, 1.8)
"""A split whose volume is not between these shares of the ellipsoid's has followed something else."""

FloatArray = npt.NDArray[np.float32]


def lesion_mask(volume: CTVolume, candidate: Candidate, liver_hu: float) -> tuple[VoxelMask, MaskOrigin]:
    """Decide a candidate's voxels.

    Parameters
    ----------
    volume : CTVolume
        Where it was found.
    candidate : Candidate
        At least one box.
    liver_hu : float
        The liver's HU, to know what in a box is tissue.

    Returns
    -------
    mask : VoxelMask
        Never empty.
    origin : MaskOrigin
        How it came about.
    """
    if candidate.mask is not None and candidate.mask.count:
        return filled_between(candidate.mask).cropped(), MaskOrigin.DETECTOR
    boxes = every_slice(candidate.boxes)
    ellipsoid = inscribed_ellipsoid(boxes, volume.geometry.shape)
    split = _split_by_hu(volume, boxes, ellipsoid, liver_hu)
    if split is not None:
        return split, MaskOrigin.HU_SPLIT
    return ellipsoid, MaskOrigin.ELLIPSOID


def every_slice(boxes: Sequence[SliceBox]) -> list[tuple[int, Box2D]]:
    """Give each slice from the first to the last its box; where there is none, the neighbours' interpolated."""
    known = {item.slice_index: item.box for item in boxes}
    indices = sorted(known)
    sides = {side: [getattr(known[k], side) for k in indices] for side in ("r0", "c0", "r1", "c1")}
    return [
        (k, Box2D(*(float(np.interp(k, indices, sides[side])) for side in ("r0", "c0", "r1", "c1"))))
        for k in range(indices[0], indices[-1] + 1)
    ]


def inscribed_ellipsoid(boxes: Sequence[tuple[int, Box2D]], shape: tuple[int, int, int]) -> VoxelMask:
    """Inscribe an ellipsoid in linked boxes.

    On each slice an ellipse inside the slice's box, no larger than the section there of the ellipsoid that is as high
    as the boxes and as wide as the largest. The voxel under the middle of each box is always part of it.
    """
    extent = _extent(boxes, shape)
    out = np.zeros(tuple(last - first for first, last in extent), dtype=np.bool_)
    middle = (boxes[0][0] + boxes[-1][0]) / 2
    half_height = len(boxes) / 2
    widest_r = max(box.r1 - box.r0 for _, box in boxes) / 2
    widest_c = max(box.c1 - box.c0 for _, box in boxes) / 2
    rows = np.arange(extent[1][0], extent[1][1])[:, None] + 0.5
    columns = np.arange(extent[2][0], extent[2][1])[None, :] + 0.5
    for k, box in boxes:
        taper = math.sqrt(max(0.0, 1.0 - ((k - middle) / half_height) ** 2))
        r, c = (box.r0 + box.r1) / 2, (box.c0 + box.c1) / 2
        a, b = min((box.r1 - box.r0) / 2, widest_r * taper), min((box.c1 - box.c0) / 2, widest_c * taper)
        plane = out[k - extent[0][0]]
        plane |= ((rows - r) / max(a, 1e-6)) ** 2 + ((columns - c) / max(b, 1e-6)) ** 2 <= 1.0
        at_r = min(max(math.floor(r) - extent[1][0], 0), plane.shape[0] - 1)
        at_c = min(max(math.floor(c) - extent[2][0], 0), plane.shape[1] - 1)
        plane[at_r, at_c] = True
    return VoxelMask(shape=shape, start=(extent[0][0], extent[1][0], extent[2][0]), data=out).cropped()


def filled_between(mask: VoxelMask) -> VoxelMask:
    """Fill slices that a mask skips with its neighbours' outline, interpolated by distance to the border."""
    used = np.flatnonzero(mask.data.any(axis=(1, 2)))
    if used.size == 0 or used[-1] - used[0] + 1 == used.size:
        return mask
    data = mask.data.copy()
    for low, high in zip(used[:-1].tolist(), used[1:].tolist(), strict=True):
        if high - low > 1:
            below, above = _signed_distance(mask.data[low]), _signed_distance(mask.data[high])
            for k in range(low + 1, high):
                t = (k - low) / (high - low)
                data[k] = (1 - t) * below + t * above > 0
    return VoxelMask(shape=mask.shape, start=mask.start, data=data)


def _signed_distance(plane: BoolArray) -> npt.NDArray[np.float64]:
    inside = np.asarray(ndimage.distance_transform_edt(np.pad(plane, 1)))[1:-1, 1:-1]
    return np.asarray(inside - ndimage.distance_transform_edt(~plane))


def _split_by_hu(
    volume: CTVolume, boxes: Sequence[tuple[int, Box2D]], ellipsoid: VoxelMask, liver_hu: float
) -> VoxelMask | None:
    """Part the boxes' voxels in two classes and keep the one that the boxes' core belongs to, if it is not liver."""
    extent = _extent(boxes, volume.geometry.shape)
    block = tuple(slice(first, last) for first, last in extent)
    hu = np.clip(volume.hu[block].astype(np.float32), liver_hu - 250.0, liver_hu + 250.0)
    smooth: FloatArray = ndimage.gaussian_filter(hu, [0.6 * _SMOOTHING_MM / s for s in volume.geometry.spacing])
    inside = np.zeros(hu.shape, dtype=np.bool_)
    core = np.zeros(hu.shape, dtype=np.bool_)
    for k, box in boxes:
        plane = inside[k - extent[0][0]]
        plane[_pixels(box, extent, 1.0)] = True
        core[k - extent[0][0]][_pixels(box, extent, 0.4)] = True
    middle = len(boxes) // 2
    reach = max(1, len(boxes) // 4)
    core[: max(0, middle - reach)] = False
    core[middle + reach + 1 :] = False
    tissue = inside & (np.abs(smooth - liver_hu) < _FAR_FROM_LIVER_HU)
    values = smooth[tissue]
    if values.size < 8 or np.ptp(values) < _MIN_CONTRAST_HU or not core.any():
        return None
    threshold = float(threshold_otsu(values))
    below, above = values[values <= threshold], values[values > threshold]
    if above.size == 0 or float(above.mean() - below.mean()) < _MIN_CONTRAST_HU:
        return None
    dark = float(np.median(smooth[core])) <= threshold
    lesion_hu, other_hu = (below.mean(), above.mean()) if dark else (above.mean(), below.mean())
    if abs(float(lesion_hu) - liver_hu) < abs(float(other_hu) - liver_hu):
        return None
    chosen = tissue & ((smooth <= threshold) if dark else (smooth > threshold))
    found = _tidied(chosen, core)
    if found is None:
        return None
    mask = VoxelMask(shape=volume.geometry.shape, start=(extent[0][0], extent[1][0], extent[2][0]), data=found)
    if not _FILL[0] <= mask.count / ellipsoid.count <= _FILL[1]:
        return None
    return mask.cropped()


def _tidied(chosen: BoolArray, core: BoolArray) -> BoolArray | None:
    """Keep the component that fills most of the core, without specks and holes."""
    labels, count = ndimage.label(chosen)
    if count == 0:
        return None
    hits = np.bincount(labels[core], minlength=count + 1)
    hits[0] = 0
    if hits.max() == 0:
        return None
    kept = labels == int(hits.argmax())
    plane = np.zeros((3, 3, 3), dtype=np.bool_)
    plane[1] = ndimage.generate_binary_structure(2, 1)
    opened = ndimage.binary_opening(kept, plane)
    kept = opened if opened.any() else kept
    return np.stack([ndimage.binary_fill_holes(layer) for layer in kept])


def _pixels(box: Box2D, extent: Extent, share: float) -> tuple[slice, slice]:
    """Pixels of the middle ``share`` of a box, relative to the extent; never none."""
    spans: list[slice] = []
    for low, high, (first, last) in ((box.r0, box.r1, extent[1]), (box.c0, box.c1, extent[2])):
        middle, half = (low + high) / 2, (high - low) * share / 2
        start = min(max(math.floor(middle - half + 0.5) - first, 0), last - first - 1)
        stop = max(start + 1, math.floor(middle + half + 0.5) - first)
        spans.append(slice(start, stop))
    return spans[0], spans[1]


def _extent(boxes: Sequence[tuple[int, Box2D]], shape: tuple[int, int, int]) -> Extent:
    r0 = max(0, min(math.floor(box.r0) for _, box in boxes))
    r1 = min(shape[1], max(math.ceil(box.r1) for _, box in boxes))
    c0 = max(0, min(math.floor(box.c0) for _, box in boxes))
    c1 = min(shape[2], max(math.ceil(box.c1) for _, box in boxes))
    return (boxes[0][0], boxes[-1][0] + 1), (r0, max(r1, r0 + 1)), (c0, max(c1, c0 + 1))
