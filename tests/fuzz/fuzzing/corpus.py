"""What once did harm, or might have: small, by hand, and part of every run."""

from __future__ import annotations

import struct

from fuzzing.case import Case, Hear, Say
from fuzzing.commands import REPORTING, report_command
from fuzzing.requests import USUAL
from fuzzing.upper_layer import (
    CT,
    DATA,
    LAST,
    RELEASE_RQ,
    item,
    message,
    pdu,
    request,
    store_command,
    usual_sub_items,
    value_item,
)


def _case(words: str, *said: bytes, established: bool = True) -> Case:
    before: tuple[Say | Hear, ...] = (Say(request(USUAL)), Hear()) if established else ()
    return Case("corpus", words, (*before, *map(Say, said)))


def _report() -> Case:
    """A storage commitment report about nothing that was asked for, as an archive sends it: it is kept."""
    data = bytes.fromhex("08009511") + b"UI\x06\0" + b"2.25.1"
    return Case("corpus", "a report", (Say(REPORTING), Hear(), Say(message(5, report_command(1), data)), Hear()))


CORPUS = (
    _report(),
    _case("nothing", established=False),
    _case("a web browser", b"GET / HTTP/1.1\r\nHost: pacs\r\n\r\n", established=False),
    _case("a TLS hello on the plain port", bytes.fromhex("16030100c8010000c40303") + bytes(200), established=False),
    _case("four gigabytes announced", b"\1\0\xff\xff\xff\xff", established=False),
    _case("a release before a request", pdu(RELEASE_RQ, bytes(4)), established=False),
    _case("a largest PDU of 1 byte", request(USUAL, sub_items=[item(0x51, struct.pack(">L", 1))]), established=False),
    _case("nobody's title", request(USUAL, calling=b"\xff" * 16), established=False),
    _case("user information without its end", request(USUAL, sub_items=usual_sub_items())[:-3], established=False),
    _case("a value item of no bytes", pdu(DATA, value_item(1, 0, b"", 0))),
    _case("a value item longer than its PDU", pdu(DATA, value_item(1, LAST, b"", 2**31))),
    _case("data before a command", pdu(DATA, value_item(1, LAST, bytes(8)))),
    _case("a data set of nothing", message(1, store_command(CT, b"2.25.1"), b"")),
    _case("many odd value items in one PDU", pdu(DATA, b"".join(value_item(1, 0x11, b"odd") for _ in range(9)))),
    _case("a release within a message", message(1, store_command(CT, b"2.25.1")), pdu(RELEASE_RQ, bytes(4))),
)
