"""Each metric of a grid against an example worked by hand, and what holds for every grid."""

from __future__ import annotations

import math
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from m3node.attention.images.image import ImageKind, InputImage, Side
from m3node.attention.metrics.cells import as_distribution, body_share
from m3node.attention.metrics.divergence import jensen_shannon, overlap, pearson, spearman, top_overlap
from m3node.attention.metrics.grid import grid_metrics
from m3node.attention.metrics.truth import box_mask
from m3node.attention.metrics.values import GridMetrics
from m3node.gemma.images import SquareFrame

WHOLE = (0.0, 0.0, 4.0, 4.0)
"""The area of a grid over an image of 4×4 pixels."""

SIDES: tuple[Side, ...] = ("left", "right", "top", "bottom")


def image(rows: int, columns: int, **also: Any) -> InputImage:
    return InputImage(Path("a.png"), np.zeros((rows, columns, 3), dtype=np.uint8), ImageKind.XRAY, **also)


def mask(*lines: str) -> npt.NDArray[np.bool_]:
    return np.array([[sign == "#" for sign in line] for line in lines])


def measured(*rows: tuple[float, ...], area: tuple[float, float, float, float] = WHOLE, **also: Any) -> GridMetrics:
    """The metrics of a grid in quarters, tenths or whatever adds up, over 4×4 pixels."""
    truth = also.pop("truth", None)
    return grid_metrics(np.array(rows, dtype=np.float32), area, image(4, 4, **also), truth)


# Examples worked by hand.


def test_entropy_and_focus() -> None:
    # −(½ ln ½ + 2 · ¼ ln ¼) = ½ ln 2 + ½ · 2 ln 2 = 1.5 ln 2; the most for four cells is ln 4 = 2 ln 2.
    found = measured((0.5, 0.25), (0.25, 0.0))
    assert found.entropy == pytest.approx(1.5 * math.log(2))
    assert found.entropy_normalised == pytest.approx(0.75)
    assert found.focus == pytest.approx(0.5)


def test_border_fraction_is_that_of_the_outermost_ring_of_cells() -> None:
    grid = np.full((4, 4), 0.05)
    grid[1:3, 1:3] = [[0.1, 0.2], [0.05, 0.05]]  # 0.4 in the middle, 12 · 0.05 = 0.6 around it
    assert grid_metrics(grid, WHOLE, image(4, 4)).border_fraction == pytest.approx(0.6)
    assert measured((0.5, 0.5), (0.0, 0.0)).border_fraction == 1.0


def test_left_right_apical_and_basal_fractions() -> None:
    found = measured((0.1, 0.2), (0.3, 0.4))
    assert (found.left_fraction, found.right_fraction) == pytest.approx((0.4, 0.6))
    assert (found.apical_fraction, found.basal_fraction) == pytest.approx((0.3, 0.7))


def test_the_middle_cells_of_an_odd_grid_count_half_to_either_side() -> None:
    grid = np.array([[0.1, 0.2, 0.0], [0.0, 0.4, 0.1], [0.0, 0.0, 0.2]])
    found = grid_metrics(grid, (0.0, 0.0, 3.0, 3.0), image(3, 3))
    assert found.left_fraction == pytest.approx(0.1 + 0.6 / 2)
    assert found.right_fraction == pytest.approx(0.3 + 0.6 / 2)
    assert found.apical_fraction == pytest.approx(0.3 + 0.5 / 2)
    assert found.basal_fraction == pytest.approx(0.2 + 0.5 / 2)


def test_the_middle_is_that_of_the_image_where_the_square_does_not_lie_evenly_around_it() -> None:
    # 3 columns in a square of 4: padding is one column on the right, the image's middle 1.5 of 4 columns from the left.
    found = grid_metrics(np.array([[0.1, 0.5, 0.2, 0.2]]), (0.0, 0.0, 4.0, 4.0), image(4, 3))
    assert found.left_fraction == pytest.approx(0.1 + 0.5 / 2)
    turned = grid_metrics(np.array([[0.1], [0.5], [0.2], [0.2]]), (0.0, 0.0, 4.0, 4.0), image(3, 4))
    assert turned.apical_fraction == pytest.approx(0.1 + 0.5 / 2)
    assert turned.centre_row == found.centre_column
    assert found.centre_column == pytest.approx((0.1 * 0.5 + 0.5 * 1.5 + 0.2 * 2.5 + 0.2 * 3.5) / 3)


