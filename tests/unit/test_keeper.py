"""The keeper answers each series once, whatever order, repetition or crash it arrives with."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import RLELossless, SegmentationStorage, XRayRadiationDoseSRStorage

from m3node.errors import InputRejected
from m3node.evaluation.ct_writer import axial_geometry, seeded_uid, write_ct_series
from m3node.identity import DEVICE_UID
from m3node.imaging.digest import content_digest
from m3node.intake.keeper.keeper import READ_TRIES, RETRY_SECONDS, Keeper
from m3node.intake.receive.association import OpenLease
from m3node.intake.series.header import InstanceHeader
from m3node.intake.series.manifest import Manifest, StackKey, read_manifest
from m3node.intake.series.reading import read_header
from m3node.intake.series.stacks import Stack
from m3node.layout import DataLayout
from m3node.rejection import Reason, Rejection
from m3node.settings import Caller, CompletenessSettings, EligibilitySettings, ListenerSettings, Settings

QUIET = 10.0
CALLERS = (
    Caller(ae_title="HASTY", quiet_seconds=2.0),
    Caller(ae_title="CONTOURS", wait_for_seg_seconds=60.0),
)


class Node:
    """A data folder with a keeper, receivers played by hand and a clock that stands still until told."""

    def __init__(self, root: Path, *, late_seg: bool = False) -> None:
        self.layout = DataLayout(root)
        self.layout.create()
        self.now = 1000.0
        self.mtime = 1_700_000_000.0
        self.recorded: list[tuple[StackKey, int, str, Rejection]] = []
        self.settings = Settings(
            data_dir=root,
            listener=ListenerSettings(callers=CALLERS),
            completeness=CompletenessSettings(quiet_seconds=QUIET, late_seg_makes_generation=late_seg),
        )
        self.leases: dict[str, OpenLease] = {}
        self.restart()

    def restart(self) -> None:
        """As after kill -9: nothing but the files is left."""
        self.keeper = Keeper(self.settings, record=self._record, content_digest=content_digest, clock=lambda: self.now)
        self.keeper.rescan()

    def _record(self, key: StackKey, generation: int, digest: str, rejection: Rejection) -> None:
        self.recorded.append((key, generation, digest, rejection))

    def spool(self, source: Path, *, sender: str = "PACS", revision: str = "") -> tuple[str, str]:
        """Put a file where a receiver puts it; return its path below the data folder and the status."""
        ds = pydicom.dcmread(source)
        folder = self.layout.spool / ds.StudyInstanceUID / ds.SeriesInstanceUID
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{ds.SOPInstanceUID}{'.r' + revision if revision else ''}.dcm"
        status = "duplicate" if path.exists() else "revision" if revision else "new"
        ds.file_meta.SourceApplicationEntityTitle = sender
        ds.save_as(path)
        self.mtime += 0.1
        os.utime(path, (self.mtime, self.mtime))
        return path.relative_to(self.layout.root).as_posix(), status

    def store(self, *sources: Path, sender: str = "PACS", revision: str = "", close: bool = True) -> None:
        """Receive files over one association."""
        lease = self.leases.get(sender)
        if lease is None:
            lease = OpenLease(self.layout.associations, calling=sender, called="M3NODE", peer="127.0.0.1")
            self.leases[sender] = lease
        for source in sources:
            lease.append(*self.spool(source, sender=sender, revision=revision))
        if close:
            self.close(sender)

    def close(self, sender: str = "PACS") -> None:
        self.leases.pop(sender).close()

    def wait(self, seconds: float) -> None:
        """Let time pass, looking at either end of it."""
        self.keeper.step()
        self.now += seconds
        self.keeper.step()

    @property
    def manifests(self) -> list[Manifest]:
        found = [read_manifest(path) for path in self.layout.manifests.iterdir()]
        return sorted(found, key=lambda manifest: (manifest.stack, manifest.generation))

    def manifests_of(self, seed: int) -> int:
        return sum(item.stack.series_instance_uid == seeded_uid(seed, "series") for item in self.manifests)

    @property
    def reasons(self) -> list[tuple[int, Reason]]:
        return [(generation, rejection.reason) for _, generation, _, rejection in self.recorded]


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path / "data")


Series = Callable[..., tuple[Path, ...]]


@pytest.fixture
def series(tmp_path: Path) -> Series:
    """Write a CT series of 12 small slices to be sent."""

    def write(seed: object = 1, slices: int = 12, **attributes: Any) -> tuple[Path, ...]:
        shape = (slices, 16, 16)
        hu = np.random.default_rng(7).integers(-100, 200, shape)
        folder = tmp_path / "sent" / f"{seed}-{len(list(tmp_path.iterdir()))}-{slices}-{'-'.join(attributes)}"
        return write_ct_series(folder, hu, axial_geometry(shape, (2.0, 0.8, 0.8)), seed=seed, attributes=attributes)

    return write


def changed(source: Path, name: str, change: Callable[[Dataset], object]) -> Path:
    """A copy of a file with something changed in it."""
    ds = pydicom.dcmread(source)
    change(ds)
    path = source.with_name(name)
    ds.save_as(path)
    return path


def second_acquisition(first: Sequence[Path]) -> list[Path]:
    """The same slices once more, as another acquisition of the same series."""

    def of(file: Path) -> Path:
        values = {"SOPInstanceUID": seeded_uid("second", file.name), "AcquisitionNumber": 2}
        return changed(file, f"second-{file.name}", lambda ds: ds.update(values))

    return [of(file) for file in first]


def test_a_series_has_a_manifest_after_the_quiet_period_and_not_before(node: Node, series: Series) -> None:
    node.store(*series())
    node.wait(QUIET - 0.1)
    assert node.manifests == []
    node.wait(0.2)
    (manifest,) = node.manifests
    assert (manifest.generation, manifest.supersedes, len(manifest.slices)) == (1, "", 12)
    assert manifest.senders == ("PACS",)
    assert (Path(manifest.root) / manifest.instances[0].path).is_file()
    assert node.keeper.waiting == frozenset()


def test_each_arrival_starts_the_quiet_period_again(node: Node, series: Series) -> None:
    files = series()
    for file in files:
        node.store(file)
        node.wait(QUIET - 1)
        assert node.manifests == []
    node.wait(1)
    assert len(node.manifests[0].slices) == 12


def test_a_live_association_holds_the_series_open_that_it_stored_last(node: Node, series: Series) -> None:
    first, second = series(1), series(2)
    node.store(*first, *second, close=False)
    node.wait(QUIET + 1)
    assert [manifest.stack.series_instance_uid for manifest in node.manifests] == [seeded_uid(1, "series")]
    node.wait(10 * QUIET)
    assert len(node.manifests) == 1
    node.close()
    node.wait(QUIET - 0.1)
    assert len(node.manifests) == 1
    node.wait(0.2)
    assert len(node.manifests) == 2


def test_the_association_of_a_killed_receiver_holds_nothing_open(node: Node, series: Series) -> None:
    node.store(*series(), close=False)
    lease = node.leases["PACS"].path
    lines = lease.read_text().splitlines()
    first = json.loads(lines[0])
    first["started"] = "1"  # the process id belongs to another process now
    lease.write_text("\n".join([json.dumps(first), *lines[1:]]) + "\n")
    node.wait(QUIET + 1)
    assert len(node.manifests) == 1
    assert list(node.layout.associations.iterdir()) == []


def test_leases_are_removed_once_they_are_closed_and_read(node: Node, series: Series) -> None:
    node.store(*series(1), close=False)
    node.store(*series(2), sender="HASTY")
    node.wait(0)
    assert [path.stem for path in node.layout.associations.iterdir()] == [node.leases["PACS"].id]


def test_a_sender_may_have_its_own_quiet_period(node: Node, series: Series) -> None:
    node.store(*series(1), sender="HASTY")
    node.store(*series(2), sender="PACS")
    node.wait(2.5)
    assert [manifest.senders for manifest in node.manifests] == [("HASTY",)]


def test_a_late_slice_makes_the_next_generation_and_the_first_stays(node: Node, series: Series) -> None:
    files = series()
    node.store(*files[:11])
    node.wait(QUIET)
    node.store(files[11])
    node.wait(QUIET)
    first, second = node.manifests
    assert (len(first.slices), len(second.slices)) == (11, 12)
    assert (second.generation, second.supersedes) == (2, first.key)


def test_the_same_instances_again_make_nothing_new(node: Node, series: Series) -> None:
    files = series()
    node.store(*files)
    node.wait(QUIET)
    node.store(*files)
    node.wait(QUIET)
    assert len(node.manifests) == 1


@pytest.mark.parametrize("settled", [True, False], ids=["after the answer", "between answer and memory of it"])
def test_a_restart_makes_nothing_new(node: Node, series: Series, settled: bool) -> None:
    node.store(*series())
    node.wait(QUIET)
    before = node.manifests
    if not settled:
        index = node.layout.index / f"{seeded_uid(1, 'series')}.jsonl"
        index.write_text("".join(index.read_text().splitlines(keepends=True)[:-1]))
    node.restart()
    assert bool(node.keeper.waiting) is not settled
    node.wait(QUIET)
    assert node.manifests == before


@pytest.mark.parametrize("index", ["kept", "torn", "lost"])
def test_after_a_crash_the_spool_is_enough(node: Node, series: Series, index: str) -> None:
    node.store(*series())
    node.wait(1)
    path = node.layout.index / f"{seeded_uid(1, 'series')}.jsonl"
    if index == "torn":
        path.write_bytes(path.read_bytes()[:-100])
    if index == "lost":
        path.unlink()
    shutil.rmtree(node.layout.associations)
    node.layout.associations.mkdir()
    node.restart()
    node.wait(QUIET - 0.1)
    assert node.manifests == [], "senders have their time again after a restart"
    node.wait(0.2)
    assert len(node.manifests[0].slices) == 12


def test_an_index_lost_after_the_answer_makes_nothing_new(node: Node, series: Series) -> None:
    node.store(*series())
    node.wait(QUIET)
    for path in node.layout.index.iterdir():
        path.unlink()
    node.restart()
    node.wait(QUIET)
    assert len(node.manifests) == 1


def test_a_transcoded_revision_is_nothing_new(node: Node, series: Series) -> None:
    files = series()
    node.store(*files)
    node.wait(QUIET)
    rle = changed(files[3], "rle.dcm", lambda ds: ds.compress(RLELossless, generate_instance_uid=False))
    node.store(rle, revision="0a0a0a0a")
    node.wait(QUIET)
    assert len(node.manifests) == 1
    assert node.recorded == []


def test_a_revision_with_other_pixels_makes_the_next_generation(node: Node, series: Series) -> None:
    files = series()
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


def test_a_stack_that_is_not_fit_is_recorded_once_and_heals(node: Node, series: Series) -> None:
    files = series()
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


def test_a_generation_after_an_unfit_one_supersedes_the_last_that_was_answered(node: Node, series: Series) -> None:
    files = series()
    node.store(*files[:9])
    node.wait(QUIET)
    node.store(files[11])
    node.wait(QUIET)
    node.store(files[9], files[10])
    node.wait(QUIET)
    first, third = node.manifests
    assert node.reasons == [(2, Reason.UNEVEN_SPACING)]
    assert (third.generation, third.supersedes) == (3, first.key)


def test_what_was_not_fit_is_judged_again_when_it_is_sent_again(node: Node, series: Series) -> None:
    files = series(slices=3)
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


def _no_handles() -> InputRejected:
    """What reading makes of an open that fails."""
    error = InputRejected(Reason.UNREADABLE, "cannot be read: Too many open files")
    error.__cause__ = OSError(24, "Too many open files")
    return error


@pytest.mark.parametrize("error", [OSError(5, "Input/output error"), _no_handles()], ids=["disk", "handles"])
@pytest.mark.parametrize("tries", [1, READ_TRIES], ids=["a moment", "for long"])
def test_a_file_that_the_disk_refuses_is_read_again_and_costs_only_its_own_series(
    node: Node, series: Series, monkeypatch: pytest.MonkeyPatch, error: Exception, tries: int
) -> None:
    bad, good = series(1), series(2)
    refused: list[Path] = []

    def read(path: Path, root: Path, *, received_at: float) -> InstanceHeader:
        if path.parent.name == seeded_uid(1, "series"):
            refused.append(path)
            raise error
        return read_header(path, root, received_at=received_at)

    with monkeypatch.context() as broken:
        broken.setattr("m3node.intake.keeper.keeper.read_header", read)
        node.store(*bad, *good)
        for _ in range(tries):
            node.wait(QUIET + RETRY_SECONDS)
    assert len(refused) == len(bad) * max(2, tries)
    assert node.manifests_of(2) == 1
    assert (node.manifests_of(1), node.recorded) == (0, [])
    if tries == READ_TRIES:
        assert node.keeper.waiting == frozenset()
        node.restart()
    node.wait(QUIET + RETRY_SECONDS)
    assert node.manifests_of(1) == 1


def test_a_file_that_breaks_the_reader_costs_only_its_own_series(
    node: Node, series: Series, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(path: Path, root: Path, *, received_at: float) -> InstanceHeader:
        if path.parent.name == seeded_uid(1, "series"):
            raise ZeroDivisionError("PATIENT^NAME")
        return read_header(path, root, received_at=received_at)

    monkeypatch.setattr("m3node.intake.keeper.keeper.read_header", read)
    node.store(*series(1), *series(2))
    node.wait(QUIET)
    assert (node.manifests_of(1), node.manifests_of(2)) == (0, 1)
    assert node.reasons == [(0, Reason.UNREADABLE)]
    assert "PATIENT" not in node.recorded[0][3].message


def test_a_second_stack_that_arrives_late_leaves_the_first_answered(node: Node, series: Series) -> None:
    first = series()
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


def test_a_stack_that_grows_while_its_series_splits_supersedes_what_it_was(node: Node, series: Series) -> None:
    first = series()
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


def test_the_same_series_in_another_study_is_refused_whole(node: Node, series: Series) -> None:
    files = series()
    moved = [
        changed(
            file,
            f"moved-{file.name}",
            lambda ds, file=file: ds.update(
                {"StudyInstanceUID": seeded_uid("moved"), "SOPInstanceUID": seeded_uid("moved", file.name)}
            ),
        )
        for file in files[6:]
    ]
    node.store(*files[:6], *moved)
    node.wait(QUIET)
    assert node.manifests == []
    assert node.reasons == [(1, Reason.MIXED_STUDIES)]


def test_a_file_that_left_the_spool_before_it_was_read_is_passed_over(node: Node, series: Series) -> None:
    files = series()
    node.store(*files, close=False)
    path, _ = node.spool(files[5])
    (node.layout.root / path).unlink()
    node.close()
    node.wait(QUIET)
    assert node.reasons == [(1, Reason.UNEVEN_SPACING)]


def test_a_judge_that_fails_costs_only_its_own_series(
    node: Node, series: Series, monkeypatch: pytest.MonkeyPatch
) -> None:
    def judge(stack: Stack, settings: object) -> None:
        if stack.key.series_instance_uid == seeded_uid(1, "series"):
            raise ZeroDivisionError("PATIENT^NAME")

    monkeypatch.setattr("m3node.intake.keeper.answering.judge", judge)
    node.store(*series(1), *series(2))
    node.wait(QUIET)
    assert [manifest.stack.series_instance_uid for manifest in node.manifests] == [seeded_uid(2, "series")]
    ((key, generation, _, rejection),) = node.recorded
    assert (key.series_instance_uid, generation, rejection.reason) == (seeded_uid(1, "series"), 0, Reason.FAILED)
    assert "PATIENT" not in rejection.message


def test_our_own_object_that_comes_back_starts_nothing(node: Node, series: Series) -> None:
    files = series()
    node.store(*files)
    node.wait(QUIET)
    seg = liver_seg(files, files[0].with_name("own.dcm"), DeviceUID=DEVICE_UID)
    node.store(seg)
    node.wait(QUIET)
    assert len(node.manifests) == 1
    assert node.recorded == []
    assert node.keeper.waiting == frozenset()


def test_our_own_object_is_known_by_its_uid_when_the_archive_dropped_the_device(node: Node, series: Series) -> None:
    files = series()
    node.store(*files)
    node.wait(QUIET)
    seg = liver_seg(files, files[0].with_name("own.dcm"))
    run = node.layout.results / f"{seeded_uid(1, 'series')}.g1"
    run.mkdir()
    torn = node.layout.results / "1.2.g1"
    torn.mkdir()
    (torn / "run.json").write_text("{")
    (node.layout.manifests / "1.2.g1.json").write_text("{}")
    (run / "run.json").write_text(json.dumps({"objects": [{"sop_instance_uid": seeded_uid("seg")}]}))
    node.store(seg)
    node.wait(QUIET)
    index = node.layout.index / f"{seeded_uid('seg', 'series')}.jsonl"
    assert json.loads(index.read_text().splitlines()[0]).keys() == {"own"}
    assert (len(list(node.layout.manifests.iterdir())), node.recorded) == (2, [])


def test_a_sender_may_be_waited_for_until_its_seg_arrives(node: Node, series: Series) -> None:
    files = series()
    node.store(*files, sender="CONTOURS")
    node.wait(QUIET + 30)
    assert node.manifests == []
    node.store(liver_seg(files, files[0].with_name("seg.dcm")), sender="CONTOURS")
    node.wait(0)
    (manifest,) = node.manifests
    assert [seg.sop_instance_uid for seg in manifest.liver_segs] == [seeded_uid("seg")]


def test_a_seg_is_not_waited_for_longer_than_set(node: Node, series: Series) -> None:
    node.store(*series(), sender="CONTOURS")
    node.wait(QUIET + 60)
    assert node.manifests[0].liver_segs == ()


def test_a_seg_that_arrives_first_is_used(node: Node, series: Series) -> None:
    files = series()
    node.store(liver_seg(files, files[0].with_name("seg.dcm")))
    node.wait(QUIET)
    node.store(*files)
    node.wait(QUIET)
    assert len(node.manifests[0].liver_segs) == 1
    assert node.recorded == []


@pytest.mark.parametrize("late_seg", [False, True])
def test_a_late_seg_makes_a_generation_only_where_configured(tmp_path: Path, series: Series, late_seg: bool) -> None:
    node = Node(tmp_path / "data", late_seg=late_seg)
    files = series()
    node.store(*files)
    node.wait(QUIET)
    node.store(liver_seg(files, files[0].with_name("seg.dcm")))
    node.wait(QUIET)
    node.restart()
    node.wait(QUIET)
    assert [len(manifest.liver_segs) for manifest in node.manifests] == ([0, 1] if late_seg else [0])


def test_a_seg_without_a_liver_is_recorded_and_not_used(node: Node, series: Series) -> None:
    files = series()
    node.store(*files, liver_seg(files, files[0].with_name("seg.dcm"), code=("SCT", "64033007")))
    node.wait(QUIET)
    assert node.manifests[0].liver_segs == ()
    assert node.reasons == [(0, Reason.NOT_CT)]


def test_an_object_that_is_no_ct_and_a_file_that_cannot_be_read_get_a_reason(node: Node, series: Series) -> None:
    files = series()
    dose = changed(files[0], "dose.dcm", lambda ds: ds.update({"SOPClassUID": XRayRadiationDoseSRStorage}))
    node.store(dose)
    path, status = node.spool(files[1])
    (node.layout.root / path).write_bytes(b"\0" * 128 + b"DICM" + b"\xff" * 50)
    lease = OpenLease(node.layout.associations, calling="PACS", called="M3NODE", peer="127.0.0.1")
    lease.append(path, status)
    lease.close()
    node.wait(QUIET)
    assert node.manifests == []
    assert {generation for generation, _ in node.reasons} == {0}
    assert {reason for _, reason in node.reasons} >= {Reason.NOT_CT}
    assert len(node.reasons) == 2


def test_nothing_of_a_patient_is_in_any_reason(node: Node, series: Series) -> None:
    node.store(*series(PatientID="SECRET", PatientName="SECRET^NAME", slices=3))
    node.wait(QUIET)
    ((_, _, _, rejection),) = node.recorded
    assert rejection.reason is Reason.TOO_FEW_SLICES
    assert "SECRET" not in rejection.message


def test_a_full_disk_postpones_the_answer(node: Node, series: Series, monkeypatch: pytest.MonkeyPatch) -> None:
    node.store(*series())
    with monkeypatch.context() as full:
        full.setattr("m3node.intake.keeper.answering.write_manifest", _no_space)
        node.wait(QUIET)
    assert node.manifests == []
    node.wait(2 * QUIET)
    assert len(node.manifests) == 1
    assert node.recorded == []


def _no_space(*_: object) -> Path:
    raise OSError(28, "No space left on device")


def liver_seg(
    files: tuple[Path, ...], path: Path, code: tuple[str, str] = ("SCT", "10200004"), **attributes: Any
) -> Path:
    """The parts of a SEG that say what it is about."""
    source = pydicom.dcmread(files[0])
    kind = Dataset()
    kind.CodingSchemeDesignator, kind.CodeValue, kind.CodeMeaning = *code, "x"
    segment = Dataset()
    segment.SegmentNumber = 1
    segment.SegmentedPropertyTypeCodeSequence = [kind]
    referenced = Dataset()
    referenced.SeriesInstanceUID = source.SeriesInstanceUID

    def change(ds: Dataset) -> None:
        ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = SegmentationStorage
        ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = seeded_uid("seg")
        ds.SeriesInstanceUID = seeded_uid("seg", "series")
        ds.Modality = "SEG"
        ds.SegmentSequence = [segment]
        ds.ReferencedSeriesSequence = [referenced]
        for keyword, value in attributes.items():
            setattr(ds, keyword, value)

    return changed(files[0], path.name, change)
