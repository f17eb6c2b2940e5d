"""A model that must look at the brightest spot is found to look there, and the numbers say on which side that is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from m3node.attention.images.image import ImageKind, InputImage, Side
from m3node.attention.metrics.grid import grid_metrics
from m3node.attention.metrics.values import GridMetrics
from m3node.attention.questions.terms import TermList
from m3node.attention.reading.layers import choose_layers
from m3node.attention.reading.looked import Looked
from m3node.attention.reading.looker import Looker
from m3node.attention.reading.plan import Mode, ReadingPlan
from m3node.gemma.model import GemmaModel
from tests.planted_gemma import planted_gemma

QUESTION = "Is there an opacity?"
TERMS = TermList(("opacity",))
IMAGES_A_QUADRANT = 8
QUADRANTS = ("top left", "top right", "bottom left", "bottom right")


@dataclass(frozen=True, slots=True, eq=False)
class Case:
    """An image with a bright spot in one quadrant, what the model said of it, and the metrics of its grid."""

    quadrant: str
    image: InputImage
    spot: np.ndarray[tuple[int, int], np.dtype[np.bool_]]
    looked: Looked
    metrics: GridMetrics

    @property
    def opposite(self) -> np.ndarray[tuple[int, int], np.dtype[np.bool_]]:
        """The spot, mirrored through the middle."""
        return self.spot[::-1, ::-1]


@pytest.fixture(scope="module")
def model() -> GemmaModel:
    return planted_gemma()


@pytest.fixture(scope="module", params=[Mode.GATED, Mode.RAW], ids=str)
def cases(request: pytest.FixtureRequest, model: GemmaModel) -> list[Case]:
    """Images of any shape, noise and grey; the patient's left is on the right, as on a chest X-ray."""
    generator = np.random.default_rng(11)
    layers, weights = choose_layers("all", model)
    looker = Looker(model, ReadingPlan(request.param, layers, weights, max_new_tokens=8), TERMS)
    found = []
    for number in range(IMAGES_A_QUADRANT * len(QUADRANTS)):
        quadrant = QUADRANTS[number % len(QUADRANTS)]
        image, spot = picture(generator, quadrant, head="bottom" if number % 8 == 7 else "top")
        (looked,) = looker.ask(looker.features(image), image, [QUESTION])
        found.append(Case(quadrant, image, spot, looked, grid_metrics(looked.grid, looked.area, image, spot)))
    return found


def picture(
    generator: np.random.Generator, quadrant: str, head: Side
) -> tuple[InputImage, np.ndarray[tuple[int, int], np.dtype[np.bool_]]]:
    """A grey noisy image with a bright spot of a fifth to a quarter of its shorter side."""
    rows, columns = (int(size) for size in generator.integers(120, 200, 2))
    grey = generator.normal(generator.uniform(20, 110), 12, (rows, columns))
    size = int(min(rows, columns) * generator.uniform(0.2, 0.25))
    row, column = (int(generator.integers(4, half - size - 4)) for half in (rows // 2, columns // 2))
    down, across = quadrant.split()
    row += (rows + 1) // 2 if down == "bottom" else 0
    column += (columns + 1) // 2 if across == "right" else 0
    spot = np.zeros((rows, columns), dtype=np.bool_)
    spot[row : row + size, column : column + size] = True
    grey[spot] += 110
    rgb = np.repeat(grey.clip(0, 255).astype(np.uint8)[:, :, None], 3, axis=2)
    image = InputImage(path=Path("planted.png"), rgb=rgb, kind=ImageKind.XRAY, patient_left="right", patient_head=head)
    return image, spot


def test_it_points_into_the_spot(cases: list[Case]) -> None:
    hits = [case.metrics.pointing_hit for case in cases]
    assert sum(hit is True for hit in hits) / len(hits) >= 0.9
    inside = [case.metrics.truth_inside or 0.0 for case in cases]
    assert np.median(inside) > 0.5


def test_it_does_not_point_anywhere_else(cases: list[Case]) -> None:
    elsewhere = [grid_metrics(case.looked.grid, case.looked.area, case.image, case.opposite) for case in cases]
    assert not any(metrics.pointing_hit for metrics in elsewhere)
    assert max(metrics.truth_inside or 0.0 for metrics in elsewhere) < 0.05


def test_left_and_right_say_so(cases: list[Case]) -> None:
    for case in cases:
        there = case.metrics.left_fraction if case.quadrant.endswith("left") else case.metrics.right_fraction
        patient = (
            case.metrics.patient_right_fraction
            if case.quadrant.endswith("left")
            else case.metrics.patient_left_fraction
        )
        assert there == patient
        assert there > 0.8


def test_apical_and_basal_say_so(cases: list[Case]) -> None:
    for case in cases:
        at_head = case.quadrant.startswith(case.image.patient_head or "")
        assert (case.metrics.apical_fraction if at_head else case.metrics.basal_fraction) > 0.8
    assert {case.image.patient_head for case in cases} == {"top", "bottom"}


def test_the_centre_of_mass_lies_in_the_quadrant(cases: list[Case]) -> None:
    for case in cases:
        assert (case.metrics.centre_row < 0.5) is case.quadrant.startswith("top")
        assert (case.metrics.centre_column < 0.5) is case.quadrant.endswith("left")


def test_the_grids_are_of_the_mode_asked_for(cases: list[Case]) -> None:
    assert len({case.looked.mode for case in cases}) == 1
    assert not any(case.looked.passed_over or case.looked.degenerate for case in cases)
    assert all(case.looked.answer == "y" * 8 for case in cases)


def test_an_image_without_a_spot_has_a_flat_grid(model: GemmaModel) -> None:
    """No attention is made up where there is nothing to look at; what it says does not hang on the image either."""
    rgb = np.full((100, 100, 3), 90, dtype=np.uint8)
    even = InputImage(path=Path("even.png"), rgb=rgb, kind=ImageKind.XRAY)
    layers, weights = choose_layers("all", model)
    looker = Looker(model, ReadingPlan(Mode.GATED, layers, weights, max_new_tokens=8), TERMS)
    (looked,) = looker.ask(looker.features(even), even, [QUESTION])
    assert looked.degenerate
    assert [reason.partition(",")[0].partition(" its")[0] for reason in looked.passed_over] == [
        "gated: flat:",
        "raw: flat:",
        "gradcam: zero",
        "rollout: flat:",
    ]
