"""TLS handshakes (RFC 8446) with something wrong in them, and what is no TLS at all on the port for it."""

from __future__ import annotations

import random

from fuzzing.case import Case, End, Say
from fuzzing.noise import number, spoiled
from fuzzing.requests import USUAL
from fuzzing.upper_layer import request

HELLO = bytes.fromhex(
    "16030100ee010000ea0303ee132f2e314ee2775ac8e5f3fab8cd8711a73dbea671cade045a9333d04b80b02065ad9752997312faf1f8670eb6519550"
    "c4689002e3ea2f8d7480adf6ef1a72aa000c130213031301c02bc02f00ff01000095000b000403000102000a00160014001d0017001e001900180100"
    "0101010201030104002300000016000000170000000d002a0028040305030603080708080809080a080b080408050806040105010601030303010302"
    "040205020602002b00050403040303002d00020101003300260024001d00208f8e0f099b0563cf2182f8ff56717d57a551415e60b07ae3df8723527b"
    "289c7c"
)
"""A right one, of OpenSSL's."""


def handshake_case(chance: random.Random) -> Case:
    """A connection to the port for TLS with one such beginning."""
    make = chance.choice((_spoiled, _spoiled, _cut, _wrong_lengths, _other_records, _followed_by_noise, _plain, _noise))
    end: End = chance.choices(("half", "close", "reset", "silent"), (70, 18, 10, 2))[0]
    return Case("handshake", make.__name__.strip("_"), (Say(make(chance)),), end, way="raw")


def _spoiled(chance: random.Random) -> bytes:
    return spoiled(HELLO, chance, chance.choice((1, 2, 6)))


def _cut(chance: random.Random) -> bytes:
    return HELLO[: chance.randrange(len(HELLO))]


def _wrong_lengths(chance: random.Random) -> bytes:
    record, message = number(chance, 2).to_bytes(2, "big"), number(chance, 3).to_bytes(3, "big")
    return chance.choice((HELLO[:3] + record + HELLO[5:], HELLO[:6] + message + HELLO[9:]))


def _other_records(chance: random.Random) -> bytes:
    """Alerts, data, changes of cipher and handshakes of any kind, before or behind the right one."""
    body = chance.randbytes(chance.choice((0, 1, 2, 60)))
    record = (
        bytes([chance.choice((20, 21, 22, 23, 24, 255)), 3, chance.randrange(5)]) + len(body).to_bytes(2, "big") + body
    )
    return chance.choice((record * chance.choice((1, 1000)), record + HELLO, HELLO + record))


def _followed_by_noise(chance: random.Random) -> bytes:
    return HELLO + chance.randbytes(chance.choice((1, 500, 40_000)))


def _plain(chance: random.Random) -> bytes:
    return chance.choice((request(USUAL), b"GET / HTTP/1.1\r\n\r\n", bytes.fromhex("802e0100020015")))


def _noise(chance: random.Random) -> bytes:
    return chance.randbytes(chance.choice((1, 5, 300, 100_000)))
