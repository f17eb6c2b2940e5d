"""From candidates to lesions as they are reported."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from m3node.detectors.protocols import Box2D, Detection, ScoreKind, SliceBox
from m3node.imaging.mask import VoxelMask
from m3node.imaging.volume import CTVolume
from m3node.liver.region import LiverRegion
from m3node.m3.lesion import Lesion, MaskOrigin
from m3node.m3.masks import lesion_mask
from m3node.m3.measurements import axial_diameters, mean_outside, measure
from m3node.settings import M3Settings

_SAME_LESION_SHARE = 0.1
"""Masks that share so much of the smaller one are one lesion; less is a seam, cut in favour of the better one."""


@dataclass(frozen=True, slots=True, eq=False)
class _Finding:
    """A candidate with its voxels."""

    mask: VoxelMask
    origin: MaskOrigin
    boxes: tuple[SliceBox, ...]
    score: float
    kind: ScoreKind


def characterise(
    volume: CTVolume, region: LiverRegion, detection: Detection, settings: M3Settings
) -> tuple[Lesion, ...]:
    """Turn candidates into measured, numbered lesions.

    Parameters
    ----------
    volume, region : CTVolume, LiverRegion
        What the detection looked at.
    detection : Detection
        Its candidates.
    settings : M3Settings
        ``min_diameter_mm`` drops what is smaller in plane, or less than half as high.

    Returns
    -------
    tuple of Lesion
        Best first; no two share a voxel.
    """
    if not detection.candidates:
        return ()
    tissue = region.parenchyma if region.parenchyma.count else region.envelope
    liver_hu = mean_outside(volume, tissue, [])
    findings: list[_Finding] = []
    for candidate in sorted(detection.candidates, key=lambda candidate: -candidate.score):
        mask, origin = lesion_mask(volume, candidate, liver_hu)
        findings.append(
            _Finding(mask=mask, origin=origin, boxes=candidate.boxes, score=candidate.score, kind=candidate.score_kind)
        )
    kept = [finding for finding in _disjoint(_merged(findings)) if _large_enough(finding, volume, settings)]
    outside = mean_outside(volume, tissue, [finding.mask for finding in kept])
    hu_liver_mean = liver_hu if math.isnan(outside) else outside
    return tuple(_lesion(number, finding, volume, hu_liver_mean) for number, finding in enumerate(kept, start=1))


def key_slice_of(mask: VoxelMask) -> int:
    """Slice with the largest area of the mask, the lowest of equals."""
    return mask.start[0] + int(np.argmax(np.count_nonzero(mask.data, axis=(1, 2))))


def _lesion(number: int, finding: _Finding, volume: CTVolume, hu_liver_mean: float) -> Lesion:
    key_slice = key_slice_of(finding.mask)
    return Lesion(
        number=number,
        mask=finding.mask,
        mask_origin=finding.origin,
        boxes=finding.boxes,
        key_slice=key_slice,
        key_box=_key_box(finding, key_slice),
        score=finding.score,
        score_kind=finding.kind,
        votes=sum(box.votes for box in finding.boxes),
        views=sum(box.views for box in finding.boxes),
        measurements=measure(volume, finding.mask, key_slice=key_slice, hu_liver_mean=hu_liver_mean),
    )


def _key_box(finding: _Finding, key_slice: int) -> SliceBox:
    """Take the key slice's box and widen it to enclose the mask there."""
    nearest = min(finding.boxes, key=lambda box: abs(box.slice_index - key_slice))
    plane = finding.mask.data[key_slice - finding.mask.start[0]]
    rows, columns = np.flatnonzero(plane.any(axis=1)), np.flatnonzero(plane.any(axis=0))
    r, c = finding.mask.start[1], finding.mask.start[2]
    around = Box2D(float(rows[0] + r), float(columns[0] + c), float(rows[-1] + 1 + r), float(columns[-1] + 1 + c))
    box = _hull((around, nearest.box)) if nearest.slice_index == key_slice else around
    return replace(nearest, slice_index=key_slice, box=box)


