"""The receiver processes as the acceptor sees them: started, given connections, answered, replaced, ended."""

from __future__ import annotations

import logging
import multiprocessing
import selectors
import socket
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess

from m3node.audit.events import SecurityAlert
from m3node.audit.trail import AuditTrail
from m3node.intake.receive.channel import LARGEST, Message, Word, channel_ends, decoded
from m3node.intake.receive.connections import Connections
from m3node.intake.receive.desk import encoded_turn
from m3node.intake.receive.handles import handles_needed, waiting_that_fit
from m3node.intake.receive.rates import LONGEST_PAUSE, Rates, Turn
from m3node.intake.receive.receiver_process import receive
from m3node.intake.receive.repeats import RepeatedLines
from m3node.intake.receive.spool import remove_leftovers
from m3node.layout import DataLayout
from m3node.metrics import counting
from m3node.settings import Settings

LOGGER = logging.getLogger(__name__)

_RESTART_SECONDS = 1.0
"""A receiver that dies right after its start is not started again sooner."""

ABORT_SECONDS = 5.0
"""What a receiver has to end in after it has aborted the associations that are left."""


@dataclass(slots=True, eq=False)
class Worker:
    """One receiver process and what the acceptor knows of it."""

    number: int
    process: BaseProcess
    channel: socket.socket
    started_at: float
    ready: bool = False
    unsent: deque[bytes] = field(default_factory=deque)


@dataclass(frozen=True, slots=True)
class _Held:
    """A connection that no receiver could take yet."""

    connection: socket.socket
    address: str
    word: Word


