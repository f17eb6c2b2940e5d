"""A receiver process: takes the connections that the acceptor passes to it, and gives each a thread."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading

from pynetdicom import _config

from m3node import logs
from m3node.audit import trail
from m3node.audit.trail import AuditTrail
from m3node.intake.receive.channel import LARGEST, Message, Word, decoded
from m3node.intake.receive.desk import AcceptorDesk, Channel
from m3node.intake.receive.handles import allow_handles
from m3node.intake.receive.receiver import Receiver
from m3node.metrics import counting
from m3node.settings import Settings

LOGGER = logging.getLogger(__name__)


def receive(settings: Settings, channel: socket.socket, number: int) -> None:
    """Be a receiver process until the channel says stop or ends.

    Parameters
    ----------
    settings : Settings
        The whole tree.
    channel : socket.socket
        This process's end of the pair that it shares with the acceptor.
    number : int
        Which receiver it is, for the log.
    """
    # A terminal and an init system signal the whole group; a receiver ends when the acceptor says so.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    logs.set_up(settings.log, f"receiver {number}")
    counting.start(settings, f"receiver-{number}")
    _config.LOG_HANDLER_LEVEL = "none"  # its handlers format every PDU for the log, whether it is shown or not
    allow_handles(settings.listener)
    receiver = Receiver(settings, AuditTrail(settings, process=f"receiver {number}"))
    threading.Thread(target=receiver.keep_touching, name="heartbeat", daemon=True).start()
    _Process(receiver, channel, settings.jobs.drain_seconds).run()


class _Process:
    """Does what the acceptor says."""

    def __init__(self, receiver: Receiver, channel: socket.socket, drain_seconds: float) -> None:
        self._receiver = receiver
        self._channel = channel
        self._acceptor = Channel(channel)
        self._drain_seconds = drain_seconds
        self._drained = threading.Event()

    def run(self) -> None:
        """Go on until told to stop, and all associations have ended."""
        self._acceptor.tell(Message(Word.READY))
        while True:
            try:
                said, handles, _, _ = socket.recv_fds(self._channel, LARGEST, 1)
            except ConnectionResetError:
                said, handles = b"", []  # an acceptor that died before it had read all that it was told
            if self._drained.is_set():
                return
            if not said:
                LOGGER.error("the acceptor is gone: ending, with what associations are open")
                trail.write_now()
                counting.write_now()
                os._exit(1)
            self._obey(decoded(said), handles)

    def _obey(self, message: Message, handles: list[int]) -> None:
        if message.word is Word.STOP:
            # Answers go on coming meanwhile: an association that may finish may have to ask.
            threading.Thread(target=self._drain, name="drain", daemon=True).start()
        elif message.word is Word.ANSWER:
            self._acceptor.answered(message)
        elif message.word is Word.CLOSE:
            self._receiver.close_waiting(message.number)
        elif handles:
            self._begin(socket.socket(fileno=handles[0]), message)
        else:
            # The kernel drops a handle that this process has no room for.
            self._receiver.lines.say(logging.ERROR, "out of file handles: a connection is closed (raise LimitNOFILE)")
            self._acceptor.tell(Message(Word.ENDED, message.number))

    def _begin(self, connection: socket.socket, message: Message) -> None:
        self._receiver.expect(connection, message.number)
        try:
            threading.Thread(target=self._serve, args=(connection, message), daemon=True).start()
        except RuntimeError:  # as many as the system allows
            self._receiver.lines.say(logging.ERROR, "out of threads: a connection is closed (raise TasksMax)")
            self._receiver.drop(message.number)
            self._acceptor.tell(Message(Word.ENDED, message.number))

    def _serve(self, connection: socket.socket, message: Message) -> None:
        desk = AcceptorDesk(self._acceptor, message.number)
        try:
            self._receiver.serve(connection, desk, number=message.number, over_tls=message.word is Word.SERVE_TLS)
        except Exception as error:  # noqa: BLE001 - one association's failure must not end the others'
            LOGGER.error("an association ended unexpectedly: %s", logs.describe(error))
        finally:
            self._acceptor.tell(Message(Word.ENDED, message.number))

    def _drain(self) -> None:
        self._receiver.drain(self._drain_seconds)
        self._drained.set()
        self._channel.shutdown(socket.SHUT_RD)
