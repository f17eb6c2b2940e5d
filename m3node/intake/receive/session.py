"""What the node does with one association: admit or reject it, say what it negotiated, keep what it sends."""

from __future__ import annotations

import logging
import socket
import time
from contextlib import suppress
from typing import Protocol, cast

from pydicom.uid import UID
from pynetdicom import evt
from pynetdicom.ae import ApplicationEntity
from pynetdicom.association import Association
from pynetdicom.pdu_primitives import A_ASSOCIATE
from pynetdicom.presentation import PresentationContext

from m3node.errors import InputRejected
from m3node.faults import fault_point
from m3node.intake.receive import status as receive_status
from m3node.intake.receive.admission import Admission, Admitted, Refusal
from m3node.intake.receive.association import OpenLease
from m3node.intake.receive.commitment import EVENT_ALL_STORED, EVENT_SOME_FAILED, keep_report, parse_report
from m3node.intake.receive.contexts import COMMITMENT, STORAGE
from m3node.intake.receive.dimse import ReportRequest, StoreRequest
from m3node.intake.receive.identity import identify
from m3node.intake.receive.loop import ServedAssociation
from m3node.intake.receive.peer import Peer
from m3node.intake.receive.spool import Spool
from m3node.intake.receive.status import Answer
from m3node.intake.receive.tls_socket import TlsConnection
from m3node.intake.uid import is_uid
from m3node.layout import DataLayout

LOGGER = logging.getLogger(__name__)

_CLASS_NOT_ACCEPTED = 3
"""Result of a presentation context: abstract syntax not supported (PS3.8 table 9-18)."""

_NAMES = 8

_REPORT_BYTES = 4 * 1024 * 1024
"""Of a report's event information, which is read in memory: some 20 000 instances; each of our requests has one."""

_STORAGE_CLASSES = frozenset(sop.uid for sop in STORAGE)


class LeaseKeeper(Protocol):
    """Opens and closes the leases that a process keeps alive."""

    def open_lease(self, *, calling: str, called: str, peer: str) -> OpenLease:
        """Begin a lease."""

    def close_lease(self, lease: OpenLease) -> None:
        """End a lease."""


