"""The upper layer's PDUs (PS3.8 9.3), put together from parts so that each part can be a wrong one."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence

CT = b"1.2.840.10008.5.1.4.1.1.2"
SEG = b"1.2.840.10008.5.1.4.1.1.66.4"
VERIFICATION = b"1.2.840.10008.1.1"
COMMITMENT = b"1.2.840.10008.1.20.1"
APPLICATION_CONTEXT = b"1.2.840.10008.3.1.1.1"

IMPLICIT = "1.2.840.10008.1.2"
EXPLICIT = "1.2.840.10008.1.2.1"
DEFLATED = "1.2.840.10008.1.2.1.99"
BIG_ENDIAN = "1.2.840.10008.1.2.2"
JPEG_2000 = "1.2.840.10008.1.2.4.90"

ASSOCIATE_RQ, ASSOCIATE_AC, ASSOCIATE_RJ, DATA, RELEASE_RQ, RELEASE_RP, ABORT = range(1, 8)
COMMAND, LAST = 1, 2

Context = tuple[int, bytes, Sequence[bytes]]


def pdu(kind: int, body: bytes, length: int | None = None) -> bytes:
    """A PDU; ``length`` where it is not its own."""
    return struct.pack(">BBL", kind & 0xFF, 0, len(body) if length is None else length & 0xFFFFFFFF) + body


def item(kind: int, value: bytes, length: int | None = None) -> bytes:
    """An item or sub-item of an association request; a value that is too long for one is cut."""
    value = value[:65535]
    return struct.pack(">BBH", kind & 0xFF, 0, len(value) if length is None else length & 0xFFFF) + value


def context_item(context: Context) -> bytes:
    """A proposed presentation context."""
    number, abstract, syntaxes = context
    parts = item(0x30, abstract) + b"".join(item(0x40, syntax) for syntax in syntaxes)
    return item(0x20, bytes([number & 0xFF, 0, 0, 0]) + parts)


def user_item(sub_items: Iterable[bytes]) -> bytes:
    """User information."""
    return item(0x50, b"".join(sub_items))


def usual_sub_items() -> list[bytes]:
    """What a decent sender says of itself."""
    return [item(0x51, struct.pack(">L", 16384)), item(0x52, b"1.2.826.0.1.3680043.9.9999"), item(0x55, b"FUZZ_1")]


def request(
    contexts: Sequence[Context],
    *,
    calling: bytes = b"FUZZ",
    called: bytes = b"M3NODE",
    sub_items: Iterable[bytes] | None = None,
    version: int = 1,
    reserved: bytes = bytes(32),
) -> bytes:
    """An A-ASSOCIATE-RQ as a decent sender says it, but for what is asked for."""
    items = [item(0x10, APPLICATION_CONTEXT), *(context_item(context) for context in contexts)]
    items.append(user_item(usual_sub_items() if sub_items is None else sub_items))
    return request_of(items, calling=calling, called=called, version=version, reserved=reserved)


def request_of(
    items: Iterable[bytes],
    *,
    calling: bytes = b"FUZZ",
    called: bytes = b"M3NODE",
    version: int = 1,
    reserved: bytes = bytes(32),
) -> bytes:
    """An A-ASSOCIATE-RQ of any items."""
    titles = called[:16].ljust(16) + calling[:16].ljust(16)
    return pdu(ASSOCIATE_RQ, struct.pack(">HH", version & 0xFFFF, 0) + titles + reserved + b"".join(items))


def value_item(context: int, control: int, value: bytes, length: int | None = None) -> bytes:
    """A presentation data value item."""
    own = len(value) + 2 if length is None else length & 0xFFFFFFFF
    return struct.pack(">LBB", own, context & 0xFF, control & 0xFF) + value


def message(context: int, command: bytes, data: bytes | None = None, *, largest: int = 16000) -> bytes:
    """A DIMSE message as P-DATA-TF PDUs."""
    out = pdu(DATA, value_item(context, COMMAND | LAST, command))
    if data is not None:
        pieces = [data[at : at + largest] for at in range(0, len(data), largest)] or [b""]
        for number, piece in enumerate(pieces, 1):
            out += pdu(DATA, value_item(context, LAST if number == len(pieces) else 0, piece))
    return out


def command_element(number: int, value: bytes, *, group: int = 0, length: int | None = None) -> bytes:
    """An element of a command set (PS3.7 6.3.1)."""
    own = len(value) if length is None else length & 0xFFFFFFFF
    return struct.pack("<HHL", group & 0xFFFF, number & 0xFFFF, own) + value


def us(value: int) -> bytes:
    """A number of a command set."""
    return struct.pack("<H", value & 0xFFFF)


def uid(value: bytes) -> bytes:
    """A UID of a command set, padded."""
    return value + b"\0" * (len(value) % 2)


def command_set(elements: Iterable[bytes]) -> bytes:
    """Elements with their group length before them."""
    body = b"".join(elements)
    return command_element(0, struct.pack("<L", len(body))) + body


def store_command(sop_class: bytes, sop_instance: bytes, message_id: int = 1) -> bytes:
    """A C-STORE-RQ's command set."""
    return command_set(
        (
            command_element(0x0002, uid(sop_class)),
            command_element(0x0100, us(0x0001)),
            command_element(0x0110, us(message_id)),
            command_element(0x0700, us(0)),
            command_element(0x0800, us(0x0001)),
            command_element(0x1000, uid(sop_instance)),
        )
    )


def echo_command(message_id: int = 1) -> bytes:
    """A C-ECHO-RQ's command set."""
    return command_set(
        (
            command_element(0x0002, uid(VERIFICATION)),
            command_element(0x0100, us(0x0030)),
            command_element(0x0110, us(message_id)),
            command_element(0x0800, us(0x0101)),
        )
    )