@pytest.mark.parametrize(("side", "wanted"), [("left", 0.4), ("right", 0.6), ("top", 0.3), ("bottom", 0.7)])
def test_the_patients_sides_lie_where_the_file_says(side: Side, wanted: float) -> None:
    found = measured((0.1, 0.2), (0.3, 0.4), patient_left=side)
    assert found.patient_left_fraction == pytest.approx(wanted)
    assert found.patient_right_fraction == pytest.approx(1 - wanted)
    found = measured((0.1, 0.2), (0.3, 0.4), patient_head=side)
    assert found.apical_fraction == pytest.approx(wanted)
    assert found.basal_fraction == pytest.approx(1 - wanted)


def test_a_file_that_does_not_say_where_left_is_has_no_patients_sides() -> None:
    found = measured((0.1, 0.2), (0.3, 0.4))
    assert found.patient_left_fraction is None
    assert found.patient_right_fraction is None


def test_centre_of_mass_is_in_shares_of_the_image() -> None:
    # Cells of 2×2 pixels with centres at 1 and 3 of 4: 0.3 · 0.25 + 0.7 · 0.75 and 0.4 · 0.25 + 0.6 · 0.75.
    found = measured((0.1, 0.2), (0.3, 0.4))
    assert (found.centre_row, found.centre_column) == pytest.approx((0.6, 0.55))


def test_centre_of_mass_knows_padding() -> None:
    # An image of 2×4 pixels in a square of 4×4 that begins a row above it.
    area = SquareFrame.of((2, 4), (1.0, 1.0)).area
    assert area == (-1.0, 0.0, 3.0, 4.0)
    found = grid_metrics(np.array([[0.0, 0.0], [0.0, 1.0]]), area, image(2, 4))
    assert (found.centre_row, found.centre_column) == pytest.approx((1.0, 0.75))  # at the image's lower edge


def test_inside_body_weighs_each_cell_by_what_the_body_covers_of_it() -> None:
    # Covered of the cells' four pixels: all, one; two, none.
    body = mask("###.", "##..", "#...", "#...")
    found = measured((0.4, 0.2), (0.3, 0.1), body=body)
    assert found.inside_body == pytest.approx(0.4 * 1 + 0.2 * 0.25 + 0.3 * 0.5)


def test_padding_is_not_in_the_body() -> None:
    found = grid_metrics(np.array([[0.25, 0.25], [0.25, 0.25]]), (-1, 0, 3, 4), image(2, 4, body=np.ones((2, 4), bool)))
    assert found.inside_body == pytest.approx(0.5)


def test_cells_that_cut_pixels_share_them() -> None:
    # Three columns of cells over four pixels: 4/3 of a pixel each. The second pixel is a third in the first cell.
    shares = body_share(mask(".#.."), (0.0, 0.0, 1.0, 4.0), (1, 3))
    assert shares == pytest.approx(np.array([[(1 / 3) / (4 / 3), (2 / 3) / (4 / 3), 0.0]]))


def test_attention_inside_the_truth_and_the_pointing_game() -> None:
    truth = mask("....", ".##.", ".##.", "....")
    found = measured((0.4, 0.3), (0.2, 0.1), truth=truth)
    assert found.truth_inside == pytest.approx(0.25)  # a pixel of four in each cell
    # The first cell's centre is the corner between the pixels (0, 0) and (1, 1), and belongs to the latter.
    assert found.pointing_hit is True
    assert measured((0.4, 0.3), (0.2, 0.1), truth=mask("#...", "....", "....", "....")).pointing_hit is False


