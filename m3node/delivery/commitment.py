"""Storage commitment: after the store, the destination is asked whether it keeps the object (PS3.4 J, Push Model).

All state is in the entry's file:

1. stored: ``stored_at`` and a new ``transaction_uid`` are written down, since a report may come at any time from then
2. N-ACTION was answered with success: ``requested_at`` is written down
3. the report, on the same association or at the listener: committed, and the entry is filed as confirmed; not
   committed, or missing for too long, and the entry waits to be sent again (`m3node.delivery.commitment_reports`)

Who is killed before ``requested_at`` is written asks again, under a new transaction; a report about the one before
counts until then.
"""

from __future__ import annotations

from dataclasses import replace

from pydicom.uid import generate_uid

from m3node.delivery.address import peer_of, timeouts_of
from m3node.delivery.back_off import back_off, gives_up
from m3node.delivery.commitment_reports import (
    act_on_reports,
    failing_again,
    overdue,
    review_stored,
    settle,
    write,
)
from m3node.delivery.commitment_scu import Asked, AskVerdict, request
from m3node.delivery.entry import Entry
from m3node.delivery.outbox import Box, as_filed, box_of, file_sent, rewrite
from m3node.delivery.state import DeliveryState
from m3node.faults import fault_point
from m3node.intake.receive.commitment import Committed, keep_report, report_file
from m3node.layout import DataLayout
from m3node.settings import Destination, Settings

__all__ = ["LINGER_SECONDS", "act_on_reports", "after_store", "overdue", "review_stored"]

LINGER_SECONDS = 0.5
"""How long the association on which commitment was asked for waits for the report; it ends at once when it came."""


def after_store(layout: DataLayout, destination: Destination, entry: Entry, settings: Settings, now: float) -> Entry:
    """Ask for the commitment of an object that its destination has just stored, or of which it was not asked yet.

    Parameters
    ----------
    layout : DataLayout
        The data folder.
    destination : Destination
        One with ``commitment``; or without it any more, and what it has stored is done.
    entry : Entry
        As its file says it: in any state that waits when the store has just succeeded, or ``STORED`` without
        ``requested_at``, to ask again.
    settings : Settings
        Titles and waiting times.
    now : float
        Seconds since the epoch.

    Returns
    -------
    Entry
        As its file says it now: ``STORED`` with ``requested_at`` when it waits for the report; ``STORED`` with
        ``not_before`` when it could not be asked and is asked again then; ``CONFIRMED`` or ``DEAD`` when that is
        settled; ``WAITING`` when the report says that the object is to be sent again.

    Raises
    ------
    OSError
        The disk refuses; calling it again goes on from what the file says.
    """
    box = box_of(layout, destination.name)
    if entry.state is DeliveryState.STORED and not destination.commitment:
        # The setting has changed: whoever cannot commit would refuse to be asked, and it would be a dead letter.
        done = replace(entry, state=DeliveryState.SENT, finished_at=now, last_error="")
        return done if write(box, entry, done) else as_filed(box, entry)
    if entry.transaction_uid:
        # It answers a request whose answer never came, or one that was taken for lost.
        settled = _look(layout, destination, entry, settings, now)
        if settled is not None:
            return settled
    fresh = entry.state is not DeliveryState.STORED
    if not fresh and entry.requested_at:
        return entry
    asking = replace(
        entry,
        state=DeliveryState.STORED,
        stored_at=now if fresh else entry.stored_at,
        transaction_uid=str(generate_uid(prefix=None)),
        requested_at=0.0,
        not_before=0.0,
    )
    if not rewrite(box, entry, asking):
        filed = as_filed(box, entry)
        # Cancelled while it was on the wire: the destination has it all the same, and nobody waits for its word on it.
        return file_sent(box, entry) if fresh and filed.state is DeliveryState.CANCELLED else filed
    fault_point("commit.before")
    asked = _ask(layout, destination, asking, settings, now)
    settled = _look(layout, destination, asking, settings, now)
    if settled is not None:
        return settled  # even when the answer to the request itself was lost
    return as_filed(box, asking) if asked.verdict is AskVerdict.ASKED else _not_asked(box, asking, asked, settings, now)


def _not_asked(box: Box, asking: Entry, asked: Asked, settings: Settings, now: float) -> Entry:
    """Write down that it could not be asked for, and when that is tried again."""
    failing = failing_again(asking, f"stored, but its commitment cannot be asked for: {asked.message}", now)
    if asked.verdict is AskVerdict.REFUSED or gives_up(failing.failing_since, now, settings.delivery):
        after = replace(failing, state=DeliveryState.DEAD, finished_at=now)
    else:
        after = replace(failing, not_before=now + back_off(asking.attempts, settings.delivery))
    return after if write(box, asking, after) else as_filed(box, asking)


def _ask(layout: DataLayout, destination: Destination, asking: Entry, settings: Settings, now: float) -> Asked:
    delivery = settings.delivery

    def note_answer() -> None:
        fault_point("commit.inside")
        # Unless the report was quicker than this line, and was acted on already.
        rewrite(box_of(layout, destination.name), asking, replace(asking, requested_at=now, last_error=""))
        fault_point("commit.after")

    return request(
        peer_of(destination, delivery.tls_minimum),
        delivery.calling_ae_title or settings.listener.ae_title,
        [Committed(asking.sop_class_uid, asking.sop_instance_uid)],
        asking.transaction_uid,
        timeouts_of(delivery),
        on_answer=note_answer,
        on_report=lambda report: keep_report(layout, report),
        linger_seconds=LINGER_SECONDS,
        arrived=report_file(layout, asking.transaction_uid).exists,
    )


def _look(layout: DataLayout, destination: Destination, entry: Entry, settings: Settings, now: float) -> Entry | None:
    """Act on the report of the entry's transaction, if it has come."""
    file = report_file(layout, entry.transaction_uid)
    if not file.exists():
        return None
    box = box_of(layout, destination.name)
    return settle(box, entry.name, file, destination.ae_title or "", settings.delivery, now)
