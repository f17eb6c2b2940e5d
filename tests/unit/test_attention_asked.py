"""Attention is kept when the settings ask for it, by detectors that can tell, and by nobody otherwise."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator

import numpy as np
import pytest

from m3node.detectors.protocols import (
    Box2D,
    CropDetector,
    Detection,
    Detector,
    DetectorIdentity,
    ScoreKind,
    SliceAttention,
    View,
    ViewResult,
)
from m3node.evaluation.ct_writer import axial_geometry
from m3node.imaging.volume import CTVolume
from m3node.jobs.answer import steps
from m3node.liver.region import LiverRegion
from m3node.progress import Progress
from m3node.settings import Settings
from made_findings import made_findings, made_grid

GEOMETRY = axial_geometry((6, 30, 30), (3.0, 1.0, 1.0))
ASKED = Settings.model_validate({"results": {"attention_map": True}})


class Whole:
    """Finds nothing, and says where it looked when it is asked to."""

    identity = DetectorIdentity("whole", "1", "A test's detector.")
    keep_attention = False

    def find(self, volume: CTVolume, region: LiverRegion, progress: Progress) -> Detection:
        grid = made_grid(Box2D(0.0, 0.0, 30.0, 30.0))
        return Detection((), 6, 6, attention=tuple(SliceAttention(k, grid, None, 0.1) for k in range(6)))


class Crops:
    """Sees nothing on any crop."""

    identity = DetectorIdentity("crops", "1", "A test's detector.")
    score_kind = ScoreKind.PROBABILITY
    keep_attention = False

    def look(self, views: Iterable[View], volume: CTVolume, region: LiverRegion) -> Iterator[ViewResult]:
        return (ViewResult(()) for _ in views)


@pytest.mark.parametrize("kind", [Whole, Crops])
@pytest.mark.parametrize("settings", [Settings(), ASKED], ids=["not asked", "asked"])
def test_a_detector_that_can_tell_is_asked_when_the_settings_say_so(
    kind: type[Whole | Crops], settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: Detector | CropDetector = kind()
    monkeypatch.setattr(steps, "load_detector", lambda _: loaded)
    steps.make_detector(settings)
    assert loaded.keep_attention == settings.results.attention_map  # type: ignore[union-attr]


def test_one_that_cannot_tell_is_used_all_the_same_and_the_log_says_so(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert steps.make_detector(Settings()).identity.name == "m3node contrast"
        assert caplog.text == ""
        assert steps.make_detector(ASKED).identity.name == "m3node contrast"
    assert "contrast cannot tell where it looked" in caplog.text


@pytest.mark.parametrize(("settings", "shown"), [(Settings(), 0), (ASKED, 1)], ids=["not asked", "asked"])
def test_findings_hold_attention_only_when_it_was_asked_for(settings: Settings, shown: int) -> None:
    volume = CTVolume(hu=np.zeros(GEOMETRY.shape, dtype=np.int16), geometry=GEOMETRY, sources=())
    region = made_findings(GEOMETRY, lesions=()).region
    findings = steps.look(volume, region, key="k", settings=settings, detector=Whole(), progress=lambda *_: None)
    assert len(findings.attention) == shown
