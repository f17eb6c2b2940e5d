"""A series falls into the stacks that a radiologist would see in it, whatever order its instances came in."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from m3node.errors import M3NodeError
from m3node.evaluation.ct_writer import axial_geometry, write_ct_series
from m3node.intake.series.header import InstanceHeader
from m3node.intake.series.manifest import make_manifest, manifest_key, read_manifest, write_manifest
from m3node.intake.series.stacks import Stack, group_stacks
from made_stacks import AXIAL, ct_slice, ct_slices, headers_of, manifest_of

HEIGHTS = [float(z) for z in range(0, 40, 2)]


def heights(stack: Stack) -> list[float]:
    return [frame.position[2] for frame in stack.frames if frame.position]


def test_slices_are_sorted_along_their_normal_lowest_first() -> None:
    (stack,) = group_stacks(ct_slices(list(reversed(HEIGHTS))))
    assert heights(stack) == HEIGHTS
    assert stack.key.stack == ""
    assert stack.key.label == "1.2"


def test_a_stack_seen_from_above_is_sorted_along_its_own_normal() -> None:
    (stack,) = group_stacks(ct_slices(HEIGHTS, orientation=(1, 0, 0, 0, -1, 0)))
    assert heights(stack) == HEIGHTS[::-1]


def test_series_are_never_mixed() -> None:
    stacks = group_stacks(ct_slices(HEIGHTS, series="1.2") + ct_slices(HEIGHTS, series="1.3"))
    assert [(s.key.label, len(s.slices)) for s in stacks] == [("1.2", 20), ("1.3", 20)]


def test_phases_at_equal_positions_are_parted_by_acquisition_number() -> None:
    phases = ct_slices(HEIGHTS, acquisition_number=3) + ct_slices(HEIGHTS, acquisition_number=4)
    stacks = group_stacks(phases)
    assert [len(s.slices) for s in stacks] == [20, 20]
    assert [{f.acquisition_number for f in s.frames} for s in stacks] in ([{3}, {4}], [{4}, {3}])
    assert len({s.key.label for s in stacks}) == 2


def test_phases_that_interleave_are_parted_though_no_position_is_shared() -> None:
    phases = ct_slices(HEIGHTS, acquisition_number=1) + ct_slices([z + 1 for z in HEIGHTS], acquisition_number=2)
    assert sorted(len(s.slices) for s in group_stacks(phases)) == [20, 20]


def test_phases_are_parted_by_temporal_position() -> None:
    phases = ct_slices(HEIGHTS, temporal_position=1) + ct_slices(HEIGHTS, temporal_position=2)
    assert sorted(len(s.slices) for s in group_stacks(phases)) == [20, 20]


def test_step_and_shoot_with_an_acquisition_a_slice_stays_one_stack() -> None:
    steps = [ct_slice((0, 0, z), acquisition_number=number) for number, z in enumerate(HEIGHTS)]
    (stack,) = group_stacks(steps)
    assert len(stack.slices) == 20


def test_two_rounds_of_step_and_shoot_are_two_stacks() -> None:
    rounds = [ct_slice((0, 0, z), acquisition_number=number) for number, z in enumerate(HEIGHTS + HEIGHTS)]
    assert [heights(stack) for stack in group_stacks(rounds)] == [HEIGHTS, HEIGHTS]


def test_missing_acquisition_numbers_part_nothing() -> None:
    mixed = ct_slices(HEIGHTS, acquisition_number=1) + ct_slices(HEIGHTS, acquisition_number=None)
    (stack,) = group_stacks(mixed)
    assert len(stack.slices) == 40


def test_kernels_orientations_and_localizers_are_stacks_of_their_own() -> None:
    headers = (
        ct_slices(HEIGHTS, kernel="B30f")
        + ct_slices(HEIGHTS, kernel="B60f")
        + ct_slices(HEIGHTS, orientation=(1, 0, 0, 0, 0, -1))
        + ct_slices([100.0], orientation=(0, 1, 0, 0, 0, -1), image_type=("ORIGINAL", "PRIMARY", "LOCALIZER"))
    )
    stacks = group_stacks(headers)
    assert sorted(len(stack.slices) for stack in stacks) == [1, 20, 20, 20]
    assert len({stack.key.stack for stack in stacks}) == 4
    assert all(len(stack.key.stack) == 8 for stack in stacks)


def test_a_localizer_is_a_stack_of_its_own_though_it_lies_like_the_others() -> None:
    localizer = ct_slices([4.0], image_type=("ORIGINAL", "PRIMARY", "LOCALIZER"))
    assert sorted(len(stack.slices) for stack in group_stacks(ct_slices(HEIGHTS) + localizer)) == [1, 20]


def test_orientations_two_degrees_apart_are_two_stacks() -> None:
    turned = (math.cos(math.radians(2)), math.sin(math.radians(2)), 0.0, -math.sin(math.radians(2)), 1.0, 0.0)
    stacks = group_stacks(ct_slices(HEIGHTS) + ct_slices(HEIGHTS, orientation=turned))
    assert [len(stack.slices) for stack in stacks] == [20, 20]
    assert len({stack.key for stack in stacks}) == 2


def test_rounded_direction_cosines_do_not_part_a_stack() -> None:
    wobbly = [ct_slice((0, 0, z), orientation=(1, 1e-5 * (k % 3), 0, 0, 1, 0)) for k, z in enumerate(HEIGHTS)]
    (stack,) = group_stacks(wobbly)
    assert len(stack.slices) == 20


def test_an_instance_that_is_there_twice_counts_once() -> None:
    slices = ct_slices(HEIGHTS)
    copies = [replace(header, path=f"copy/{header.path}") for header in slices]
    (stack,) = group_stacks(slices + copies)
    assert (len(stack.instances), len(stack.slices)) == (20, 20)


def test_slices_without_a_position_come_last_and_are_not_lost() -> None:
    (stack,) = group_stacks([ct_slice(None), *ct_slices(HEIGHTS)])
    assert len(stack.slices) == 21
    assert stack.frame(20).position is None


def test_frames_of_enhanced_ct_are_slices(test_data: Path) -> None:
    folder = test_data / "ct_enhanced"
    by_class = {s.instances[0].sop_class_uid[-1]: s for s in group_stacks(headers_of(folder))}
    enhanced, legacy = by_class["1"], by_class["2"]
    assert [(ref.instance, ref.frame) for ref in enhanced.slices] == [(0, 1), (0, 0)]
    assert [(ref.instance, ref.frame) for ref in legacy.slices] == [(0, 0), (0, 1), (0, 2)]


@settings(max_examples=50, deadline=None)
@given(data=st.data())
def test_the_order_of_arrival_changes_neither_stacks_nor_keys(data: st.DataObject) -> None:
    shuffled = data.draw(st.permutations(MIXED))
    assert [(s.key, manifest_key(s)) for s in group_stacks(shuffled)] == EXPECTED


MIXED: list[InstanceHeader] = [
    *ct_slices(HEIGHTS[:6], acquisition_number=1),
    *ct_slices(HEIGHTS[:6], acquisition_number=2),
    *ct_slices(HEIGHTS[:6], kernel="B60f", orientation=(1, 1e-4, 0, 0, 1, 0)),
    *ct_slices(HEIGHTS[:4], series="1.9", orientation=AXIAL),
]
EXPECTED = [(s.key, manifest_key(s)) for s in group_stacks(MIXED)]


def test_the_key_of_a_manifest_changes_with_a_byte_a_slice_or_the_order() -> None:
    slices = ct_slices(HEIGHTS)
    (stack,) = group_stacks(slices)
    other_byte = group_stacks([*slices[1:], replace(slices[0], sha256="0" * 64)])
    one_less = group_stacks(slices[1:])
    backwards = replace(stack, slices=stack.slices[::-1])
    keys = {manifest_key(s) for s in (stack, *other_byte, *one_less, backwards)}
    assert len(keys) == 4


def test_the_key_does_not_depend_on_where_when_and_by_whom(tmp_path: Path) -> None:
    slices = ct_slices(HEIGHTS)
    moved = [replace(header, path=f"x/{header.path}", sender="OTHER", received_at=9.0) for header in slices]
    (here,), (there,) = group_stacks(slices), group_stacks(moved)
    first = make_manifest(here, root=Path("/a"))
    second = make_manifest(there, root=tmp_path, generation=2, supersedes=first.key)
    assert first.key == second.key
    assert (first.senders, second.senders) == (("PACS",), ("OTHER",))


def test_a_manifest_survives_its_file(tmp_path: Path, test_data: Path) -> None:
    manifest = manifest_of(test_data / "ct_liver_j2k")
    path = write_manifest(manifest, tmp_path)
    assert path.name == f"{manifest.stack.series_instance_uid}.g1.json"
    assert read_manifest(path) == manifest
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_a_generation_is_never_changed(tmp_path: Path) -> None:
    slices = ct_slices(HEIGHTS)
    (whole,), (fewer,) = group_stacks(slices), group_stacks(slices[1:])
    path = write_manifest(make_manifest(whole, root=tmp_path, created_at=1.0), tmp_path)
    before = path.read_bytes()
    assert write_manifest(make_manifest(whole, root=tmp_path, created_at=2.0), tmp_path) == path
    with pytest.raises(M3NodeError, match="never changed"):
        write_manifest(make_manifest(fewer, root=tmp_path), tmp_path)
    assert path.read_bytes() == before


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"format": "m3node.manifest/1"}', '{"format": "other/7"}'])
def test_what_is_no_manifest_says_so(tmp_path: Path, content: str) -> None:
    (tmp_path / "torn.json").write_text(content)
    with pytest.raises(M3NodeError, match=r"torn\.json"):
        read_manifest(tmp_path / "torn.json")
    with pytest.raises(M3NodeError, match=r"absent\.json"):
        read_manifest(tmp_path / "absent.json")


def test_a_manifest_holds_no_patient(tmp_path: Path) -> None:
    patient = {"PatientName": "Secret^Wilhelmine", "PatientID": "SECRET-7", "PatientBirthDate": "19010203"}
    hu = np.zeros((3, 8, 8), dtype=np.int16)
    write_ct_series(tmp_path / "ct", hu, axial_geometry(hu.shape, (2.0, 1.0, 1.0)), seed="stacks", attributes=patient)
    text = write_manifest(manifest_of(tmp_path / "ct"), tmp_path).read_text().upper()
    assert "PATIENT_DIGEST" in text
    assert not [value for value in ("SECRET", "WILHELMINE", "19010203") if value in text]
