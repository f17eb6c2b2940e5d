"""What the tests of storage commitment share: a peer that reports, and what it says."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pydicom.dataset import Dataset
from pynetdicom import AE, build_role
from pynetdicom.association import Association
from pynetdicom.events import Event
from pynetdicom.presentation import build_context

from fake_pacs import FakePacs, make_run
from m3node.delivery.commitment import act_on_reports, after_store
from m3node.delivery.entry import Entry, from_json
from m3node.delivery.outbox import box_of
from m3node.delivery.queueing import enqueue
from m3node.evaluation.ct_writer import seeded_uid
from m3node.intake.receive.commitment import Committed, NotCommitted, Report, keep_report
from m3node.layout import DataLayout
from m3node.results.objects import ObjectKind
from m3node.settings import DeliverySettings, Destination, ListenerSettings, Settings

COMMITMENT = "1.2.840.10008.1.20.1"
INSTANCE = "1.2.840.10008.1.20.1.1"
SEG_CLASS = "1.2.840.10008.5.1.4.1.1.66.4"

RUN = "1.2.3.g1"
NAME = f"{RUN}.{ObjectKind.SEGMENTATION.value}"
PATIENT = DeliverySettings(connect_seconds=60.0, response_seconds=60.0, retry_first_seconds=2.0, retry_max_seconds=8.0)
IMPATIENT = PATIENT.model_copy(update={"response_seconds": 0.5})
"""For peers that never answer."""
NOW = 1_800_000_000.0

Reaction = Callable[[Event, str, list[str]], int | None]


def report(
    transaction: str, committed: Sequence[str] = (), failed: Sequence[str] = (), reason: int = 0x0112
) -> Dataset:
    """Event information of a report about SOP instances."""
    ds = Dataset()
    ds.TransactionUID = transaction
    if committed:
        ds.ReferencedSOPSequence = [_item(uid) for uid in committed]
    if failed:
        ds.FailedSOPSequence = [_item(uid) for uid in failed]
        for item in ds.FailedSOPSequence:
            item.FailureReason = reason
    return ds


def _item(uid: str) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = SEG_CLASS
    item.ReferencedSOPInstanceUID = uid
    return item


def instances(count: int) -> list[str]:
    return [seeded_uid("committed", number) for number in range(count)]


@contextmanager
def reporter(
    port: int,
    *classes: str,
    calling: str = "PACS",
    called: str = "M3NODE",
    roles: tuple[bool, bool] | None = (False, True),
    tls: ssl.SSLContext | None = None,
) -> Iterator[Association]:
    """An association as a peer opens it to report; ``roles`` are SCU and SCP of its role selection item."""
    ae = AE(ae_title=calling)
    ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = 30
    association = ae.associate(
        "127.0.0.1",
        port,
        contexts=[build_context(uid) for uid in classes or (COMMITMENT,)],
        ae_title=called,
        ext_neg=[build_role(COMMITMENT, scu_role=roles[0], scp_role=roles[1])] if roles else [],
        tls_args=(tls, "127.0.0.1") if tls is not None else None,
    )
    try:
        yield association
    finally:
        if association.is_established:
            association.release()


def send(
    association: Association, information: Dataset | None, event_type: int = 1, *, sop_class: str = COMMITMENT
) -> int | None:
    """Send a report; return the status of the answer, None when there was none."""
    status, _ = association.send_n_event_report(information, event_type, sop_class, INSTANCE, meta_uid=COMMITMENT)
    return status.get("Status")


class Asked:
    """What a peer was asked to commit to: the transactions and their instances, in order.

    ``requests`` holds of each request the action, the class and the instance that it names, and its items' classes.

    Parameters
    ----------
    react : callable, optional
        Called with each request's event, transaction and instances before it is answered; an int it returns is the
        status of the answer.
    after : callable, optional
        Called likewise in a thread of its own once the answer has left.
    """

    def __init__(self, react: Reaction | None = None, after: Reaction | None = None) -> None:
        self.transactions: list[str] = []
        self.instances: list[list[str]] = []
        self.requests: list[tuple[int, str, str, set[str]]] = []
        self._react = react
        self._after = after

    def __call__(self, event: Event) -> int:
        information = event.action_information
        transaction = str(information.TransactionUID)
        items, request = information.ReferencedSOPSequence, event.request
        uids = [str(item.ReferencedSOPInstanceUID) for item in items]
        classes = {str(item.ReferencedSOPClassUID) for item in items}
        named = (request.ActionTypeID, request.RequestedSOPClassUID, request.RequestedSOPInstanceUID, classes)
        self.requests.append(named)
        self.transactions.append(transaction)
        self.instances.append(uids)
        if self._after is not None:
            threading.Timer(0.05, self._after, (event, transaction, uids)).start()
        status = self._react(event, transaction, uids) if self._react is not None else None
        return 0x0000 if status is None else status


def report_here(event: Event, transaction: str, uids: list[str]) -> None:
    """Report success on the association on which it was asked."""
    send(event.assoc, report(transaction, uids))


def report_anew(port: int, *, failed: bool = False) -> Reaction:
    """Report on an association of the peer's own to a listener, success or failure."""

    def say(event: Event, transaction: str, uids: list[str]) -> None:
        with reporter(port) as association:
            if failed:
                assert send(association, report(transaction, failed=uids), 2) == 0x0000
            else:
                assert send(association, report(transaction, uids)) == 0x0000

    return say


@dataclass
class Here:
    """One object that waits for a destination with commitment."""

    layout: DataLayout
    settings: Settings

    @property
    def destination(self) -> Destination:
        return self.settings.destinations[0]

    @property
    def entry(self) -> Entry:
        """As the file says it, wherever that is."""
        box = box_of(self.layout, self.destination.name)
        (path,) = [
            folder / f"{NAME}.json"
            for folder in (box.folder, box.sent, box.aside)
            if (folder / f"{NAME}.json").exists()
        ]
        return from_json(path.read_bytes())

    def stored(self, now: float = NOW) -> Entry:
        """What becomes of it when it has just been stored; the file must say the same."""
        after = after_store(self.layout, self.destination, self.entry, self.settings, now)
        assert after == self.entry
        return after

    def sweep(self, now: float = NOW) -> list[Entry]:
        return act_on_reports(self.layout, self.settings, now)

    def reports(self, folder: str = "") -> list[str]:
        return sorted(path.stem for path in (self.layout.commitments / folder).glob("*.json"))


def here(folder: Path, pacs: FakePacs, delivery: DeliverySettings = PATIENT) -> Here:
    destination = pacs.destination(commitment=True)
    settings = Settings(data_dir=folder, destinations=(destination,), delivery=delivery, listener=ListenerSettings())
    layout = DataLayout(folder)
    layout.create()
    enqueue(layout, RUN, make_run(layout, RUN, [ObjectKind.SEGMENTATION]), [destination])
    return Here(layout, settings)


def reported(
    it: Here,
    transaction: str,
    committed: Sequence[str],
    failed: Sequence[str] = (),
    *,
    sender: str = "PACS",
    reason: int = 0x0112,
) -> None:
    """Put a report there as the listener does."""
    kept = Report(
        transaction,
        sender,
        2 if failed else 1,
        tuple(Committed("1.2.3", uid) for uid in committed),
        tuple(NotCommitted("1.2.3", uid, reason) for uid in failed),
        NOW,
    )
    assert keep_report(it.layout, kept)
