"""What a person hands over is surveyed whole: every stack is answered or has a reason, and no archive does harm."""

from __future__ import annotations

import os
import shutil
import stat
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest

from keeping import liver_seg
from m3node.errors import InputRejected
from m3node.evaluation.ct_writer import axial_geometry, write_ct_series
from m3node.identity import DEVICE_UID
from m3node.intake.folder import archive
from m3node.intake.folder.inputs import Survey, open_input, survey
from m3node.rejection import Reason, Rejection
from m3node.settings import EligibilitySettings, SelectionRule, SelectionSettings, Settings

LENIENT = Settings(eligibility=EligibilitySettings(min_slices=3))
BYTES, MEMBERS = 10_000_000, 1000


@pytest.fixture
def series(tmp_path: Path) -> Path:
    shape = (10, 8, 8)
    write_ct_series(tmp_path / "in" / "ct", np.zeros(shape, np.int16), axial_geometry(shape, (2.0, 0.7, 0.7)), seed="s")
    return tmp_path / "in"


def reasons(found: Survey) -> list[Reason]:
    return sorted(rejection.reason for _, rejection in found.rejections)


def open_zip(path: Path, *, max_bytes: int = BYTES, max_members: int = MEMBERS) -> list[str]:
    with open_input(path, max_unpacked_bytes=max_bytes, max_members=max_members) as root:
        return sorted(p.relative_to(root).as_posix() for p in root.rglob("*") if p.is_file())


def refused(path: Path, *, max_bytes: int = BYTES, max_members: int = MEMBERS) -> tuple[Reason, str]:
    with pytest.raises(InputRejected) as caught:
        open_zip(path, max_bytes=max_bytes, max_members=max_members)
    return caught.value.reason, caught.value.message


def make_zip(path: Path, members: dict[str, bytes], *, mode: int = 0o100644) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as made:
        for name, content in members.items():
            info = zipfile.ZipInfo(name)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = mode << 16
            made.writestr(info, content)
    return path


def test_a_folder_is_used_where_it_lies(series: Path) -> None:
    with open_input(series, max_unpacked_bytes=BYTES, max_members=MEMBERS) as root:
        (manifest,) = survey(root, Settings()).manifests
    assert root == series
    assert manifest.root == str(series)
    assert len(manifest.slices) == 10


def test_a_zip_gives_what_its_folder_gives_and_leaves_nothing_behind(series: Path, tmp_path: Path) -> None:
    packed = Path(shutil.make_archive(str(tmp_path / "packed"), "zip", series))
    with open_input(packed, max_unpacked_bytes=BYTES, max_members=MEMBERS) as root:
        (zipped,) = survey(root, Settings()).manifests
    (plain,) = survey(series, Settings()).manifests
    assert zipped.key == plain.key
    assert not root.exists()


def test_a_single_file_is_an_input(test_data: Path) -> None:
    path = test_data / "ct_liver_3slice" / "01.dcm"
    with open_input(path, max_unpacked_bytes=BYTES, max_members=MEMBERS) as root:
        found = survey(root, Settings())
    assert reasons(found) == [Reason.TOO_FEW_SLICES]
    assert "it has 1 slice and at least 8 are needed" in found.rejections[0][1].message


def test_a_file_that_only_begins_like_a_zip_is_read_as_what_it_is(tmp_path: Path) -> None:
    path = tmp_path / "begins.dcm"
    path.write_bytes(b"PK" + bytes(200))
    with open_input(path, max_unpacked_bytes=BYTES, max_members=MEMBERS) as root:
        assert reasons(survey(root, Settings())) == [Reason.NOT_DICOM]


def test_an_absent_input_says_so(tmp_path: Path) -> None:
    assert refused(tmp_path / "absent")[0] is Reason.UNREADABLE


def test_an_empty_folder_says_so(tmp_path: Path) -> None:
    assert reasons(survey(tmp_path, Settings())) == [Reason.NOT_DICOM]


@pytest.mark.parametrize(
    "name", ["../out.dcm", "a/../../out.dcm", "/etc/out.dcm", "..\\out.dcm", "C:/out.dcm", "C:\\out.dcm"]
)
def test_names_that_lead_out_of_a_zip_are_refused(tmp_path: Path, name: str) -> None:
    packed = make_zip(tmp_path / "evil.zip", {"good.dcm": b"x", name: b"x"})
    reason, message = refused(packed)
    assert reason is Reason.UNSAFE_ARCHIVE
    assert message == "evil.zip is not unpacked: file 2 has a name that leads out of it"
    assert [p.name for p in tmp_path.iterdir()] == ["evil.zip"]


