"""The receiver reads who an instance says it is from its first bytes, and survives whatever the bytes are."""

from __future__ import annotations

import os
import zlib
from io import BytesIO
from pathlib import Path

import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.datadict import dictionary_description
from pydicom.dataset import Dataset
from pydicom.filereader import read_preamble
from pydicom.filewriter import write_dataset
from pydicom.sequence import Sequence
from pydicom.uid import UID

from m3node.errors import InputRejected
from m3node.intake.receive.identity import (
    DEFLATED,
    EXPLICIT_BIG,
    IMPLICIT_LITTLE,
    Identity,
    identify,
)
from m3node.intake.uid import is_uid
from m3node.rejection import Reason

EXPLICIT_LITTLE = "1.2.840.10008.1.2.1"
ENCODINGS = [IMPLICIT_LITTLE, EXPLICIT_LITTLE, EXPLICIT_BIG, DEFLATED]

IDENTITY = Identity("1.2.840.10008.5.1.4.1.1.2", "2.25.1", "2.25.2", "2.25.3")

component = st.integers(0, 10**12).map(str)
uids = st.lists(component, min_size=2, max_size=4).map(".".join)


def data_set(identity: Identity = IDENTITY) -> Dataset:
    ds = Dataset()
    ds.SpecificCharacterSet = "ISO_IR 192"
    ds.SOPClassUID = identity.sop_class_uid
    ds.SOPInstanceUID = identity.sop_instance_uid
    ds.StudyDate = "20260101"
    ds.PatientName = "Nobody^Real"
    ds.PatientID = "1"
    ds.StudyInstanceUID = identity.study_instance_uid
    ds.SeriesInstanceUID = identity.series_instance_uid
    ds.Rows = 2
    return ds


def encode(ds: Dataset, transfer_syntax: str) -> bytes:
    buffer = BytesIO()
    uid = UID(transfer_syntax)
    file = pydicom.filebase.DicomFileLike(buffer)
    file.is_implicit_VR = uid.is_implicit_VR
    file.is_little_endian = uid.is_little_endian
    write_dataset(file, ds)
    if uid.is_deflated:
        deflater = zlib.compressobj(wbits=-zlib.MAX_WBITS)
        return deflater.compress(buffer.getvalue()) + deflater.flush()
    return buffer.getvalue()


def nested(levels: int, *, undefined: bool) -> Sequence:
    item = Dataset()
    item.ReferencedSOPClassUID = "1.2.3"
    item.ReferencedSOPInstanceUID = "1.2.3.4"
    item.SOPInstanceUID = "9.9.9"  # of the same tag as the one looked for, but not at the top
    if levels:
        item.ReferencedImageSequence = nested(levels - 1, undefined=undefined)
        item["ReferencedImageSequence"].is_undefined_length = undefined
    item.is_undefined_length_sequence_item = undefined
    return Sequence([item, item])


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("undefined", [False, True], ids=["defined", "undefined"])
@settings(deadline=None)
@given(identity=st.builds(Identity, uids, uids, uids, uids), levels=st.integers(0, 3))
def test_the_uids_of_any_data_set_are_read_in_every_encoding_past_nested_sequences(
    encoding: str, undefined: bool, identity: Identity, levels: int
) -> None:
    ds = data_set(identity)
    ds.ReferencedImageSequence = nested(levels, undefined=undefined)
    ds["ReferencedImageSequence"].is_undefined_length = undefined
    assert identify(encode(ds, encoding), encoding) == identity


@pytest.mark.parametrize("nested_in_an_item", [False, True])
def test_a_sequence_sent_as_un_is_passed_over(nested_in_an_item: bool) -> None:
    # PS3.5 6.2.2: UN of undefined length holds items in Implicit VR Little Endian, whatever is around it.
    item_start, item_end = b"\xfe\xff\x00\xe0\xff\xff\xff\xff", b"\xfe\xff\x0d\xe0\0\0\0\0"
    sequence_end = b"\xfe\xff\xdd\xe0\0\0\0\0"
    implicit = b"\x08\x00\x55\x11\x06\0\0\0" + b"1.2.3\0"
    unknown = b"\x09\x00\x02\x10UN\0\0\xff\xff\xff\xff" + item_start + implicit + item_end + sequence_end
    if nested_in_an_item:
        unknown = b"\x09\x00\x01\x10SQ\0\0\xff\xff\xff\xff" + item_start + unknown + item_end + sequence_end
    ds = data_set()
    identity, rest = Dataset(), Dataset()
    for one in ds:
        (identity if one.tag.group <= 0x0008 else rest).add(one)
    assert identify(encode(identity, EXPLICIT_LITTLE) + unknown + encode(rest, EXPLICIT_LITTLE), EXPLICIT_LITTLE) == (
        IDENTITY
    )


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_large_private_element_in_front_is_passed_over(encoding: str) -> None:
    ds = data_set()
    ds.add_new(0x00090010, "LO", "TEST")
    ds.add_new(0x00091001, "OB", os.urandom(700_000))
    assert identify(encode(ds, encoding), encoding) == IDENTITY


