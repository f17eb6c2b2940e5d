"""The next attempt at a job or a delivery that has to wait, so that nothing is held meanwhile."""

from __future__ import annotations

import logging

from dbos import DBOS, EnqueueOptions

from m3node.errors import DatabaseError
from m3node.jobs.engine import names
from m3node.jobs.engine.dispatch import Dispatcher

_log = logging.getLogger(__name__)


def try_again(
    dispatcher: Dispatcher,
    workflow: str,
    queue: str,
    *arguments: str,
    priority: str,
    delay: float,
    partition: str | None = None,
) -> None:
    """Enqueue the attempt after the one that calls this, and forget the one before: a job may wait for days.

    The first attempt stays, since who hands over again finds by it that one is under way. It is recorded by the engine
    that the next one was enqueued, so that a repetition does not enqueue two.

    Parameters
    ----------
    dispatcher : Dispatcher
        To the engine.
    workflow, queue : str
        `names.ANSWER` in `names.JOBS`, or `names.DELIVER` in `names.DELIVERIES`.
    *arguments : str
        Of the workflow.
    priority : str
        ``routine`` or ``stat``.
    delay : float
        Seconds before which nobody takes it.
    partition : str, optional
        Of the queue.
    """
    this = DBOS.workflow_id or ""
    options: EnqueueOptions = {
        "workflow_name": workflow,
        "queue_name": queue,
        "workflow_id": names.next_id(this),
        "app_version": names.APPLICATION_VERSION,
        "priority": names.priority_number(priority),
    }
    if partition is not None:
        options["queue_partition_key"] = partition
    if delay > 0:
        options["delay_seconds"] = delay
    DBOS.enqueue_workflow_with_options(options, *arguments)
    try:
        dispatcher.forget_before(this)
    except DatabaseError as error:
        _log.debug("%s", error)  # goes with `retention.rows_days`