class Session:
    """One association, from its request to its end.

    Parameters
    ----------
    ae : ApplicationEntity
        This node.
    admission : Admission
        Whom it admits, and for what.
    spool : Spool
        Where instances go.
    leases : LeaseKeeper
        Who keeps the lease alive.
    connection : socket.socket
        The accepted connection.
    over_limit : bool
        Whether to reject for want of room.
    tls : TlsConnection, optional
        Where it came over TLS, and hands have been shaken.
    """

    def __init__(
        self,
        ae: ApplicationEntity,
        admission: Admission,
        spool: Spool,
        leases: LeaseKeeper,
        connection: socket.socket,
        *,
        over_limit: bool,
        tls: TlsConnection | None = None,
    ) -> None:
        self._admission = admission
        self._spool = spool
        self._layout = DataLayout(spool.data_root)
        self._leases = leases
        self._over_limit = over_limit
        self._calling = ""
        self._peer = Peer(connection.getpeername()[0], tls.shown if tls is not None else None)
        self._lease: OpenLease | None = None
        self._counts = {"new": 0, "duplicate": 0, "revision": 0, "refused": 0}
        self._association = ServedAssociation(
            ae,
            connection,
            store=self._on_store,
            report=self._on_report,
            overflow=spool.incoming,
            room=spool.room,
            tls=tls,
        )
        for event, handler in (
            (evt.EVT_REQUESTED, self._on_requested),
            (evt.EVT_ACCEPTED, self._on_accepted),
            (evt.EVT_C_ECHO, self._on_echo),
        ):
            self._association.bind(event, handler)

    def run(self) -> None:
        """Serve it in the calling thread, until it is released, aborted or interrupted."""
        try:
            self._association.run_reactor()
        finally:
            if self._lease is not None:
                self._log_end()
                with suppress(OSError):  # without its last line the lease ends when its touches do
                    self._leases.close_lease(self._lease)

    def interrupt(self) -> None:
        """Abort it, from another thread."""
        self._association.interrupt()

    def _on_requested(self, event: evt.Event) -> None:
        request = cast(A_ASSOCIATE, event.assoc.requestor.primitive)
        self._calling = request.calling_ae_title.strip()
        called = request.called_ae_title.strip()
        admitted = self._admission.admit(calling=self._calling, called=called, peer=self._peer)
        refused = admitted if isinstance(admitted, Refusal) else None
        level = logging.WARNING
        room = self._spool.room
        if refused is None and self._over_limit:
            refused = Refusal(2, 3, 2, "local limit exceeded (listener.max_associations)", "limit")
        if refused is None and room is not None and room.below() and not _only_reports(request):
            # The acceptor says so once; a sender that knocks for hours must not fill the log as well.
            level = logging.DEBUG
            refused = Refusal(2, 3, 2, f"local limit exceeded: less than {room.mb:g} MB are free (disk.refuse_free_mb)")
        if refused is None and isinstance(admitted, Admitted):
            event.assoc.acceptor.supported_contexts = admitted.contexts()
            try:
                # Before it is accepted: an association without a lease could deliver unseen.
                if admitted.may_store:
                    self._lease = self._leases.open_lease(calling=self._calling, called=called, peer=self._peer.address)
            except OSError as error:
                refused = Refusal(2, 3, 1, f"temporary congestion: the data folder refuses ({error.strerror})")
        if refused is not None:
            LOGGER.log(
                level,
                "rejected an association from %s at %s to %s: %s [%d/%d/%d]",
                _printable(self._calling),
                self._peer.address,
                _printable(called),
                refused.words,
                refused.result,
                refused.source,
                refused.reason,
            )
            event.assoc.acse.send_reject(refused.result, refused.source, refused.reason)

    def _on_accepted(self, event: evt.Event) -> None:
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

    def _on_report(self, request: ReportRequest, context: PresentationContext) -> Answer:
        answer = self._report(request, context)
        if answer.status != receive_status.SUCCESS:
            LOGGER.warning(
                "refused a report from %s with status 0x%04X: %s", self._calling, answer.status, answer.comment
            )
        return answer

    def _report(self, request: ReportRequest, context: PresentationContext) -> Answer:
        if not request.sop_class_uid == context.abstract_syntax == COMMITMENT.uid:
            return Answer(receive_status.NO_SUCH_CLASS, "not an event of Storage Commitment Push Model")
        if request.event_type not in (EVENT_ALL_STORED, EVENT_SOME_FAILED):
            return Answer(receive_status.NO_SUCH_EVENT_TYPE, f"no event type {request.event_type}")
        try:
            if request.trouble is not None:
                raise request.trouble
            if len(request.data) > _REPORT_BYTES:
                return Answer(receive_status.INVALID_ARGUMENT, f"longer than {_REPORT_BYTES} bytes")
            report = parse_report(
                request.data,
                context.transfer_syntax[0],
                event_type=request.event_type,
                sender=self._calling,
                received_at=time.time(),
            )
            fault_point("report.before")
            # Before the answer: no peer is bound to report twice.
            new = keep_report(self._layout, report)
            fault_point("report.after")
        except InputRejected as error:
            return Answer(receive_status.INVALID_ARGUMENT, error.message)
        except OSError as error:
            return receive_status.of_disk_report(error)
        LOGGER.info(
            "storage commitment of transaction %s from %s: %d committed, %d failed%s",
            report.transaction_uid,
            self._calling,
            len(report.committed),
            len(report.failed),
            "" if new else " (reported before)",
        )
        return Answer(receive_status.SUCCESS)

    def _on_store(self, request: StoreRequest, context: PresentationContext) -> Answer:
        answer = self._store(request, cast(UID, context.abstract_syntax), context.transfer_syntax[0])
        if answer.status != receive_status.SUCCESS:
            self._counts["refused"] += 1
            uid = request.sop_instance_uid
            LOGGER.warning(
                "refused instance %s from %s with status 0x%04X: %s",
                uid if is_uid(uid) else "(no valid UID)",
                self._calling,
                answer.status,
                answer.comment,
            )
        return answer

    def _store(self, request: StoreRequest, abstract_syntax: str, transfer_syntax: str) -> Answer:
        if request.sop_class_uid != abstract_syntax:
            return Answer(receive_status.CLASS_NOT_SUPPORTED, "SOP class is not that of the presentation context")
        if abstract_syntax not in _STORAGE_CLASSES:
            return Answer(receive_status.CLASS_NOT_SUPPORTED, "SOP class is not one of storage")
        try:
            if request.trouble is not None:
                raise request.trouble
            identity = identify(request.data, transfer_syntax)
            for kind, own, commanded in (
                ("SOP class", identity.sop_class_uid, request.sop_class_uid),
                ("SOP instance", identity.sop_instance_uid, request.sop_instance_uid),
            ):
                if own != commanded:
                    return Answer(receive_status.DOES_NOT_MATCH, f"command and data set disagree on the {kind}")
            stored = self._spool.store(
                identity, request.data, transfer_syntax_uid=transfer_syntax, sender=self._calling
            )
            # Named before the answer: once the sender hears of success, the keeper can know of the instance.
            path = str(stored.path.relative_to(self._spool.data_root))
            cast(OpenLease, self._lease).append(
                path, stored.status, urgent=request.urgent, sop_class=identity.sop_class_uid
            )
        except InputRejected as error:
            return receive_status.of_rejection(error)
        except OSError as error:
            return receive_status.of_disk(error)
        self._counts[stored.status] += 1
        if stored.status == "revision":
            LOGGER.warning("instance %s was stored before with other bytes: kept beside", identity.sop_instance_uid)
        return Answer(receive_status.SUCCESS)

    def _log_end(self) -> None:
        association = self._association
        how = "released" if association.is_released else "aborted" if association.is_aborted else "lost"
        LOGGER.info(
            "association from %s %s: %d new, %d duplicate, %d revised, %d refused",
            self._calling,
            how,
            *(self._counts[kind] for kind in ("new", "duplicate", "revision", "refused")),
        )


def _only_reports(request: A_ASSOCIATE) -> bool:
    """Whether it is only about storage commitment: a report needs next to no room, and may come only once."""
    contexts = request.presentation_context_definition_list
    return bool(contexts) and all(context.abstract_syntax == COMMITMENT.uid for context in contexts)


def _printable(title: str) -> str:
    """Make a title of an unknown peer fit for a log line."""
    return "".join(character if character.isprintable() else "?" for character in title)
