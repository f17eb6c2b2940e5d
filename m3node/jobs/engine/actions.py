"""What a person may have done with runs, deliveries and workers, from any process, while the node runs or not."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from m3node.delivery import recall
from m3node.delivery.outbox import box_of
from m3node.delivery.state import DeliveryState
from m3node.durable import sync_folder
from m3node.errors import DeliveryError, M3NodeError, ResultError
from m3node.intake.keeper.index import Index
from m3node.intake.series.manifest import Manifest, read_manifest
from m3node.jobs.answer import starts
from m3node.jobs.answer.closing import close
from m3node.jobs.answer.generations import newer_generation
from m3node.jobs.answer.record import RECORD, RunRecord, read_record
from m3node.jobs.answer.steps import FINDINGS
from m3node.jobs.engine import names
from m3node.jobs.engine.dispatch import LIVE, WAITING, Dispatcher, Work
from m3node.jobs.ledger.files import read_entry
from m3node.jobs.ledger.notes import Ledger
from m3node.jobs.locks import RoleHeldError, hold, holder, slot_lock
from m3node.layout import DataLayout
from m3node.results.findings import Outcome
from m3node.results.store import load_findings, missing_files
from m3node.settings import Settings

_log = logging.getLogger(__name__)

ANEW = "to have the series analysed again, send all of it under a new Series Instance UID"


LONGEST_NAME = 240
"""A file system takes 255, the ending among them."""


class Refused(M3NodeError):  # noqa: N818 - what it is called to the person who asked
    """What was asked for cannot be done; the message says why, and what can."""


class Actions:
    """What can be done from outside of the processes that work.

    Every method returns in words what was done.

    Parameters
    ----------
    settings : Settings
        The tree.
    dispatcher : Dispatcher
        To the engine.
    ledger : Ledger
        Told of what is done.
    """

    def __init__(self, settings: Settings, dispatcher: Dispatcher, ledger: Ledger) -> None:
        self._settings = settings
        self._layout = DataLayout(settings.data_dir)
        self._dispatcher = dispatcher
        self._ledger = ledger

    def requeue_run(self, run: str) -> str:
        """Have a run answered again that ended without objects; what it left is kept under other names.

        Raises
        ------
        Refused
            There is no such run, it has objects, a newer generation has taken its place, it has not ended, or retention
            has removed what it needs.
        DatabaseError
            The database is away; the reconciler hands the run over when it is back.
        """
        manifest = self._manifest(run)
        folder = self._layout.results / run
        record = self._record(folder)
        if (folder / RECORD).exists():
            _check_repeatable(run, record)
            self._check_newest(manifest)
            self._check_kept(manifest, folder)
            if record is not None and record.cancelled:
                self._forget_cancelled(run)
            _set_aside(folder)
            self._ledger.note_requeued(run)
        if not self._dispatcher.enqueue_job(manifest.key, run, manifest.priority):
            return f"{run} is queued already"
        return f"{run} is queued again"

    def requeue_delivery(self, destination: str, name: str) -> str:
        """Have an object sent that was set aside.

        Raises
        ------
        Refused
            No such delivery is set aside, a newer generation has taken the place of its run, or retention has removed
            the object.
        DatabaseError
            The database is away; the reconciler hands it over when it is back.
        """
        self._check_delivery(destination, name)
        self._check_wanted(destination, name)
        entry = recall.requeue(self._layout, destination, name)
        if entry is None:
            raise Refused(f"no delivery {name} to {destination} is set aside; see m3node jobs --dead")
        self._ledger.note_entry(entry)
        self._dispatcher.send_at_once(entry)
        return f"{name} is queued for {destination} again"

    def cancel_run(self, run: str, reason: str = "cancelled by a person") -> str:
        """End a run that has not ended, and take back what waits of it in the outbox.

        A run that waits ends at once. One that is being worked on ends when its worker sees the wish: at the next sign
        of progress, or before the next step.

        Raises
        ------
        Refused
            There is no such run, or nothing of it is left to cancel.
        DatabaseError
            The database is away; the wish is written down, and the run ends when its turn comes.
        """
        manifest = self._manifest(run)
        folder = self._layout.results / run
        if not (folder / RECORD).exists():
            starts.ask_to_cancel(folder, reason)
        if (folder / RECORD).exists():  # perhaps since just now: then nobody looks at the wish any more
            starts.forget(folder)
            taken_back = recall.cancel(self._layout, run, reason)
            for entry in taken_back:
                self._ledger.note_entry(entry)
            if not taken_back:
                raise Refused(f"{run} has ended, and nothing of it waits to be sent")
            return f"{len(taken_back)} deliveries of {run} are cancelled; the run itself had ended"
        attempts = self._dispatcher.attempts_of(names.job_prefix(manifest.key))
        self._dispatcher.cancel([work.id for work in attempts if work.state in WAITING])
        attempts = self._dispatcher.attempts_of(names.job_prefix(manifest.key))
        begun = [work for work in attempts if work.state in LIVE]
        if any(self._alive(work) for work in begun):
            return f"{run} is being worked on, and ends at the worker's next sign of progress"
        self._dispatcher.cancel([work.id for work in begun])
        record = close(
            manifest, self._layout, self._settings, worker="", note=self._ledger.note_entry, cancelled=reason
        )
        self._ledger.note_record(record, run=run, finished_at=record.finished_at)
        return f"{run} is cancelled" if record.cancelled else f"{run} had just ended"

    def cancel_delivery(self, destination: str, name: str, reason: str = "cancelled by a person") -> str:
        """Take back an object that waits for a destination, or dismiss one that was set aside.

        Raises
        ------
        Refused
            No such delivery waits or is set aside.
        """
        self._check_delivery(destination, name)
        entry = recall.cancel_one(self._layout, destination, name, reason)
        if entry is None:
            raise Refused(f"no delivery {name} waits for {destination} or is set aside")
        self._ledger.note_entry(entry)
        return f"{name} is not sent to {destination} any more"

    def take_over(self, slot: int) -> str:
        """Give what a dead worker slot had begun to the other slots; they go on after its last finished steps.

        Raises
        ------
        Refused
            The slot is alive.
        DatabaseError
            The database is away.
        """
        alive = holder(self._layout, slot_lock(slot))
        if alive is not None:
            raise Refused(f"slot {slot} is alive ({alive}): stop or kill that process first")
        try:
            with hold(self._layout, slot_lock(slot)):
                begun = self._dispatcher.begun_by(names.slot_executor(slot))
                self._dispatcher.hand_back(begun)
        except RoleHeldError as error:
            raise Refused(f"slot {slot} has just been started: {error}") from error
        return f"{len(begun)} jobs of slot {slot} are queued for the other slots"

    def _forget_cancelled(self, run: str) -> None:
        """Let a run that was cancelled while its deliveries were being queued have them queued again."""
        for path in self._layout.outbox.glob(f"*/aside/{run}.*.json"):
            try:
                entry = read_entry(path, "aside")
            except DeliveryError as error:
                _log.warning("%s is left where it is: %s", path.name, error)
                continue
            if entry.run == run and entry.state is DeliveryState.CANCELLED:
                path.unlink()

    def _check_delivery(self, destination: str, name: str) -> None:
        known = sorted(box.name for box in self._layout.outbox.glob("*/"))
        if destination not in known:
            raise Refused(f"nothing was ever queued for a destination {destination!r}; there is: {', '.join(known)}")
        if not _names_a_file(name):
            raise Refused(f"{name!r} names no delivery; m3node jobs --dead and m3node status --study show the names")

    def _check_wanted(self, destination: str, name: str) -> None:
        """Refuse an object that is gone, or of an older generation: an archive must not get it after the newer one."""
        try:
            entry = read_entry(box_of(self._layout, destination).aside / f"{name}.json", "aside")
        except (OSError, DeliveryError):
            return  # there is none, or it is damaged: who moves it back says so
        if not (self._layout.root / entry.path).exists():
            raise Refused(f"the object of {name} was removed (retention.results_days); {ANEW}")
        try:
            manifest = read_manifest(self._layout.manifests / f"{entry.run}.json")
        except M3NodeError:
            return  # nothing says that there is a newer one
        self._check_newest(manifest)

    def _check_kept(self, manifest: Manifest, folder: Path) -> None:
        """Refuse a run that could not be answered any more, and would end as failed under another name."""
        settled = Index(self._layout.index).settled(manifest.stack.series_instance_uid)
        inputs = (Path(manifest.root) / header.path for header in (*manifest.instances, *manifest.liver_segs))
        if (settled is not None and settled.purged) or not all(path.exists() for path in inputs):
            raise Refused(f"the received files of {folder.name} were removed (retention.received_hours); {ANEW}")
        # Looked for anew, they could go under UIDs under which other bytes were sent already.
        if gone := missing_files(folder):
            raise Refused(f"{folder.name} has no {' and no '.join(gone)} any more (retention.results_days); {ANEW}")

    def _check_newest(self, manifest: Manifest) -> None:
        if newer_generation(manifest, self._layout):
            run = Path(manifest.file_name).stem
            raise Refused(f"a newer generation has taken the place of {run}; requeue that one, or cancel what is left")

    def _alive(self, work: Work) -> bool:
        slot = names.slot_of(work.executor)
        return slot is not None and holder(self._layout, slot_lock(slot)) is not None

    def _manifest(self, run: str) -> Manifest:
        path = self._layout.manifests / f"{run}.json"
        if not _names_a_file(run):
            raise Refused(f"there is no run {run!r}; see m3node jobs")
        if not path.is_file():
            if (self._layout.results / run / FINDINGS).exists():
                raise Refused(
                    f"{run} was not fit to be looked at, and is not queued; send what is missing, or all of it"
                )
            raise Refused(f"there is no run {run}; see m3node jobs")
        return read_manifest(path)

    def _record(self, folder: Path) -> RunRecord | None:
        try:
            return read_record(folder)
        except ResultError as error:
            _log.warning("%s", error)
            return None


def _names_a_file(name: str) -> bool:
    """Whether a file of ours may be called so: what somebody typed may have slashes, NULs, or more than a name can."""
    return Path(name).name == name != "" and name.isascii() and name.isprintable() and len(name) <= LONGEST_NAME


def _check_repeatable(run: str, record: RunRecord | None) -> None:
    if record is None:
        return  # damaged: nobody knows what it said
    if record.superseded_by:
        raise Refused(f"a newer generation has taken the place of {run}; requeue that one")
    if record.objects:
        raise Refused(f"{run} was answered with {len(record.objects)} objects; to send one again, requeue its delivery")


def _set_aside(folder: Path) -> None:
    """Make the folder one of a run that has not ended; ``run.json`` goes last, so that a kill leaves it ended."""
    number = 1
    while (folder / f"run.failed-{number}.json").exists():
        number += 1
    if _holds_no_findings(folder):
        os.replace(folder / FINDINGS, folder / f"findings.failed-{number}.json")
    starts.forget(folder)
    os.replace(folder / RECORD, folder / f"run.failed-{number}.json")
    sync_folder(folder)


def _holds_no_findings(folder: Path) -> bool:
    """Whether ``findings.json`` only says why there are none, or is damaged: then all is looked at again."""
    if not (folder / FINDINGS).exists():
        return False
    try:
        return load_findings(folder).outcome is Outcome.REJECTED
    except ResultError:
        return True
