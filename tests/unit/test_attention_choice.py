"""Each lesion gets the attention of the words that name it; without a lesion one slice stands for the search."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from m3node.detectors.protocols import Box2D, SliceAttention
from m3node.evaluation.ct_writer import axial_geometry
from m3node.imaging.mask import VoxelMask
from m3node.m3.lesion import Lesion
from m3node.results.attention.choice import MAX_LESIONS, choose_attention, largest_slice
from made_findings import ellipsoid, made_findings, made_grid

GEOMETRY = axial_geometry((12, 60, 60), (2.5, 0.8, 0.8))
FINDINGS = made_findings(GEOMETRY)
WHOLE = Box2D(0.0, 0.0, 60.0, 60.0)


def kept(k: int, box: Box2D | None, padding: float = 0.1) -> SliceAttention:
    return SliceAttention(k, made_grid(WHOLE, seed=k), box, padding)


def moved(lesion: Lesion, rows: float) -> Box2D:
    box = lesion.key_box.box
    return replace(box, r0=box.r0 + rows, r1=box.r1 + rows)


def test_the_box_that_overlaps_a_lesion_most_stands_for_it() -> None:
    first, second = FINDINGS.lesions
    near, far = kept(first.key_slice, moved(first, 1.0), 0.2), kept(first.key_slice, moved(first, 3.0), 0.1)
    whole, other = kept(first.key_slice, None), kept(second.key_slice, moved(second, 0.0))
    elsewhere = kept(first.key_slice + 1, moved(first, 0.0))
    chosen = choose_attention([whole, far, near, elsewhere, other], FINDINGS.lesions, FINDINGS.region)
    assert [(item.lesion, item.slice_index) for item in chosen] == [(1, first.key_slice), (2, second.key_slice)]
    assert chosen[0].grid is near.grid
    assert (chosen[0].box, chosen[0].padding) == (near.box, 0.2)


def test_of_equal_boxes_that_of_the_tightest_view_is_taken() -> None:
    lesion = FINDINGS.lesions[0]
    views = [kept(lesion.key_slice, moved(lesion, 1.0), padding) for padding in (0.2, 0.1, 0.15)]
    (chosen,) = choose_attention(views, [lesion], FINDINGS.region)
    assert chosen.grid is views[1].grid


def test_without_a_box_over_the_lesion_the_tightest_views_whole_answer_stands_for_it() -> None:
    lesion = FINDINGS.lesions[0]
    away = kept(lesion.key_slice, Box2D(58.0, 58.0, 60.0, 60.0), 0.05)
    wide, tight = kept(lesion.key_slice, None, 0.2), kept(lesion.key_slice, None, 0.1)
    (chosen,) = choose_attention([away, wide, tight], [lesion], FINDINGS.region)
    assert chosen.grid is tight.grid
    assert (chosen.box, chosen.lesion) == (None, lesion.number)


def test_a_lesion_whose_slice_has_no_attention_gets_none() -> None:
    first, second = FINDINGS.lesions
    chosen = choose_attention([kept(second.key_slice, None)], FINDINGS.lesions, FINDINGS.region)
    assert [item.lesion for item in chosen] == [2]
    assert first.key_slice != second.key_slice


def test_two_lesions_of_one_slice_get_a_map_each() -> None:
    masks = [ellipsoid(GEOMETRY.shape, (6, 20, column), (2, 4, 4)) for column in (15, 40)]
    lesions = made_findings(GEOMETRY, lesions=masks).lesions
    views = [kept(6, lesion.key_box.box) for lesion in reversed(lesions)]
    chosen = choose_attention(views, lesions, FINDINGS.region)
    assert [(item.lesion, item.box) for item in chosen] == [(n, lesions[n - 1].key_box.box) for n in (1, 2)]


def test_without_a_lesion_the_slice_with_the_largest_liver_that_was_read_is_shown() -> None:
    region = FINDINGS.region
    assert region is not None
    largest = largest_slice(region)
    assert largest is not None
    assert region.parenchyma.on_slice(largest).sum() == max(region.parenchyma.on_slice(k).sum() for k in range(12))
    views = [kept(k, box) for k in range(12) for box in (None, Box2D(1.0, 1.0, 5.0, 5.0))]
    (chosen,) = choose_attention(views, [], region)
    assert (chosen.slice_index, chosen.box, chosen.lesion) == (largest, None, None)
    unread = [item for item in views if item.slice_index != largest or item.box is not None]
    (next_best,) = choose_attention(unread, [], region)
    rest = [k for k in range(12) if k != largest]
    assert next_best.slice_index == max(rest, key=lambda k: region.parenchyma.on_slice(k).sum())


def test_there_is_nothing_to_show_without_attention_or_without_a_liver() -> None:
    region = FINDINGS.region
    assert region is not None
    assert choose_attention([], FINDINGS.lesions, region) == ()
    assert choose_attention([], [], region) == ()
    assert choose_attention([kept(3, None)], [], None) == ()
    empty = replace(region, parenchyma=VoxelMask.from_full(np.zeros(GEOMETRY.shape, dtype=np.bool_)))
    assert choose_attention([kept(3, None)], [], empty) == ()
    parted = np.zeros(GEOMETRY.shape, dtype=np.bool_)
    parted[[2, 6], 20:30, 20:30] = True
    between = replace(region, parenchyma=VoxelMask.from_full(parted))
    assert choose_attention([kept(4, None)], [], between) == ()


def test_a_flood_of_lesions_does_not_become_a_flood_of_frames() -> None:
    lesions = [replace(FINDINGS.lesions[0], number=number) for number in range(MAX_LESIONS + 10, 0, -1)]
    chosen = choose_attention([kept(lesions[0].key_slice, None)], lesions, FINDINGS.region)
    assert [item.lesion for item in chosen] == list(range(1, MAX_LESIONS + 1))
