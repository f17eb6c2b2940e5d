"""PDUs of every type where they do not belong, and P-DATA whose fragments do not fit (PS3.8 9.2, 9.3.5)."""

from __future__ import annotations

import random
from collections.abc import Callable

from fuzzing.case import Case, End, Hear, Say
from fuzzing.noise import fragments, number, spoiled, text
from fuzzing.requests import USUAL
from fuzzing.upper_layer import (
    ABORT,
    ASSOCIATE_AC,
    ASSOCIATE_RJ,
    COMMAND,
    CT,
    DATA,
    LAST,
    RELEASE_RP,
    RELEASE_RQ,
    echo_command,
    message,
    pdu,
    request,
    store_command,
    value_item,
)

Maker = Callable[[random.Random], bytes]


def pdu_case(chance: random.Random) -> Case:
    """A connection that has or has not been associated, and then says one to six such things."""
    established = chance.random() < 0.85
    made = [chance.choice(_MAKERS) for _ in range(chance.choice((1, 1, 2, 3, 6)))]
    steps: list[Say | Hear] = [Say(request(USUAL)), Hear()] if established else []
    steps += [Say(make(chance)) for make in made]
    end: End = chance.choices(("half", "close", "reset", "silent"), (70, 18, 10, 2))[0]
    words = ", ".join(make.__name__.strip("_") for make in made)
    return Case("pdu", f"{'after' if established else 'instead of'} a request: {words}", tuple(steps), end)


def _any_type(chance: random.Random) -> bytes:
    return pdu(chance.randrange(256), chance.choice((b"", bytes(4), text(chance), chance.randbytes(40))))


def _request_again(chance: random.Random) -> bytes:
    return chance.choice((request(USUAL), spoiled(request(USUAL), chance, 2)))


def _answer_of_an_acceptor(chance: random.Random) -> bytes:
    whole = request(USUAL)
    return chance.choice((pdu(ASSOCIATE_AC, whole[6:]), pdu(ASSOCIATE_RJ, bytes([0, 1, 1, 1])), pdu(ASSOCIATE_AC, b"")))


def _release(chance: random.Random) -> bytes:
    body = chance.choice((bytes(4), b"", chance.randbytes(4), chance.randbytes(400)))
    return pdu(chance.choice((RELEASE_RQ, RELEASE_RP)), body, chance.choice((None, None, number(chance, 2))))


def _abort(chance: random.Random) -> bytes:
    return pdu(ABORT, chance.choice((bytes(4), b"\0\0\2\6", chance.randbytes(4), b"", chance.randbytes(9))))


def _wrong_length(chance: random.Random) -> bytes:
    whole = message(3, echo_command())
    return pdu(DATA, whole[6:], chance.choice((number(chance, 4), len(whole) + chance.randint(-20, 20))))


def _oversize(chance: random.Random) -> bytes:
    return pdu(DATA, value_item(1, 0, bytes(chance.choice((40_000, 131_073, 300_000)))))


def _too_large_to_be_true(chance: random.Random) -> bytes:
    return pdu(DATA, b"\0" * 64, chance.choice((2**20, 2**20 + 1, 2**24, 2**31, 2**32 - 1)))


def _odd_value_items(chance: random.Random) -> bytes:
    items = [
        value_item(
            chance.choice((1, 3, 0, 2, 255)),
            chance.randrange(256) if chance.random() < 0.3 else chance.randrange(4),
            text(chance),
            chance.choice((None, None, None, number(chance, 4), chance.randrange(8))),
        )
        for _ in range(chance.choice((0, 1, 1, 2, 5)))
    ]
    return pdu(DATA, b"".join(items))


def _many_empty_value_items(chance: random.Random) -> bytes:
    return pdu(DATA, value_item(1, chance.choice((0, COMMAND)), b"") * chance.choice((1, 100, 4000)))


def _store(chance: random.Random) -> bytes:
    return message(1, store_command(CT, b"2.25.1"), chance.randbytes(chance.choice((0, 1, 500, 40_000))))


def _store_in_pieces(chance: random.Random) -> bytes:
    """A message cut anywhere, and now and then not to its end or in another order."""
    pieces = list(fragments(store_command(CT, b"2.25.1"), chance, chance.choice((2, 10, 100))))
    items = [value_item(1, COMMAND | (LAST if n == len(pieces) else 0), piece) for n, piece in enumerate(pieces, 1)]
    items += [value_item(1, 0, piece) for piece in fragments(chance.randbytes(2000), chance, 5)]
    items.append(value_item(1, LAST, b""))
    match chance.randrange(5):
        case 0:
            del items[chance.randrange(len(items)) :]
        case 1:
            chance.shuffle(items)
        case 2:
            items[-1] = value_item(3, LAST, b"")
    each = chance.choice((1, 3, 500))
    return b"".join(pdu(DATA, b"".join(items[at : at + each])) for at in range(0, len(items), each))


def _data_without_command(chance: random.Random) -> bytes:
    return pdu(DATA, value_item(chance.choice((1, 3)), LAST, text(chance)))


def _command_within_a_message(chance: random.Random) -> bytes:
    begun = message(1, store_command(CT, b"2.25.1"))
    return begun + chance.choice((message(3, echo_command()), message(1, store_command(CT, b"2.25.2"))))


def _echo(chance: random.Random) -> bytes:
    return message(3, echo_command(chance.getrandbits(16)))


def _spoiled_store(chance: random.Random) -> bytes:
    return spoiled(message(1, store_command(CT, b"2.25.1"), bytes(300)), chance, chance.choice((1, 2, 8)))


_MAKERS: tuple[Maker, ...] = (
    _any_type,
    _request_again,
    _answer_of_an_acceptor,
    _release,
    _abort,
    _wrong_length,
    _oversize,
    _too_large_to_be_true,
    _odd_value_items,
    _odd_value_items,
    _many_empty_value_items,
    _store,
    _store_in_pieces,
    _data_without_command,
    _command_within_a_message,
    _echo,
    _spoiled_store,
    _spoiled_store,
)
