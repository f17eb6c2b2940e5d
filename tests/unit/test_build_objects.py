"""Objects belong to the source's patient and study, name their maker, and are built once."""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.uid import ImplicitVRLittleEndian

from m3node import identity
from m3node.errors import ResultError
from m3node.evaluation.ct_writer import axial_geometry, write_ct_series
from m3node.intake.series.manifest import Manifest
from m3node.notice import NOT_FOR_CLINICAL_USE
from m3node.rejection import Reason, Rejection
from m3node.results.build import DEFAULT_KINDS, build_objects, read_object
from m3node.results.findings import Findings, Outcome
from m3node.results.objects import ObjectKind
from m3node.settings import Settings
from made_findings import made_findings, with_attention, without_liver
from made_manifest import made_manifest, manifest_geometry

GEOMETRY = axial_geometry((8, 24, 40), (2.5, 0.8, 0.7), origin=(-20, -30, 100))

NAMES = {
    "Latin-1": ("ISO_IR 100", "Müller^Jürgen"),
    "Latin-1 with extensions": (["", "ISO 2022 IR 100"], "Müller^Jürgen"),
    "Cyrillic": ("ISO_IR 144", "Люкceмбypг^Иван"),
    "Cyrillic with extensions": (["", "ISO 2022 IR 144"], "Люкceмбypг^Иван"),
    "Japanese": (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎=やまだ^たろう"),
    "Japanese with half-width": (["ISO 2022 IR 13", "ISO 2022 IR 87"], "ﾔﾏﾀﾞ^ﾀﾛｳ=山田^太郎=やまだ^たろう"),
    "Unicode": ("ISO_IR 192", "Wang^XiaoDong=王^小东"),
    "none": (None, "Doe^Jane"),
}


def series(folder: Path, **attributes: Any) -> Manifest:
    hu = np.zeros(GEOMETRY.shape, dtype=np.int16)
    return made_manifest(write_ct_series(folder / "ct", hu, GEOMETRY, seed="build", attributes=attributes))


def findings_of(manifest: Manifest, **changes: Any) -> Findings:
    made = made_findings(manifest_geometry(manifest), manifest_key=manifest.key)
    return replace(with_attention(made), **changes)


@pytest.mark.parametrize("what", NAMES)
def test_names_survive_in_their_character_set(tmp_path: Path, what: str) -> None:
    character_set, name = NAMES[what]
    attributes = {"PatientName": name, "StudyDescription": "Abdomen"}
    manifest = series(tmp_path, SpecificCharacterSet=character_set, **attributes)
    source = pydicom.dcmread(Path(manifest.root) / manifest.instances[0].path)
    for item in build_objects(findings_of(manifest), manifest, tmp_path, Settings(), kinds=list(ObjectKind)):
        ds = pydicom.dcmread(item.path)
        assert ds.get("SpecificCharacterSet") == source.get("SpecificCharacterSet")
        assert str(ds.PatientName) == name
        assert ds.PatientName == source.PatientName


def test_patient_and_study_are_the_sources_own(tmp_path: Path) -> None:
    attributes = {
        "PatientID": "4711",
        "IssuerOfPatientID": "HOSPITAL",
        "PatientBirthDate": "19501231",
        "PatientSex": "F",
        "PatientAge": "075Y",
        "PatientWeight": "71.5",
        "AccessionNumber": "A-17",
        "StudyID": "S1",
        "StudyDescription": "CT Abdomen",
        "ReferringPhysicianName": "House^Gregory",
    }
    manifest = series(tmp_path, **attributes)
    for item in build_objects(findings_of(manifest), manifest, tmp_path, Settings()):
        ds = pydicom.dcmread(item.path)
        for keyword, value in attributes.items():
            assert str(ds[keyword].value) == value, (item.kind, keyword)
        assert ds.StudyInstanceUID == manifest.study_instance_uid
        assert (ds.StudyDate, ds.StudyTime) == ("20260101", "120000")
        assert ds.get("InstitutionName") is None


def test_odd_values_of_the_source_are_copied_and_never_printed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        manifest = series(
            tmp_path, PatientName="SECRETNAME", PatientSex="X", PatientBirthDate="31.12.1950", StudyTime=""
        )
        leave_out(manifest, ("AccessionNumber", "StudyID", "ReferringPhysicianName"))
        caplog.clear()
    with warnings.catch_warnings(record=True) as caught, caplog.at_level(logging.DEBUG):
        warnings.simplefilter("always")
        built = build_objects(findings_of(manifest), manifest, tmp_path, Settings())
    said = caplog.text + "".join(str(item.message) for item in caught) + "".join(capfd.readouterr())
    assert "SECRETNAME" not in said
    assert "1950" not in said
    for item in built:
        ds = pydicom.dcmread(item.path)
        assert str(ds.PatientName) == "SECRETNAME"
        assert (ds.PatientSex, ds.PatientBirthDate, ds.StudyTime) == ("X", "31.12.1950", "")
        assert (ds.AccessionNumber, ds.StudyID, ds.ReferringPhysicianName) == ("", "", "")


def test_values_that_are_nonsense_cost_no_report(tmp_path: Path) -> None:
    manifest = series(tmp_path)
    path = Path(manifest.root) / manifest.instances[0].path
    ds = pydicom.dcmread(path)
    for keyword, value in {"PatientWeight": "abc", "PatientAge": "75 years old", "StudyTime": "half past nine"}.items():
        ds[keyword] = pydicom.DataElement(keyword, "LO", value)
    # Implicit VR names no representation: the reader takes the dictionary's, and the values are not of it.
    ds.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    ds.save_as(path, implicit_vr=True, little_endian=True)
    built = build_objects(findings_of(manifest), manifest, tmp_path, Settings())
    assert [str(pydicom.dcmread(item.path).PatientName) for item in built] == ["Phantom^Abdomen"] * len(DEFAULT_KINDS)


def test_an_attribute_that_cannot_be_decoded_is_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    manifest = series(tmp_path, ExaminedBodyThickness=1.5)
    path = Path(manifest.root) / manifest.instances[0].path
    head = b"\x10\x00\x31\x94"
    assert head + b"FL" in path.read_bytes()
    path.write_bytes(path.read_bytes().replace(head + b"FL", head + b"FD"))
    for item in build_objects(findings_of(manifest), manifest, tmp_path, Settings()):
        assert "ExaminedBodyThickness" not in pydicom.dcmread(item.path)
    assert "(0010,9431)" in caplog.text


def test_a_character_set_that_nobody_knows_costs_no_report(tmp_path: Path) -> None:
    manifest = series(tmp_path)
    path = Path(manifest.root) / manifest.instances[0].path
    path.write_bytes(path.read_bytes().replace(b"ISO_IR 192", b"ISO_IR 999"))
    assert len(build_objects(findings_of(manifest), manifest, tmp_path, Settings())) == len(DEFAULT_KINDS)


def leave_out(manifest: Manifest, keywords: tuple[str, ...]) -> None:
    path = Path(manifest.root) / manifest.instances[0].path
    ds = pydicom.dcmread(path)
    for keyword in keywords:
        del ds[keyword]
    ds.save_as(path)


def test_every_object_names_the_model_the_software_and_the_notice(tmp_path: Path) -> None:
    manifest = series(tmp_path)
    settings = Settings.model_validate({"results": {"series_number_base": 500, "station_name": "NODE1"}})
    numbers = []
    for item in build_objects(findings_of(manifest), manifest, tmp_path, settings, kinds=list(ObjectKind)):
        ds = pydicom.dcmread(item.path)
        makers = [maker for maker in ds.ContributingEquipmentSequence if maker.ManufacturerModelName == "made-up"]
        (maker,) = makers
        assert maker.PurposeOfReferenceCodeSequence[0].CodeValue == "109102"
        assert next(iter(maker.SoftwareVersions)) == "1.2.3"
        assert "made-up-weights" in maker.ContributionDescription
        assert NOT_FOR_CLINICAL_USE in maker.ContributionDescription
        assert "not for clinical use" in ds.SeriesDescription
        if item.kind in {ObjectKind.SEGMENTATION, ObjectKind.PRESENTATION, ObjectKind.ATTENTION_MAP}:
            assert ds.ContentDescription == NOT_FOR_CLINICAL_USE
        assert (ds.Manufacturer, ds.DeviceUID, ds.StationName) == ("m3node", identity.DEVICE_UID, "NODE1")
        assert ds.file_meta.ImplementationClassUID == identity.IMPLEMENTATION_CLASS_UID
        numbers.append(ds.SeriesNumber)
    assert sorted(numbers) == [500, 501, 502, 503, 504, 505, 506, 507]


def test_content_time_is_the_findings_and_in_the_sources_time_zone(tmp_path: Path) -> None:
    manifest = series(tmp_path, TimezoneOffsetFromUTC="-0500")
    for item in build_objects(findings_of(manifest), manifest, tmp_path, Settings()):
        ds = pydicom.dcmread(item.path)
        assert ds.TimezoneOffsetFromUTC == "-0500"
        assert (ds.SeriesDate, ds.SeriesTime) == ("20260303", "230607.250000")
        if item.kind is not ObjectKind.PRESENTATION:
            assert (ds.ContentDate, ds.ContentTime) == ("20260303", "230607.250000")


def test_building_again_keeps_every_file(tmp_path: Path) -> None:
    manifest = series(tmp_path)
    findings = findings_of(manifest)
    first = build_objects(findings, manifest, tmp_path, Settings())
    before = {item.path: (item.path.read_bytes(), item.path.stat().st_mtime_ns) for item in first}
    second = build_objects(findings, manifest, tmp_path, Settings())
    assert second == first
    assert {item.path: (item.path.read_bytes(), item.path.stat().st_mtime_ns) for item in second} == before
    assert [item.kind for item in first] == list(DEFAULT_KINDS)
    assert {item.sha256 for item in first} == {hashlib.sha256(data).hexdigest() for data, _ in before.values()}


def test_an_interrupted_build_goes_on_with_the_missing_objects(tmp_path: Path) -> None:
    manifest = series(tmp_path)
    findings = findings_of(manifest)
    whole = build_objects(findings, manifest, tmp_path / "whole", Settings())
    (tmp_path / "half").mkdir()
    kept = tmp_path / "half" / ObjectKind.SEGMENTATION.file_name
    kept.write_bytes((tmp_path / "whole" / ObjectKind.SEGMENTATION.file_name).read_bytes())
    half = build_objects(findings, manifest, tmp_path / "half", Settings())
    assert [(item.kind, item.sha256) for item in half] == [(item.kind, item.sha256) for item in whole]


def test_a_disk_that_is_full_is_said_and_leaves_no_file_half_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = series(tmp_path)
    synced: list[int] = []

    def full_after_the_first(handle: int) -> None:
        if synced:
            raise OSError(errno.ENOSPC, "No space left on device")
        synced.append(handle)

    with monkeypatch.context() as full:
        full.setattr(os, "fdatasync", full_after_the_first)
        with pytest.raises(ResultError, match=r"cannot write report\.sr\.dcm into .*: No space left"):
            build_objects(findings_of(manifest), manifest, tmp_path / "out", Settings())
    assert [path.name for path in (tmp_path / "out").iterdir()] == [ObjectKind.SEGMENTATION.file_name]
    assert len(build_objects(findings_of(manifest), manifest, tmp_path / "out", Settings())) == len(DEFAULT_KINDS)


def test_enhanced_reports_are_built_only_when_asked_for(tmp_path: Path) -> None:
    manifest = series(tmp_path)
    findings = findings_of(manifest)
    build_objects(findings, manifest, tmp_path / "out", Settings())
    more = build_objects(
        findings, manifest, tmp_path / "out", Settings(), kinds=[*DEFAULT_KINDS, ObjectKind.REPORT_ENHANCED]
    )
    assert [item.kind for item in more] == [*DEFAULT_KINDS, ObjectKind.REPORT_ENHANCED]
    assert read_object(tmp_path / "out", ObjectKind.REPORT_ENHANCED) == more[-1]


def test_without_a_liver_there_is_no_segmentation(tmp_path: Path) -> None:
    manifest = series(tmp_path)
    built = build_objects(without_liver(findings_of(manifest)), manifest, tmp_path, Settings())
    assert [item.kind for item in built] == [kind for kind in DEFAULT_KINDS if kind is not ObjectKind.SEGMENTATION]


def test_a_rejected_stack_gets_no_object(tmp_path: Path) -> None:
    manifest = series(tmp_path)
    rejected = findings_of(
        manifest, outcome=Outcome.REJECTED, lesions=(), region=None, rejection=Rejection(Reason.TILTED, "tilted", "1.2")
    )
    assert build_objects(rejected, manifest, tmp_path / "out", Settings()) == ()
    assert not (tmp_path / "out").exists()


def test_objects_of_other_findings_are_neither_replaced_nor_mixed_with_ours(tmp_path: Path) -> None:
    manifest = series(tmp_path)
    (first,) = build_objects(findings_of(manifest), manifest, tmp_path, Settings(), kinds=[ObjectKind.SEGMENTATION])
    before = first.path.read_bytes()
    other = findings_of(manifest, settings_digest="e" * 64)
    with pytest.raises(ResultError, match="other findings"):
        build_objects(other, manifest, tmp_path, Settings())
    assert first.path.read_bytes() == before
    assert [path.name for path in tmp_path.glob("*.dcm")] == [ObjectKind.SEGMENTATION.file_name]


def test_findings_of_another_generation_are_refused(tmp_path: Path) -> None:
    manifest = series(tmp_path)
    with pytest.raises(ResultError, match="cannot be reported"):
        build_objects(findings_of(manifest, manifest_key="f" * 64), manifest, tmp_path, Settings())


def test_a_source_without_frame_of_reference_is_refused_with_what_to_do(tmp_path: Path) -> None:
    manifest = series(tmp_path)
    blind = replace(manifest, instances=tuple(replace(item, frame_of_reference_uid="") for item in manifest.instances))
    with pytest.raises(ResultError, match=r"\(0020,0052\).*send the series again"):
        build_objects(findings_of(manifest), blind, tmp_path, Settings())


def test_a_source_that_is_gone_is_refused(tmp_path: Path) -> None:
    manifest = series(tmp_path)
    (Path(manifest.root) / manifest.instances[0].path).unlink()
    with pytest.raises(ResultError, match="purged"):
        build_objects(findings_of(manifest), manifest, tmp_path, Settings())
