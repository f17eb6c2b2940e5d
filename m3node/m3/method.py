"""The M3 method: makes a detector of single crops a detector of 3-D lesions.

Slices are chosen by the liver's envelope, each is shown in several padded crops, boxes are projected back, filtered
by the envelope, fused with their votes, and linked over slices; slices next to a finding are looked at again.
"""

from __future__ import annotations

import logging
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from m3node.detectors.protocols import (
    Candidate,
    CropDetector,
    Detection,
    DetectorIdentity,
    SliceAttention,
    TellsAnswered,
    View,
    ViewResult,
)
from m3node.errors import InferenceError
from m3node.imaging.mask import VoxelMask
from m3node.imaging.volume import CTVolume
from m3node.liver.region import LiverRegion
from m3node.m3.linking import Chain, chain_score, extend, link, open_slices
from m3node.m3.nms import FusedBox, fuse
from m3node.m3.projection import Frame, ProjectedBox, project, project_attention, share_inside
from m3node.m3.views import envelope_views, focus_views, viewed_slices, whole_views
from m3node.progress import Progress
from m3node.settings import M3Settings

logger = logging.getLogger(__name__)

_KEPT_FAILURES = 20


@dataclass(slots=True)
class _Reading:
    """What has been read so far, in the first look or in the second, which shows lesions' surroundings only."""

    second: bool = False
    views: int = 0
    failed: int = 0
    failures: list[str] = field(default_factory=list)
    frames: dict[int, list[Frame]] = field(default_factory=lambda: defaultdict(list))
    boxes: dict[int, list[ProjectedBox]] = field(default_factory=lambda: defaultdict(list))
    attention: list[SliceAttention] = field(default_factory=list)


