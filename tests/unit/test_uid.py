"""Network and folder take the same UIDs: what comes one way is not refused the other."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydicom.dataset import FileMetaDataset
from pydicom.filewriter import write_file_meta_info
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage

from m3node.errors import InputRejected
from m3node.intake.receive.identity import identify
from m3node.intake.series.reading import read_header
from m3node.intake.uid import is_uid


@pytest.mark.parametrize(
    ("value", "is_one"),
    [
        ("1.2.840.10008.5.1.4.1.1.2", True),
        ("1.02.003", True),
        ("0", True),
        ("1" * 64, True),
        ("1" * 65, False),
        ("", False),
        ("1.", False),
        (".1", False),
        ("1..2", False),
        ("1.2\n", False),
        ("1.²", False),
        ("../1", False),
    ],
)
def test_a_uid_is_digits_and_single_dots(value: str, is_one: bool) -> None:
    assert is_uid(value) is is_one


def element(tag: int, value: bytes) -> bytes:
    head = (tag >> 16).to_bytes(2, "little") + (tag & 0xFFFF).to_bytes(2, "little")
    return head + b"UI" + len(value).to_bytes(2, "little") + value


def with_series(uid: bytes) -> bytes:
    """A data set whose Series Instance UID is written as the bytes given."""
    others = ((0x00080016, MRImageStorage.encode()), (0x00080018, b"2.25.3"), (0x0020000D, b"2.25.11"))
    padded = [(tag, value + b"\0" * (len(value) % 2)) for tag, value in (*others, (0x0020000E, uid))]
    return b"".join(element(tag, value) for tag, value in padded)


def file_of(data: bytes) -> bytes:
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    buffer = BytesIO()
    write_file_meta_info(buffer, meta, enforce_standard=False)
    return b"\0" * 128 + b"DICM" + buffer.getvalue() + data


def outcome(read: Callable[[], str]) -> str:
    try:
        return read()
    except InputRejected as error:
        return error.reason.value


@given(st.text(alphabet="0123459. \0\t\r\nx", max_size=80))
@example("1.02.3")
@example(" 1.2\t")
@example("1" * 65)
@example(" ")
def test_network_and_folder_agree_about_every_value(tmp_path_factory: pytest.TempPathFactory, value: str) -> None:
    data = with_series(value.encode("ascii"))
    path = tmp_path_factory.getbasetemp() / "one.dcm"
    path.write_bytes(file_of(data))
    over_network = outcome(lambda: identify(data, ExplicitVRLittleEndian).series_instance_uid)
    in_folder = outcome(lambda: read_header(path, path.parent).series_instance_uid)
    assert over_network == in_folder
    assert is_uid(over_network) or over_network in ("missing-uid", "invalid-uid")
