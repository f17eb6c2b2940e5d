"""DIMSE command sets (PS3.7 6.3, 9.3, 10.3, E) with something wrong in them, of every service there is."""

from __future__ import annotations

import random

from fuzzing.case import Case, End, Hear, Say
from fuzzing.noise import fragments, number, spoiled, text
from fuzzing.upper_layer import (
    COMMAND,
    COMMITMENT,
    CT,
    DATA,
    EXPLICIT,
    IMPLICIT,
    LAST,
    VERIFICATION,
    Context,
    command_element,
    command_set,
    echo_command,
    item,
    message,
    pdu,
    request,
    uid,
    us,
    usual_sub_items,
    value_item,
)

_CONTEXTS: tuple[Context, ...] = (
    (1, CT, (EXPLICIT.encode(),)),
    (3, VERIFICATION, (IMPLICIT.encode(),)),
    (5, COMMITMENT, (EXPLICIT.encode(),)),
)
_FIELDS = (0x0001, 0x0010, 0x0020, 0x0021, 0x0030, 0x0100, 0x0110, 0x0120, 0x0130, 0x0140, 0x0150, 0x0FFF)
_CONTEXT_OF = {0x0001: 1, 0x0030: 3, 0x0100: 5}

# Storage commitment asks for roles: the node is its user (PS3.4 J).
REPORTING = request(
    _CONTEXTS, sub_items=[*usual_sub_items(), item(0x54, len(COMMITMENT).to_bytes(2, "big") + COMMITMENT + b"\0\1")]
)
"""A request of one who may store, verify and report."""

Elements = list[tuple[int, bytes]]


def command_case(chance: random.Random) -> Case:
    """A connection with one to three such commands, and an echo that asks whether the association still stands."""
    steps: list[Say | Hear] = [Say(REPORTING), Hear()]
    words = []
    for _ in range(chance.choice((1, 1, 2, 3))):
        said, word = _command(chance)
        words.append(word)
        steps.append(Say(said))
    if chance.random() < 0.3:
        steps.append(Say(message(3, echo_command())))
    end: End = chance.choices(("half", "close", "reset", "silent"), (80, 12, 6, 2))[0]
    return Case("command", ", ".join(words), tuple(steps), end)


def _command(chance: random.Random) -> tuple[bytes, str]:
    field = chance.choice((0x0001, 0x0001, 0x0030, 0x0100, 0x0100, chance.choice(_FIELDS), chance.getrandbits(16)))
    if chance.random() < 0.1:
        field |= 0x8000
    context = _CONTEXT_OF.get(field, 1) if chance.random() < 0.9 else chance.randrange(256)
    elements = _elements(chance, field)
    words = "right"
    if chance.random() < 0.9:
        change = chance.choice(_CHANGES)
        words = change.__name__.strip("_")
        elements = change(chance, elements)
    command = command_set(
        command_element(
            tag, value, group=_rarely(chance, 0), length=number(chance, 4) if chance.random() < 0.02 else None
        )
        for tag, value in elements
    )
    if chance.random() < 0.15:
        words += ", spoiled"
        command = spoiled(command, chance, chance.choice((1, 3)))
    data = _data(chance, field) if chance.random() < 0.7 else None
    return _said(chance, context, command, data), f"{field:04X} {words}"


def _said(chance: random.Random, context: int, command: bytes, data: bytes | None) -> bytes:
    if chance.random() < 0.8:
        return message(context, command, data)
    pieces = fragments(command, chance, chance.choice((2, 5)))
    items = [value_item(context, COMMAND | (LAST if n == len(pieces) else 0), p) for n, p in enumerate(pieces, 1)]
    return b"".join(pdu(DATA, item) for item in items) + (message(context, b"", data) if data else b"")


def _rarely(chance: random.Random, group: int) -> int:
    return number(chance, 2) if chance.random() < 0.02 else group


