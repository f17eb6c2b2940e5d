"""A receiver's side of the limits that hold over all receivers: it asks the acceptor, which counts in one place."""

from __future__ import annotations

import queue
import socket
from contextlib import suppress
from typing import Protocol, cast

from m3node.intake.receive.channel import Message, Word
from m3node.intake.receive.connections import Grant
from m3node.intake.receive.rates import Turn

ANSWER_SECONDS = 30.0
"""An acceptor that has not answered for so long is stuck; then the answer is no."""


class Desk(Protocol):
    """Whom a session asks before it admits an association or takes in an instance."""

    def admit(self, title: str) -> Grant:
        """Whether the association may be opened."""

    def turn(self) -> Turn:
        """When the next instance may be taken in."""


class Channel:
    """The receiver's end of the channel; its associations' threads ask, one other thread reads the answers.

    Parameters
    ----------
    end : socket.socket
        This process's end of the pair that it shares with the acceptor.
    """

    def __init__(self, end: socket.socket) -> None:
        self._end = end
        self._answers: dict[int, queue.SimpleQueue[str]] = {}

    def tell(self, message: Message) -> None:
        """Send a message; when the acceptor is gone, the thread that reads sees it too, and ends the process."""
        with suppress(OSError):
            self._end.send(message.encoded())

    def ask(self, message: Message) -> str | None:
        """Send a question and wait for its answer; None when none came in time."""
        answer = self._answers[message.number] = queue.SimpleQueue()
        self.tell(message)
        try:
            return answer.get(timeout=ANSWER_SECONDS)
        except queue.Empty:
            return None
        finally:
            del self._answers[message.number]

    def answered(self, message: Message) -> None:
        """Take in an answer; one that nobody waits for any more is dropped."""
        if (answer := self._answers.get(message.number)) is not None:
            answer.put(message.text)


class AcceptorDesk:
    """Asks for one connection.

    Parameters
    ----------
    channel : Channel
        To the acceptor.
    number : int
        The connection's.
    """

    def __init__(self, channel: Channel, number: int) -> None:
        self._channel = channel
        self._number = number

    def admit(self, title: str) -> Grant:
        """Whether the association may be opened."""
        answer = self._channel.ask(Message(Word.ADMIT, self._number, title))
        return "gone" if answer is None else cast(Grant, answer)

    def turn(self) -> Turn:
        """When the next instance may be taken in."""
        answer = self._channel.ask(Message(Word.INSTANCE, self._number))
        return decoded_turn(answer or "")


def encoded_turn(turn: Turn) -> str:
    """Put a turn into a message's text."""
    return f"{'-' if turn.seconds is None else turn.seconds} {turn.setting}"


def decoded_turn(text: str) -> Turn:
    """Read a turn from a message's text."""
    seconds, _, setting = text.partition(" ")
    return Turn(float(seconds) if seconds not in ("", "-") else None, setting)
