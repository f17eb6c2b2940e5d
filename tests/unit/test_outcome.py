"""A run never says more than its detector looked at."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from m3node.detectors.contrast import ContrastDetector
from m3node.detectors.protocols import (
    Box2D,
    Candidate,
    Detection,
    DetectorIdentity,
    Progress,
    ScoreKind,
    SliceBox,
)
from m3node.evaluation.ct_writer import axial_geometry
from m3node.imaging.mask import VoxelMask
from m3node.imaging.volume import CTVolume
from m3node.jobs.answer.steps import look
from m3node.liver.region import LiverRegion, LiverSource
from m3node.m3.method import M3Method
from m3node.results.findings import Findings, Outcome
from m3node.settings import ContrastSettings, M3Settings, Settings

SHAPE = (12, 40, 40)
IDENTITY = DetectorIdentity(name="reader", version="1", description="A test's.")


@dataclass(frozen=True)
class Reader:
    """A detector that reads so many of 100 views, and finds one lesion or none."""

    read: int
    lesion: bool
    identity: DetectorIdentity = IDENTITY

    def find(self, volume: CTVolume, region: LiverRegion, progress: Progress) -> Detection:
        """Answer."""
        boxes = tuple(SliceBox(k, Box2D(10, 10, 20, 20), score=0.9, votes=1, views=1) for k in range(3, 9))
        found = (Candidate(boxes=boxes, score=0.9, score_kind=ScoreKind.PROBABILITY),)
        return Detection(candidates=found if self.lesion else (), views_total=100, views_read=self.read)


def looked(detector: Reader | M3Method, liver: slice = slice(5, 35)) -> Findings:
    mask = np.zeros(SHAPE, dtype=bool)
    mask[1:11, 5:35, liver] = True
    parenchyma = VoxelMask.from_full(mask)
    envelope = np.zeros(SHAPE, dtype=bool)
    envelope[1:11, 5:35, 5:35] = True
    region = LiverRegion(
        parenchyma=parenchyma,
        envelope=VoxelMask.from_full(envelope),
        source=LiverSource.LABEL_MAP,
        reference="",
        algorithm="made up",
    )
    volume = CTVolume(hu=np.full(SHAPE, 100, np.int16), geometry=axial_geometry(SHAPE, (2.0, 1.0, 1.0)), sources=())
    return look(volume, region, key="a" * 64, settings=Settings(), detector=detector, progress=lambda *_: None)


@pytest.mark.parametrize(
    ("read", "lesion", "outcome"),
    [
        (100, False, Outcome.NO_LESION),
        (95, False, Outcome.NO_LESION),
        (94, False, Outcome.INCOMPLETE),
        (100, True, Outcome.LESIONS),
        (95, True, Outcome.LESIONS),
        (94, True, Outcome.INCOMPLETE),
    ],
)
def test_more_than_5_percent_of_views_unread_is_incomplete_with_or_without_a_lesion(
    read: int, lesion: bool, outcome: Outcome
) -> None:
    findings = looked(Reader(read, lesion))
    assert findings.outcome is outcome
    assert len(findings.lesions) == int(lesion)


def test_the_contrast_rule_does_not_say_no_lesion_where_it_has_no_liver_to_compare_with() -> None:
    method = M3Method(ContrastDetector(ContrastSettings()), M3Settings())
    assert looked(method, liver=slice(5, 5)).outcome is Outcome.INCOMPLETE
    assert looked(method).outcome is Outcome.NO_LESION
