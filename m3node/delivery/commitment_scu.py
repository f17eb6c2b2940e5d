"""The Storage Commitment Push Model's user: N-ACTION, and the report if it comes while the association is open."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from io import BytesIO
from typing import cast

from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import evt
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import N_EVENT_REPORT
from pynetdicom.presentation import build_context

from m3node.delivery.address import Peer, Timeouts
from m3node.delivery.association import associate
from m3node.errors import DeliveryError, InputRejected
from m3node.intake.receive import status as receive_status
from m3node.intake.receive.commitment import EVENT_ALL_STORED, EVENT_SOME_FAILED, Committed, Report, parse_report

SOP_CLASS = "1.2.840.10008.1.20.1"
SOP_INSTANCE = "1.2.840.10008.1.20.1.1"
"""The well-known instance that every request names (PS3.4 J.3.5)."""

REQUEST_COMMITMENT = 1
"""Action Type ID (PS3.4 J.3.2)."""

_LOOK_SECONDS = 0.02
_ANSWER_SECONDS = 5.0
"""How long the answer to a report that is being written to disk holds up the release."""


class AskVerdict(StrEnum):
    """What became of one request for commitment."""

    ASKED = "asked"
    AGAIN = "again"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Asked:
    """The outcome of one request.

    Attributes
    ----------
    status : int or None
        Status of the peer's answer; None when there was none.
    message : str
        The outcome in words.
    """

    verdict: AskVerdict
    status: int | None
    message: str


_MEANINGS: dict[int, tuple[AskVerdict, str]] = {
    0x0000: (AskVerdict.ASKED, "success"),
    0x0001: (AskVerdict.ASKED, "asked, with a warning"),
    0x0107: (AskVerdict.ASKED, "asked, with a warning about an attribute"),
    0x0110: (AskVerdict.AGAIN, "processing failure"),
    0x0112: (AskVerdict.REFUSED, "no such SOP instance"),
    0x0114: (AskVerdict.REFUSED, "no such argument"),
    0x0115: (AskVerdict.REFUSED, "invalid argument value"),
    0x0116: (AskVerdict.ASKED, "asked, with a warning about an attribute's value"),
    0x0117: (AskVerdict.REFUSED, "invalid SOP instance"),
    0x0118: (AskVerdict.REFUSED, "no such SOP class"),
    0x0119: (AskVerdict.REFUSED, "class-instance conflict"),
    0x0123: (AskVerdict.REFUSED, "no such action"),
    0x0124: (AskVerdict.REFUSED, "not authorised"),
    # Another request of ours crossed a broken association; a new association and transaction are fresh.
    0x0210: (AskVerdict.AGAIN, "duplicate invocation"),
    0x0211: (AskVerdict.REFUSED, "unrecognised operation"),
    0x0212: (AskVerdict.REFUSED, "mistyped argument"),
    0x0213: (AskVerdict.AGAIN, "resource limitation"),
}


def judge_action(status: int) -> tuple[AskVerdict, str]:
    """Return what a status of N-ACTION means (PS3.7 10.1.4.1.10): what to do, and the status in words with its code."""
    verdict, words = _MEANINGS.get(status, (AskVerdict.REFUSED, "unknown status"))
    return verdict, f"0x{status:04X} {words}"


def request(
    peer: Peer,
    calling_ae_title: str,
    references: Sequence[Committed],
    transaction_uid: str,
    timeouts: Timeouts,
    *,
    on_answer: Callable[[], None],
    on_report: Callable[[Report], object],
    linger_seconds: float,
    arrived: Callable[[], bool],
) -> Asked:
    """Ask a peer to commit to instances, on an association that is for nothing else.

    Parameters
    ----------
    peer : Peer
        Who stored them.
    calling_ae_title : str
        Our own AE title; the peer reports to it.
    references : sequence of Committed
        What it should commit to.
    transaction_uid : str
        New with each request, and known to whoever takes reports before this is called.
    timeouts : Timeouts
        How long to wait for the association, and for the answer.
    on_answer : callable
        Called when the peer has taken the request, before any waiting for the report.
    on_report : callable
        Keeps a report durably; called in another thread, any time after N-ACTION has left and before this returns. An
        OSError is answered as a failure.
    linger_seconds : float
        How long the association stays open for the report after the answer.
    arrived : callable
        Asked meanwhile; true when the report has come another way.

    Returns
    -------
    Asked
        Without an answer, or with an empty one, the verdict is `AskVerdict.AGAIN`: nobody knows whether a report will
        come.
    """
    came, threads = threading.Event(), []

    def take(event: evt.Event) -> tuple[int, None]:
        threads.append(threading.current_thread())
        status = _take_report(event, peer.ae_title, on_report)
        came.set()
        return status, None

    context = build_context(SOP_CLASS, [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
    try:
        association = associate(peer, calling_ae_title, [context], timeouts)
    except DeliveryError as error:
        return Asked(AskVerdict.AGAIN, None, str(error))
    try:
        if association.rejected_contexts:
            return Asked(AskVerdict.REFUSED, None, "the peer does not accept Storage Commitment Push Model")
        # No report can have come yet, since nothing was asked.
        association.bind(evt.EVT_N_EVENT_REPORT, take)
        asked = _ask(association, references, transaction_uid)
        if asked.verdict is AskVerdict.ASKED:
            on_answer()
            end = time.monotonic() + linger_seconds
            while not (came.wait(_LOOK_SECONDS) or arrived()) and association.is_established:
                if time.monotonic() >= end:
                    break
        # The answer to a report is in the provider's queue only when its thread has ended.
        for thread in threads:
            thread.join(_ANSWER_SECONDS)
        if asked.status is not None and association.is_established:
            association.release()
        return asked
    finally:
        association.dul.kill_dul()


def _ask(association: Association, references: Sequence[Committed], transaction_uid: str) -> Asked:
    information = Dataset()
    information.TransactionUID = transaction_uid
    information.ReferencedSOPSequence = [_item(reference) for reference in references]
    try:
        answer, _ = association.send_n_action(information, REQUEST_COMMITMENT, SOP_CLASS, SOP_INSTANCE)
    except (RuntimeError, ValueError):  # closed before, or without an accepted context
        return Asked(AskVerdict.AGAIN, None, "the association was lost before commitment was asked for")
    if "Status" not in answer:
        return Asked(AskVerdict.AGAIN, None, "no answer to the request for commitment, or one without a status")
    status = int(answer.Status)
    return Asked(judge_action(status)[0], status, judge_action(status)[1])


def _item(reference: Committed) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = reference.sop_class_uid
    item.ReferencedSOPInstanceUID = reference.sop_instance_uid
    return item


def _take_report(event: evt.Event, sender: str, on_report: Callable[[Report], object]) -> int:
    """Answer an N-EVENT-REPORT request as the listener does."""
    message = cast(N_EVENT_REPORT, event.request)
    if message.AffectedSOPClassUID != SOP_CLASS:
        return receive_status.NO_SUCH_CLASS
    event_type = message.EventTypeID or 0
    if event_type not in (EVENT_ALL_STORED, EVENT_SOME_FAILED):
        return receive_status.NO_SUCH_EVENT_TYPE
    encoded = (message.EventInformation or BytesIO()).getvalue()
    syntax = event.context.transfer_syntax
    try:
        report = parse_report(encoded, syntax, event_type=event_type, sender=sender, received_at=time.time())
        on_report(report)
    except InputRejected:
        return receive_status.INVALID_ARGUMENT
    except OSError as error:
        return receive_status.of_disk_report(error).status
    return receive_status.SUCCESS
