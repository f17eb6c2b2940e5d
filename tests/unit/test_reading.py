"""Headers are read once, of whatever hospitals send, and never with a traceback or a patient's name."""

from __future__ import annotations

import io
import logging
import warnings
import zlib
from pathlib import Path

import numpy as np
import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.errors import BytesLengthException
from pydicom.uid import DeflatedExplicitVRLittleEndian, EnhancedCTImageStorage, ExplicitVRLittleEndian

from m3node.errors import InputRejected
from m3node.evaluation.ct_writer import axial_geometry, write_ct_series
from m3node.intake.series import part10
from m3node.intake.series.header import InstanceHeader
from m3node.intake.series.header_json import header_from_json, header_to_json
from m3node.intake.series.reading import read_header, read_headers
from m3node.rejection import Reason, Rejection
from made_stacks import headers_of

NATIVE = (
    "CTImage.dcm_LittleEndianExplicitTransferSyntax_1.2.840.10008.1.2.1.dcm",
    "CTImage.dcm_LittleEndianImplicitTransferSyntax_1.2.840.10008.1.2.dcm",
    "CTImage.dcm_BigEndianExplicitTransferSyntax_1.2.840.10008.1.2.2.dcm",
)


@pytest.fixture(scope="module")
def one_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("one")
    hu = np.arange(64, dtype=np.int16).reshape(1, 8, 8)
    geometry = axial_geometry((1, 8, 8), (2.0, 0.5, 0.5))
    return write_ct_series(folder, hu, geometry, seed="one", attributes={"PatientName": "Secret^Sam"})[0]


def reason_of(path: Path) -> Reason:
    with pytest.raises(InputRejected) as caught:
        read_header(path, path.parent)
    return caught.value.reason


@pytest.mark.parametrize("name", NATIVE)
def test_the_recorded_offset_and_length_are_where_the_pixels_lie(test_data: Path, name: str) -> None:
    path = test_data / "ct_transfer_syntaxes" / name
    pixels = read_header(path, path.parent).pixels
    assert pixels is not None
    assert path.read_bytes()[pixels.offset :][: pixels.length] == pydicom.dcmread(path).PixelData


def test_compressed_and_deflated_pixels_have_no_offset(test_data: Path) -> None:
    headers = [
        header
        for header in headers_of(test_data / "ct_transfer_syntaxes")
        if "1.2.4." in header.transfer_syntax_uid or header.transfer_syntax_uid.endswith(("1.99", "2.5"))
    ]
    assert len(headers) == 15
    assert {(h.pixels.offset, h.pixels.length) for h in headers if h.pixels} == {(-1, -1)}


def test_geometry_and_rescale_of_a_real_slice(test_data: Path) -> None:
    header = read_header(test_data / "ct_liver_3slice" / "01.dcm", test_data)
    (frame,) = header.frames
    assert header.path == "ct_liver_3slice/01.dcm"
    assert header.patient_position == "FFS"
    assert frame.position == (-235.199997, -226.800003, -126.690002)
    assert frame.orientation == (1, 0, 0, 0, 1, 0)
    assert (frame.rescale_slope, frame.rescale_intercept, frame.kernel) == (1, -1024, "STANDARD")


def test_each_frame_of_enhanced_ct_has_its_own_header(test_data: Path) -> None:
    enhanced = read_header(test_data / "ct_enhanced" / "eCT_Supplemental.dcm", test_data)
    legacy = read_header(test_data / "ct_enhanced" / "legacy_converted_24x38x3.dcm", test_data)
    assert [(f.number, f.position, f.acquisition_number) for f in enhanced.frames] == [
        (1, (99.5, -301.5, -159.0), 1),
        (2, (99.5, -301.5, -149.0), 1),
    ]
    assert enhanced.frames[1].image_type == ("DERIVED", "PRIMARY", "PERFUSION", "RCBF")
    assert [f.position[2] for f in legacy.frames if f.position] == [-177.75, -175.25, -172.75]
    assert {(f.pixel_spacing, f.slice_thickness, f.rescale_slope) for f in legacy.frames} == {((0.7, 0.7), 2.5, 1.0)}


