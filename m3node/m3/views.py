"""What a crop detector is shown: padded crops of the slices that the liver's envelope reaches."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from m3node.detectors.protocols import Box2D, View
from m3node.imaging.geometry import PatientGeometry
from m3node.imaging.mask import BoolArray, VoxelMask
from m3node.imaging.volume import CTVolume
from m3node.liver.region import LiverRegion

MIN_ENVELOPE_MM2 = 150.0
"""Less of the envelope than this on a slice is its dilated rim: there is no liver to look at."""

FOCUS_MM = 60.0
FOCUS_FACTOR = 3.0
"""A second look shows this many times the lesion's box, and at least so many millimetres."""

Bounds2D = tuple[tuple[int, int], tuple[int, int]]


def viewed_slices(envelope: VoxelMask, geometry: PatientGeometry) -> tuple[int, ...]:
    """Return the slices with enough of the envelope, rising."""
    pixel_mm2 = geometry.spacing[1] * geometry.spacing[2]
    areas = np.count_nonzero(envelope.data, axis=(1, 2)) * pixel_mm2
    return tuple(int(k) + envelope.start[0] for k in np.flatnonzero(areas >= MIN_ENVELOPE_MM2))


def envelope_views(
    volume: CTVolume, region: LiverRegion, slices: Sequence[int], paddings: Sequence[float]
) -> Iterator[View]:
    """Give each slice's crops, one a padding, slice by slice.

    A crop is the envelope's box on that slice, with ``padding`` of its size added on each side as far as the slice
    goes. Views are made when they are asked for; their HU are a view into the volume, not a copy.
    """
    for k in slices:
        plane = _plane_bounds(region.envelope, k)
        if plane is None:
            continue
        for padding in paddings:
            yield make_view(volume, region, k, _padded(plane, padding, volume.geometry), padding)


def whole_views(volume: CTVolume, region: LiverRegion, slices: Sequence[int]) -> Iterator[View]:
    """Give each slice whole, once: what a detector sees without the method, for comparison."""
    _, rows, columns = volume.geometry.shape
    for k in slices:
        yield make_view(volume, region, k, ((0, rows), (0, columns)), 0.0, whole=True)


def focus_views(volume: CTVolume, region: LiverRegion, targets: Sequence[tuple[int, Box2D]]) -> Iterator[View]:
    """Give one crop for each (slice, box) that a lesion may continue to: the box's surroundings, closer up."""
    _, dr, dc = volume.geometry.spacing
    for k, box in targets:
        spans: list[tuple[int, int]] = []
        for low, high, step, size in (
            (box.r0, box.r1, dr, volume.geometry.shape[1]),
            (box.c0, box.c1, dc, volume.geometry.shape[2]),
        ):
            half = max(FOCUS_FACTOR * (high - low), FOCUS_MM / step) / 2
            middle = (low + high) / 2
            spans.append((max(0, math.floor(middle - half)), min(size, math.ceil(middle + half))))
        yield make_view(volume, region, k, (spans[0], spans[1]), 0.0)


def make_view(
    volume: CTVolume, region: LiverRegion, k: int, bounds: Bounds2D, padding: float, *, whole: bool = False
) -> View:
    """Crop one slice to half-open bounds in rows and columns; ``whole`` says that they are the slice's own."""
    (r0, r1), (c0, c1) = bounds
    extent = ((k, k + 1), (r0, r1), (c0, c1))
    envelope: BoolArray = region.envelope.within(extent)[0]
    parenchyma: BoolArray = region.parenchyma.within(extent)[0]
    return View(
        hu=volume.hu[k, r0:r1, c0:c1],
        envelope=envelope,
        parenchyma=parenchyma,
        slice_index=k,
        origin=(r0, c0),
        spacing=volume.geometry.spacing[1:],
        padding=padding,
        whole=whole,
    )


def _plane_bounds(mask: VoxelMask, k: int) -> Bounds2D | None:
    plane = mask.data[k - mask.start[0]]
    rows, columns = np.flatnonzero(plane.any(axis=1)), np.flatnonzero(plane.any(axis=0))
    if rows.size == 0:
        return None
    r, c = mask.start[1], mask.start[2]
    return (int(rows[0]) + r, int(rows[-1]) + 1 + r), (int(columns[0]) + c, int(columns[-1]) + 1 + c)


def _padded(bounds: Bounds2D, padding: float, geometry: PatientGeometry) -> Bounds2D:
    padded = [
        (max(0, first - round(padding * (last - first))), min(size, last + round(padding * (last - first))))
        for (first, last), size in zip(bounds, geometry.shape[1:], strict=True)
    ]
    return padded[0], padded[1]