class Pool:
    """The receiver processes, and the counts over all of them.

    Parameters
    ----------
    settings : Settings
        The whole tree.
    selector : selectors.BaseSelector
        Tells when a receiver has something to say; a key's data are its `Worker`.
    trail : AuditTrail
        Where it is noted that somebody sends more than he may.
    """

    def __init__(self, settings: Settings, selector: selectors.BaseSelector, trail: AuditTrail) -> None:
        self.settings = settings
        self.lines = RepeatedLines(LOGGER, times=1)
        self.selector = selector
        self._trail = trail
        self._workers: list[Worker] = []
        self._due: dict[int, float] = {}
        self._held: deque[_Held] = deque()
        listener = settings.listener
        waiting = waiting_that_fit(listener)
        if waiting < listener.max_waiting:
            LOGGER.warning(
                "the system lets a process open too few files for the limits of the listener: %d connections may wait, "
                "and not listener.max_waiting = %d (raise LimitNOFILE to %d)",
                waiting,
                listener.max_waiting,
                handles_needed(listener),
            )
        self.connections = Connections(
            max_waiting=waiting,
            max_associations=listener.max_associations,
            of_title={
                caller.ae_title: caller.max_associations
                for caller in listener.callers
                if caller.max_associations is not None
            },
        )
        self._rates = Rates(
            listener.instances_per_minute,
            {
                caller.ae_title: caller.instances_per_minute
                for caller in listener.callers
                if caller.instances_per_minute is not None
            },
            time.monotonic(),
        )

    @property
    def complete(self) -> bool:
        """Whether all receivers can take connections."""
        return len(self._workers) == self.settings.listener.receivers and all(worker.ready for worker in self._workers)

    @property
    def ready(self) -> bool:
        """Whether a connection would be taken: some receiver is there, and not all of them have too much to read."""
        return not self._held and any(worker.ready for worker in self._workers)

    def start(self, number: int) -> None:
        """Start a receiver."""
        # Spawned, not forked: the process that calls us may have threads, and a fork would copy their locks.
        context = multiprocessing.get_context("spawn")
        ours, theirs = channel_ends()
        process = context.Process(
            target=receive, args=(self.settings, theirs, number), name=f"m3node-receiver-{number}", daemon=False
        )
        try:
            process.start()
        except OSError:
            ours.close()
            raise
        finally:
            theirs.close()  # else a dead receiver's channel would not end
        counting.process_started(f"receiver-{number}")
        worker = Worker(number=number, process=process, channel=ours, started_at=time.monotonic())
        self._workers.append(worker)
        self.selector.register(ours, selectors.EVENT_READ, worker)

    def start_due(self) -> None:
        """Start the receivers whose turn has come."""
        now = time.monotonic()
        for number in [number for number, at in self._due.items() if at <= now]:
            try:
                self.start(number)
            except OSError as error:  # no room in the system; the others live on
                self.lines.say(logging.ERROR, f"receiver {number} cannot be started yet: {error.strerror}")
                self._due[number] = now + _RESTART_SECONDS
            else:
                del self._due[number]

    def give(self, connection: socket.socket, address: str, word: Word) -> None:
        """Pass a connection to the least busy receiver; hold it until one can take it when none can.

        Parameters
        ----------
        connection : socket.socket
            Closed here in the end: a receiver has its own handle.
        address : str
            Of the peer.
        word : Word
            `Word.SERVE` or `Word.SERVE_TLS`.
        """
        self._held.append(_Held(connection, address, word))
        self._give_held()
        if self._held:
            self.lines.say(logging.WARNING, "no receiver can take a connection now: new ones wait")

    def _give_held(self) -> None:
        """Pass on what is held, as far as receivers take it; be told when they take more."""
        while self._held and self._pass_on(self._held[0]):
            self._held.popleft().connection.close()
        for worker in self._workers:
            self._watch(worker)

    def _pass_on(self, held: _Held) -> bool:
        if (displaced := self.connections.displaced()) is not None:
            number, owner = displaced
            for one in self._workers:
                if one.number == owner:
                    self._send(one, Message(Word.CLOSE, number))
        for worker in sorted((w for w in self._workers if w.ready), key=lambda w: self.connections.load(w.number)):
            number = self.connections.add(worker.number, held.address)
            try:
                message = Message(held.word, number).encoded()
                socket.send_fds(worker.channel, [message], [held.connection.fileno()])
            except OSError:
                self.connections.remove(number)
                continue  # its end of the channel is closed or full
            return True
        return False

    def talk(self, worker: Worker, events: int) -> None:
        """Go on talking with a receiver that is ready for it, or see that it is gone."""
        if events & selectors.EVENT_WRITE:
            self._send_rest(worker)
        if events & selectors.EVENT_READ and not self._listen_to(worker):
            self._bury(worker)
        if self._held:
            self._give_held()

    def stop(self) -> None:
        """End all receivers; open associations have ``jobs.drain_seconds`` to end by themselves."""
        self._due.clear()
        while self._held:
            self._held.popleft().connection.close()
        for worker in self._workers:
            self._send(worker, Message(Word.STOP))
        deadline = time.monotonic() + self.settings.jobs.drain_seconds + ABORT_SECONDS
        # They are answered until they are gone: an association that may finish may have to ask.
        while self._workers and (left := deadline - time.monotonic()) > 0:
            for key, events in self.selector.select(timeout=left):
                ending: Worker = key.data
                if events & selectors.EVENT_WRITE:
                    self._send_rest(ending)
                if events & selectors.EVENT_READ and not self._listen_to(ending):
                    self._forget(ending)
                    self._join(ending)
        for left_over in list(self._workers):
            LOGGER.warning("receiver %d did not end in time and is killed", left_over.number)
            self._forget(left_over)
            left_over.process.kill()
            left_over.process.join()
        self.lines.count(all_of_them=True)

    def _listen_to(self, worker: Worker) -> bool:
        """Take in what a receiver says; False when it is gone."""
        while True:
            try:
                said = worker.channel.recv(LARGEST)
            except BlockingIOError:
                return True
            except OSError:
                return False
            if not said:
                return False
            message = decoded(said)
            if message.word is Word.READY:
                worker.ready = True
            elif message.word is Word.ENDED:
                self.connections.remove(message.number)
            elif message.word is Word.ADMIT:
                grant = self.connections.admit(message.number, message.text)
                self._send(worker, Message(Word.ANSWER, message.number, grant))
            elif message.word is Word.INSTANCE:
                turn = self._turn(message.number)
                self._send(worker, Message(Word.ANSWER, message.number, encoded_turn(turn)))

    def _turn(self, number: int) -> Turn:
        node = self.connections.of(number)
        if node is None:
            return Turn(None)
        turn = self._rates.turn(node.ae_title, time.monotonic())
        if turn.setting:
            how = (
                "answered later" if turn.seconds is not None else f"refused: the wait would be over {LONGEST_PAUSE:g} s"
            )
            self.lines.say(logging.WARNING, f"{node.ae_title} sends more than {turn.setting}: an instance is {how}")
            words = "held back" if turn.seconds is not None else "refused"
            self._trail.record(SecurityAlert("limit", node, f"more than {turn.setting}: {words}"))
        return turn

    def _send(self, worker: Worker, message: Message) -> None:
        worker.unsent.append(message.encoded())
        self._send_rest(worker)

    def _send_rest(self, worker: Worker) -> None:
        """Send what waits, without waiting for a receiver that does not read: it would keep all others waiting."""
        while worker.unsent:
            try:
                worker.channel.send(worker.unsent[0])
            except BlockingIOError:
                break
            except OSError:
                worker.unsent.clear()  # it is gone, which its channel's end says next
            else:
                worker.unsent.popleft()
        self._watch(worker)

    def _watch(self, worker: Worker) -> None:
        more = worker.unsent or (self._held and worker.ready)
        wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if more else 0)
        self.selector.modify(worker.channel, wanted, worker)

    def _forget(self, worker: Worker) -> int:
        """Take a receiver off the list; return how many associations were open in it."""
        self.selector.unregister(worker.channel)
        worker.channel.close()
        self._workers.remove(worker)
        return self.connections.remove_owner(worker.number)

    def _join(self, worker: Worker) -> None:
        worker.process.join(timeout=1.0)
        if worker.process.is_alive():
            worker.process.kill()
            worker.process.join()

    def _bury(self, worker: Worker) -> None:
        lost = self._forget(worker)
        self._join(worker)
        LOGGER.error(
            "receiver %d died (exit code %s) with %d associations open; a new one is started",
            worker.number,
            worker.process.exitcode,
            lost,
        )
        with suppress(OSError):  # a disk that refuses; they take room until the next start
            remove_leftovers(DataLayout(self.settings.data_dir.absolute()))
        self._due[worker.number] = worker.started_at + _RESTART_SECONDS
