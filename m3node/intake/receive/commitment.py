"""Reports of storage commitment: read from the wire, and kept as files until somebody acts on them (PS3.4 J.3.3).

::

    commitments/<transaction>.json          came in, and waits for the sender of results
    commitments/acted/<transaction>.json    was acted on; evidence, and how a repeated report is known
    commitments/unknown/<transaction>.json  nobody here knows what was asked

A report comes on an association that the peer opens to the listener, or on the one on which it was asked; both write
the same file, on disk before the peer hears of success, because no peer is bound to report twice.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from io import BytesIO
from pathlib import Path

from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset
from pydicom.uid import UID

from m3node.durable import sync_folder, write_once
from m3node.errors import InputRejected
from m3node.intake.series.part10 import PARSER_ERRORS
from m3node.intake.uid import is_uid
from m3node.layout import DataLayout
from m3node.rejection import Reason

SCHEMA = "m3node.commitment/1"

EVENT_ALL_STORED, EVENT_SOME_FAILED = 1, 2
"""Event types of the Storage Commitment Push Model (PS3.4 J.3.3.1)."""

REASON_MISSING = 0
"""Stands for a Failure Reason (0008,1197) that a report left out."""


@dataclass(frozen=True, slots=True)
class Committed:
    """An instance that the peer has committed to keep."""

    sop_class_uid: str
    sop_instance_uid: str


@dataclass(frozen=True, slots=True)
class NotCommitted:
    """An instance that the peer has not, and its Failure Reason (0008,1197; PS3.3 C.14.1.1)."""

    sop_class_uid: str
    sop_instance_uid: str
    reason: int


@dataclass(frozen=True, slots=True)
class Report:
    """A storage commitment report.

    Attributes
    ----------
    transaction_uid : str
        Of the request that it answers; a valid UID (PS3.5 9.1), so that it may name a file.
    sender : str
        AE title of the peer whose word it is.
    event_type : int
        1 when it has committed to everything, 2 when something failed.
    committed : tuple of Committed
        What it keeps.
    failed : tuple of NotCommitted
        What it does not.
    received_at : float
        Seconds since the epoch.
    """

    transaction_uid: str
    sender: str
    event_type: int
    committed: tuple[Committed, ...]
    failed: tuple[NotCommitted, ...]
    received_at: float


def parse_report(
    encoded: bytes | memoryview, transfer_syntax: UID, *, event_type: int, sender: str, received_at: float
) -> Report:
    """Read the event information of a report.

    Parameters
    ----------
    encoded : bytes-like
        Its data set as it came.
    transfer_syntax : UID
        Of the presentation context.
    event_type : int
        Event Type ID of the message.
    sender : str
        AE title of the peer.
    received_at : float
        Seconds since the epoch.

    Raises
    ------
    InputRejected
        The bytes are no data set, or have no Transaction UID that is one.
    """
    try:
        dataset = read_dataset(
            BytesIO(bytes(encoded)), transfer_syntax.is_implicit_VR, transfer_syntax.is_little_endian
        )
        transaction = str(dataset.get("TransactionUID", ""))
        committed = tuple(
            Committed(_sop_class(item), str(item.ReferencedSOPInstanceUID))
            for item in _items(dataset, "ReferencedSOPSequence")
        )
        failed = tuple(
            NotCommitted(
                _sop_class(item),
                str(item.ReferencedSOPInstanceUID),
                int(item.get("FailureReason") or REASON_MISSING),
            )
            for item in _items(dataset, "FailedSOPSequence")
        )
    except (*PARSER_ERRORS, OSError) as error:  # pydicom's word for an item that is none is OSError
        raise InputRejected(Reason.UNREADABLE, "the report's event information cannot be read") from error
    if not is_uid(transaction):
        raise InputRejected(Reason.INVALID_UID, "the report's Transaction UID is absent or no UID")
    return Report(transaction, sender, event_type, committed, failed, received_at)


def _items(dataset: Dataset, keyword: str) -> Iterator[Dataset]:
    # Absent where it has no items; some peers send it empty. What is no UID is nothing of ours, and may be a name.
    for item in dataset.get(keyword) or ():
        if is_uid(str(item.get("ReferencedSOPInstanceUID", ""))):
            yield item


def _sop_class(item: Dataset) -> str:
    value = str(item.get("ReferencedSOPClassUID", ""))
    return value if is_uid(value) else ""


def report_file(layout: DataLayout, transaction_uid: str) -> Path:
    """Where a report lies that nobody has acted on."""
    return layout.commitments / f"{transaction_uid}.json"


def acted_file(layout: DataLayout, transaction_uid: str) -> Path:
    """Where a report lies that was acted on."""
    return layout.commitments / "acted" / f"{transaction_uid}.json"


def keep_report(layout: DataLayout, report: Report) -> bool:
    """Keep a report durably; once it returns, the peer may be told.

    Returns
    -------
    bool
        False when one of this transaction was there already, acted on or not; the first one counts.

    Raises
    ------
    OSError
        The disk refuses.
    """
    if acted_file(layout, report.transaction_uid).exists():
        return False
    content = json.dumps({"schema": SCHEMA, **asdict(report)}, indent=1) + "\n"
    return write_once(report_file(layout, report.transaction_uid), content.encode())


def read_report(path: Path) -> Report:
    """Read a report that was kept.

    Raises
    ------
    InputRejected
        The file is no report, or not that of the transaction in its name.
    OSError
        It cannot be read.
    """
    try:
        tree = json.loads(path.read_bytes())
        if tree.pop("schema") != SCHEMA:
            raise ValueError("another schema")
        tree["committed"] = tuple(Committed(**item) for item in tree["committed"])
        tree["failed"] = tuple(NotCommitted(**item) for item in tree["failed"])
        report = Report(**tree)
        if report.transaction_uid != path.stem:
            raise ValueError("it is the report of another transaction")
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise InputRejected(Reason.UNREADABLE, f"{path.name} is no storage commitment report ({error})") from error
    return report


def file_away(path: Path, folder: str) -> None:
    """Move a report to ``acted`` or ``unknown`` durably; one that is gone has been moved by somebody else."""
    target = path.parent / folder / path.name
    if not target.parent.is_dir():
        target.parent.mkdir(exist_ok=True)
        sync_folder(path.parent)
    try:
        path.replace(target)
    except FileNotFoundError:
        return
    sync_folder(target.parent)
    sync_folder(path.parent)


def forget_reports(layout: DataLayout, before: float) -> int:
    """Remove reports that were acted on, or that nobody knew, and came before a time (seconds since the epoch).

    One that comes again after that is found by the delivery that has ended, or is unknown once more.

    Returns
    -------
    int
        How many were removed.
    """
    count = 0
    for folder in ("acted", "unknown"):
        for path in (layout.commitments / folder).glob("[!.]*.json"):
            if path.stat().st_mtime < before:
                path.unlink(missing_ok=True)
                count += 1
    return count
