"""Written boxes become boxes of their view, or are none."""

from __future__ import annotations

import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from m3node.detectors.medgemma.answer import UnitBox
from m3node.detectors.medgemma.boxes import SIDES, coordinate_tokens, is_plausible, lesion_box, on_view, score_of
from m3node.detectors.medgemma.labels import Named
from m3node.detectors.protocols import Box2D
from m3node.gemma.images import SquareFrame

SPANS = ((0, 1), (2, 4), (5, 6), (7, 9))
FRAME = SquareFrame.of((40, 60), (0.8, 0.8))
"""40×60 pixels in a square of 60, with 10 rows of padding above and below."""

LOW, HIGH = SIDES


def box_of(*numbers: int, named: Named = Named.LESION) -> UnitBox:
    return UnitBox(*numbers, spans=SPANS, named=named)  # type: ignore[arg-type]


def test_sides_are_the_published_ones() -> None:
    assert SIDES == (20, 600)


@pytest.mark.parametrize(
    "numbers",
    [
        (500, 500, 400, 600),
        (400, 600, 500, 500),
        (400, 400, 400 + LOW - 1, 500),
        (400, 400, 500, 400 + LOW - 1),
        (200, 200, 200 + HIGH + 1, 400),
        (200, 200, 400, 200 + HIGH + 1),
    ],
)
def test_a_box_out_of_order_too_small_or_too_large_is_none(numbers: tuple[int, int, int, int]) -> None:
    assert not is_plausible(box_of(*numbers))
    assert lesion_box(box_of(*numbers), FRAME) is None


@pytest.mark.parametrize("numbers", [(400, 400, 400 + LOW, 400 + LOW), (200, 200, 200 + HIGH, 200 + HIGH)])
def test_the_smallest_and_the_largest_side_are_plausible(numbers: tuple[int, int, int, int]) -> None:
    assert is_plausible(box_of(*numbers))
    assert lesion_box(box_of(*numbers), FRAME) == on_view(box_of(*numbers), FRAME)


def test_a_box_of_another_structure_is_none() -> None:
    assert lesion_box(box_of(300, 300, 500, 500), FRAME) is not None
    assert lesion_box(box_of(300, 300, 500, 500, named=Named.STRUCTURE), FRAME) is None


@pytest.mark.parametrize(
    ("numbers", "placed"),
    [
        ((250, 100, 500, 600), (5, 6, 20, 36)),
        ((100, 100, 300, 300), (0, 6, 8, 18)),  # cut off at the upper border
        ((700, 800, 1000, 1000), (32, 48, 40, 60)),  # and at the lower one
    ],
)
def test_a_box_lies_where_its_units_say_and_is_cut_off_at_the_crop(
    numbers: tuple[int, int, int, int], placed: tuple[int, int, int, int]
) -> None:
    found = on_view(box_of(*numbers), FRAME)
    assert found is not None
    assert (found.r0, found.c0, found.r1, found.c1) == pytest.approx(placed)


@pytest.mark.parametrize("numbers", [(0, 0, 160, 160), (840, 0, 1000, 160)])
def test_a_box_in_the_padding_is_none(numbers: tuple[int, int, int, int]) -> None:
    assert is_plausible(box_of(*numbers))
    assert lesion_box(box_of(*numbers), FRAME) is None
    turned = SquareFrame.of((60, 40), (0.8, 0.8))
    y0, x0, y1, x1 = numbers
    assert lesion_box(box_of(x0, y0, x1, y1), turned) is None


units = st.integers(0, 1000)


@given(
    numbers=st.tuples(units, units, units, units),
    shape=st.tuples(st.integers(1, 600), st.integers(1, 600)),
    spacing=st.tuples(st.floats(0.3, 3.0), st.floats(0.3, 3.0)),
)
@example(numbers=(0, 0, 1000, 1000), shape=(40, 60), spacing=(0.8, 0.8))
def test_no_box_lies_outside_its_crop(
    numbers: tuple[int, int, int, int], shape: tuple[int, int], spacing: tuple[float, float]
) -> None:
    placed = on_view(box_of(*numbers), SquareFrame.of(shape, spacing))
    if placed is not None:
        assert 0 <= placed.r0 < placed.r1 <= shape[0]
        assert 0 <= placed.c0 < placed.c1 <= shape[1]
    if is_plausible(box_of(*numbers)):
        assert all(LOW <= side <= HIGH for side in (numbers[2] - numbers[0], numbers[3] - numbers[1]))


def test_a_boxs_tokens_are_those_that_wrote_its_numbers_each_once() -> None:
    # Token 1 wrote the first number's only digit, tokens 3 and 4 those of the second; 6 wrote two numbers and a comma.
    spans = [(0, 0), (0, 1), (1, 2), (2, 3), (3, 4), (4, 5), (5, 9), (9, 10)]
    assert coordinate_tokens(box_of(1, 20, 3, 40), spans) == (1, 3, 4, 6)


def test_the_score_is_the_geometric_mean_of_the_tokens_probabilities() -> None:
    chances = [0.9, 0.5, 0.1, 0.8]
    log_probs = [math.log(chance) for chance in chances]
    assert score_of((1, 3), log_probs) == pytest.approx(math.sqrt(0.5 * 0.8))
    assert score_of((0, 1, 3), log_probs) == pytest.approx((0.9 * 0.5 * 0.8) ** (1 / 3))
    assert score_of((), log_probs) == 0.0


def test_boxes_are_half_open_edges() -> None:
    assert on_view(box_of(0, 0, 1000, 1000), FRAME) == Box2D(0.0, 0.0, 40, 60)