def test_the_pointing_game_wants_every_cell_that_is_largest() -> None:
    left, both = mask(".#..", ".#..", "....", "...."), mask(".#.#", ".#.#", "....", "....")
    assert measured((0.4, 0.4), (0.2, 0.0), truth=left).pointing_hit is False
    assert measured((0.4, 0.4), (0.2, 0.0), truth=both).pointing_hit is True


def test_the_pointing_game_is_lost_in_padding() -> None:
    truth = np.ones((2, 4), dtype=bool)
    found = grid_metrics(np.eye(4)[:, :1] @ np.ones((1, 4)), (-1, 0, 3, 4), image(2, 4), truth)
    assert found.pointing_hit is False
    assert found.truth_inside == 0.0


@pytest.mark.parametrize("nothing", [None, np.zeros((4, 4), dtype=bool)])
def test_without_a_pixel_of_truth_or_body_there_is_no_number(nothing: npt.NDArray[np.bool_] | None) -> None:
    found = measured((0.4, 0.3), (0.2, 0.1), truth=nothing, body=nothing)
    assert (found.truth_inside, found.pointing_hit, found.inside_body) == (None, None, None)


def test_masks_of_another_size_than_the_image_are_a_mistake() -> None:
    with pytest.raises(ValueError, match="a truth of"):
        measured((0.4, 0.3), (0.2, 0.1), truth=np.ones((4, 5), dtype=bool))
    with pytest.raises(ValueError, match="a body of"):
        measured((0.4, 0.3), (0.2, 0.1), body=np.ones((5, 4), dtype=bool))


@pytest.mark.parametrize(
    ("box", "wanted"),
    [
        ((1, 1, 3, 4), mask("....", ".###", ".###", "....")),
        ((0.4, 0.6, 1.4, 2.6), mask(".##.", "....", "....", "....")),  # centres at 0.5, 1.5, …
        ((2.1, 2.1, 2.3, 2.3), mask("....", "....", "..#.", "....")),  # holds no centre
        ((-5, -5, 1, 1), mask("#...", "....", "....", "....")),
        ((3, 3, 99, 99), mask("....", "....", "....", "...#")),
        ((10, 0, 12, 4), np.zeros((4, 4), dtype=bool)),
        ((-9, 0, -8.9, 4), np.zeros((4, 4), dtype=bool)),
    ],
)
def test_a_box_marks_the_pixels_whose_centres_it_holds(
    box: tuple[float, float, float, float], wanted: npt.NDArray[np.bool_]
) -> None:
    assert np.array_equal(box_mask(box, (4, 4)), wanted)


# What holds for every grid.

cell = st.floats(0, 1, width=32)
grids = hnp.arrays(np.float32, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=cell)
frames = st.builds(SquareFrame, st.integers(1, 40), st.integers(1, 40), st.tuples(st.floats(0.2, 3), st.floats(0.2, 3)))


@given(grids, frames, st.sampled_from(SIDES), st.sampled_from(SIDES))
def test_fractions_are_shares_and_those_of_opposite_sides_add_up_to_1(
    grid: npt.NDArray[np.float32], frame: SquareFrame, left: Side, head: Side
) -> None:
    whole = np.ones((frame.rows, frame.columns), dtype=bool)
    shown = image(frame.rows, frame.columns, patient_left=left, patient_head=head, body=whole)
    found = grid_metrics(grid, frame.area, shown, whole)
    assert found.left_fraction + found.right_fraction == pytest.approx(1)
    assert found.patient_left_fraction is not None
    assert found.patient_right_fraction is not None
    assert found.patient_left_fraction + found.patient_right_fraction == pytest.approx(1)
    assert found.apical_fraction + found.basal_fraction == pytest.approx(1)
    assert found.inside_body == found.truth_inside
    no_shares = {"entropy", "centre_row", "centre_column"}
    assert [name for name, value in asdict(found).items() if name not in no_shares and not 0 <= value <= 1] == []
    assert all(math.isfinite(value) for value in asdict(found).values())


