"""Opens a DICOM file (PS3.10) up to its pixel data, and says where the pixels lie; the pixels are not read.

Files without preamble or file meta information are accepted where the encoding can be told from the first element.
"""

from __future__ import annotations

import hashlib
import io
import os
import struct
import zlib
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from pydicom.dataset import Dataset
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.filereader import read_dataset
from pydicom.tag import BaseTag
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from m3node.errors import InputRejected
from m3node.intake.series.elements import text
from m3node.rejection import Reason

MAX_INFLATED_BYTES = 64 * 1024**2
"""What stands before the pixels of a deflated data set may inflate to this; a few bytes can hold gigabytes of zeros."""

PARSER_ERRORS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    BytesLengthException,
    EOFError,
    InvalidDicomError,
    LookupError,
    MemoryError,
    RuntimeError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)
"""What pydicom raises on bytes that are not what they claim to be, besides `is_parsers_word`."""


def is_parsers_word(error: OSError) -> bool:
    """Whether it is pydicom's, for a sequence that holds no items, and not the disk's: it has no number."""
    return error.errno is None


_PIXEL_DATA = 0x7FE00010
_PIXEL_TAGS = frozenset({0x7FE00008, 0x7FE00009, _PIXEL_DATA})
_UNDEFINED = 0xFFFFFFFF
_CHUNK = 64 * 1024
_TRANSFER_SYNTAX = 0x00020010


@dataclass(frozen=True, slots=True, eq=False)
class OpenedFile:
    """What stands before the pixels of a DICOM file.

    Attributes
    ----------
    meta : Dataset
        File meta information; empty when the file has none.
    data_set : Dataset
        Elements before the pixel data.
    transfer_syntax_uid : str
        As stated, or as told from the first element.
    sha256 : str
        Of the encoded data set, without preamble and file meta information; empty when not asked for.
    has_pixels : bool
        Whether there is pixel data (also float or double float).
    pixel_offset, pixel_length : int
        Where the value of native Pixel Data lies in the file; -1 for both when it is encapsulated or deflated.
    value_offset : int
        Where the value of Pixel Data begins, encapsulated or not; in the inflated data set when that is deflated.
    little_endian : bool
        Byte order of numbers.
    """

    meta: Dataset
    data_set: Dataset
    transfer_syntax_uid: str
    sha256: str
    has_pixels: bool
    pixel_offset: int
    pixel_length: int
    value_offset: int
    little_endian: bool


def open_part10(
    path: Path, *, name: str, tags: Collection[int] | None = None, digest: bool = True, until: int = _PIXEL_DATA
) -> OpenedFile:
    """Read a file up to its pixel data, and digest all of its data set.

    Parameters
    ----------
    path : Path
        The file.
    name : str
        How messages call it.
    tags : collection of int, optional
        Top-level elements to keep; all of them without it.
    digest : bool
        Whether to compute the SHA-256, which reads the whole file once.
    until : int
        Elements after this one are not read; then nothing is known of the pixels either.

    Raises
    ------
    InputRejected
        ``NOT_DICOM``, or ``UNREADABLE`` when it cannot be opened, is cut short or is broken.
    """
    with _readable(path, name) as stream:
        return _open(stream, name, tags, digest, until)[0]


def read_deflated_pixels(path: Path, *, name: str, length: int) -> bytes:
    """Read ``length`` bytes of the native Pixel Data of a deflated data set, and inflate no more.

    Raises
    ------
    InputRejected
        ``UNREADABLE``: as for `open_part10`, or there are fewer bytes.
    """
    with _readable(path, name) as stream:
        opened, source = _open(stream, name, (0x00280010,), False)
        if isinstance(source, _Inflating):
            source.limit = opened.value_offset + length + _CHUNK
        source.seek(opened.value_offset)
        value = source.read(length)
        if not opened.has_pixels or len(value) < length:
            raise InputRejected(Reason.UNREADABLE, f"{name} is cut short: {length - len(value)} bytes are missing")
        return value


@contextmanager
def _readable(path: Path, name: str) -> Iterator[io.BufferedReader]:
    try:
        with open(path, "rb") as stream:
            yield stream
    except InputRejected:
        raise
    except (OSError, *PARSER_ERRORS) as error:
        if isinstance(error, OSError) and not is_parsers_word(error):
            raise InputRejected(Reason.UNREADABLE, f"{name} cannot be read: {error.strerror}") from error
        # The parser's own words may hold a value of the patient's, so they are not repeated.
        raise InputRejected(
            Reason.UNREADABLE, f"{name} is damaged: its data elements cannot be parsed; send it again"
        ) from (None if isinstance(error, OSError) else error)  # an OSError as the cause would be the disk's


