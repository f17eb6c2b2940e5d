"""What the node does with one association: admit or reject it, say what it negotiated, and how it ended."""

from __future__ import annotations

import logging
import socket
import time
from contextlib import suppress
from typing import cast

from pydicom.uid import UID
from pynetdicom import evt
from pynetdicom.association import Association
from pynetdicom.pdu_primitives import A_ASSOCIATE
from pynetdicom.presentation import PresentationContext

from m3node.audit.events import Node, SecurityAlert
from m3node.intake.receive import status as receive_status
from m3node.intake.receive.admission import Admitted, Refusal
from m3node.intake.receive.answers import REPORT_BYTES, Answers
from m3node.intake.receive.association import OpenLease
from m3node.intake.receive.contexts import COMMITMENT
from m3node.intake.receive.desk import Desk
from m3node.intake.receive.dimse import ReportRequest, StoreRequest
from m3node.intake.receive.loop import ServedAssociation
from m3node.intake.receive.peer import Peer, address_of
from m3node.intake.receive.shared import Shared
from m3node.intake.receive.status import Answer
from m3node.intake.receive.tls_socket import TlsConnection
from m3node.metrics import counting

LOGGER = logging.getLogger(__name__)

_CLASS_NOT_ACCEPTED = 3
"""Result of a presentation context: abstract syntax not supported (PS3.8 table 9-18)."""

_NAMES = 8

_OVER = {
    "all": "local limit exceeded (listener.max_associations)",
    "caller": "local limit exceeded (listener.callers.max_associations)",
    "gone": "its connection has given way to others (listener.max_waiting)",
}