@given(grids)
def test_a_mirrored_grid_swaps_left_and_right_and_nothing_else(grid: npt.NDArray[np.float32]) -> None:
    area, shown = (0.0, 0.0, 8.0, 6.0), image(8, 6)
    found, mirrored = (grid_metrics(each, area, shown) for each in (grid, grid[:, ::-1]))
    swapped = replace(
        mirrored,
        left_fraction=mirrored.right_fraction,
        right_fraction=mirrored.left_fraction,
        centre_column=1 - mirrored.centre_column,
    )
    assert asdict(swapped) == pytest.approx(asdict(found), abs=1e-6)


@given(st.integers(1, 20), st.integers(1, 20))
def test_a_flat_grid_has_the_most_entropy_and_its_centre_in_the_middle(rows: int, columns: int) -> None:
    found = grid_metrics(np.full((rows, columns), 1 / (rows * columns)), WHOLE, image(4, 4))
    assert found.entropy == pytest.approx(math.log(rows * columns))
    assert found.entropy_normalised == pytest.approx(1.0 if rows * columns > 1 else 0.0)
    assert found.focus == pytest.approx(1 / (rows * columns))
    assert (found.left_fraction, found.apical_fraction) == pytest.approx((0.5, 0.5))
    assert (found.centre_row, found.centre_column) == pytest.approx((0.5, 0.5))


@given(st.integers(1, 9), st.integers(1, 9), st.data())
def test_a_grid_in_one_cell_has_no_entropy(rows: int, columns: int, data: st.DataObject) -> None:
    grid = np.zeros((rows, columns))
    grid[data.draw(st.integers(0, rows - 1)), data.draw(st.integers(0, columns - 1))] = 1
    found = grid_metrics(grid, WHOLE, image(4, 4))
    assert (found.entropy, found.entropy_normalised, found.focus) == (0.0, 0.0, 1.0)


@given(frames, st.integers(1, 12), st.integers(1, 12), st.data())
def test_covered_shares_add_up_to_the_masks_own_pixels(
    frame: SquareFrame, rows: int, columns: int, data: st.DataObject
) -> None:
    marked = data.draw(hnp.arrays(np.bool_, (frame.rows, frame.columns)))
    r0, c0, r1, c1 = frame.area
    covered = body_share(marked, frame.area, (rows, columns))
    pixels = covered.sum() * (r1 - r0) * (c1 - c0) / (rows * columns)
    assert pixels == pytest.approx(marked.sum(), rel=1e-9, abs=1e-9)
    opposite = body_share(~marked, frame.area, (rows, columns))
    assert (covered + opposite <= 1 + 1e-9).all()


@pytest.mark.parametrize("value", [0.0, math.nan, math.inf, -1.0])
def test_a_grid_of_nothing_counts_as_flat(value: float) -> None:
    found = measured((value, value), (value, value), truth=np.ones((4, 4), bool), body=np.ones((4, 4), bool))
    assert found == measured((1.0, 1.0), (1.0, 1.0), truth=np.ones((4, 4), bool), body=np.ones((4, 4), bool))


def test_cells_that_are_no_number_count_as_nothing() -> None:
    assert as_distribution(np.array([math.nan, 1.0, -3.0, 3.0])) == pytest.approx(np.array([0, 0.25, 0, 0.75]))
    assert as_distribution(np.array([1e308, 1e308])) == pytest.approx(np.array([0.5, 0.5]))


def test_a_grid_without_cells_or_area_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="no grid"):
        grid_metrics(np.zeros((0, 3)), WHOLE, image(4, 4))
    with pytest.raises(ValueError, match="no grid"):
        grid_metrics(np.ones((2, 2)), (0.0, 0.0, 0.0, 4.0), image(4, 4))


# Two grids.


