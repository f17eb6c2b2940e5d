"""Boxes are linked over slices one to one, over gaps given in millimetres."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from m3node.detectors.protocols import Box2D, SliceBox
from m3node.m3.linking import Chain, expected_box, extend, gap_slices, link, open_slices
from m3node.m3.nms import FusedBox


def on(k: int, box: Box2D, score: float = 1.0) -> FusedBox:
    return FusedBox(box=SliceBox(slice_index=k, box=box, score=score, votes=1, views=1), mask=None)


def square(at: float, size: float = 20.0) -> Box2D:
    return Box2D(at, at, at + size, at + size)


def slices_of(chains: list[Chain]) -> list[list[int]]:
    return sorted([fused.slice_index for fused in chain] for chain in chains)


def test_a_gap_is_bridged_by_its_thickness_not_by_its_slices() -> None:
    boxes = {k: [on(k, square(10))] for k in (3, 4, 7)}
    assert slices_of(link(boxes, slice_mm=3.0, gap_mm=6.0)) == [[3, 4, 7]]
    assert slices_of(link(boxes, slice_mm=5.0, gap_mm=6.0)) == [[3, 4], [7]]
    assert gap_slices(6.0, 10.0) == 0
    assert gap_slices(6.0, 2.0) == 3


def test_neighbouring_slices_are_linked_however_thick() -> None:
    assert slices_of(link({1: [on(1, square(0))], 2: [on(2, square(2))]}, slice_mm=10.0, gap_mm=0.0)) == [[1, 2]]


def test_the_small_box_at_a_lesions_pole_is_linked_and_a_small_box_beside_it_is_not() -> None:
    large = square(10, 20)
    for at, chains in ((17, [[1, 2]]), (31, [[1], [2]])):
        assert slices_of(link({1: [on(1, large)], 2: [on(2, square(at, 5))]}, slice_mm=2.0, gap_mm=6.0)) == chains


def test_two_lesions_side_by_side_stay_two_where_greedy_linking_would_cross() -> None:
    # The box at 14 overlaps both boxes before; the one at 0 only the first.
    boxes = {1: [on(1, square(8)), on(1, square(20))], 2: [on(2, square(14)), on(2, square(0))]}
    chains = link(boxes, slice_mm=2.0, gap_mm=6.0)
    ends = sorted((chain[0].box.box.r0, chain[1].box.box.r0) for chain in chains)
    assert ends == [(8, 0), (20, 14)]


def test_boxes_apart_are_separate_findings() -> None:
    boxes = {1: [on(1, square(0)), on(1, square(50))], 2: [on(2, square(80))]}
    assert slices_of(link(boxes, slice_mm=2.0, gap_mm=6.0)) == [[1], [1], [2]]


@given(
    st.lists(
        st.tuples(st.integers(0, 12), st.integers(0, 60), st.integers(5, 25)), min_size=1, max_size=25, unique=True
    )
)
def test_every_box_is_in_one_chain_and_no_chain_has_two_on_a_slice(items: list[tuple[int, int, int]]) -> None:
    boxes: dict[int, list[FusedBox]] = {}
    for k, at, size in items:
        boxes.setdefault(k, []).append(on(k, square(at, size)))
    chains = link(boxes, slice_mm=2.5, gap_mm=6.0)
    assert sum(len(chain) for chain in chains) == len(items)
    for chain in chains:
        indices = [fused.slice_index for fused in chain]
        assert indices == sorted(set(indices))
        assert all(b - a <= 3 for a, b in itertools.pairwise(indices))


def test_slices_next_to_a_lesion_and_in_its_gaps_are_looked_at_again() -> None:
    chain = (on(5, square(10)), on(7, square(14)))
    again = dict(open_slices(chain, slice_mm=5.0, slices=range(0, 9)))
    assert sorted(again) == [4, 6, 8]
    assert sorted(dict(open_slices(chain, slice_mm=1.0, slices=range(0, 9)))) == [2, 3, 4, 6, 8]
    assert again[6] == square(12)
    assert again[8] == square(14)
    assert expected_box(chain, 3) == square(10)


def test_a_weak_box_continues_a_lesion_but_starts_none_and_replaces_none() -> None:
    chains = [(on(5, square(10)), on(6, square(10)))]
    weak = {
        4: [on(4, square(11), 0.1)],
        5: [on(5, square(11), 0.1)],
        7: [on(7, square(40), 0.1)],
        12: [on(12, square(10), 0.1)],
    }
    assert slices_of(extend(chains, weak, slice_mm=5.0, gap_mm=6.0)) == [[4, 5, 6]]


def test_a_weak_box_is_given_to_one_lesion_the_stronger() -> None:
    shared = on(6, square(12), 0.1)
    chains = [(on(5, square(10), 0.5),), (on(5, square(14), 0.9),)]
    grown = extend(chains, {6: [shared]}, slice_mm=5.0, gap_mm=0.0)
    assert [len(chain) for chain in grown] == [2, 1]
    assert grown[0][0].box.score == 0.9