class Session:
    """One association, from its request to its end.

    Parameters
    ----------
    shared : Shared
        Of the process.
    connection : socket.socket
        The accepted connection.
    desk : Desk
        Whom to ask about limits that hold over all processes.
    tls : TlsConnection, optional
        Where it came over TLS, and hands have been shaken.
    """

    def __init__(
        self, shared: Shared, connection: socket.socket, desk: Desk, *, tls: TlsConnection | None = None
    ) -> None:
        self._shared = shared
        self._desk = desk
        self._peer = Peer(address_of(connection), tls.shown if tls is not None else None)
        self._calling = ""
        self._answers: Answers | None = None
        self._lease: OpenLease | None = None
        self._accepted = False
        self._result = "silent"
        self._association = ServedAssociation(
            shared.ae,
            connection,
            request=self._on_request,
            store=self._on_store,
            report=self._on_report,
            trouble=self._on_trouble,
            overflow=shared.spool.incoming,
            room=shared.spool.room,
            tls=tls,
        )
        self._association.bind(evt.EVT_ACCEPTED, self._on_accepted)
        self._association.bind(evt.EVT_C_ECHO, self._on_echo)

    @property
    def admitted(self) -> bool:
        """Whether it is an association, and no connection that has asked for nothing yet."""
        return self._answers is not None

    def run(self) -> None:
        """Serve it in the calling thread, until it is released, aborted or interrupted."""
        begun = time.monotonic()
        try:
            self._association.run_reactor()
        finally:
            if self._result == "silent" and time.monotonic() - begun >= cast(float, self._shared.ae.acse_timeout):
                # Who closes it himself, a load balancer's probe for one, is not even that.
                self._shared.lines.say(
                    logging.INFO, f"a connection from {self._peer.address} asked for nothing in its time: it is closed"
                )
            if self._accepted:
                self._log_end()
                self._result = "accepted" if self._association.is_released else "lost"
            counting.association_ended(self._result)
            if self._lease is not None:
                with suppress(OSError):  # without its last line the lease ends when its touches do
                    self._shared.leases.close_lease(self._lease)

    def interrupt(self) -> None:
        """Abort it, from another thread."""
        if self._answers is not None:
            self._answers.hurry()
        self._association.interrupt()

    def _on_request(self, request: A_ASSOCIATE) -> tuple[int, int, int] | None:
        """Decide on an association: None to accept it, else result, source and reason of its rejection."""
        self._calling = request.calling_ae_title.strip()
        called = request.called_ae_title.strip()
        decided = self._decide(request, called)
        if isinstance(decided, Admitted):
            limits = decided.limits
            if decided.may_store:
                self._association.limit_objects(limits.max_object_bytes, limits.max_object_setting)
            else:
                self._association.limit_objects(REPORT_BYTES, f"{REPORT_BYTES} bytes")
            self._association.acceptor.supported_contexts = decided.contexts()
            self._association.acceptor.maximum_length = limits.maximum_pdu_size
            self._association.network_timeout = limits.idle_seconds
            self._answers = Answers(
                self._shared, decided, address=self._peer.address, lease=self._lease, desk=self._desk
            )
            return None
        self._result = "rejected" if decided.alert == "node authentication" else "limit"
        answer = (decided.result, decided.source, decided.reason)
        calling = _printable(self._calling)
        self._shared.lines.say(
            decided.level,
            f"rejected an association from {calling} at {self._peer.address} to {_printable(called)}: "
            f"{decided.words} [{'/'.join(map(str, answer))}]",
        )
        if decided.alert:
            self._shared.trail.record(SecurityAlert(decided.alert, Node(calling, self._peer.address), decided.words))
        return answer

    def _decide(self, request: A_ASSOCIATE, called: str) -> Admitted | Refusal:
        admitted = self._shared.admission.admit(calling=self._calling, called=called, peer=self._peer)
        if isinstance(admitted, Refusal):
            return admitted
        room = self._shared.spool.room
        if room is not None and room.below() and not _only_reports(request):
            words = f"local limit exceeded: less than {room.mb:g} MB are free (disk.refuse_free_mb)"
            # The acceptor says so once; a sender that knocks for hours must not fill the log as well.
            return Refusal(2, 3, 2, words, level=logging.DEBUG)
        grant = self._desk.admit(admitted.title)
        if grant != "granted":
            return Refusal(2, 3, 2, _OVER[grant], "limit")
        if admitted.may_store:
            try:
                # Before it is accepted: an association without a lease could deliver unseen.
                self._lease = self._shared.leases.open_lease(
                    calling=self._calling, called=called, peer=self._peer.address
                )
            except OSError as error:
                return Refusal(2, 3, 1, f"temporary congestion: the data folder refuses ({error.strerror})")
        return admitted

    def _on_trouble(self, words: str, *, limit: bool) -> None:
        """Hear why the association is aborted, or its request cannot be read."""
        self._result = "limit" if limit else "other"
        calling = _printable(self._calling)
        self._shared.lines.say(
            logging.WARNING, f"{calling or 'somebody'} at {self._peer.address} {words}: the association is aborted"
        )
        if limit or not self.admitted:
            node = Node(calling, self._peer.address)
            self._shared.trail.record(SecurityAlert("limit" if limit else "node authentication", node, f"it {words}"))

    def _on_store(self, request: StoreRequest, context: PresentationContext) -> Answer:
        return cast(Answers, self._answers).store(request, context)

    def _on_report(self, request: ReportRequest, context: PresentationContext) -> Answer:
        return cast(Answers, self._answers).report(request, context)

    def _on_accepted(self, event: evt.Event) -> None:
        self._accepted = True
        if self._lease is not None:
            LOGGER.info("association from %s at %s: %s", self._calling, self._peer.address, self._lease.id)
        else:
            LOGGER.info("association from %s at %s, which may report and not store", self._calling, self._peer.address)
        self._log_refused_contexts(event.assoc)

    def _log_refused_contexts(self, association: Association) -> None:
        # A sender may offer all it knows, over a hundred contexts, to send CT: one line, not a hundred.
        offered = {context.context_id: context for context in association.requestor.requested_contexts}
        foreign: list[str] = []
        for context in association.rejected_contexts:
            name = cast(UID, context.abstract_syntax).name
            if context.result == _CLASS_NOT_ACCEPTED:
                foreign.append(name)
                continue
            LOGGER.warning(
                "refused %s from %s in %s: none of these transfer syntaxes can be decoded here",
                name,
                self._calling,
                ", ".join(f"{syntax.name} ({syntax})" for syntax in offered[context.context_id].transfer_syntax),
            )
        names = list(dict.fromkeys(foreign))
        if names and association.accepted_contexts:
            more = f" and {len(names) - _NAMES} more" if len(names) > _NAMES else ""
            LOGGER.info("not accepted here, offered by %s: %s%s", self._calling, ", ".join(names[:_NAMES]), more)
        elif names:
            LOGGER.warning("nothing that %s offers is accepted here: %s", self._calling, ", ".join(names))

    def _on_echo(self, event: evt.Event) -> int:
        LOGGER.info("echo from %s", self._calling)
        return receive_status.SUCCESS

    def _log_end(self) -> None:
        association = self._association
        how = "released" if association.is_released else "aborted" if association.is_aborted else "lost"
        LOGGER.info(
            "association from %s %s: %d new, %d duplicate, %d revised, %d refused",
            self._calling,
            how,
            *(cast(Answers, self._answers).counts[kind] for kind in ("new", "duplicate", "revision", "refused")),
        )


def _only_reports(request: A_ASSOCIATE) -> bool:
    """Whether it is only about storage commitment: a report needs next to no room, and may come only once."""
    contexts = request.presentation_context_definition_list
    return bool(contexts) and all(context.abstract_syntax == COMMITMENT.uid for context in contexts)


def _printable(title: str) -> str:
    """Make a title of an unknown peer fit for a log line."""
    return "".join(character if character.isprintable() else "?" for character in title)
