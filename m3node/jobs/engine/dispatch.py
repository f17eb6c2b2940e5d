"""Hands work to the engine and asks what it holds, from any process: keeper, clerk, worker and command line.

Nothing runs here. When the database is away, a call says so at once (`m3node.errors.DatabaseError`) instead of waiting:
files are the truth, and the reconciler hands over again what was not.
"""

from __future__ import annotations

import datetime as dt
import logging
import threading
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from dbos import DBOSClient, DBOSPortableJSONSerializer, EnqueueOptions, WorkflowStatus
from dbos import error as dbos_error
from sqlalchemy import Engine, make_url
from sqlalchemy.exc import SQLAlchemyError

from m3node.delivery.entry import Entry
from m3node.jobs.engine import names
from m3node.jobs.ledger.database import engine_url, open_engine, unusable
from m3node.settings import Settings

WAITING = ("ENQUEUED", "DELAYED")
LIVE = (*WAITING, "PENDING")
"""The engine's states of a workflow that is still to end."""
ENDED = ("SUCCESS", "ERROR", "CANCELLED", "MAX_RECOVERY_ATTEMPTS_EXCEEDED")
"""Those of one that is over."""

_CHUNK = 10_000


@dataclass(frozen=True, slots=True)
class Work:
    """A workflow in the engine.

    Attributes
    ----------
    id : str
        ``job:<key>:<attempt>`` or ``send:<destination>:<name>:<attempt>``.
    state : str
        The engine's word.
    executor : str
        Who took it, where somebody did.
    version : str
        Of the workflows' shape with which it was begun.
    taken_at : float
        When somebody took it last, seconds since the epoch; 0 before.
    delayed_until : float
        Before which nobody takes it, seconds since the epoch.
    """

    id: str
    state: str
    queue: str
    executor: str
    version: str
    taken_at: float
    delayed_until: float = 0.0

    @property
    def subject(self) -> str:
        """What it is about, over all attempts: the ID without the attempt."""
        return self.id.rpartition(":")[0] + ":"

    @property
    def stranded(self) -> bool:
        """Whether another release has left it, so that no process of this one takes it."""
        return self.version != names.APPLICATION_VERSION