def test_values_are_read_whatever_vr_the_sender_gave_them(tmp_path: Path, one_file: Path) -> None:
    content = one_file.read_bytes()
    for tag, vr in ((0x00280030, b"DS"), (0x00200032, b"DS"), (0x00181210, b"SH"), (0x00280010, b"US")):
        start = content.index((tag >> 16).to_bytes(2, "little") + (tag & 0xFFFF).to_bytes(2, "little") + vr)
        length = content[start + 6 : start + 8]
        content = content[: start + 4] + b"UN\0\0" + length + b"\0\0" + content[start + 8 :]
    (tmp_path / "un.dcm").write_bytes(content)
    plain, unknown = read_header(one_file, one_file.parent), read_header(tmp_path / "un.dcm", tmp_path)
    assert unknown.frames == plain.frames
    assert unknown.pixels is not None
    assert unknown.pixels.rows == 8


def test_the_digest_is_of_the_data_set_alone(tmp_path: Path, one_file: Path) -> None:
    ds = pydicom.dcmread(one_file)
    ds.file_meta.SourceApplicationEntityTitle = "CT99"
    ds.save_as(tmp_path / "sent.dcm")
    plain, sent = read_header(one_file, one_file.parent), read_header(tmp_path / "sent.dcm", tmp_path)
    assert (plain.sha256, plain.sender, sent.sender) == (sent.sha256, "", "CT99")


def test_a_file_without_preamble_and_meta_information_is_read(tmp_path: Path, one_file: Path) -> None:
    ds = pydicom.dcmread(one_file)
    for implicit, name in ((False, "explicit.dcm"), (True, "implicit.dcm")):
        bare = Dataset({element.tag: element for element in ds})
        bare.save_as(tmp_path / name, implicit_vr=implicit, little_endian=True, enforce_file_format=False)
    explicit, implicit_one = headers_of(tmp_path)
    assert explicit.transfer_syntax_uid == "1.2.840.10008.1.2.1"
    assert implicit_one.transfer_syntax_uid == "1.2.840.10008.1.2"
    assert explicit.frames == implicit_one.frames == read_header(one_file, one_file.parent).frames


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("philips_cd/DICOMDIR", Reason.DICOMDIR),
        ("philips_cd/S1000/DIRFILE", Reason.DICOMDIR),
        ("bad_sequence.dcm", Reason.INVALID_UID),
        ("empty_uids/CT.1.3.12.2.1107.5.1.4.60064.30000022120808113428000016573", Reason.MISSING_UID),
    ],
)
def test_odd_files_have_a_reason(test_data: Path, name: str, reason: Reason) -> None:
    assert reason_of(test_data / "odd_dicom" / name) is reason


def test_what_is_no_dicom_says_so(tmp_path: Path, test_data: Path) -> None:
    (tmp_path / "notes.txt").write_text("The quick brown fox jumps over the lazy dog.")
    (tmp_path / "empty").touch()
    assert reason_of(tmp_path / "notes.txt") is Reason.NOT_DICOM
    assert reason_of(tmp_path / "empty") is Reason.NOT_DICOM
    assert reason_of(test_data / "nifti" / "example_seg.nii.gz") is Reason.NOT_DICOM
    assert reason_of(tmp_path / "absent") is Reason.UNREADABLE


def test_a_file_cut_short_says_how_many_bytes_are_missing(tmp_path: Path, one_file: Path) -> None:
    (tmp_path / "cut.dcm").write_bytes(one_file.read_bytes()[:-10])
    with pytest.raises(InputRejected, match="announces 128 bytes and 118 are there") as caught:
        read_header(tmp_path / "cut.dcm", tmp_path)
    assert caught.value.reason is Reason.UNREADABLE


