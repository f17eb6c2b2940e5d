"""What the tests of storage commitment share: a peer that reports, and what it says."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from pydicom.dataset import Dataset
from pynetdicom import AE, build_role
from pynetdicom.association import Association
from pynetdicom.presentation import build_context

from m3node.evaluation.ct_writer import seeded_uid

COMMITMENT = "1.2.840.10008.1.20.1"
INSTANCE = "1.2.840.10008.1.20.1.1"
SEG_CLASS = "1.2.840.10008.5.1.4.1.1.66.4"


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
    )
    try:
        yield association
    finally:
        if association.is_established:
            association.release()


def send(association: Association, information: Dataset | None, event_type: int = 1) -> int | None:
    """Send a report; return the status of the answer, None when there was none."""
    status, _ = association.send_n_event_report(information, event_type, COMMITMENT, INSTANCE)
    return status.get("Status")