def test_every_real_ct_file_says_who_it_is(test_data: Path) -> None:
    seen = 0
    for path in sorted(test_data.glob("ct_*/*")):
        try:
            ds = pydicom.dcmread(path, stop_before_pixels=True)
        except (pydicom.errors.InvalidDicomError, IsADirectoryError):
            continue
        syntax = str(ds.file_meta.TransferSyntaxUID)
        with path.open("rb") as file:
            read_preamble(file, force=True)
            pydicom.filereader._read_file_meta_info(file)
            data = file.read()
        expected = Identity(ds.SOPClassUID, ds.SOPInstanceUID, ds.StudyInstanceUID, ds.SeriesInstanceUID)
        assert identify(data, syntax) == expected, path.name
        seen += 1
    assert seen >= 40


def rejection_of(data: bytes, encoding: str) -> InputRejected | None:
    try:
        identify(data, encoding)
    except InputRejected as error:
        return error
    return None


@settings(deadline=None)
@given(data=st.binary(max_size=400), encoding=st.sampled_from([*ENCODINGS, "1.2.840.10008.1.2.4.90"]))
def test_arbitrary_bytes_raise_nothing_but_a_rejection(data: bytes, encoding: str) -> None:
    error = rejection_of(data, encoding)
    assert error is None or error.reason in (Reason.UNREADABLE, Reason.MISSING_UID, Reason.INVALID_UID)


@settings(deadline=None)
@given(data=st.data(), encoding=st.sampled_from(ENCODINGS))
def test_a_damaged_header_raises_nothing_but_a_rejection(data: st.DataObject, encoding: str) -> None:
    ds = data_set()
    ds.ReferencedImageSequence = nested(2, undefined=True)
    ds["ReferencedImageSequence"].is_undefined_length = True
    good = bytearray(encode(ds, encoding))
    for _ in range(data.draw(st.integers(1, 4))):
        good[data.draw(st.integers(0, len(good) - 1))] = data.draw(st.integers(0, 255))
    error = rejection_of(bytes(good), encoding)
    assert error is None or "Nobody" not in error.message


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_header_cut_short_is_unreadable_or_lacks_a_uid(encoding: str) -> None:
    ds = data_set()
    del ds.Rows
    whole = encode(ds, encoding)
    for length in range(len(whole) - 2):
        with pytest.raises(InputRejected) as raised:
            identify(whole[:length], encoding)
        assert raised.value.reason in (Reason.UNREADABLE, Reason.MISSING_UID)


@pytest.mark.parametrize("keyword", ["SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"])
def test_an_absent_or_empty_uid_is_named(keyword: str) -> None:
    absent, empty = data_set(), data_set()
    delattr(absent, keyword)
    setattr(empty, keyword, "")
    name = f"has no {dictionary_description(keyword)}"
    for ds in (absent, empty):
        with pytest.raises(InputRejected, match=name) as raised:
            identify(encode(ds, EXPLICIT_LITTLE), EXPLICIT_LITTLE)
        assert raised.value.reason is Reason.MISSING_UID


@pytest.mark.parametrize(
    "value", ["../../etc/passwd", "1.2..3", "1.2.", ".17", "1.2x", "1/2", "1.2\\3", "Doe^Jane", "1." * 33 + "1"]
)
def test_a_value_that_is_no_uid_is_refused_and_not_repeated(value: str) -> None:
    assert not is_uid(value)
    raw = encode(data_set(), EXPLICIT_LITTLE)
    uid = value.encode() + b"\0" * (len(value) % 2)
    old = b"UI" + (6).to_bytes(2, "little") + b"2.25.1"
    assert old in raw
    with pytest.raises(InputRejected) as raised:
        identify(raw.replace(old, b"UI" + len(uid).to_bytes(2, "little") + uid), EXPLICIT_LITTLE)
    assert raised.value.reason is Reason.INVALID_UID
    assert value not in raised.value.message


def test_a_data_set_in_another_encoding_than_negotiated_is_refused() -> None:
    with pytest.raises(InputRejected, match="has no value representation") as raised:
        identify(encode(data_set(), IMPLICIT_LITTLE), EXPLICIT_LITTLE)
    assert raised.value.reason is Reason.UNREADABLE


def test_file_meta_information_in_a_data_set_is_refused() -> None:
    meta = Dataset()
    meta.add_new(0x00020010, "UI", EXPLICIT_LITTLE)
    with pytest.raises(InputRejected, match="group 0002"):
        identify(encode(meta, EXPLICIT_LITTLE) + encode(data_set(), EXPLICIT_LITTLE), EXPLICIT_LITTLE)
