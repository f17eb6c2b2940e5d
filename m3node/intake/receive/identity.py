"""Who an instance says it is, read from the first bytes of its encoded data set.

The receiver needs four UIDs before it may store an instance, and nothing else. This walks the elements up to Series
Instance UID (0020,000E) and stops; values between are skipped by their lengths (PS3.5 7.1), which is many times faster
than a general reader.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

from m3node.errors import InputRejected
from m3node.intake.uid import is_uid
from m3node.rejection import Reason

IMPLICIT_LITTLE = "1.2.840.10008.1.2"
EXPLICIT_BIG = "1.2.840.10008.1.2.2"
DEFLATED = "1.2.840.10008.1.2.1.99"

_SOP_CLASS, _SOP_INSTANCE = 0x00080016, 0x00080018
_STUDY, _SERIES = 0x0020000D, 0x0020000E
_WANTED = frozenset((_SOP_CLASS, _SOP_INSTANCE, _STUDY, _SERIES))

_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_UNDEFINED = 0xFFFFFFFF

_SHORT = frozenset(b"AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US".split())
_LONG = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())
"""Value representations with a 16-bit and with a 32-bit length (PS3.5 7.1.2)."""

_MAX_DEPTH = 32
_MAX_INFLATED = 16 * 1024 * 1024

_PADDING = b"\0 \t\r\n"
"""More than PS3.5 9.1 pads with; what some write around a value (`m3node.intake.series.elements`)."""


@dataclass(frozen=True, slots=True)
class Identity:
    """The UIDs under which an instance is stored; each is one (`m3node.intake.uid`), so each may name a file."""

    sop_class_uid: str
    sop_instance_uid: str
    study_instance_uid: str
    series_instance_uid: str


def identify(data: bytes | bytearray | memoryview, transfer_syntax_uid: str) -> Identity:
    """Read an encoded data set's own UIDs.

    Parameters
    ----------
    data : bytes-like
        The data set as it travels in C-STORE: no preamble, no file meta information.
    transfer_syntax_uid : str
        How it is encoded.

    Raises
    ------
    InputRejected
        ``UNREADABLE`` when the bytes are no data set in this transfer syntax or end too early, ``MISSING_UID`` when
        one of the four is absent or empty, ``INVALID_UID`` when one is not a UID.
    """
    if transfer_syntax_uid == DEFLATED:
        found = _scan_deflated(data)
    else:
        found = _scan(
            _Source(
                data,
                implicit=transfer_syntax_uid == IMPLICIT_LITTLE,
                order=">" if transfer_syntax_uid == EXPLICIT_BIG else "<",
            )
        )
    return Identity(
        sop_class_uid=_uid(found, _SOP_CLASS, "SOP Class UID (0008,0016)"),
        sop_instance_uid=_uid(found, _SOP_INSTANCE, "SOP Instance UID (0008,0018)"),
        study_instance_uid=_uid(found, _STUDY, "Study Instance UID (0020,000D)"),
        series_instance_uid=_uid(found, _SERIES, "Series Instance UID (0020,000E)"),
    )


def _uid(found: dict[int, bytes], tag: int, name: str) -> str:
    raw = found.get(tag, b"").strip(_PADDING)
    if not raw:
        raise InputRejected(Reason.MISSING_UID, f"the data set has no {name}; the sender must give it one")
    value = raw.decode("ascii", errors="replace")
    if not is_uid(value):
        # The value itself is not repeated: what stands in the wrong place may be a name.
        raise InputRejected(Reason.INVALID_UID, f"the data set's {name} is not a valid UID; see PS3.5 9.1")
    return value


class _Truncated(Exception):  # noqa: N818 - a signal between these functions
    """The bytes end inside an element."""


class _Source:
    """Encoded elements and how to read them."""

    def __init__(self, data: bytes | bytearray | memoryview, *, implicit: bool, order: str) -> None:
        self.data = data
        self.end = len(data)
        self.implicit = implicit
        self.tag_struct = struct.Struct(f"{order}HH")
        self.u16 = struct.Struct(f"{order}H")
        self.u32 = struct.Struct(f"{order}L")

    def element(self, pos: int, *, implicit: bool) -> tuple[int, bytes, int, int]:
        """Read one element's head: its tag, VR, length, and where its value begins."""
        if pos + 8 > self.end:
            raise _Truncated
        group, number = self.tag_struct.unpack_from(self.data, pos)
        tag = group << 16 | number
        if implicit or group == 0xFFFE:
            return tag, b"", self.u32.unpack_from(self.data, pos + 4)[0], pos + 8
        vr = bytes(self.data[pos + 4 : pos + 6])
        if vr in _SHORT:
            return tag, vr, self.u16.unpack_from(self.data, pos + 6)[0], pos + 8
        if vr not in _LONG:
            raise _unreadable(f"element ({group:04X},{number:04X}) has no value representation")
        if pos + 12 > self.end:
            raise _Truncated
        return tag, vr, self.u32.unpack_from(self.data, pos + 8)[0], pos + 12

    def skip_items(self, pos: int, *, implicit: bool) -> int:
        """Pass over a sequence of undefined length; `pos` is where its first item begins."""
        # Two kinds of levels alternate: a sequence holds items, an item holds elements.
        levels = [("sequence", implicit)]
        while levels:
            kind, implicit = levels[-1]
            tag, vr, length, pos = self.element(pos, implicit=implicit)
            if kind == "sequence":
                if tag == _SEQUENCE_END:
                    levels.pop()
                    continue
                if tag != _ITEM:
                    raise _unreadable("a sequence holds something that is not an item")
                if length == _UNDEFINED:
                    levels.append(("item", implicit))
                    continue
            elif tag == _ITEM_END:
                levels.pop()
                continue
            elif length == _UNDEFINED:
                # UN of undefined length is a sequence in Implicit VR Little Endian (PS3.5 6.2.2 note 4).
                levels.append(("sequence", implicit or vr == b"UN"))
                if len(levels) > 2 * _MAX_DEPTH:
                    raise _unreadable(f"sequences are nested deeper than {_MAX_DEPTH}")
                continue
            pos += length
            if pos > self.end:
                raise _Truncated
        return pos


