"""Found and true lesions are paired one to one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from m3node.evaluation.matching import box_iou, match
from m3node.imaging.mask import Extent

intervals = st.tuples(st.integers(0, 20), st.integers(1, 10)).map(lambda pair: (pair[0], pair[0] + pair[1]))
boxes = st.tuples(intervals, intervals, intervals)


def cube(start: int, size: int = 10) -> Extent:
    return (start, start + size), (0, size), (0, size)


@given(a=boxes, b=boxes)
def test_iou_is_symmetric_one_for_equal_boxes_and_never_more(a: Extent, b: Extent) -> None:
    assert box_iou(a, b) == pytest.approx(box_iou(b, a))
    assert box_iou(a, a) == pytest.approx(1.0)
    assert 0.0 <= box_iou(a, b) <= 1.0


def test_iou_of_two_slice_boxes_is_that_of_their_areas() -> None:
    assert box_iou([(0.0, 4.0), (0.0, 4.0)], [(2.0, 6.0), (0.0, 4.0)]) == pytest.approx(1 / 3)


def test_one_found_lesion_answers_one_true_lesion_only() -> None:
    result = match([cube(0)], [cube(0), cube(1)], iou=0.3)
    assert [(pair.found, pair.truth) for pair in result.pairs] == [(0, 0)]
    assert result.missed == (1,)
    assert result.recall == 0.5


def test_pairs_are_chosen_so_that_most_lesions_are_found() -> None:
    # Shifted by 1 the IoU is 9/11, by 5 it is 1/3: the best pair alone overlaps more than the two that are possible.
    result = match([cube(0), cube(6)], [cube(1), cube(-5)], iou=0.3)
    assert [(pair.found, pair.truth) for pair in result.pairs] == [(1, 0), (0, 1)]
    assert [pair.iou for pair in result.pairs] == pytest.approx([1 / 3, 1 / 3])
    assert result.false == ()


def test_of_as_many_pairs_those_that_overlap_most_are_chosen() -> None:
    result = match([cube(0), cube(2)], [cube(2), cube(0)], iou=0.3)
    assert [(pair.found, pair.truth, pair.iou) for pair in result.pairs] == [(1, 0, 1.0), (0, 1, 1.0)]


def test_an_overlap_of_just_the_bound_is_a_pair_and_none_at_all_never() -> None:
    half = match([cube(0)], [((0, 5), (0, 10), (0, 10))], iou=0.5)
    assert [pair.iou for pair in half.pairs] == [0.5]
    assert match([cube(0)], [cube(20)], iou=0.0).pairs == ()


def test_what_overlaps_too_little_is_a_miss_and_a_false_lesion() -> None:
    result = match([cube(6)], [cube(0)], iou=0.3)
    assert (result.pairs, result.missed, result.false) == ((), (0,), (0,))


def test_nothing_there_and_nothing_found_is_full_recall() -> None:
    assert match([], [], iou=0.3).recall == 1.0
    assert match([cube(0)], [], iou=0.3).false == (0,)


@given(found=st.lists(boxes, max_size=5), truth=st.lists(boxes, max_size=5))
def test_every_lesion_is_accounted_for_once(found: list[Extent], truth: list[Extent]) -> None:
    result = match(found, truth, iou=0.1)
    assert sorted([pair.truth for pair in result.pairs] + list(result.missed)) == list(range(len(truth)))
    assert sorted([pair.found for pair in result.pairs] + list(result.false)) == list(range(len(found)))