def _elements(chance: random.Random, field: int) -> Elements:
    sop_class = {0x0001: CT, 0x0030: VERIFICATION, 0x0100: COMMITMENT}.get(field, CT)
    instance = b"1.2.840.10008.1.20.1.1" if field == 0x0100 else b"2.25.77"
    elements = [
        (0x0002, uid(sop_class)),
        (0x0100, us(field)),
        (0x0110, us(chance.getrandbits(16))),
        (0x0700, us(chance.randrange(3))),
        (0x0800, us(0x0101 if field == 0x0030 else 1)),
        (0x1000, uid(instance)),
    ]
    if field == 0x0100:
        elements.append((0x1002, us(chance.choice((1, 2, 1, 2, 3)))))
    return elements


def report_command(event_type: int) -> bytes:
    """An N-EVENT-REPORT-RQ's command set."""
    return command_set(
        (
            command_element(0x0002, uid(COMMITMENT)),
            command_element(0x0100, us(0x0100)),
            command_element(0x0110, us(1)),
            command_element(0x0800, us(1)),
            command_element(0x1000, uid(b"1.2.840.10008.1.20.1.1")),
            command_element(0x1002, us(event_type)),
        )
    )


def _left_out(chance: random.Random, elements: Elements) -> Elements:
    return [element for element in elements if chance.random() < 0.7]


def _twice(chance: random.Random, elements: Elements) -> Elements:
    return elements + chance.choices(elements, k=chance.choice((1, 5, 3000)))


def _other_values(chance: random.Random, elements: Elements) -> Elements:
    return [(tag, text(chance) if chance.random() < 0.4 else value) for tag, value in elements]


def _odd_uids(chance: random.Random, elements: Elements) -> Elements:
    return [(tag, text(chance) if tag in (0x0002, 0x1000) else value) for tag, value in elements]


def _more(chance: random.Random, elements: Elements) -> Elements:
    more = [(chance.choice((0x0000, 0x1030, 0x1031, 0x0900, 0x0902, chance.getrandbits(16))), text(chance))]
    return elements + more * chance.choice((1, 4))


def _out_of_order(chance: random.Random, elements: Elements) -> Elements:
    return chance.sample(elements, len(elements))


def _too_long(chance: random.Random, elements: Elements) -> Elements:
    return [*elements, (0x0902, b"x" * chance.choice((65_000, 66_000)))]


def _says_that_no_data_set_comes(chance: random.Random, elements: Elements) -> Elements:
    return [(tag, us(chance.choice((0x0101, 0x0102))) if tag == 0x0800 else value) for tag, value in elements]


_CHANGES = (_left_out, _twice, _other_values, _odd_uids, _more, _out_of_order, _too_long, _says_that_no_data_set_comes)


def _data(chance: random.Random, field: int) -> bytes:
    """Event information for a report, in Explicit VR Little Endian, and anything for the others."""
    if field != 0x0100:
        return chance.choice((b"", chance.randbytes(100), text(chance)))
    transaction = chance.choice((b"2.25.%d" % chance.getrandbits(20), text(chance)[:64]))
    entry = _ui(0x0008, 0x1150, CT) + _ui(0x0008, 0x1155, chance.choice((b"2.25.5", text(chance)[:64])))
    if chance.random() < 0.4:
        entry += b"\x08\0\x97\x11US\x02\0" + chance.randbytes(2)
    items = (b"\xfe\xff\0\xe0" + len(entry).to_bytes(4, "little") + entry) * chance.choice((0, 1, 3))
    sequence = (
        chance.choice((b"\x08\0\x99\x11", b"\x08\0\x98\x11")) + b"SQ\0\0" + len(items).to_bytes(4, "little") + items
    )
    data = _ui(0x0008, 0x1195, transaction) + sequence
    return data if chance.random() < 0.5 else spoiled(data, chance, chance.choice((1, 2, 5)))


def _ui(group: int, element: int, value: bytes) -> bytes:
    value += b"\0" * (len(value) % 2)
    return (
        group.to_bytes(2, "little") + element.to_bytes(2, "little") + b"UI" + len(value).to_bytes(2, "little") + value
    )