class M3Method:
    """A `Detector` made of a `CropDetector`.

    Parameters
    ----------
    crop_detector : CropDetector
        Finds boxes on single crops.
    settings : M3Settings
        Paddings, thresholds and gaps.
    """

    def __init__(self, crop_detector: CropDetector, settings: M3Settings) -> None:
        self._detector = crop_detector
        self._settings = settings

    @property
    def identity(self) -> DetectorIdentity:
        """The crop detector's identity, with the method's parameters added as ``m3.…``."""
        identity = self._detector.identity
        own = tuple((f"m3.{name}", str(value)) for name, value in self._settings.model_dump().items())
        return replace(identity, parameters=tuple(sorted((*identity.parameters, *own))))

    def find(self, volume: CTVolume, region: LiverRegion, progress: Progress) -> Detection:
        """Find candidates in the region's envelope.

        Raises
        ------
        InferenceError
            The crop detector did not answer every view.
        """
        settings, geometry = self._settings, volume.geometry
        slice_mm, gap_mm = geometry.spacing[0], settings.link_gap_mm
        slices = viewed_slices(region.envelope, geometry)
        reading = _Reading()

        if settings.views == "slices":
            first, total = whole_views(volume, region, slices), len(slices)
        else:
            first = envelope_views(volume, region, slices, settings.paddings)
            total = len(slices) * len(settings.paddings)
        self._read(first, total, "looking", reading, volume, region, progress)
        strong, weak = self._fused(reading, slices)
        chains = link(strong, slice_mm=slice_mm, gap_mm=gap_mm)

        again = [target for chain in chains for target in open_slices(chain, slice_mm=slice_mm, slices=slices)]
        if settings.views == "slices":
            again = []  # a second look is at crops, which are what whole slices are compared with
        second = _Reading(second=True, views=reading.views)
        self._read(focus_views(volume, region, again), len(again), "looking again", second, volume, region, progress)
        for k, boxes in self._fused_again(second).items():
            weak[k] = [*weak.get(k, []), *boxes]
        chains = extend(chains, weak, slice_mm=slice_mm, gap_mm=gap_mm)

        candidates = [self._candidate(chain, geometry.shape) for chain in chains]
        candidates.sort(key=lambda candidate: (-candidate.score, candidate.boxes[0].slice_index))
        failed = reading.failed + second.failed
        return Detection(
            candidates=tuple(candidates),
            views_total=second.views,
            views_read=second.views - failed,
            failures=tuple((reading.failures + second.failures)[:_KEPT_FAILURES]),
            attention=tuple(sorted(reading.attention + second.attention, key=lambda kept: kept.slice_index)),
        )

    def _read(  # noqa: PLR0917 - private, and every argument is another stage's
        self,
        views: Iterable[View],
        total: int,
        stage: str,
        reading: _Reading,
        volume: CTVolume,
        region: LiverRegion,
        progress: Progress,
    ) -> None:
        """Show the views and project what is found; keeps no view longer than the detector does."""
        shown: deque[Frame] = deque()

        def counted() -> Iterator[View]:
            for view in views:
                shown.append(Frame.of(view, reading.views))
                reading.views += 1
                yield view

        most = 0

        def answered(count: int) -> None:
            """Tell of views whose results are still to come; the last one is told when it has come."""
            nonlocal most
            most = max(most, min(count, total - 1))
            progress(stage, most, total)

        if total == 0:
            return
        progress(stage, 0, total)
        results = (
            self._detector.look_telling(counted(), volume, region, answered)
            if isinstance(self._detector, TellsAnswered)
            else self._detector.look(counted(), volume, region)
        )
        for done, result in enumerate(results, start=1):
            if not shown:
                raise InferenceError(f"the detector {self.identity.name} answered more views than it was shown")
            self._take(shown.popleft(), result, region, reading)
            progress(stage, max(done, most), total)
        if shown:
            raise InferenceError(f"the detector {self.identity.name} left {len(shown)} views without an answer")

    def _take(self, frame: Frame, result: ViewResult, region: LiverRegion, reading: _Reading) -> None:
        if result.failure:
            reading.failed += 1
            if len(reading.failures) < _KEPT_FAILURES:
                reading.failures.append(f"slice {frame.slice_index}: {result.failure}")
            return
        reading.frames[frame.slice_index].append(frame)
        # A second look's whole answer tells of a lesion's surroundings, not of where in the liver the model looked.
        if result.attention is not None and not reading.second:
            reading.attention.append(project_attention(frame, result.attention, None))
        for found in result.boxes:
            projected = project(frame, found)
            if projected is None:
                logger.warning("view %d of slice %d: a box that is none was dropped", frame.number, frame.slice_index)
                continue
            if share_inside(projected.box, region.envelope, frame.slice_index) >= self._settings.min_envelope_overlap:
                reading.boxes[frame.slice_index].append(projected)
                if found.attention is not None:
                    reading.attention.append(project_attention(frame, found.attention, projected.box))

    def _fused(
        self, reading: _Reading, slices: Sequence[int]
    ) -> tuple[dict[int, list[FusedBox]], dict[int, list[FusedBox]]]:
        """Fuse slice by slice: boxes with enough votes, and those with fewer, which can only continue a lesion."""
        strong: dict[int, list[FusedBox]] = {}
        weak: dict[int, list[FusedBox]] = {}
        for k in slices:
            for fused in fuse(reading.boxes.get(k, ()), reading.frames.get(k, ()), self._settings.nms_iou):
                # A crop that failed or does not hold the box cannot vote for it.
                needed = min(self._settings.min_votes, fused.box.views)
                side = strong if fused.box.votes >= needed else weak
                side.setdefault(k, []).append(fused)
        return strong, weak

    def _fused_again(self, reading: _Reading) -> dict[int, list[FusedBox]]:
        return {
            k: list(fuse(boxes, reading.frames.get(k, ()), self._settings.nms_iou))
            for k, boxes in reading.boxes.items()
        }

    def _candidate(self, chain: Chain, shape: tuple[int, int, int]) -> Candidate:
        return Candidate(
            boxes=tuple(fused.box for fused in chain),
            score=chain_score(chain),
            score_kind=self._detector.score_kind,
            mask=_mask_of(chain, shape),
        )


def _mask_of(chain: Chain, shape: tuple[int, int, int]) -> VoxelMask | None:
    """Stack the detector's own voxels; None when a box came without."""
    planes = [(fused.slice_index, fused.mask) for fused in chain if fused.mask is not None]
    if len(planes) < len(chain):
        return None
    r0 = min(mask.origin[0] for _, mask in planes)
    c0 = min(mask.origin[1] for _, mask in planes)
    r1 = max(mask.origin[0] + mask.data.shape[0] for _, mask in planes)
    c1 = max(mask.origin[1] + mask.data.shape[1] for _, mask in planes)
    first, last = planes[0][0], planes[-1][0]
    data = np.zeros((last - first + 1, r1 - r0, c1 - c0), dtype=np.bool_)
    for k, mask in planes:
        r, c = mask.origin[0] - r0, mask.origin[1] - c0
        data[k - first, r : r + mask.data.shape[0], c : c + mask.data.shape[1]] = mask.data
    return VoxelMask(shape=shape, start=(first, r0, c0), data=data)
