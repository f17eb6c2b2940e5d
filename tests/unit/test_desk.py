"""What a receiver asks the acceptor is answered to the one that asked, and what is not answered is no."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from m3node.intake.receive import desk
from m3node.intake.receive.channel import LARGEST, Message, Word, decoded
from m3node.intake.receive.desk import AcceptorDesk, Channel, decoded_turn, encoded_turn
from m3node.intake.receive.rates import Turn


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    theirs.settimeout(30)
    with ours, theirs:
        yield ours, theirs


@given(
    st.builds(
        Message,
        word=st.sampled_from(Word),
        number=st.integers(0, 2**63),
        text=st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=80),
    )
)
def test_a_message_is_read_as_it_was_written(message: Message) -> None:
    assert len(message.encoded()) <= LARGEST
    assert decoded(message.encoded()) == message


@given(
    st.builds(Turn, st.none() | st.floats(0.0, 10.0), st.sampled_from(["", "listener.instances_per_minute = 6000000"]))
)
def test_a_turn_is_read_as_it_was_written(turn: Turn) -> None:
    assert decoded_turn(encoded_turn(turn)) == turn


def test_each_asker_hears_its_own_answer_in_whatever_order_they_come(
    ends: tuple[socket.socket, socket.socket],
) -> None:
    channel = Channel(ends[0])
    heard: dict[int, str] = {}

    def ask(number: int) -> None:
        heard[number] = AcceptorDesk(channel, number).admit(f"CT {number}")

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    asked = [decoded(ends[1].recv(LARGEST)) for _ in threads]
    assert {(message.number, message.text) for message in asked} == {(n, f"CT {n}") for n in range(20)}
    channel.answered(Message(Word.ANSWER, 99, "granted"))  # somebody who does not wait any more
    for message in reversed(asked):
        channel.answered(Message(Word.ANSWER, message.number, "granted" if message.number % 2 else "all"))
    for thread in threads:
        thread.join()
    assert heard == {number: "granted" if number % 2 else "all" for number in range(20)}


def test_what_is_not_answered_in_time_is_no(
    ends: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(desk, "ANSWER_SECONDS", 0.01)
    asking = AcceptorDesk(Channel(ends[0]), 1)
    assert asking.admit("CT1") == "gone"
    assert asking.turn() == Turn(None)
    assert asking._channel._answers == {}  # a node runs for years
    ends[1].close()
    assert asking.admit("CT1") == "gone"