def _unreadable(what: str) -> InputRejected:
    return InputRejected(Reason.UNREADABLE, f"the data set cannot be read in its transfer syntax: {what}")


def _walk(source: _Source) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    pos = 0
    while pos < source.end and len(found) < len(_WANTED):
        tag, vr, length, pos = source.element(pos, implicit=source.implicit)
        if tag > _SERIES and tag >> 16 != 0xFFFE:
            break
        if tag >> 16 in (0x0000, 0x0002, 0xFFFE):
            raise _unreadable(f"group {tag >> 16:04X} does not belong into a data set")
        if length == _UNDEFINED:
            pos = source.skip_items(pos, implicit=source.implicit or vr == b"UN")
            continue
        if pos + length > source.end:
            raise _Truncated
        if tag in _WANTED:
            found[tag] = bytes(source.data[pos : pos + min(length, 128)])
        pos += length
    return found


def _scan(source: _Source) -> dict[int, bytes]:
    try:
        return _walk(source)
    except _Truncated:
        raise _unreadable("it ends inside an element") from None


def _scan_deflated(data: bytes | bytearray | memoryview) -> dict[int, bytes]:
    # Inflates no more than the walk needs: the pixels behind the header may be large.
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    packed = memoryview(data)
    plain, rest, fed, step = b"", b"", 0, 64 * 1024
    while True:
        if not rest:
            rest = bytes(packed[fed : fed + step])
            fed += len(rest)
        try:
            piece = inflater.decompress(rest, step)
        except zlib.error:
            raise _unreadable("it does not inflate") from None
        plain += piece
        rest = inflater.unconsumed_tail
        try:
            return _walk(_Source(plain, implicit=False, order="<"))
        except _Truncated:
            if inflater.eof or (not piece and not rest and fed >= len(packed)):
                raise _unreadable("it ends inside an element") from None
            if len(plain) > _MAX_INFLATED:
                raise _unreadable("its header is larger than 16 MiB") from None
        step *= 4