def _large_enough(finding: _Finding, volume: CTVolume, settings: M3Settings) -> bool:
    if finding.mask.count == 0:
        return False
    longest, _ = axial_diameters(finding.mask, key_slice_of(finding.mask), volume.geometry)
    height = finding.mask.data.shape[0] * volume.geometry.spacing[0]
    return longest.length_mm >= settings.min_diameter_mm and height >= settings.min_diameter_mm / 2


def _merged(findings: Sequence[_Finding]) -> list[_Finding]:
    """Unite findings whose masks overlap, until none do."""
    merged: list[_Finding] = []
    for finding in findings:
        current = finding
        while True:
            same = next((other for other in merged if _is_same(other.mask, current.mask)), None)
            if same is None:
                break
            merged.remove(same)
            current = _union(same, current)
        merged.append(current)
    return sorted(merged, key=lambda finding: -finding.score)


def _disjoint(findings: Iterable[_Finding]) -> list[_Finding]:
    """Give a voxel that two findings share to the better one."""
    parted: list[_Finding] = []
    for finding in findings:
        mask = finding.mask
        for better in parted:
            if _common(better.mask, mask):
                extent = _block(mask)
                mask = VoxelMask(shape=mask.shape, start=mask.start, data=mask.data & ~better.mask.within(extent))
        parted.append(finding if mask is finding.mask else replace(finding, mask=mask.cropped()))
    return parted


def _union(a: _Finding, b: _Finding) -> _Finding:
    extent = tuple(
        (min(first_a, first_b), max(last_a, last_b))
        for (first_a, last_a), (first_b, last_b) in zip(_block(a.mask), _block(b.mask), strict=True)
    )
    whole = (extent[0], extent[1], extent[2])
    mask = VoxelMask(
        shape=a.mask.shape,
        start=(whole[0][0], whole[1][0], whole[2][0]),
        data=a.mask.within(whole) | b.mask.within(whole),
    )
    boxes: dict[int, SliceBox] = {}
    for box in (*a.boxes, *b.boxes):
        before = boxes.get(box.slice_index)
        boxes[box.slice_index] = box if before is None else _joined(before, box)
    better = a if a.score >= b.score else b
    return _Finding(
        mask=mask.cropped(),
        # One part that is only estimated makes the whole estimated.
        origin=a.origin if a.origin is not MaskOrigin.DETECTOR else b.origin,
        boxes=tuple(boxes[k] for k in sorted(boxes)),
        score=better.score,
        kind=better.kind,
    )


def _joined(a: SliceBox, b: SliceBox) -> SliceBox:
    return SliceBox(
        slice_index=a.slice_index,
        box=_hull((a.box, b.box)),
        score=max(a.score, b.score),
        votes=max(a.votes, b.votes),
        views=max(a.views, b.views),
    )


def _hull(boxes: Sequence[Box2D]) -> Box2D:
    return Box2D(
        r0=min(box.r0 for box in boxes),
        c0=min(box.c0 for box in boxes),
        r1=max(box.r1 for box in boxes),
        c1=max(box.c1 for box in boxes),
    )


def _is_same(a: VoxelMask, b: VoxelMask) -> bool:
    return _common(a, b) >= max(1.0, _SAME_LESION_SHARE * min(a.count, b.count))


def _common(a: VoxelMask, b: VoxelMask) -> int:
    apart = any(
        last_a <= first_b or last_b <= first_a
        for (first_a, last_a), (first_b, last_b) in zip(_block(a), _block(b), strict=True)
    )
    return 0 if apart else int(np.count_nonzero(a.data & b.within(_block(a))))


def _block(mask: VoxelMask) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int]]:
    (k, r, c), (depth, rows, columns) = mask.start, mask.data.shape
    return (k, k + depth), (r, r + rows), (c, c + columns)
