"""Names in the engine's database: queues, workflows and their keys. They outlive releases; none is ever given anew."""

from __future__ import annotations

APPLICATION = "m3node"

APPLICATION_VERSION = "1"
"""Version of the workflows' shape, not of m3node: it changes only when a workflow's steps do, so that an upgrade goes
on with what an older release began."""

JOBS = "jobs"
"""Queue of workflows that answer a manifest; a worker slot takes one at a time."""

DELIVERIES = "deliveries"
"""Queue of delivery attempts, partitioned by destination; each destination takes one at a time."""

ANSWER = "answer"
"""Workflow that answers a manifest: ``answer(run)``."""

DELIVER = "deliver"
"""Workflow that makes one attempt: ``deliver(destination, name)``."""

STAT, ROUTINE = 1, 10
"""Priorities; the lower number is first. One is set on every enqueue, since none would win over all."""

_PRIORITIES = {"stat": STAT, "routine": ROUTINE}


def priority_number(priority: str) -> int:
    """Return the engine's number of a manifest's priority."""
    return _PRIORITIES[priority]


def job_prefix(manifest_key: str) -> str:
    """What the workflow IDs of all attempts at a manifest begin with; the attempt's number follows, from 1."""
    return f"job:{manifest_key}:"


def delivery_prefix(destination: str, name: str) -> str:
    """What the workflow IDs of all attempts at a delivery begin with."""
    return f"send:{destination}:{name}:"


def slot_executor(slot: int) -> str:
    """Engine's name for a worker slot: what a killed worker had begun is found by it."""
    return f"slot-{slot}"


def slot_of(executor: str) -> int | None:
    """Return the worker slot of an executor; None for another one."""
    kind, _, number = executor.partition("-")
    return int(number) if kind == "slot" and number.isdigit() else None


DELIVER_EXECUTOR = "deliver"

JOBS_POLL_SECONDS, DELIVERIES_POLL_SECONDS = 0.1, 0.2
"""How often a process looks for work in each queue."""

LONGEST_PAUSE = 60.0
"""Between two attempts at a job that has to wait, in seconds, however often it has waited; a longer
``jobs.retry_seconds`` wins."""


def attempt_of(workflow_id: str) -> int:
    """Return the attempt in a workflow ID."""
    return int(workflow_id.rpartition(":")[2])


def next_id(workflow_id: str) -> str:
    """Return the workflow ID of the attempt after this one."""
    subject, _, attempt = workflow_id.rpartition(":")
    return f"{subject}:{int(attempt) + 1}"


def id_before(workflow_id: str) -> str:
    """Return the workflow ID of the attempt before this one; empty for the first."""
    subject, _, attempt = workflow_id.rpartition(":")
    return f"{subject}:{int(attempt) - 1}" if attempt and int(attempt) > 1 else ""