def test_links_in_a_zip_are_refused(tmp_path: Path) -> None:
    packed = make_zip(tmp_path / "link.zip", {"etc": b"/etc"}, mode=stat.S_IFLNK | 0o777)
    assert refused(packed) == (Reason.UNSAFE_ARCHIVE, "link.zip is not unpacked: file 1 is a link")


def test_too_many_members_are_refused(tmp_path: Path) -> None:
    packed = make_zip(tmp_path / "many.zip", {f"{k}": b"" for k in range(11)})
    assert refused(packed, max_members=10)[0] is Reason.UNSAFE_ARCHIVE
    assert len(open_zip(packed, max_members=11)) == 11


def test_too_many_bytes_are_refused(tmp_path: Path) -> None:
    packed = make_zip(tmp_path / "big.zip", {"a": bytes(600), "b": bytes(600)})
    assert refused(packed, max_bytes=1199) == (
        Reason.UNSAFE_ARCHIVE,
        "big.zip is not unpacked: it unpacks to 1200 bytes, and 1199 are the limit",
    )
    assert open_zip(packed, max_bytes=1200) == ["a", "b"]


def test_a_zip_that_the_disk_has_no_room_for_is_not_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packed = make_zip(tmp_path / "big.zip", {"a": bytes(600), "b": bytes(600)})
    monkeypatch.setattr(archive.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10_000, 8801, 1199))
    assert refused(packed) == (Reason.UNREADABLE, "there is no room on the disk to unpack big.zip")


def test_a_member_that_holds_more_than_it_announces_is_refused(tmp_path: Path) -> None:
    packed = make_zip(tmp_path / "liar.zip", {"a": bytes(1_000_000)})
    content = packed.read_bytes().replace((1_000_000).to_bytes(4, "little"), (100).to_bytes(4, "little"))
    packed.write_bytes(content)
    assert refused(packed, max_bytes=1000) == (
        Reason.UNREADABLE,
        "liar.zip is a damaged or unusual ZIP: pack it again",
    )


def test_a_bomb_is_known_by_its_ratio(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packed = make_zip(tmp_path / "bomb.zip", {"a": bytes(5_000_000)})
    assert open_zip(packed) == ["a"]
    monkeypatch.setattr(archive, "RATIO_MATTERS_FROM", 1_000_000)
    assert refused(packed) == (
        Reason.UNSAFE_ARCHIVE,
        "bomb.zip is not unpacked: it unpacks to more than 250 times its size",
    )


def test_two_members_of_one_name_are_refused(tmp_path: Path) -> None:
    packed = tmp_path / "twice.zip"
    with zipfile.ZipFile(packed, "w") as made:
        made.writestr("a", b"1")
        with pytest.warns(UserWarning, match="Duplicate name"):
            made.writestr("a", b"2")
    assert refused(packed)[0] is Reason.UNSAFE_ARCHIVE


def test_damaged_and_encrypted_zips_are_unreadable(tmp_path: Path) -> None:
    packed = make_zip(tmp_path / "damaged.zip", {"a": os.urandom(1000)})
    content = packed.read_bytes()
    packed.write_bytes(content[:60] + bytes(200) + content[260:])
    assert refused(packed)[0] is Reason.UNREADABLE
    locked = make_zip(tmp_path / "locked.zip", {"a": b"secret"})
    content = bytearray(locked.read_bytes())
    content[6] |= 1
    content[content.index(b"PK\x01\x02") + 8] |= 1
    locked.write_bytes(content)
    assert refused(locked) == (Reason.UNREADABLE, "locked.zip is encrypted; pack it without a password")


def test_everything_odd_has_a_reason(test_data: Path) -> None:
    folder = test_data / "odd_dicom"
    found = survey(folder, Settings())
    assert found.manifests == ()
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert len(found.rejections) == len(files)
    count = {reason: reasons(found).count(reason) for reason in reasons(found)}
    assert count == {
        Reason.DICOMDIR: 3,
        Reason.INVALID_UID: 1,
        Reason.MISSING_UID: 3,
        Reason.LOCALIZER: 1,
        Reason.TOO_FEW_SLICES: 1,
        Reason.NOT_CT: len(files) - 9,
    }


@pytest.mark.parametrize(
    ("folder", "expected"),
    [
        ("ct_head_tilted", [Reason.TILTED]),
        ("ct_enhanced", [Reason.DERIVED, Reason.TOO_FEW_SLICES]),
        ("ct_liver_3slice", [Reason.TOO_FEW_SLICES]),
        ("nifti", [Reason.NOT_DICOM] * 3),
    ],
)
def test_what_is_not_fit_has_its_reason(test_data: Path, folder: str, expected: list[Reason]) -> None:
    found = survey(test_data / folder, Settings())
    assert (found.manifests, reasons(found)) == ((), expected)


def test_fit_series_are_answered(test_data: Path) -> None:
    assert [len(m.slices) for m in survey(test_data / "ct_liver_j2k", Settings()).manifests] == [20]
    assert [len(m.slices) for m in survey(test_data / "ct_liver_3slice", LENIENT).manifests] == [3]
    assert [len(m.slices) for m in survey(test_data / "ct_enhanced", LENIENT).manifests] == [3]


def test_a_liver_seg_is_attached_to_the_series_it_references(test_data: Path, tmp_path: Path) -> None:
    shutil.copytree(test_data / "ct_liver_3slice", tmp_path / "ct")
    shutil.copy(test_data / "ct_liver_3slice_seg" / "liver.dcm", tmp_path / "seg.dcm")
    (manifest,) = survey(tmp_path, LENIENT).manifests
    assert [seg.path for seg in manifest.liver_segs] == ["seg.dcm"]
    found = survey(test_data / "ct_liver_3slice_seg", LENIENT)
    assert found.manifests == ()
    assert reasons(found) == [Reason.NOT_CT] + [Reason.NOT_DICOM] * 4


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"code": ("SCT", "64033007")}, "has no segment that is coded as liver"),
        ({"ReferencedSeriesSequence": []}, "references no series that is analysed here"),
    ],
    ids=["of the kidney", "of no series"],
)
def test_a_seg_that_is_no_liver_of_the_series_is_recorded_and_not_used(
    series: Path, changed: dict[str, Any], says: str
) -> None:
    seg = liver_seg([series / "ct" / "0000.dcm"], **changed)
    found = survey(series, Settings())
    assert [manifest.liver_segs for manifest in found.manifests] == [()]
    uid = pydicom.dcmread(seg).SOPInstanceUID
    assert found.rejections == ((None, Rejection(Reason.NOT_CT, f"segmentation {uid} {says}", uid)),)


