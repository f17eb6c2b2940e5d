"""What reports of storage commitment, and those that never come, make of the deliveries that they are about.

An entry keeps its transaction when it waits to be sent again: a late "committed" is about the same bytes and spares the
sending.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from m3node.delivery.back_off import back_off, gives_up
from m3node.delivery.entry import Entry
from m3node.delivery.outbox import Box, box_of, finish, read_entry, rewrite
from m3node.delivery.state import ENDS, DeliveryState
from m3node.errors import InputRejected
from m3node.intake.receive.commitment import Report, file_away, read_report, report_file
from m3node.layout import DataLayout
from m3node.settings import DeliverySettings, Settings

_log = logging.getLogger(__name__)

_REASONS = {
    0x0000: "no reason given",
    0x0110: "processing failure",
    0x0112: "no such object instance",
    0x0119: "class-instance conflict",
    0x0122: "SOP class not supported",
    0x0131: "duplicate transaction UID",
    0x0213: "resource limitation",
}
"""Failure Reason (0008,1197) of PS3.3 C.14.1.1."""

_TRANSACTION = re.compile(rb'"transaction_uid": "([0-9.]+)"')


def act_on_reports(layout: DataLayout, settings: Settings, now: float) -> list[Entry]:
    """Act on every report that has come in; call it about every second, from the process that delivers.

    Parameters
    ----------
    layout : DataLayout
        The data folder.
    settings : Settings
        Destinations and waiting times.
    now : float
        Seconds since the epoch.

    Returns
    -------
    list of Entry
        What has changed: ``CONFIRMED``, ``WAITING`` (to be sent again from ``not_before`` on) or ``DEAD``.

    Raises
    ------
    OSError
        The disk refuses; what is left is acted on the next time.
    """
    pending = _pending(layout)
    if not pending:
        return []
    changed = []
    for box, name, report in _entries_of(layout, settings, pending):
        del pending[report.transaction_uid]
        file = report_file(layout, report.transaction_uid)
        after = settle(box, name, file, report.sender, settings.delivery, now)
        if after is not None:
            changed.append(after)
    for report in pending.values():
        _log.warning(
            "a report of storage commitment from %s names transaction %s, which no delivery to it waits for; kept in "
            "commitments/unknown",
            report.sender,
            report.transaction_uid,
        )
        file_away(report_file(layout, report.transaction_uid), "unknown")
    return changed


def overdue(entry: Entry, now: float, delivery: DeliverySettings) -> bool:
    """Whether a report should have come by now; so it is, too, when the clock was set back since it was asked for."""
    return (
        entry.state is DeliveryState.STORED
        and entry.requested_at > 0
        and abs(now - entry.requested_at) >= delivery.commitment_seconds
    )


def review_stored(layout: DataLayout, settings: Settings, now: float) -> list[Entry]:
    """Send again what was asked for and never reported; call it about every minute.

    An object that is stored at a destination which no longer is to commit is done.

    Returns
    -------
    list of Entry
        What has changed: ``WAITING``, ``DEAD`` or ``SENT``.

    Raises
    ------
    OSError
        The disk refuses; what is left is reviewed the next time.
    """
    changed = []
    for destination in settings.destinations:
        box = box_of(layout, destination.name)
        for path, content in _files(box.folder):
            if b'"state": "stored"' not in content:
                continue
            entry = read_entry(box, path.stem)
            if entry is None or entry.state is not DeliveryState.STORED:
                continue
            if not destination.commitment:
                after = replace(entry, state=DeliveryState.SENT, finished_at=now, last_error="")
            elif overdue(entry, now, settings.delivery):
                words = f"no report of its commitment within {settings.delivery.commitment_seconds:g} s"
                after = _again(entry, words, settings.delivery, now)
            else:
                continue
            if write(box, entry, after):
                changed.append(after)
    return changed


def settle(box: Box, name: str, file: Path, sender: str, delivery: DeliverySettings, now: float) -> Entry | None:  # noqa: PLR0917
    """Act on one report for one entry, and file it away.

    Parameters
    ----------
    box : Box
        The folders of the entry's destination.
    name : str
        The entry.
    file : Path
        The report.
    sender : str
        AE title of the destination; somebody else's word does not count, and is left for `act_on_reports`.
    delivery : DeliverySettings
        Back-off.
    now : float
        Seconds since the epoch.

    Returns
    -------
    Entry or None
        What it made of the entry; None when it changed nothing.
    """
    try:
        report = read_report(file)
    except (FileNotFoundError, InputRejected):
        return None  # somebody else was quicker, or it says nothing
    if report.sender != sender:
        return None
    after = None
    while (entry := read_entry(box, name)) is not None and entry.transaction_uid == report.transaction_uid:
        outcome = _outcome(entry, report, delivery, now)
        if outcome is None or write(box, entry, outcome):
            after = outcome
            break
    if after is None:
        _log.info(
            "%s: the report of transaction %s changes nothing: the delivery has ended or goes again already",
            box.folder.name,
            report.transaction_uid,
        )
    file_away(file, "acted")
    return after


def _outcome(entry: Entry, report: Report, delivery: DeliverySettings, now: float) -> Entry | None:
    """Return what a report makes of an entry that waits; None when it makes nothing of it."""
    failed = {item.sop_instance_uid: item.reason for item in report.failed}
    uid = entry.sop_instance_uid
    if uid not in failed and uid in {item.sop_instance_uid for item in report.committed}:
        return replace(
            entry,
            state=DeliveryState.CONFIRMED,
            stored_at=entry.stored_at or now,
            failing_since=0.0,
            finished_at=now,
            last_error="",
        )
    if entry.state is not DeliveryState.STORED:
        return None
    if uid in failed:
        reason = failed[uid]
        words = f"not committed to: 0x{reason:04X} {_REASONS.get(reason, 'unknown reason')}"
    else:
        words = "not committed to: the report does not name it"
    return _again(entry, words, delivery, now)


def _again(entry: Entry, error: str, delivery: DeliverySettings, now: float) -> Entry:
    """Return an entry that was stored and has to be sent again, or that is given up."""
    failing = replace(failing_again(entry, error, now), stored_at=0.0, requested_at=0.0)
    if gives_up(failing.failing_since, now, delivery):
        return replace(failing, state=DeliveryState.DEAD, finished_at=now)
    delay = back_off(entry.attempts, delivery)
    return replace(failing, state=DeliveryState.WAITING, not_before=now + delay)


def failing_again(entry: Entry, error: str, now: float) -> Entry:
    """Count a failure."""
    return replace(entry, attempts=entry.attempts + 1, last_error=error, failing_since=entry.failing_since or now)


def write(box: Box, was: Entry, entry: Entry) -> bool:
    """Write down what became of an entry and say so; false, and nothing, when it has been changed since it was read."""
    done = finish(box, was, entry) if entry.state in ENDS else rewrite(box, was, entry)
    if done:
        _say(entry)
    return done


_WORDS = {
    DeliveryState.CONFIRMED: (logging.INFO, "confirmed"),
    DeliveryState.SENT: (logging.INFO, "stored, and its destination is not asked to commit any more"),
    DeliveryState.STORED: (logging.WARNING, "stored, and its commitment is asked for again"),
    DeliveryState.WAITING: (logging.WARNING, "sent again"),
    DeliveryState.DEAD: (logging.ERROR, "set aside"),
}


def _say(entry: Entry) -> None:
    level, words = _WORDS[entry.state]
    why = f": {entry.last_error}" if entry.last_error else ""
    _log.log(level, "%s: %s of run %s is %s%s", entry.destination, entry.sop_instance_uid, entry.run, words, why)


def _pending(layout: DataLayout) -> dict[str, Report]:
    """Read the reports that wait, by transaction."""
    pending = {}
    for path in sorted(layout.commitments.glob("[!.]*.json")):
        try:
            report = read_report(path)
        except FileNotFoundError:
            continue
        except OSError as error:
            # The others must not wait for it, nor have their objects sent again.
            _log.error("storage commitment: %s cannot be read (%s), and waits", path.name, error.strerror)
            continue
        except InputRejected as error:
            _log.error("storage commitment: %s; kept in commitments/unknown", error.message)
            file_away(path, "unknown")
            continue
        pending[report.transaction_uid] = report
    return pending


def _entries_of(
    layout: DataLayout, settings: Settings, pending: dict[str, Report]
) -> Iterator[tuple[Box, str, Report]]:
    """Find the entries that reports are about, first among what waits; the caller takes from `pending` what it has got.

    Only a delivery to the peer that reports counts: nobody else's word on what is stored there does.
    """
    for ended in (False, True):
        for destination in settings.destinations:
            wanted = {uid: report for uid, report in pending.items() if report.sender == destination.ae_title}
            box = box_of(layout, destination.name)
            for folder in (box.sent, box.aside) if ended else (box.folder,):
                for path, content in _files(folder) if wanted else ():
                    found = _TRANSACTION.search(content)
                    report = wanted.pop(found[1].decode(), None) if found else None
                    if report is not None:
                        yield box, path.stem, report
                    if not wanted:
                        break


def _files(folder: Path) -> Iterator[tuple[Path, bytes]]:
    for path in folder.glob("[!.]*.json"):
        try:
            yield path, path.read_bytes()
        except FileNotFoundError:
            continue