def test_a_deflated_file_is_inflated_no_further_than_its_pixels(
    tmp_path: Path, one_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(part10, "MAX_INFLATED_BYTES", 1024**2)
    ds = pydicom.dcmread(one_file)
    ds.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    ds.save_as(tmp_path / "plain.dcm")
    content = (tmp_path / "plain.dcm").read_bytes()
    begin = 132 + 12 + int.from_bytes(content[140:144], "little")
    data_set = zlib.decompress(content[begin:], -zlib.MAX_WBITS)
    zeros = b"OB\0\0" + (2**24).to_bytes(4, "little") + bytes(2**24)
    for name, inflated in (
        ("after.dcm", data_set + b"\xfc\xff\xfc\xff" + zeros),
        ("before.dcm", b"\x09\x00\x10\x10" + zeros + data_set),
    ):
        packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
        (tmp_path / name).write_bytes(content[:begin] + packer.compress(inflated) + packer.flush())
    assert read_header(tmp_path / "after.dcm", tmp_path).frames == read_header(one_file, one_file.parent).frames
    with pytest.raises(InputRejected, match=r"before\.dcm inflates to more than 1048576 bytes"):
        read_header(tmp_path / "before.dcm", tmp_path)


@pytest.mark.parametrize("uid", ["../../etc/passwd", "1.2/3", "1..2", ".1", "1." * 32 + "1", "1.2.x"])
def test_a_uid_that_could_not_name_a_file_is_refused(tmp_path: Path, one_file: Path, uid: str) -> None:
    ds = pydicom.dcmread(one_file)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ds.SOPInstanceUID = uid
        ds.save_as(tmp_path / "odd.dcm")
    assert reason_of(tmp_path / "odd.dcm") is Reason.INVALID_UID


def test_odd_values_neither_warn_nor_show_the_patient(
    tmp_path: Path, one_file: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    content = one_file.read_bytes()
    for broken in (
        content.replace(b"20260101", b"Sam Date"),
        content.replace(b"PHANTOM", b"Secret7"),
        content.replace(b"0.5\\0.5 ", b"half mm "),
    ):
        assert broken != content
        (tmp_path / "odd.dcm").write_bytes(broken)
        with warnings.catch_warnings(), caplog.at_level(logging.DEBUG):
            warnings.simplefilter("error")
            header = read_header(tmp_path / "odd.dcm", tmp_path)
        assert "Secret" not in repr(header)
    assert header.frames[0].pixel_spacing is None
    assert "Secret" not in caplog.text
    assert capfd.readouterr() == ("", "")


@pytest.mark.filterwarnings("ignore::UserWarning")  # pydicom tells of switched VRs, without values
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damaged_bytes_give_a_header_or_a_reason_and_nothing_else(
    tmp_path: Path, one_file: Path, data: st.DataObject
) -> None:
    content = bytearray(one_file.read_bytes())
    for _ in range(data.draw(st.integers(0, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(content)))
    (tmp_path / "damaged.dcm").write_bytes(content[:cut])
    (found,) = read_headers([tmp_path / "damaged.dcm"], tmp_path)
    assert isinstance(found, InstanceHeader | Rejection)
    assert "Secret" not in repr(found)


def test_a_character_set_of_half_a_number_has_a_reason(tmp_path: Path, one_file: Path) -> None:
    # pydicom reads this one element at once, and its error for it is not one of Python's own.
    ds = pydicom.dcmread(one_file)
    assert "SpecificCharacterSet" in ds
    whole = one_file.read_bytes()
    begin = whole.index(bytes.fromhex("08000500") + b"CS")
    length = int.from_bytes(whole[begin + 6 : begin + 8], "little")
    odd = bytes.fromhex("08000500") + b"US" + (3).to_bytes(2, "little") + b"abc"
    path = tmp_path / "odd.dcm"
    path.write_bytes(whole[:begin] + odd + whole[begin + 8 + length :])
    with pytest.raises(BytesLengthException):
        pydicom.dcmread(path)
    assert reason_of(path) is Reason.UNREADABLE


def test_many_files_give_headers_and_rejections_in_order(tmp_path: Path, one_file: Path) -> None:
    (tmp_path / "a").write_text("not DICOM, and long enough to have been")
    (tmp_path / "b").write_bytes(one_file.read_bytes())
    first, second = read_headers([tmp_path / "a", tmp_path / "b"], tmp_path)
    assert isinstance(first, Rejection)
    assert (first.reason, first.subject) == (Reason.NOT_DICOM, "a")
    assert isinstance(second, InstanceHeader)


def test_patients_are_told_apart_without_their_identifiers(tmp_path: Path, one_file: Path) -> None:
    digests = set()
    for patient, issuer in (("PHANTOM", None), ("PHANTOM", "CLINIC"), ("OTHER", None)):
        ds = pydicom.dcmread(one_file)
        ds.PatientID = patient
        if issuer:
            ds.IssuerOfPatientID = issuer
        ds.save_as(tmp_path / "one.dcm")
        header = read_header(tmp_path / "one.dcm", tmp_path)
        digests.add(header.patient_digest)
        assert patient not in header_to_json(header)
    assert len(digests) == 3


def test_descriptions_keep_their_characters(tmp_path: Path, one_file: Path) -> None:
    for number, (charset, words) in enumerate(
        (("ISO_IR 100", "Oberbauch nativ für Übersicht"), ("ISO_IR 144", "Печень"), ("ISO_IR 192", "腹部"))
    ):
        ds = pydicom.dcmread(one_file)
        ds.SpecificCharacterSet = charset
        ds.SeriesDescription = words
        ds.save_as(tmp_path / f"{number}.dcm")
        assert read_header(tmp_path / f"{number}.dcm", tmp_path).series_description == words


def test_a_header_survives_json(test_data: Path) -> None:
    headers = headers_of(test_data)
    assert len(headers) > 50
    lines = [header_to_json(header) for header in headers]
    assert not any("\n" in line for line in lines)
    assert [header_from_json(line) for line in lines] == headers


@pytest.mark.parametrize("line", ["", "{}", "[]", "null", '{"path": "a"}'])
def test_a_torn_line_is_a_value_error(line: str) -> None:
    with pytest.raises(ValueError, match=r".*"):
        header_from_json(line)


def test_explicit_length_claims_beyond_the_file_are_refused_before_memory_is_taken(tmp_path: Path) -> None:
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.SOPClassUID = "1.2.840.10008.5.1.4.1.1.2"
    buffer = io.BytesIO()
    ds.save_as(buffer, enforce_file_format=False)
    claim = b"\x09\x00\x10\x10OB\x00\x00" + (0xFFFFFFF0).to_bytes(4, "little")
    (tmp_path / "claim.dcm").write_bytes(buffer.getvalue() + claim)
    # These words come before the value is read; the parser's own complaint would come after.
    with pytest.raises(InputRejected, match="announces 4294967280 bytes and 0 are there"):
        read_header(tmp_path / "claim.dcm", tmp_path)


def test_a_sequence_of_something_else_than_items_is_the_files_fault_and_not_the_disks(
    tmp_path: Path, one_file: Path
) -> None:
    """pydicom's word for it is OSError, after which the keeper would read the file again and again."""
    value = b"\xfe\xff\0\xe0\xff\xff"
    ds = pydicom.dcmread(one_file)
    ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = EnhancedCTImageStorage
    ds.save_as(tmp_path / "odd.dcm")
    content = (tmp_path / "odd.dcm").read_bytes()
    pixels = content.index(b"\xe0\x7f\x10\0")
    frames = b"\0\x52\x29\x92SQ\0\0" + len(value).to_bytes(4, "little") + value
    (tmp_path / "odd.dcm").write_bytes(content[:pixels] + frames + content[pixels:])
    with pytest.raises(InputRejected) as caught:
        read_header(tmp_path / "odd.dcm", tmp_path)
    assert caught.value.reason is Reason.UNREADABLE
    assert not isinstance(caught.value.__cause__, OSError)