def test_jensen_shannon_divergence_worked_by_hand() -> None:
    # p = (½, ½), q = (1, 0), m = (¾, ¼): ½ (½ lb ⅔ + ½ lb 2) + ½ lb 4/3
    wanted = 0.5 * (0.5 * math.log2(2 / 3) + 0.5 * math.log2(2)) + 0.5 * math.log2(4 / 3)
    assert jensen_shannon(np.array([[0.5, 0.5]]), np.array([[1.0, 0.0]])) == pytest.approx(wanted)
    assert wanted == pytest.approx(0.3113, abs=1e-4)


def test_grids_that_share_no_cell_are_as_far_apart_as_can_be() -> None:
    p, q = np.array([[1.0, 0.0]]), np.array([[0.0, 1.0]])
    assert jensen_shannon(p, q) == 1.0
    assert overlap(p, q) == 0.0
    assert top_overlap(p, q) == 0.0
    assert pearson(p, q) == pytest.approx(-1)


def test_overlap_and_correlations_worked_by_hand() -> None:
    p, q = np.array([[0.1, 0.2, 0.3, 0.4]]), np.array([[0.4, 0.1, 0.2, 0.3]])
    assert overlap(p, q) == pytest.approx(0.1 + 0.1 + 0.2 + 0.3)
    # Deviations (−1.5, −0.5, 0.5, 1.5) and (1.5, −1.5, −0.5, 0.5) tenths: −2.25 + 0.75 − 0.25 + 0.75 = −1 of 5.
    assert pearson(p, q) == pytest.approx(-0.2)
    assert spearman(p, q) == pytest.approx(-0.2)
    assert spearman(np.array([1.0, 2.0, 2.0, 9.0]), np.array([0.0, 5.0, 5.0, 6.0])) == pytest.approx(1)


def test_largest_cells_are_a_share_and_those_as_large() -> None:
    p, q = np.zeros((2, 10)), np.zeros((2, 10))
    p[0, :2], q[0, 1:3] = 0.5, 0.5  # two of twenty cells, one in common: a third
    assert top_overlap(p, q) == pytest.approx(1 / 3)
    assert top_overlap(p, q, share=1.0) == pytest.approx(1 / 3)  # cells with nothing are never among them
    assert top_overlap(p + 0.1, q + 0.2, share=1.0) == 1.0
    few, many = np.zeros((7, 10)), np.arange(70.0).reshape(7, 10)
    few[6, 3:] = 1  # a tenth: seven of seventy
    assert top_overlap(few, many) == 1.0
    assert top_overlap(np.eye(1, 11), np.arange(11.0)[None, ::-1]) == 0.5  # one has anything; two of eleven
    assert top_overlap(p, np.full((2, 10), 0.05)) == pytest.approx(0.1)  # all of a flat grid are largest


def test_what_has_no_spread_correlates_with_nothing() -> None:
    assert pearson(np.ones((2, 2)), np.eye(2)) is None
    assert spearman(np.eye(2), np.zeros((2, 2))) is None


def test_grids_of_other_sizes_are_a_mistake() -> None:
    with pytest.raises(ValueError, match="cannot be compared"):
        jensen_shannon(np.ones((2, 2)), np.ones((4, 1)))


pairs = st.tuples(st.integers(1, 6), st.integers(1, 6)).flatmap(
    lambda shape: st.tuples(*[hnp.arrays(np.float32, shape, elements=cell)] * 2)
)


@given(pairs)
def test_comparisons_are_symmetric_bounded_and_extreme_for_the_same_grid(
    both: tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]],
) -> None:
    p, q = both
    for compare, same in ((jensen_shannon, 0.0), (overlap, 1.0), (top_overlap, 1.0)):
        assert compare(p, q) == pytest.approx(compare(q, p), abs=1e-12)
        assert 0 <= compare(p, q) <= 1
        assert compare(p, p) == pytest.approx(same, abs=1e-12)
    for correlate in (pearson, spearman):
        found, same_found = correlate(p, q), correlate(p, p)
        assert found is None or -1 <= found <= 1
        assert same_found is None or same_found == pytest.approx(1)