class Dispatcher:
    """A client of the engine's database that connects when it is used first.

    Parameters
    ----------
    settings : Settings
        Say where the database is. Its tables are there (`m3node.jobs.ledger.database.prepare`).
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._engine: Engine | None = None
        self._client: DBOSClient | None = None
        self._lock = threading.Lock()

    def close(self) -> None:
        """Let go of the database; a later call connects again."""
        with self._lock:
            if self._client is not None:
                self._client.destroy()
            if self._engine is not None:
                self._engine.dispose()
            self._client = self._engine = None

    def register_queues(self) -> None:
        """Say how the queues are served; every process that works on one follows it."""
        with self._asked() as client:
            client.register_queue(names.JOBS, worker_concurrency=1, polling_interval_sec=names.JOBS_POLL_SECONDS)
            client.register_queue(
                names.DELIVERIES, partition_worker_concurrency=1, polling_interval_sec=names.DELIVERIES_POLL_SECONDS
            )

    def enqueue_job(self, manifest_key: str, run: str, priority: str, *, delay: float = 0.0) -> bool:
        """Have a manifest answered, unless that is under way.

        Returns
        -------
        bool
            False when it was under way.
        """
        options: EnqueueOptions = {
            "workflow_name": names.ANSWER,
            "queue_name": names.JOBS,
            "app_version": names.APPLICATION_VERSION,
            "priority": names.priority_number(priority),
        }
        return self._enqueue(names.job_prefix(manifest_key), options, delay, run)

    def enqueue_delivery(self, entry: Entry, *, delay: float = 0.0) -> bool:
        """Have an entry of the outbox sent, unless that is under way.

        Returns
        -------
        bool
            False when it was under way.
        """
        options: EnqueueOptions = {
            "workflow_name": names.DELIVER,
            "queue_name": names.DELIVERIES,
            "queue_partition_key": entry.destination,
            "app_version": names.APPLICATION_VERSION,
            "priority": names.priority_number(entry.priority),
        }
        prefix = names.delivery_prefix(entry.destination, entry.name)
        return self._enqueue(prefix, options, delay, entry.destination, entry.name)

    def live(self, queue: str) -> dict[str, Work]:
        """Return what is still to end of a queue, by subject (`Work.subject`)."""
        return {work.subject: work for work in self.all_live() if work.queue == queue and not work.stranded}

    def all_live(self) -> tuple[Work, ...]:
        """Return what is still to end, and what another release has left so."""
        return self._list(status=list(LIVE))

    def attempts_of(self, prefix: str) -> tuple[Work, ...]:
        """Return the attempts at a job or delivery (`names.job_prefix`, `names.delivery_prefix`), ended ones too."""
        return self._list(workflow_id_prefix=prefix)

    def begun_by(self, executor: str) -> tuple[Work, ...]:
        """Return what an executor has begun and not ended."""
        return self._list(status="PENDING", executor_id=executor)

    def hand_back(self, work: Iterable[Work]) -> None:
        """Put begun work back into its queue; whoever takes it goes on after its last finished step."""
        by_queue: dict[str, list[str]] = {}
        for item in work:
            by_queue.setdefault(item.queue, []).append(item.id)
        with self._asked() as client:
            for queue, ids in by_queue.items():
                # Without its queue's name it would go to one of the engine's own, which every process serves.
                client.resume_workflows(ids, queue_name=queue)

    def cancel(self, ids: Collection[str]) -> None:
        """Cancel work: what waits never begins, and what runs is not recorded any more."""
        with self._asked() as client:
            client.cancel_workflows(list(ids))

    def send_at_once(self, entry: Entry) -> bool:
        """Have an entry of the outbox sent now, also where its next attempt was to be made later.

        Returns
        -------
        bool
            False when it was under way.
        """
        if self.enqueue_delivery(entry):
            return True
        attempts = self.attempts_of(names.delivery_prefix(entry.destination, entry.name))
        delayed = [work for work in attempts if work.state == "DELAYED"]
        self.wake(delayed)
        return bool(delayed)

    def wake(self, delayed: Iterable[Work]) -> None:
        """Let delayed work wait no longer."""
        with self._asked() as client:
            for work in delayed:
                client.set_workflow_delay(work.id, delay_seconds=0.0)

    def forget(self, before: float) -> int:
        """Delete the engine's rows of what ended before a time (seconds since the epoch); return how many."""
        # The first attempt stays while a later one is to come: who hands over again finds by it that one is under way.
        needed = {f"{work.subject}1" for work in self.all_live()}
        begun_before = dt.datetime.fromtimestamp(
            max(before, 0.0), dt.UTC
        ).isoformat()  # not the rows of a month into memory
        ended = [
            row.workflow_id
            for row in self._rows(status=list(ENDED), end_time=begun_before)
            if (row.completed_at or row.updated_at or 0) / 1000 < before and row.workflow_id not in needed
        ]
        self._delete(ended)
        return len(ended)

    def forget_before(self, workflow_id: str) -> None:
        """Delete the row of the attempt before one that is under way, unless that was the first."""
        before = names.id_before(workflow_id)
        # Where its process died after it had enqueued this one, it is still to end.
        if names.id_before(before) and self._rows(workflow_ids=[before], status=list(ENDED)):
            self._delete([before])

    def forget_stranded(self, work: Iterable[Work]) -> int:
        """Delete live work that another release left with another shape of the workflows; return how many rows.

        Nobody takes it any more; the reconciler hands the same over anew, and it goes on from its files.
        """
        stranded = [item.id for item in work if item.stranded]
        self._delete(stranded)
        return len(stranded)

    def _enqueue(self, prefix: str, options: EnqueueOptions, delay: float, *args: str) -> bool:
        """Enqueue the next attempt; two callers at a time choose the same number, and it is enqueued once."""
        attempt = 1
        while True:
            options["workflow_id"] = f"{prefix}{attempt}"
            options["workflow_id_reuse_policy"] = "reject"
            if delay > 0:
                options["delay_seconds"] = delay
            try:
                with self._asked() as client:
                    client.enqueue(options, *args)
            except dbos_error.DBOSWorkflowIDInUseError:
                attempts = self._list(workflow_id_prefix=prefix)
                if any(work.state in LIVE and not work.stranded for work in attempts):
                    return False
                attempt = 1 + max((names.attempt_of(work.id) for work in attempts), default=0)
            else:
                return True

    def _list(self, **filters: Any) -> tuple[Work, ...]:
        return tuple(
            Work(
                id=row.workflow_id,
                state=row.status,
                queue=row.queue_name or _queue_of(row.name),
                executor=row.executor_id or "",
                version=row.app_version or "",
                taken_at=(row.dequeued_at or 0) / 1000,
                delayed_until=(row.delay_until_epoch_ms or 0) / 1000,
            )
            for row in self._rows(**filters)
        )

    def _rows(self, **filters: Any) -> list[WorkflowStatus]:
        with self._asked() as client:
            return client.list_workflows(load_input=False, load_output=False, **filters)

    def _delete(self, ids: list[str]) -> None:
        with self._asked() as client:
            for start in range(0, len(ids), _CHUNK):
                client.delete_workflows(ids[start : start + _CHUNK])

    @contextmanager
    def _asked(self) -> Iterator[DBOSClient]:
        """Give the client, and turn its trouble with the database into our error."""
        try:
            yield self._connected()
        except dbos_error.DBOSWorkflowIDInUseError:
            raise
        except (SQLAlchemyError, dbos_error.DBOSException, OSError) as error:
            raise unusable(make_url(engine_url(self.settings)), error) from error

    def _connected(self) -> DBOSClient:
        with self._lock:
            if self._client is None:
                logging.getLogger("dbos").addHandler(logging.NullHandler())  # else it writes to the terminal by itself
                self._engine = self._engine or open_engine(self.settings, "engine")
                self._client = DBOSClient(
                    system_database_engine=self._engine,
                    serializer=DBOSPortableJSONSerializer(),
                    application_name=names.APPLICATION,
                    retry_connection_errors=False,
                )
            return self._client


def _queue_of(workflow: str) -> str:
    return names.DELIVERIES if workflow == names.DELIVER else names.JOBS
