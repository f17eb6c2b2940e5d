"""A detector run on a case in one condition."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

import numpy as np

from m3node.detectors.protocols import Candidate, CropDetector, Detection, Detector, SliceBox, View
from m3node.errors import ConfigError, InferenceError
from m3node.evaluation.ablation.conditions import Shown
from m3node.imaging.mask import VoxelMask
from m3node.imaging.volume import CTVolume
from m3node.liver.region import LiverRegion
from m3node.m3.linking import Chain, chain_score, link
from m3node.m3.method import M3Method
from m3node.m3.nms import FusedBox
from m3node.m3.projection import Frame, project
from m3node.m3.views import envelope_views, viewed_slices, whole_views
from m3node.progress import silent
from m3node.settings import M3Settings

_KEPT_FAILURES = 20


def check_shown(detector: Detector | CropDetector, shown: Shown) -> None:
    """Raise `ConfigError` where a detector of whole volumes is to be shown single views."""
    if shown is not Shown.METHOD and isinstance(detector, Detector):
        name = detector.identity.name
        raise ConfigError(f"the detector {name!r} looks at whole volumes; only the condition method fits it")


def look(
    detector: Detector | CropDetector, shown: Shown, volume: CTVolume, region: LiverRegion, settings: M3Settings
) -> Detection:
    """Run a detector.

    Parameters
    ----------
    detector : Detector or CropDetector
        The latter is run by the method for ``Shown.METHOD``, and else sees each slice of the envelope once.
    shown : Shown
        The condition.
    volume, region : CTVolume, LiverRegion
        The case.
    settings : M3Settings
        The method's; a single crop has the middle one of its paddings.

    Returns
    -------
    Detection
        For a single view the detector's own boxes, neither filtered by the liver nor suppressed, only linked over
        slices.

    Raises
    ------
    ConfigError
        A detector of whole volumes cannot be shown single views.
    InferenceError
        It did not answer every view.
    """
    if shown is Shown.METHOD:
        whole = detector if isinstance(detector, Detector) else M3Method(detector, settings)
        return whole.find(volume, region, silent)
    check_shown(detector, shown)
    assert not isinstance(detector, Detector)
    slices = viewed_slices(region.envelope, volume.geometry)
    paddings = sorted(settings.paddings)
    views = (
        whole_views(volume, region, slices)
        if shown is Shown.SLICE
        else envelope_views(volume, region, slices, [paddings[len(paddings) // 2]])
    )
    return _single(detector, views, volume, region, settings)


def _single(
    detector: CropDetector, views: Iterator[View], volume: CTVolume, region: LiverRegion, settings: M3Settings
) -> Detection:
    frames: list[Frame] = []

    def counted() -> Iterator[View]:
        for view in views:
            frames.append(Frame.of(view, len(frames)))
            yield view

    by_slice: dict[int, list[FusedBox]] = defaultdict(list)
    failures: list[str] = []
    answers = 0
    for number, result in enumerate(detector.look(counted(), volume, region)):
        if number >= len(frames):
            raise InferenceError(f"the detector {detector.identity.name} answered more views than it was shown")
        answers += 1
        if result.failure:
            failures.append(f"slice {frames[number].slice_index}: {result.failure}")
        for found in () if result.failure else result.boxes:
            projected = project(frames[number], found)
            if projected is not None:
                k = projected.slice_index
                box = SliceBox(slice_index=k, box=projected.box, score=projected.score, votes=1, views=1)
                by_slice[k].append(FusedBox(box=box, mask=projected.mask))
    if answers < len(frames):
        raise InferenceError(f"the detector {detector.identity.name} left views without an answer")
    chains = link(by_slice, slice_mm=volume.geometry.spacing[0], gap_mm=settings.link_gap_mm)
    candidates = [
        Candidate(
            boxes=tuple(fused.box for fused in chain),
            score=chain_score(chain),
            score_kind=detector.score_kind,
            mask=_mask_of(chain, volume.geometry.shape),
        )
        for chain in chains
    ]
    return Detection(
        candidates=tuple(sorted(candidates, key=lambda candidate: -candidate.score)),
        views_total=len(frames),
        views_read=len(frames) - len(failures),
        failures=tuple(failures[:_KEPT_FAILURES]),
    )


def _mask_of(chain: Chain, shape: tuple[int, int, int]) -> VoxelMask | None:
    """The detector's own voxels; None when a box came without."""
    first = chain[0].slice_index
    data = np.zeros((chain[-1].slice_index + 1 - first, *shape[1:]), dtype=np.bool_)
    for fused in chain:
        if fused.mask is None:
            return None
        (r, c), block = fused.mask.origin, fused.mask.data
        data[fused.slice_index - first, r : r + block.shape[0], c : c + block.shape[1]] = block
    return VoxelMask(shape=shape, start=(first, 0, 0), data=data).cropped()
