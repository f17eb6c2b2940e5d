"""Bytes that were right, made wrong: what a broken cable, a broken program or an attacker makes of them."""

from __future__ import annotations

import random
from collections.abc import Sequence

EDGES = (
    0,
    1,
    2,
    3,
    4,
    7,
    8,
    15,
    16,
    127,
    128,
    255,
    256,
    32767,
    32768,
    65534,
    65535,
    2**31 - 1,
    2**31,
    2**32 - 2,
    2**32 - 1,
)
"""Numbers at which lengths and counts go wrong."""

TEXTS = (
    b"",
    b" ",
    b"\0" * 16,
    b"A" * 64,
    b"A" * 65,
    b"A" * 1024,
    b"../../etc/passwd",
    b"..\\..\\boot.ini",
    b"%s%n%x%d",
    b"{0.__class__}",
    b"<script>alert(1)</script>",
    b"'; DROP TABLE jobs; --",
    b"line\r\nbreak",
    b"\x1b[31mred\x1b[0m",
    b"\x1b$B\x3b\x33",
    b"\x1b$)C\xb1\xe8",
    b"\xff\xfe\xfd",
    b"\xc3\x28",
    "Müller^Jörg=山田^太郎".encode(),
    "Müller^Jörg".encode("latin-1"),
    b"1.2.840.10008.1.1",
    b"1.2..3",
    b"01.02.03",
    b"1." * 40 + b"1",
    b"NaN",
    b"1e999",
    b"-0",
    b"1\\2\\3\\4\\5\\6\\7\\8",
    b"\\\\\\\\",
    b"99999999999999999999",
)
"""Values that somebody once took for something else."""


def number(chance: random.Random, width: int) -> int:
    """A number of so many bytes, more often than not one at an edge."""
    if chance.random() < 0.7:
        return chance.choice(EDGES) % 256**width
    return chance.getrandbits(8 * width)


def text(chance: random.Random) -> bytes:
    """A value of the list, or any bytes."""
    if chance.random() < 0.7:
        return chance.choice(TEXTS)
    return chance.randbytes(chance.choice((1, 2, 5, 16, 64, 300)))


def spoiled(data: bytes, chance: random.Random, times: int) -> bytes:
    """Change bytes in so many places."""
    out = bytearray(data)
    for _ in range(times):
        at = chance.randrange(len(out)) if out else 0
        match chance.randrange(9):
            case 0 if out:
                out[at] ^= 1 << chance.randrange(8)
            case 1 if out:
                out[at] = chance.choice((0x00, 0x01, 0x7F, 0x80, 0xFE, 0xFF))
            case 2:
                width = chance.choice((1, 2, 4))
                out[at : at + width] = number(chance, width).to_bytes(width, chance.choice(("big", "little")))
            case 3:
                del out[at : at + chance.choice((1, 2, 4, 8, 100))]
            case 4:
                out[at:at] = text(chance)
            case 5:
                end = at + chance.choice((1, 4, 8, 64, 512))
                out[at:at] = out[at:end]
            case 6:
                del out[at:]
            case 7:
                other = chance.randrange(len(out)) if out else 0
                out[at : at + 4], out[other : other + 4] = out[other : other + 4], out[at : at + 4]
            case _:
                out[at : at + 16] = chance.randbytes(16)
    return bytes(out)


def fragments(data: bytes, chance: random.Random, count: int) -> Sequence[bytes]:
    """Cut bytes at so many places less one, at odd ones too."""
    cuts = sorted(chance.randrange(len(data) + 1) for _ in range(count - 1))
    return [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]
