"""What arrives after the answer makes a new generation only where it changes the answer."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydicom.uid import RLELossless

from keeping import QUIET, Node, changed, liver_seg, second_acquisition
from m3node.evaluation.ct_writer import seeded_uid
from m3node.rejection import Reason
from m3node.settings import EligibilitySettings


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


def test_a_late_slice_makes_the_next_generation_and_the_first_stays(node: Node) -> None:
    files = node.series()
    node.store(*files[:11])
    node.wait(QUIET)
    node.store(files[11])
    node.wait(QUIET)
    first, second = node.manifests
    assert (len(first.slices), len(second.slices)) == (11, 12)
    assert (second.generation, second.supersedes) == (2, first.key)


def test_the_same_instances_again_make_nothing_new(node: Node) -> None:
    files = node.series()
    node.store(*files)
    node.wait(QUIET)
    node.store(*files)
    node.wait(QUIET)
    assert len(node.manifests) == 1


@pytest.mark.parametrize("late_seg", [False, True], ids=["alone", "after a SEG that came late and does not count"])
def test_a_transcoded_revision_is_nothing_new(node: Node, late_seg: bool) -> None:
    files = node.series()
    node.store(*files)
    node.wait(QUIET)
    if late_seg:
        node.store(liver_seg(files))
        node.wait(QUIET)
    rle = changed(files[3], "rle.dcm", lambda ds: ds.compress(RLELossless, generate_instance_uid=False))
    node.store(rle, revision="0a0a0a0a")
    node.wait(QUIET)
    assert len(node.manifests) == 1
    assert node.recorded == []


def test_a_revision_with_other_pixels_makes_the_next_generation(node: Node) -> None:
    files = node.series()
    node.store(*files)
    node.wait(QUIET)
    other = changed(files[3], "other.dcm", lambda ds: setattr(ds, "PixelData", bytes(len(ds.PixelData))))
    node.store(other, revision="0b0b0b0b")
    node.wait(QUIET)
    first, second = node.manifests
    assert (second.generation, second.supersedes) == (2, first.key)
    assert len(second.slices) == 12
    assert sum(header.path.endswith(".r0b0b0b0b.dcm") for header in second.instances) == 1
    node.restart()
    node.wait(QUIET)
    assert len(node.manifests) == 2


def test_a_stack_that_is_not_fit_is_recorded_once_and_heals(node: Node) -> None:
    files = node.series()
    node.store(*files[:5], *files[6:])
    node.wait(QUIET)
    node.restart()
    node.wait(QUIET)
    assert node.manifests == []
    assert node.reasons == [(1, Reason.UNEVEN_SPACING)]
    node.store(files[5])
    node.wait(QUIET)
    (manifest,) = node.manifests
    assert (manifest.generation, manifest.supersedes) == (2, "")
    assert node.reasons == [(1, Reason.UNEVEN_SPACING)]


def test_a_stack_that_is_still_not_fit_when_it_has_grown_is_recorded_anew(node: Node) -> None:
    files = node.series()
    node.store(*files[:3])
    node.wait(QUIET)
    node.store(*files[3:5])
    node.wait(QUIET)
    assert node.reasons == [(1, Reason.TOO_FEW_SLICES), (2, Reason.TOO_FEW_SLICES)]


def test_a_generation_after_an_unfit_one_supersedes_the_last_that_was_answered(node: Node) -> None:
    files = node.series()
    node.store(*files[:9])
    node.wait(QUIET)
    node.store(files[11])
    node.wait(QUIET)
    node.store(files[9], files[10])
    node.wait(QUIET)
    first, third = node.manifests
    assert node.reasons == [(2, Reason.UNEVEN_SPACING)]
    assert (third.generation, third.supersedes) == (3, first.key)


def test_what_was_not_fit_is_judged_again_when_it_is_sent_again(node: Node) -> None:
    files = node.series(slices=3)
    node.store(*files)
    node.wait(QUIET)
    node.store(*files)
    node.wait(QUIET)
    assert node.reasons == [(1, Reason.TOO_FEW_SLICES)], "the settings are the same, and so is the answer"
    node.settings = node.settings.model_copy(update={"eligibility": EligibilitySettings(min_slices=3)})
    node.restart()
    node.wait(QUIET)
    assert node.manifests == [], "other settings alone do not send old series to the archive"
    node.store(files[0])
    node.wait(QUIET)
    (manifest,) = node.manifests
    assert (manifest.generation, manifest.supersedes, len(manifest.slices)) == (2, "", 3)
    node.store(*files)
    node.wait(QUIET)
    assert len(node.manifests) == 1


def test_a_second_stack_that_arrives_late_leaves_the_first_answered(node: Node) -> None:
    first = node.series()
    node.store(*first)
    node.wait(QUIET)
    second = second_acquisition(first)
    node.store(*second)
    node.wait(QUIET)
    one, two = node.manifests
    assert one.stack.stack == ""
    assert (two.generation, two.supersedes) == (1, "")
    assert {header.sop_instance_uid for header in two.instances} == {seeded_uid("second", file.name) for file in first}
    node.restart()
    node.wait(QUIET)
    assert len(node.manifests) == 2


def test_a_stack_that_grows_while_its_series_splits_supersedes_what_it_was(node: Node) -> None:
    first = node.series()
    node.store(*first[:11])
    node.wait(QUIET)
    second = second_acquisition(first)
    node.store(first[11], *second)
    node.wait(QUIET)
    before = next(manifest for manifest in node.manifests if not manifest.stack.stack)
    grown, other = sorted(
        (manifest for manifest in node.manifests if manifest.stack.stack), key=lambda manifest: -manifest.generation
    )
    assert (grown.generation, grown.supersedes, len(grown.slices)) == (2, before.key, 12)
    assert (other.generation, other.supersedes, len(other.slices)) == (1, "", 12)
    node.restart()
    node.wait(QUIET)
    assert len(node.manifests) == 3


@pytest.mark.parametrize("late_seg", [False, True])
def test_a_late_seg_makes_a_generation_only_where_configured(tmp_path: Path, late_seg: bool) -> None:
    node = Node(tmp_path, late_seg=late_seg)
    files = node.series()
    node.store(*files)
    node.wait(QUIET)
    node.store(liver_seg(files))
    node.wait(QUIET)
    node.restart()
    node.wait(QUIET)
    assert [len(manifest.liver_segs) for manifest in node.manifests] == ([0, 1] if late_seg else [0])
