"""Notes in the ledger: what a role did, right after the file says so.

A note that fails is logged, once a minute at most, and never stops a role: the files are followed later
(`m3node.jobs.ledger.sync`).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

from sqlalchemy import Connection, Engine, case, delete, func, update
from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from m3node.delivery.entry import Entry
from m3node.errors import DatabaseError
from m3node.intake.series.manifest import Manifest, StackKey
from m3node.jobs.answer.record import RunRecord
from m3node.jobs.ledger.database import writing
from m3node.jobs.ledger.files import SeriesFacts
from m3node.jobs.ledger.rows import ManifestFacts, entry_row, rejected_row
from m3node.jobs.ledger.states import RUN_ENDS, RunState
from m3node.jobs.ledger.tables import Delivery, Run, Worker
from m3node.jobs.ledger.upsert import Row, upsert
from m3node.jobs.ledger.writes import forget, put_index, put_manifests, put_records, requeue
from m3node.rejection import Rejection

_log = logging.getLogger(__name__)

LOG_SECONDS = 60.0
"""How often at most a failing ledger is logged."""
PAUSE_SECONDS = 5.0
"""How long a database that is away is not asked again: no role waits for it at every note."""
STAGE_SECONDS = 0.5
"""How often at most the progress of a stage is noted."""

Write = Callable[[Connection], object]


class Ledger:
    """Notes in one ledger; safe for several threads, and every note is a transaction of its own.

    Each method returns whether it was written.

    Parameters
    ----------
    engine : sqlalchemy.Engine
        From `m3node.jobs.ledger.database.open_engine`.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._away_until = 0.0
        self._logged_at = -LOG_SECONDS
        self._staged: dict[str, tuple[str, float]] = {}

    def note_series(self, facts: SeriesFacts) -> bool:
        """Note what the index says of a series, ahead of who follows the files."""
        return self._note(lambda connection: put_index(connection, [facts]))

    def note_manifest(self, manifest: Manifest | ManifestFacts) -> bool:
        """Note a generation; its run is queued, unless it is further along."""
        facts = manifest if isinstance(manifest, ManifestFacts) else ManifestFacts.of(manifest)
        return self._note(lambda connection: put_manifests(connection, [facts]))

    def note_rejected(self, key: StackKey, run: str, study_uid: str, rejection: Rejection, at: float) -> bool:
        """Note a stack, or instances of a series, that was not fit for a run; ``run`` is the folder in ``results/``."""
        row = rejected_row(key, run, study_uid, rejection, at)
        return self._note(lambda connection: upsert(connection, Run, [row]))

    def note_started(self, run: str, worker: str) -> bool:
        """Note that a worker has begun a run, or goes on with it."""
        now = time.time()
        return self._change(
            run,
            state=RunState.RUNNING,
            worker=worker,
            stage="",
            done=0,
            total=0,
            message="",
            started_at=func.coalesce(Run.started_at, now),
        )

    def note_stage(self, run: str, stage: str, done: int, total: int) -> bool:
        """Note how far a running run is; calls that follow each other closely are left out."""
        now = time.monotonic()
        before, at = self._staged.get(run, ("", 0.0))
        if stage == before and now - at < STAGE_SECONDS and done != total:
            return False
        self._staged = {run: (stage, now)}
        return self._change(run, state=RunState.RUNNING, stage=stage, done=done, total=total, message="")

    def note_waiting(self, run: str, reason: str) -> bool:
        """Note that a run waits for disk or memory."""
        return self._change(run, state=RunState.WAITING, message=reason)

    def note_record(self, record: RunRecord, *, run: str, finished_at: float) -> bool:
        """Note what a run ended as, and its objects."""
        return self._note(lambda connection: put_records(connection, [(record, run, finished_at)]))

    def note_requeued(self, run: str) -> bool:
        """Note that a run that had ended is to run again."""
        return self._note(lambda connection: requeue(connection, [run]))

    def note_entry(self, entry: Entry) -> bool:
        """Note where a delivery stands."""
        return self._note(lambda connection: upsert(connection, Delivery, [entry_row(entry)]))

    def note_worker(self, slot: int, host: str, pid: int, detector: str) -> bool:
        """Note who holds a slot, at its start and again from time to time."""
        now = time.time()
        row: Row = {
            "slot": slot,
            "host": host,
            "pid": pid,
            "started_at": now,
            "seen_at": now,
            "detector": detector,
        }

        def merge(old: Any, new: Any) -> Row:
            same = (old.host == new.host) & (old.pid == new.pid)
            return {"started_at": case((same, old.started_at), else_=new.started_at)}

        return self._note(lambda connection: upsert(connection, Worker, [row], merge=merge))

    def note_worker_gone(self, slot: int) -> bool:
        """Note that nobody holds a slot any more."""
        return self._note(lambda connection: connection.execute(delete(Worker).where(Worker.slot == slot)))

    def forget_rows(self, before: float) -> bool:
        """Forget deliveries that ended before a time, and the objects that all their destinations had by then.

        Dead letters stay, and so do runs, series and instances.
        """
        return self._note(lambda connection: forget(connection, before))

    def _change(self, run: str, **values: Any) -> bool:
        """Change a run that has not ended."""
        change = update(Run).where(Run.run == run, Run.state.not_in(RUN_ENDS)).values(updated_at=time.time(), **values)
        return self._note(lambda connection: connection.execute(change))

    def _note(self, write: Write) -> bool:
        if time.monotonic() < self._away_until:
            return False
        try:
            with writing(self.engine) as connection:
                write(connection)
        except DatabaseError as error:
            if isinstance(error.__cause__, (OperationalError, PoolTimeoutError)):
                self._away_until = time.monotonic() + PAUSE_SECONDS
            if time.monotonic() >= self._logged_at + LOG_SECONDS:
                self._logged_at = time.monotonic()
                _log.warning("the ledger is behind, and follows the files when it can again: %s", error)
            return False
        return True


class NoLedger(Ledger):
    """Notes nothing: for what runs without a database."""

    def __init__(self) -> None:
        self._staged = {}

    def _note(self, write: Write) -> bool:
        return False
