"""The whole way with a model that really looks: registry, steered encoder, answers, fusion, linking, attention.

How well it looks is measured elsewhere; here it is shown that everything fits together.
"""

from __future__ import annotations

import pytest
import torch

from m3node.detectors.medgemma import MedGemmaDetector
from m3node.detectors.protocols import Detection, ScoreKind
from m3node.detectors.registry import load_detector
from m3node.evaluation.phantom import abdomen_phantom
from m3node.imaging.volume import CTVolume
from m3node.liver.region import LiverRegion, LiverSource
from m3node.m3.lesions import characterise
from m3node.m3.method import M3Method
from m3node.progress import silent
from m3node.settings import DetectorSettings, M3Settings, MedGemmaSettings

METHOD = M3Settings()


@pytest.fixture(scope="module")
def detector() -> MedGemmaDetector:
    torch.set_num_threads(1)
    loaded = load_detector(DetectorSettings(name="medgemma", medgemma=MedGemmaSettings(model="test")))
    assert isinstance(loaded, MedGemmaDetector)
    loaded.keep_attention = True
    return loaded


@pytest.fixture(scope="module")
def case() -> tuple[CTVolume, LiverRegion]:
    phantom = abdomen_phantom(shape=(14, 240, 240), spacing=(14.0, 1.7, 1.7))
    region = LiverRegion(
        parenchyma=phantom.liver,
        envelope=phantom.liver,
        source=LiverSource.LABEL_MAP,
        reference="",
        algorithm="test",
    )
    return CTVolume(hu=phantom.hu, geometry=phantom.geometry, sources=()), region


@pytest.fixture(scope="module")
def detection(detector: MedGemmaDetector, case: tuple[CTVolume, LiverRegion]) -> Detection:
    return M3Method(detector, METHOD).find(*case, silent)


def test_the_test_model_is_called_one_wherever_it_is_named(detector: MedGemmaDetector) -> None:
    identity = M3Method(detector, METHOD).identity
    assert "test model" in identity.name
    assert "test model" in identity.description
    assert "test model" in identity.weights
    assert len(identity.weights.rpartition("sha256:")[2]) == 64


def test_the_views_of_a_phantom_are_read(detection: Detection) -> None:
    assert detection.views_total >= 3 * 8
    assert detection.views_read >= 0.95 * detection.views_total
    assert len(detection.failures) == detection.views_total - detection.views_read


def test_what_is_found_becomes_lesions_scored_by_token_probability(
    detection: Detection, case: tuple[CTVolume, LiverRegion]
) -> None:
    volume, region = case
    assert detection.candidates
    for candidate in detection.candidates:
        assert candidate.score_kind is ScoreKind.TOKEN_PROBABILITY
        assert 0 < candidate.score <= 1
        assert all(1 <= box.votes <= box.views for box in candidate.boxes)
    for lesion in characterise(volume, region, detection, METHOD):
        assert lesion.mask.count > 0


def test_every_first_view_tells_where_it_looked(detection: Detection, case: tuple[CTVolume, LiverRegion]) -> None:
    whole = [kept for kept in detection.attention if kept.box is None]
    assert len(whole) >= 0.95 * 3 * 8
    assert {kept.padding for kept in whole} == set(METHOD.paddings)
    _, rows, columns = case[0].geometry.shape
    for kept in detection.attention:
        assert 0 < kept.grid.values.sum() <= 1
        assert kept.grid.area.r0 < rows
        assert kept.grid.area.c0 < columns


def test_the_same_input_gets_the_same_answer(
    detector: MedGemmaDetector, case: tuple[CTVolume, LiverRegion], detection: Detection
) -> None:
    again = M3Method(detector, METHOD).find(*case, silent)
    assert [candidate.boxes for candidate in again.candidates] == [
        candidate.boxes for candidate in detection.candidates
    ]


def test_whole_slices_are_read_too(detector: MedGemmaDetector, case: tuple[CTVolume, LiverRegion]) -> None:
    found = M3Method(detector, M3Settings(views="slices")).find(*case, silent)
    assert found.views_total >= 8
    assert found.views_read >= 0.9 * found.views_total
