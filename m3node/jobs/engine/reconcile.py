"""Makes the files and the engine agree: whatever the files say is to be done, the engine knows of."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from m3node.delivery.back_off import due as is_due
from m3node.delivery.outbox import Box, waiting
from m3node.errors import M3NodeError
from m3node.jobs.answer.record import RECORD
from m3node.jobs.engine import names
from m3node.jobs.engine.dispatch import Dispatcher, Work
from m3node.jobs.ledger.files import read_manifest_facts, read_series
from m3node.jobs.ledger.notes import Ledger
from m3node.jobs.ledger.rows import ManifestFacts
from m3node.layout import DataLayout
from m3node.settings import Settings

_log = logging.getLogger(__name__)

_MANY = 10
"""New manifests from which asking the engine for all it has is cheaper than handing over each."""
_TICK = 5.0
"""So far may the clocks of the machines that share a database be apart."""


@dataclass(frozen=True, slots=True)
class Reconciled:
    """What the engine did not know of.

    Attributes
    ----------
    jobs : int
        Manifests without an end of their run.
    deliveries : int
        Destinations for which something waits.
    stranded : int
        Rows of another release that nobody would have taken any more.
    """

    jobs: int = 0
    deliveries: int = 0
    stranded: int = 0


class Reconciler:
    """Looks at files and engine; one in a node, in the process of the listener.

    Parameters
    ----------
    settings : Settings
        The tree.
    dispatcher : Dispatcher
        To the engine.
    ledger : Ledger
        Told of each job that is handed over, before its worker can tell that it began.
    """

    def __init__(self, settings: Settings, dispatcher: Dispatcher, ledger: Ledger) -> None:
        self._settings = settings
        self._layout = DataLayout(settings.data_dir)
        self._dispatcher = dispatcher
        self._ledger = ledger
        self._stamp = -1
        self._known: set[str] = set()
        self._read: dict[str, ManifestFacts] = {}
        self._damaged: set[str] = set()

    def new_manifests(self) -> int:
        """Hand over the manifests that came since the last look; cheap when there are none.

        Returns
        -------
        int
            How many were handed over.

        Raises
        ------
        DatabaseError
            The database is away; the same manifests are new at the next call.
        """
        stamp = self._layout.manifests.stat().st_mtime_ns
        if stamp == self._stamp:
            return 0
        # A name linked within the clock's tick of this look would not change the stamp: look again next time.
        settled = time.time_ns() - stamp > 50_000_000
        new = sorted(self._runs() - self._known)
        # After a start thousands may be new here, and known to the engine since long.
        live = self._dispatcher.live(names.JOBS) if len(new) > _MANY else {}
        count = 0
        for run in new:
            handed = self._hand_over(run, live)
            if handed and len(new) <= _MANY:
                self._note_series(run)
            count += handed
            self._known.add(run)
        self._stamp = stamp if settled else -1
        return count

    def all(self) -> Reconciled:
        """Hand over all that the engine does not know of.

        Raises
        ------
        DatabaseError
            The database is away.
        """
        work = self._dispatcher.all_live()
        stranded = self._dispatcher.forget_stranded(work)
        if stranded:
            _log.warning("%d jobs and deliveries that another release left are begun anew from their files", stranded)
        live = {item.subject: item for item in work if not item.stranded}
        self._wake(live.values())
        jobs = sum(self._hand_over(run, live) for run in sorted(self._runs()))
        return Reconciled(jobs, self._deliveries(live), stranded)

    def _wake(self, live: Iterable[Work]) -> None:
        """Let no job wait that was put off by a clock which has been set back since: its time may be years ahead."""
        latest = time.time() + max(self._settings.jobs.retry_seconds, names.LONGEST_PAUSE) + _TICK
        late = [work for work in live if work.queue == names.JOBS and work.delayed_until > latest]
        self._dispatcher.wake(work for work in late if work.state == "DELAYED")

    def _deliveries(self, live: Mapping[str, Work]) -> int:
        """Have somebody look at each destination for which something is due.

        One workflow sends what is due, not its own entry only, and a destination that is down has one that probes it.
        """
        now = time.time()
        count = 0
        for destination in self._settings.destinations:
            box = Box(self._layout.outbox / destination.name)
            if not box.folder.is_dir():
                continue
            due = [entry for entry in waiting(box) if is_due(entry, now, self._settings.delivery)]
            busy = any(
                work.state != "DELAYED" and work.subject.startswith(f"send:{destination.name}:")
                for work in live.values()
            )
            if due and not busy:
                count += self._dispatcher.send_at_once(due[0])
        return count

    def _runs(self) -> set[str]:
        return {path.stem for path in self._layout.manifests.glob("*.json")}

    def _facts(self, run: str) -> ManifestFacts | None:
        if (facts := self._read.get(run)) is None and run not in self._damaged:
            try:
                facts = read_manifest_facts(self._layout.manifests / f"{run}.json")
            except M3NodeError as error:
                if isinstance(error.__cause__, OSError):
                    _log.error("run %s is begun later: %s", run, error)
                    return None
                _log.critical("run %s cannot be begun and is passed over: %s", run, error)
                self._damaged.add(run)
                return None
            self._read[run] = facts
        return facts

    def _note_series(self, run: str) -> None:
        """Let the ledger know the series of a run that begins: who looks on sees its study at once."""
        facts = self._facts(run)
        if facts is None:
            return
        try:
            series = read_series(self._layout.index / f"{facts.stack.series_instance_uid}.jsonl")
        except OSError:
            return  # the ledger follows the files anyway
        if series is not None:
            self._ledger.note_series(series)

    def _hand_over(self, run: str, live: Mapping[str, Work]) -> int:
        """Hand a manifest over whose run has not ended, unless it is among what the engine has; return how many."""
        if (self._layout.results / run / RECORD).exists():
            self._read.pop(run, None)
            return 0
        facts = self._facts(run)
        if facts is None or names.job_prefix(facts.key) in live:
            return 0
        self._ledger.note_manifest(facts)
        return int(self._dispatcher.enqueue_job(facts.key, run, facts.priority))
