"""Data sets with something wrong in them: what the receiver looks at, and what only keeper, worker and decoders do."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from fuzzing.case import Case, End, Hear, Say, digest
from fuzzing.encoding import UNDEFINED, Coding, Element, deflated, elements_of, encoded, nested, sequence
from fuzzing.noise import number, spoiled, text
from fuzzing.upper_layer import (
    BIG_ENDIAN,
    CT,
    DEFLATED,
    EXPLICIT,
    IMPLICIT,
    JPEG_2000,
    SEG,
    Context,
    message,
    request,
    store_command,
)
from part10_file import split_file

RLE, JPEG_BASELINE, JPEG_LOSSLESS, JPEG_LS = (
    "1.2.840.10008.1.2.5",
    "1.2.840.10008.1.2.4.50",
    "1.2.840.10008.1.2.4.70",
    "1.2.840.10008.1.2.4.80",
)
ENHANCED_CT = b"1.2.840.10008.5.1.4.1.1.2.1"
_PLAIN = (EXPLICIT, IMPLICIT, DEFLATED, BIG_ENDIAN)
_ENCAPSULATED = (JPEG_2000, RLE, JPEG_BASELINE, JPEG_LOSSLESS, JPEG_LS)
_SYNTAXES = (*_PLAIN, *_ENCAPSULATED)
_CLASSES = (CT, ENHANCED_CT, SEG)

SOP_CLASS, SOP_INSTANCE, STUDY, SERIES = 0x00080016, 0x00080018, 0x0020000D, 0x0020000E
CHARACTER_SET, PATIENT_NAME, PIXELS = 0x00080005, 0x00100010, 0x7FE00010
_UIDS = (SOP_CLASS, SOP_INSTANCE, STUDY, SERIES)
_GEOMETRY = (0x00200032, 0x00200037, 0x00280030, 0x00180050, 0x00281052, 0x00281053, 0x00181120, 0x00185100, 0x00200013)
_LAYOUT = (0x00280002, 0x00280008, 0x00280010, 0x00280011, 0x00280100, 0x00280101, 0x00280102, 0x00280103)

Elements = list[Element]
Change = Callable[[random.Random, Elements], Elements]


@dataclass(frozen=True)
class Base:
    """A right series, to be made wrong."""

    slices: tuple[tuple[Element, ...], ...]


def base(files: tuple[Path, ...]) -> Base:
    """Read the right series."""
    return Base(tuple(tuple(elements_of(split_file(path)[1])) for path in files))


def _contexts() -> dict[tuple[bytes, str], Context]:
    pairs = [(sop_class, syntax) for sop_class in _CLASSES for syntax in _SYNTAXES]
    return {pair: (2 * n + 1, pair[0], (pair[1].encode(),)) for n, pair in enumerate(pairs)}


_CONTEXT = _contexts()
_REQUEST = request(list(_CONTEXT.values()))


def data_set_case(chance: random.Random, right: Base, number_: int) -> Case:
    """An association that stores one to six such instances; those of some cases belong to one series."""
    study, series = b"2.25.7%d" % (number_ // 40), b"2.25.8%d" % (number_ // 8)
    steps: list[Say | Hear] = [Say(_REQUEST), Hear()]
    words = []
    for k in range(chance.choice((1, 1, 2, 6))):
        sop_class = chance.choices(_CLASSES, (80, 12, 8))[0]
        instance = b"2.25.9%d.%d" % (number_, k)
        elements = _named(chance.choice(right.slices), sop_class, instance, study, series)
        syntax = chance.choices(_SYNTAXES, (40, 20, 8, 8, 6, 6, 4, 4, 4))[0]
        if syntax in _ENCAPSULATED:
            elements = _encapsulated(chance, elements)
        for _ in range(chance.choice((1, 1, 1, 2, 4))):
            change = chance.choice(_CHANGES)
            words.append(change.__name__.strip("_"))
            elements = change(chance, elements)
        data = encoded(elements, syntax)
        if chance.random() < 0.25:
            spoil = chance.choice(_OF_BYTES)
            words.append(spoil.__name__.strip("_"))
            data = spoil(chance, data)
        steps += _store(sop_class, instance, syntax, data)
    end: End = chance.choices(("half", "close", "reset"), (80, 14, 6))[0]
    return Case("data set", ", ".join(words), tuple(steps), end)


def series_case(chance: random.Random, right: Base, number_: int) -> Case:
    """A whole series that goes all the way to the decoder and the method, with something odd in a slice or in all."""
    study, series = b"2.25.5%d" % number_, b"2.25.6%d" % number_
    steps: list[Say | Hear] = [Say(_REQUEST), Hear()]
    syntax = chance.choice((EXPLICIT, IMPLICIT, DEFLATED, BIG_ENDIAN, *_ENCAPSULATED))
    change = chance.choice(_LATE)
    hit = range(len(right.slices)) if chance.random() < 0.5 else [chance.randrange(len(right.slices))]
    for k, slice_ in enumerate(right.slices):
        elements = _named(slice_, CT, b"2.25.4%d.%d" % (number_, k), study, series)
        if syntax in _ENCAPSULATED:
            elements = _encapsulated(chance, elements)
        if k in hit:
            elements = change(chance, elements)
        steps += _store(CT, b"2.25.4%d.%d" % (number_, k), syntax, encoded(elements, syntax))
    return Case("series", f"{change.__name__.strip('_')}, {syntax}, {len(hit)} slices", tuple(steps), "half")


def _store(sop_class: bytes, instance: bytes, syntax: str, data: bytes) -> list[Say | Hear]:
    context = _CONTEXT[sop_class, syntax][0]
    return [Say(message(context, store_command(sop_class, instance), data)), Hear(stored=digest(syntax, data))]


def _named(elements: tuple[Element, ...], sop_class: bytes, instance: bytes, study: bytes, series: bytes) -> Elements:
    own = dict(zip(_UIDS, (sop_class, instance, study, series), strict=True))
    return [replace(element, value=own.get(element.tag, element.value)) for element in elements]


def _changed(elements: Elements, at: int, **values: object) -> Elements:
    return [*elements[:at], replace(elements[at], **values), *elements[at + 1 :]]  # type: ignore[arg-type]


def _put(elements: Elements, *new: Element) -> Elements:
    tags = {element.tag for element in new}
    return sorted([*(e for e in elements if e.tag not in tags), *new], key=lambda element: element.tag)


def _left_out(chance: random.Random, elements: Elements) -> Elements:
    gone = chance.randrange(len(elements))
    return elements[:gone] + elements[gone + 1 :]


def _twice(chance: random.Random, elements: Elements) -> Elements:
    at = chance.randrange(len(elements))
    return elements[: at + 1] + elements[at:]


def _out_of_order(chance: random.Random, elements: Elements) -> Elements:
    return chance.sample(elements, len(elements))


def _other_vr(chance: random.Random, elements: Elements) -> Elements:
    vr = chance.choice((b"UN", b"SQ", b"OB", b"US", b"DS", b"PN", b"AT", b"FD", b"UT", b"ZZ", b"\0\0", b"  "))
    return _changed(elements, chance.randrange(len(elements)), vr=vr)


def _other_value(chance: random.Random, elements: Elements) -> Elements:
    return _changed(elements, chance.randrange(len(elements)), value=text(chance))


def _other_length(chance: random.Random, elements: Elements) -> Elements:
    length = chance.choice((UNDEFINED, number(chance, 4), chance.randrange(300)))
    return _changed(elements, chance.randrange(len(elements)), length=length)


def _of(tags: tuple[int, ...], make: Callable[[random.Random], bytes]) -> Change:
    def change(chance: random.Random, elements: Elements) -> Elements:
        places = [at for at, element in enumerate(elements) if element.tag in tags]
        return _changed(elements, chance.choice(places), value=make(chance)) if places else elements

    change.__name__ = make.__name__
    return change


def _odd_geometry(chance: random.Random) -> bytes:
    odd = (
        b"NaN",
        b"inf\\0\\0",
        b"1e308\\-1e308\\0",
        b"0\\0\\0\\0\\0\\0",
        b"1\\2",
        b"1,5\\2,5\\3,5",
        b"-1e-300",
        b"0\\0",
    )
    return chance.choice((*odd, text(chance)))


def _odd_layout(chance: random.Random) -> bytes:
    return chance.choice((struct.pack("<H", number(chance, 2)), text(chance), b"", b"999999999"))


def _odd_uid(chance: random.Random) -> bytes:
    return chance.choice((text(chance), b"1.2.3\0", b" 1.2.3", b"../..", b"1.2\\1.3", b"0"))


def _odd_characters(chance: random.Random, elements: Elements) -> Elements:
    character_set = chance.choice(
        (b"ISO_IR 100", b"ISO_IR 192", b"ISO 2022 IR 87", b"\\ISO 2022 IR 149", b"GB18030", b"NONSENSE", text(chance))
    )
    changed = [Element(CHARACTER_SET, b"CS", character_set), Element(PATIENT_NAME, b"PN", text(chance))]
    return _put(elements, *changed, Element(0x0008103E, b"LO", text(chance)), Element(0x00181210, b"SH", text(chance)))


def _deep_before(chance: random.Random, elements: Elements) -> Elements:
    depth = chance.choice((1, 16, 31, 32, 33, 1000, 10_000))
    return _put(elements, nested(0x00081140, depth, undefined=chance.random() < 0.5))


def _deep_behind(chance: random.Random, elements: Elements) -> Elements:
    depth = chance.choice((1, 16, 200, 1000, 10_000))
    return _put(elements, nested(chance.choice((0x00400275, 0x52009229)), depth, undefined=chance.random() < 0.5))


def _private(chance: random.Random, elements: Elements) -> Elements:
    count = chance.choice((1, 10, 5000))
    made = [Element(0x00190000 + 0x1000 + k, chance.choice((b"UN", b"LO")), text(chance)[:200]) for k in range(count)]
    return _put(elements, Element(0x00190010, b"LO", text(chance)[:60]), *made)


def _foreign_groups(chance: random.Random, elements: Elements) -> Elements:
    tag = chance.choice((0x00000002, 0x00020010, 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD, 0xFFFCFFFC, 0x00080000))
    at = chance.randint(0, len(elements))
    return [*elements[:at], Element(tag, b"UL", text(chance)[:60]), *elements[at:]]


def _frames(chance: random.Random, elements: Elements) -> Elements:
    """Functional groups as an enhanced object has them, with odd insides."""

    def group(tag: int, inner: int, vr: bytes) -> Element:
        return sequence(tag, [[Element(inner, vr, _odd_geometry(chance))]])

    def frame() -> Elements:
        groups = (group(0x00209113, 0x00200032, b"DS"), group(0x00209116, 0x00200037, b"DS"))
        return [*groups, group(0x00289110, 0x00280030, b"DS"), group(0x00289145, 0x00281053, b"DS")]

    count = chance.choice((0, 1, 3, 500))
    return _put(
        elements,
        Element(0x00280008, b"IS", chance.choice((b"%d" % count, text(chance)[:12]))),
        sequence(0x52009229, [frame()]),
        sequence(0x52009230, [frame() for _ in range(count)]),
    )


def _odd_pixels(chance: random.Random, elements: Elements) -> Elements:
    size = len(elements[-1].value) if isinstance(elements[-1].value, bytes) else 0
    pixels = chance.choice((b"", b"\xff" * size, chance.randbytes(size), bytes(size * 4), bytes(max(0, size - 3))))
    return _put(elements, Element(PIXELS, chance.choice((b"OW", b"OB", b"UN")), pixels))


def _encapsulated(chance: random.Random, elements: Elements) -> Elements:
    """Pixels as compressed frames, of bytes that only begin as such."""
    beginnings = (
        b"\xff\x4f\xff\x51\x00\x29\0\0\0\0\0\x40\0\0\0\x40\0\0\0\0\0\0\0\0",
        b"\xff\xd8\xff\xe0\0\x10JFIF\0\1\1",
        b"\xff\xd8\xff\xf7\0\x0b\x10\0\x40\0\x40\1",
        b"\2\0\0\0\x40\0\0\0\x80\0\0\0" + bytes(52),
        b"",
    )
    fragments = [
        chance.choice(beginnings) + chance.randbytes(chance.choice((0, 2, 100, 4000)))
        for _ in range(chance.choice((0, 1, 1, 1, 3)))
    ]
    table = chance.choice((b"", struct.pack("<L", 0), chance.randbytes(8)))
    wrong = number(chance, 4) if chance.random() < 0.2 else None
    whole = chance.random() < 0.9

    def value(coding: Coding) -> bytes:
        out = coding.tag(0xFFFEE000) + coding.long(len(table)) + table
        for fragment in fragments:
            even = fragment + b"\0" * (len(fragment) % 2)
            out += coding.tag(0xFFFEE000) + coding.long(len(even) if wrong is None else wrong) + even
        return out + (coding.tag(0xFFFEE0DD) + coding.long(0) if whole else b"")

    return _put(elements, Element(PIXELS, b"OB", value, UNDEFINED))


def _spoiled_bytes(chance: random.Random, data: bytes) -> bytes:
    return spoiled(data, chance, chance.choice((1, 3, 20)))


def _spoiled_beginning(chance: random.Random, data: bytes) -> bytes:
    return spoiled(data[:700], chance, chance.choice((1, 2, 5))) + data[700:]


def _cut(chance: random.Random, data: bytes) -> bytes:
    return data[: chance.randrange(len(data) + 1)]


def _followed_by_noise(chance: random.Random, data: bytes) -> bytes:
    return data + chance.randbytes(chance.choice((1, 8, 5000)))


def _only_noise(chance: random.Random, data: bytes) -> bytes:
    return chance.choice(
        (b"", bytes(100), chance.randbytes(500), b"\xff" * 500, deflated(bytes(chance.choice((0, 2**24)))))
    )


_OF_BYTES = (_spoiled_bytes, _spoiled_beginning, _cut, _followed_by_noise, _only_noise)

_LATE: tuple[Change, ...] = (
    _odd_pixels,
    _odd_characters,
    _deep_behind,
    _private,
    _of(_GEOMETRY, _odd_geometry),
    _of(_LAYOUT, _odd_layout),
    _of((PATIENT_NAME, 0x0008103E, 0x00080070, 0x00180015, 0x00080090), text),
)

_CHANGES: tuple[Change, ...] = (
    _left_out,
    _twice,
    _out_of_order,
    _other_vr,
    _other_value,
    _other_length,
    _of(_UIDS, _odd_uid),
    _deep_before,
    _foreign_groups,
    _frames,
    *_LATE,
)
