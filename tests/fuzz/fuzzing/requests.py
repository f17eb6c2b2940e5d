"""Association requests (PS3.8 9.3.2, PS3.7 D.3.3) with something wrong in them."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable

from fuzzing.case import Case, End, Say
from fuzzing.noise import number, spoiled, text
from fuzzing.upper_layer import (
    APPLICATION_CONTEXT,
    COMMITMENT,
    CT,
    EXPLICIT,
    IMPLICIT,
    SEG,
    VERIFICATION,
    Context,
    context_item,
    item,
    pdu,
    request,
    request_of,
    user_item,
    usual_sub_items,
)

USUAL: tuple[Context, ...] = ((1, CT, (EXPLICIT.encode(), IMPLICIT.encode())), (3, VERIFICATION, (IMPLICIT.encode(),)))
_CLASSES = (CT, SEG, VERIFICATION, COMMITMENT, b"1.2.840.10008.5.1.4.1.1.4", b"1.2.3.4")

Maker = Callable[[random.Random], bytes]


def request_case(chance: random.Random) -> Case:
    """A connection with one such request."""
    make = chance.choice(_MAKERS)
    data = make(chance)
    # Whether the node waits for more depends on the lengths: a peer that leaves is told from one that is slow.
    end: End = chance.choices(("half", "close", "reset", "silent"), (80, 12, 6, 2))[0]
    return Case("request", make.__name__.strip("_"), (Say(data),), end)


def _spoiled(chance: random.Random) -> bytes:
    return spoiled(request(USUAL), chance, chance.choice((1, 1, 2, 4, 16)))


def _wrong_pdu_length(chance: random.Random) -> bytes:
    whole = request(USUAL)
    length = chance.choice((number(chance, 4), len(whole) - 6 + chance.randint(-8, 8), chance.randrange(80)))
    return pdu(1, whole[6:], length) + (whole if chance.random() < 0.3 else b"")


def _wrong_item_length(chance: random.Random) -> bytes:
    items = [item(0x10, APPLICATION_CONTEXT), *map(context_item, USUAL), user_item(usual_sub_items())]
    at = chance.randrange(len(items))
    kind, value = items[at][0], items[at][4:]
    items[at] = item(kind, value, chance.choice((number(chance, 2), len(value) + chance.randint(-6, 6))))
    return request_of(items)


def _items_out_of_place(chance: random.Random) -> bytes:
    items = [item(0x10, APPLICATION_CONTEXT), *map(context_item, USUAL), user_item(usual_sub_items())]
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(items)) if items else 0
        match chance.randrange(5):
            case 0 if items:
                del items[at]
            case 1 if items:
                items.append(items[at])
            case 2:
                chance.shuffle(items)
            case 3:
                items.insert(at, item(chance.randrange(256), text(chance)))
            case _ if items:
                items[at] = item(chance.randrange(256), items[at][4:])
    return request_of(items)


def _many_contexts(chance: random.Random) -> bytes:
    count = chance.choice((0, 1, 2, 127, 128, 129, 255, 300, chance.randint(1, 300)))
    syntaxes = [EXPLICIT.encode(), IMPLICIT.encode(), b"1.2.840.10008.1.2.4.100"]
    contexts = [
        (
            chance.choice((2 * index + 1, chance.randrange(256), 1)),
            chance.choice(_CLASSES),
            chance.choices(syntaxes, k=chance.choice((0, 1, 1, 2, 3, 50))),
        )
        for index in range(count)
    ]
    return request(contexts)


def _odd_uids(chance: random.Random) -> bytes:
    contexts = [
        (2 * index + 1, text(chance), [text(chance) for _ in range(chance.randrange(3))])
        for index in range(chance.randint(1, 5))
    ]
    if chance.random() < 0.5:
        contexts.append((11, CT, [EXPLICIT.encode(), text(chance)]))
    items = [
        item(0x10, chance.choice((APPLICATION_CONTEXT, text(chance)))),
        *map(context_item, contexts),
        user_item(usual_sub_items()),
    ]
    return request_of(items)


def _odd_context(chance: random.Random) -> bytes:
    """A context item whose inside is spoiled, or that holds items within items."""
    inner = item(0x30, CT) + item(0x40, EXPLICIT.encode())
    for _ in range(chance.randrange(6)):
        inner = chance.choice(
            (inner + item(0x30, text(chance)), item(0x40, inner), item(0x20, inner), spoiled(inner, chance, 1), b"")
        )
    head = bytes([chance.choice((1, 0, 2, 255)), *chance.randbytes(3)])
    return request_of([item(0x10, APPLICATION_CONTEXT), item(0x20, head + inner), user_item(usual_sub_items())])


def _titles(chance: random.Random) -> bytes:
    titles = (b"FUZZ", text(chance)[:16], chance.randbytes(16), b" " * 16, b"\0" * 16, "MÜLLER^JÖRG".encode(), b"F\\Z")
    return request(USUAL, calling=chance.choice(titles), called=chance.choice((b"M3NODE", *titles)))


def _fixed_fields(chance: random.Random) -> bytes:
    return request(USUAL, version=number(chance, 2), reserved=chance.randbytes(32))


def _sub_item(chance: random.Random) -> bytes:
    """One of the sub-items of user information, with lengths of its own that may be wrong."""

    def run(value: bytes) -> bytes:
        length = len(value) if chance.random() < 0.7 else number(chance, 2)
        return struct.pack(">H", length) + value

    name = chance.choice((CT, VERIFICATION, text(chance)))
    match chance.randrange(9):
        case 0:
            made = item(0x51, chance.choice((struct.pack(">L", number(chance, 4)), chance.randbytes(3), b"")))
        case 1:
            made = item(chance.choice((0x52, 0x55)), text(chance))
        case 2:
            made = item(0x53, chance.choice((struct.pack(">HH", number(chance, 2), number(chance, 2)), b"\0")))
        case 3:
            made = item(0x54, run(name) + chance.randbytes(chance.choice((0, 1, 2, 3))))
        case 4:
            made = item(0x56, run(name) + chance.choice((b"", b"\2\0\1\0\0\0", text(chance))))
        case 5:
            related = b"".join(run(text(chance)) for _ in range(chance.randrange(4)))
            made = item(0x57, run(name) + run(b"1.2.840.10008.4.2") + run(related))
        case 6:
            kind = chance.choice((0, 1, 2, 3, 4, 5, 6, 255))
            made = item(0x58, bytes([kind, chance.randrange(3)]) + run(text(chance)) + run(text(chance)))
        case 7:
            made = item(0x59, run(text(chance)))
        case _:
            made = item(chance.randrange(256), chance.choice((text(chance), user_item(usual_sub_items()))))
    return made


def _user_information(chance: random.Random) -> bytes:
    sub_items = usual_sub_items() if chance.random() < 0.7 else []
    for _ in range(chance.choice((1, 1, 2, 5, 40))):
        sub_items.insert(chance.randint(0, len(sub_items)), _sub_item(chance))
    return request(USUAL, sub_items=sub_items)


def _nested_user_information(chance: random.Random) -> bytes:
    inner = b"".join(usual_sub_items())
    for _ in range(chance.choice((1, 2, 50, 2000))):
        inner = item(0x50, inner)
    return request_of([item(0x10, APPLICATION_CONTEXT), *map(context_item, USUAL), inner])


def _large(chance: random.Random) -> bytes:
    """As much as a request may hold, and more."""
    parts = [
        item(chance.choice((0x20, 0x30, 0x50, 0x99)), chance.randbytes(65535)) for _ in range(chance.randint(1, 17))
    ]
    return request_of([item(0x10, APPLICATION_CONTEXT), *map(context_item, USUAL), *parts])


def _cut(chance: random.Random) -> bytes:
    whole = request(USUAL)
    return whole[: chance.randrange(len(whole))]


_MAKERS: tuple[Maker, ...] = (
    _spoiled,
    _spoiled,
    _spoiled,
    _wrong_pdu_length,
    _wrong_item_length,
    _items_out_of_place,
    _many_contexts,
    _odd_uids,
    _odd_context,
    _titles,
    _fixed_fields,
    _user_information,
    _user_information,
    _nested_user_information,
    _large,
    _cut,
)