def test_our_own_objects_are_never_input(series: Path) -> None:
    for path in (series / "ct").iterdir():
        ds = pydicom.dcmread(path)
        ds.DeviceUID = DEVICE_UID
        ds.save_as(path)
    found = survey(series, Settings())
    assert found.manifests == ()
    assert set(reasons(found)) == {Reason.OWN_OBJECT}


def test_the_newest_of_two_revisions_is_used_and_the_other_recorded(series: Path) -> None:
    newer = series / "again.dcm"
    ds = pydicom.dcmread(series / "ct" / "0003.dcm")
    ds.RescaleIntercept = "-1000"
    ds.save_as(newer)
    os.utime(newer, (2e9, 2e9))
    shutil.copy(series / "ct" / "0004.dcm", series / "copy.dcm")
    found = survey(series, Settings())
    (manifest,) = found.manifests
    assert "again.dcm" in {header.path for header in manifest.instances}
    assert len(manifest.slices) == 10
    ((key, rejection),) = found.rejections
    assert key is None
    assert rejection.subject == ds.SOPInstanceUID
    assert "2 times with different content; the newest file is used" in rejection.message


def test_stacks_that_are_not_selected_have_their_reason_also_in_the_log(
    series: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rules = (SelectionRule(action="refuse", kernel="b30"),)
    with caplog.at_level("INFO"):
        found = survey(series, Settings(selection=SelectionSettings(rules=rules)))
    ((key, rejection),) = found.rejections
    assert key is not None
    assert (rejection.reason, rejection.subject) == (Reason.NOT_SELECTED, key.label)
    assert f"not used (not-selected): {rejection.message}" in caplog.text


def test_a_pipe_is_passed_over(series: Path) -> None:
    os.mkfifo(series / "pipe")
    found = survey(series, Settings())
    assert (len(found.manifests), found.rejections) == (1, ())


def test_progress_counts_every_file(series: Path) -> None:
    told: list[tuple[str, int, int]] = []
    survey(series, Settings(), progress=lambda *args: told.append(args))
    assert [(done, total) for _, done, total in told] == [(k, 10) for k in range(1, 11)]


def test_a_file_named_after_a_patient_is_in_the_record_and_not_in_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "DOE^JANE"
    folder.mkdir()
    (folder / "DOE_JANE_19700101.txt").write_text("no DICOM")
    with caplog.at_level("DEBUG"):
        found = survey(tmp_path, Settings())
    ((_, rejection),) = found.rejections
    assert rejection.subject == "DOE^JANE/DOE_JANE_19700101.txt"
    assert "not used (not-dicom)" in caplog.text
    assert "DOE" not in caplog.text