def _open(
    stream: io.BufferedReader, name: str, tags: Collection[int] | None, digest: bool, until: int = _PIXEL_DATA
) -> tuple[OpenedFile, BinaryIO]:
    size: int | None = os.fstat(stream.fileno()).st_size
    start = _after_preamble(stream, name)
    meta = read_dataset(stream, False, True, stop_when=lambda tag, _vr, _length: tag >> 16 != 2)
    if not len(meta):
        stream.seek(start)
    begin = stream.tell()
    sha256 = ""
    if digest:
        sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
        stream.seek(begin)
    syntax = text(meta, _TRANSFER_SYNTAX) or _guess_syntax(stream, name)
    source: BinaryIO = stream
    deflated = syntax == DeflatedExplicitVRLittleEndian
    if deflated:
        source = _Inflating(stream, name)
        size = None
    scan = _Scan(source, size, name, until)
    little = syntax != ExplicitVRBigEndian
    data_set = read_dataset(
        source,
        syntax == ImplicitVRLittleEndian,
        little,
        stop_when=scan,
        specific_tags=[BaseTag(tag) for tag in tags] if tags else None,
    )
    native = scan.found and scan.length != _UNDEFINED and not deflated
    opened = OpenedFile(
        meta=meta,
        data_set=data_set,
        transfer_syntax_uid=syntax,
        sha256=sha256,
        has_pixels=scan.found,
        pixel_offset=scan.offset if native else -1,
        pixel_length=scan.length if native else -1,
        value_offset=scan.offset,
        little_endian=little,
    )
    return opened, source


class _Scan:
    """Stops at the pixel data and remembers where; refuses an element that claims more bytes than there are."""

    def __init__(self, stream: BinaryIO, size: int | None, name: str, until: int) -> None:
        self.stream, self.size, self.name, self.until = stream, size, name, until
        self.found, self.offset, self.length = False, -1, -1

    def __call__(self, tag: BaseTag, _vr: str | None, length: int) -> bool:
        if tag > self.until and tag < _PIXEL_DATA:
            return True
        here = self.stream.tell()
        if self.size is not None and length != _UNDEFINED and here + length > self.size:
            raise InputRejected(
                Reason.UNREADABLE,
                f"{self.name} is cut short: element ({tag >> 16:04X},{tag & 0xFFFF:04X}) announces {length} bytes and "
                f"{self.size - here} are there; send it again",
            )
        if tag in _PIXEL_TAGS:
            self.found, self.offset, self.length = True, here, length
        return tag >= _PIXEL_DATA or tag in _PIXEL_TAGS


def _after_preamble(stream: BinaryIO, name: str) -> int:
    head = stream.read(132)
    if head[128:] == b"DICM":
        return 132
    # Without a preamble a file is taken for DICOM when it begins with group 0002 or 0008 and a short element.
    if len(head) < 8 or struct.unpack("<H", head[:2])[0] not in {0x0002, 0x0008, 0x0800}:
        raise InputRejected(Reason.NOT_DICOM, f"{name} is not a DICOM file")
    stream.seek(0)
    return 0


def _guess_syntax(stream: BinaryIO, name: str) -> str:
    head = stream.read(8)
    stream.seek(-len(head), io.SEEK_CUR)
    if len(head) < 8:
        raise InputRejected(Reason.UNREADABLE, f"{name} holds no data set; send it again")
    explicit = head[4:6].isalpha() and head[4:6].isupper()
    if struct.unpack("<H", head[:2])[0] == 0x0800 and explicit:
        return str(ExplicitVRBigEndian)
    length = int.from_bytes(head[4:8], "little")
    if not explicit and length > 0xFFFF:
        raise InputRejected(Reason.NOT_DICOM, f"{name} is not a DICOM file")
    return str(ExplicitVRLittleEndian if explicit else ImplicitVRLittleEndian)


class _Inflating(io.BytesIO):
    """A deflated stream that can be read and sought like a file, and is inflated as far as somebody reads."""

    def __init__(self, stream: BinaryIO, name: str) -> None:
        super().__init__()
        self.deflated, self.name, self.limit = stream, name, MAX_INFLATED_BYTES
        self.inflater = zlib.decompressobj(-zlib.MAX_WBITS)

    def read(self, size: int | None = -1, /) -> bytes:
        """Inflate until there are ``size`` bytes, or all of them."""
        here = self.tell()
        end = self.seek(0, io.SEEK_END)
        while (size is None or size < 0 or end < here + size) and (more := self._more()):
            end += self.write(more)
            if end > self.limit:
                raise InputRejected(
                    Reason.UNREADABLE, f"{self.name} inflates to more than {self.limit} bytes and is not read"
                )
        self.seek(here)
        return super().read(size)

    def _more(self) -> bytes:
        while not self.inflater.eof:
            packed = self.inflater.unconsumed_tail or self.deflated.read(_CHUNK)
            inflated = self.inflater.decompress(packed, _CHUNK)
            if inflated:
                return inflated
            if not packed:
                break
        return b""
