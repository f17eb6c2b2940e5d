"""Data sets as lists of elements, encoded as any transfer syntax has it (PS3.5 7), wrong elements too."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from fuzzing.upper_layer import BIG_ENDIAN, DEFLATED, IMPLICIT

UNDEFINED = 0xFFFFFFFF
_LONG = frozenset((b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"))
_NUMBERS = {b"US": 2, b"SS": 2, b"OW": 2, b"UL": 4, b"SL": 4, b"FL": 4, b"FD": 8, b"AT": 2}


@dataclass(frozen=True, slots=True)
class Coding:
    """How elements are written."""

    syntax: str

    @property
    def implicit(self) -> bool:
        return self.syntax == IMPLICIT

    @property
    def order(self) -> str:
        return ">" if self.syntax == BIG_ENDIAN else "<"

    def tag(self, tag: int) -> bytes:
        return struct.pack(f"{self.order}HH", tag >> 16, tag & 0xFFFF)

    def long(self, value: int) -> bytes:
        return struct.pack(f"{self.order}L", value & 0xFFFFFFFF)

    def short(self, value: int) -> bytes:
        return struct.pack(f"{self.order}H", value & 0xFFFF)


@dataclass(frozen=True, slots=True)
class Element:
    """An element.

    Attributes
    ----------
    value : bytes or callable
        Little endian; or what makes it, given how elements are written: sequences.
    length : int or None
        Where it is not the value's own.
    """

    tag: int
    vr: bytes
    value: bytes | Callable[[Coding], bytes]
    length: int | None = None


def encoded(elements: Iterable[Element], syntax: str) -> bytes:
    """A data set as it travels in C-STORE."""
    coding = Coding(syntax)
    plain = b"".join(_element(element, coding) for element in elements)
    return deflated(plain) if syntax == DEFLATED else plain


def deflated(plain: bytes) -> bytes:
    """As Deflated Explicit VR Little Endian has it (PS3.5 A.5)."""
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(plain) + packer.flush()


def _element(element: Element, coding: Coding) -> bytes:
    value = element.value(coding) if callable(element.value) else _ordered(element.value, element.vr, coding)
    length = len(value) if element.length is None else element.length
    head = coding.tag(element.tag)
    if coding.implicit or element.tag >> 16 == 0xFFFE:
        return head + coding.long(length) + value
    if element.vr in _LONG:
        return head + element.vr + b"\0\0" + coding.long(length) + value
    return head + element.vr[:2].ljust(2) + coding.short(length) + value


def _ordered(value: bytes, vr: bytes, coding: Coding) -> bytes:
    value += (b"\0" if vr in (b"UI", b"OB", b"UN") else b" ") * (len(value) % 2)
    width = _NUMBERS.get(vr)
    if coding.order == "<" or width is None or len(value) % width:
        return value
    return b"".join(value[at : at + width][::-1] for at in range(0, len(value), width))


def nested(tag: int, depth: int, *, undefined: bool) -> Element:
    """A sequence in a sequence, so deep."""

    def value(coding: Coding) -> bytes:
        begin = coding.tag(tag) + (b"" if coding.implicit else b"SQ\0\0")
        item, item_end, end = (coding.tag(which) for which in (0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD))
        if undefined:
            inner = (item + coding.long(UNDEFINED) + begin + coding.long(UNDEFINED)) * depth
            return inner + (end + coding.long(0) + item_end + coding.long(0)) * depth + end + coding.long(0)
        out: list[bytes] = []  # from the inside to the outside
        size = 0
        for _ in range(depth):
            out.append(item + coding.long(size + len(begin) + 4) + begin + coding.long(size))
            size += len(out[-1])
        return b"".join(reversed(out))

    return Element(tag, b"SQ", value, UNDEFINED if undefined else None)


def sequence(tag: int, items: Iterable[Iterable[Element]]) -> Element:
    """A sequence of items with their lengths."""
    held = [list(item) for item in items]

    def value(coding: Coding) -> bytes:
        out = b""
        for item in held:
            inside = b"".join(_element(element, coding) for element in item)
            out += coding.tag(0xFFFEE000) + coding.long(len(inside)) + inside
        return out

    return Element(tag, b"SQ", value)


def elements_of(data: bytes) -> list[Element]:
    """Read an Explicit VR Little Endian data set that holds no sequences."""
    found, at = [], 0
    while at < len(data):
        group, number = struct.unpack_from("<HH", data, at)
        vr = data[at + 4 : at + 6]
        head = 12 if vr in _LONG else 8
        length = struct.unpack_from("<L" if vr in _LONG else "<H", data, at + (8 if vr in _LONG else 6))[0]
        found.append(Element(group << 16 | number, vr, data[at + head : at + head + length]))
        at += head + length
    return found
