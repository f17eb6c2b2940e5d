"""Boxes of several views of a slice become one box a finding, with its votes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from m3node.detectors.protocols import Box2D, ViewBox
from m3node.imaging.mask import VoxelMask
from m3node.m3.nms import fuse, iou
from m3node.m3.projection import Frame, ProjectedBox, project, share_inside

WHOLE = Box2D(0, 0, 100, 100)
FRAMES = [Frame(number=n, slice_index=7, box=WHOLE) for n in range(3)]


def seen(view: int, box: Box2D, score: float) -> ProjectedBox:
    return ProjectedBox(slice_index=7, view=view, box=box, score=score, mask=None)


def test_one_finding_in_three_views_is_one_box_with_three_votes_and_their_mean_score() -> None:
    boxes = [seen(n, Box2D(10, 10, 30 + n, 30), score) for n, score in enumerate((0.9, 0.6, 0.3))]
    (fused,) = fuse(boxes, FRAMES, 0.5)
    assert (fused.box.votes, fused.box.views) == (3, 3)
    assert fused.box.score == pytest.approx(0.6)
    assert fused.box.box == boxes[0].box


def test_a_view_that_saw_nothing_lowers_the_score_and_one_that_could_not_see_it_does_not() -> None:
    box = Box2D(10, 10, 30, 30)
    (fused,) = fuse([seen(0, box, 0.8)], FRAMES[:2], 0.5)
    assert (fused.box.votes, fused.box.views, fused.box.score) == (1, 2, 0.4)
    elsewhere = Frame(number=1, slice_index=7, box=Box2D(50, 50, 90, 90))
    (fused,) = fuse([seen(0, box, 0.8)], [FRAMES[0], elsewhere], 0.5)
    assert (fused.box.votes, fused.box.views, fused.box.score) == (1, 1, 0.8)


def test_two_boxes_of_one_view_are_one_vote() -> None:
    boxes = [seen(0, Box2D(10, 10, 30, 30), 0.8), seen(0, Box2D(11, 10, 30, 30), 0.7)]
    (fused,) = fuse(boxes, FRAMES, 0.5)
    assert (fused.box.votes, fused.box.views) == (1, 3)
    assert fused.box.score == pytest.approx(0.8 / 3)  # the view's better box counts


def test_boxes_that_overlap_by_the_bound_are_one_finding() -> None:
    boxes = [seen(0, Box2D(10, 10, 20, 30), 0.8), seen(1, Box2D(10, 10, 30, 30), 0.7)]
    assert iou(boxes[0].box, boxes[1].box) == 0.5
    (fused,) = fuse(boxes, FRAMES, 0.5)
    assert fused.box.votes == 2


def test_a_crop_that_holds_half_of_a_box_could_have_seen_it_and_one_that_holds_less_could_not() -> None:
    box = Box2D(10, 10, 30, 30)
    for edge, views in ((20, 2), (19, 1)):
        cut = Frame(number=1, slice_index=7, box=Box2D(0, 0, 100, edge))
        (fused,) = fuse([seen(0, box, 0.8)], [FRAMES[0], cut], 0.5)
        assert fused.box.views == views


def test_at_equal_scores_the_better_single_box_stands_for_the_finding() -> None:
    # Each view saw the lesion once, so both boxes have the same votes and the same fused score.
    weaker, better = seen(0, Box2D(10, 10, 30, 30), 0.5), seen(1, Box2D(11, 10, 31, 30), 0.7)
    (fused,) = fuse([weaker, better], FRAMES, 0.5)
    assert fused.box.box == better.box


def test_boxes_that_overlap_less_than_the_bound_both_stay_best_first() -> None:
    boxes = [seen(0, Box2D(10, 10, 30, 30), 0.5), seen(1, Box2D(10, 22, 30, 42), 0.8)]
    fused = fuse(boxes, FRAMES, 0.5)
    assert [item.box.box.c0 for item in fused] == [22, 10]


def test_the_order_of_the_views_does_not_change_what_is_kept() -> None:
    boxes = [seen(n, Box2D(10 + n, 10, 30 + n, 30), 0.5 + 0.1 * n) for n in range(3)]
    assert [item.box for item in fuse(boxes, FRAMES, 0.5)] == [item.box for item in fuse(boxes[::-1], FRAMES, 0.5)]


spans = st.tuples(st.integers(0, 12), st.integers(1, 12)).map(lambda pair: (pair[0], pair[0] + pair[1]))
boxes_of_pixels = st.tuples(spans, spans).map(lambda pair: Box2D(pair[0][0], pair[1][0], pair[0][1], pair[1][1]))


@given(a=boxes_of_pixels, b=boxes_of_pixels)
def test_iou_of_boxes_is_that_of_their_pixels(a: Box2D, b: Box2D) -> None:
    planes = np.zeros((2, 24, 24), dtype=bool)
    for plane, box in zip(planes, (a, b), strict=True):
        plane[int(box.r0) : int(box.r1), int(box.c0) : int(box.c1)] = True
    assert iou(a, b) == pytest.approx((planes[0] & planes[1]).sum() / (planes[0] | planes[1]).sum())


def test_a_views_box_is_moved_by_the_crops_origin_and_cut_at_its_border() -> None:
    frame = Frame(number=4, slice_index=7, box=Box2D(20, 40, 80, 90))
    mask = np.zeros((60, 50), dtype=bool)
    mask[5:9, 10:12] = True
    moved = project(frame, ViewBox(box=Box2D(-3, 10, 9, 60), score=1.0, mask=mask))
    assert moved is not None
    assert moved.box == Box2D(20, 50, 29, 90)
    assert moved.mask is not None
    assert moved.mask.origin == (25, 50)
    assert moved.mask.data.shape == (4, 2)


@pytest.mark.parametrize(
    "box", [Box2D(5, 5, 5, 9), Box2D(9, 5, 5, 9), Box2D(float("nan"), 0, 5, 5), Box2D(70, 0, 90, 5)]
)
def test_a_box_that_is_none_is_dropped(box: Box2D) -> None:
    frame = Frame(number=0, slice_index=0, box=Box2D(0, 0, 60, 60))
    assert project(frame, ViewBox(box=box, score=1.0)) is None


def test_a_box_whose_score_is_no_number_is_dropped_and_one_without_voxels_is_kept() -> None:
    frame, box = Frame(number=0, slice_index=0, box=Box2D(0, 0, 60, 60)), Box2D(5, 5, 9, 9)
    assert project(frame, ViewBox(box=box, score=float("nan"))) is None
    kept = project(frame, ViewBox(box=box, score=1.0))
    assert kept is not None
    assert (kept.box, kept.mask) == (box, None)


def test_the_share_in_the_envelope_counts_voxel_centres() -> None:
    plane = np.zeros((3, 20, 20), dtype=bool)
    plane[1, :, :10] = True
    envelope = VoxelMask.from_full(plane)
    assert share_inside(Box2D(0, 5, 10, 15), envelope, 1) == 0.5
    assert share_inside(Box2D(0, 5, 10, 15), envelope, 0) == 0.0
    assert share_inside(Box2D(0, 5.4, 10, 14.6), envelope, 1) == 0.5  # columns 5 to 14, whose centres lie inside
    assert share_inside(Box2D(3.1, 9.1, 3.3, 9.3), envelope, 1) == 1.0
    assert share_inside(Box2D(3.1, 10.1, 3.3, 10.3), envelope, 1) == 0.0
    assert share_inside(Box2D(-5, -5, 5, 5), envelope, 1) == 0.25
