"""What the page says: states as words and as one of five kinds, which style sheet and screen reader tell apart."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from m3node.delivery.state import DeliveryState
from m3node.jobs.ledger.states import RunState, SeriesState
from m3node.jobs.ledger.study_list import StudyFilter, StudyRow
from m3node.jobs.ledger.view_types import RunView
from m3node.jobs.node.amounts import count_of
from m3node.results.findings import Outcome
from m3node.results.objects import ObjectKind

Kind = Literal["good", "busy", "care", "bad", "plain"]


@dataclass(frozen=True, slots=True)
class Badge:
    """A state in a word or two.

    Attributes
    ----------
    kind : str
        ``good``: it is as it should be; ``busy``: something is being done; ``care``: somebody should know; ``bad``:
        somebody has to act; ``plain``: none of these.
    text : str
        The words.
    """

    kind: Kind
    text: str


RUN: Mapping[str, Badge] = {
    RunState.QUEUED: Badge("busy", "queued"),
    RunState.RUNNING: Badge("busy", "running"),
    RunState.WAITING: Badge("care", "waiting"),
    RunState.DONE: Badge("good", "done"),
    RunState.REJECTED: Badge("care", "not used"),
    RunState.FAILED: Badge("bad", "failed"),
    RunState.SUPERSEDED: Badge("plain", "superseded"),
    RunState.CANCELLED: Badge("plain", "cancelled"),
}

DELIVERY: Mapping[str, Badge] = {
    DeliveryState.WAITING: Badge("busy", "waiting"),
    DeliveryState.RETRYING: Badge("care", "retrying"),
    DeliveryState.UNKNOWN: Badge("care", "without an answer"),
    DeliveryState.STORED: Badge("busy", "awaiting confirmation"),
    DeliveryState.SENT: Badge("good", "delivered"),
    DeliveryState.CONFIRMED: Badge("good", "confirmed"),
    DeliveryState.DEAD: Badge("bad", "dead letter"),
    DeliveryState.CANCELLED: Badge("plain", "cancelled"),
}

SERIES: Mapping[str, Badge] = {
    SeriesState.RECEIVING: Badge("busy", "receiving"),
    SeriesState.ANSWERED: Badge("plain", "complete"),
    SeriesState.PURGED: Badge("plain", "pixels removed"),
}

FILTER: Mapping[StudyFilter, str] = {
    StudyFilter.RECEIVING: "being received",
    StudyFilter.WORKING: "queued or running",
    StudyFilter.LESIONS: "with lesions",
    StudyFilter.REJECTED: "with series not used",
    StudyFilter.FAILED: "failed",
    StudyFilter.UNDELIVERED: "with deliveries under way",
    StudyFilter.DEAD: "with dead letters",
}

OBJECT: Mapping[str, str] = {
    ObjectKind.REPORT: "Report (SR)",
    ObjectKind.VOLUMES: "Volume measurements (SR)",
    ObjectKind.SEGMENTATION: "Segmentation (SEG)",
    ObjectKind.PRESENTATION: "Presentation state (GSPS)",
    ObjectKind.REPORT_ENHANCED: "Report (Enhanced SR)",
    ObjectKind.VOLUMES_ENHANCED: "Volume measurements (Enhanced SR)",
    ObjectKind.ATTENTION_CAPTURE: "Attention pictures (SC)",
    ObjectKind.ATTENTION_MAP: "Attention map (PM)",
}

CHECK: Mapping[str, Badge] = {
    "ok": Badge("good", "ok"),
    "warning": Badge("care", "warning"),
    "failed": Badge("bad", "failed"),
}

_OUTCOME: Mapping[str, str] = {
    Outcome.NO_LESION: "no lesion found",
    Outcome.NO_LIVER: "no liver in view",
    Outcome.INCOMPLETE: "incomplete: views could not be read",
    Outcome.REJECTED: "not used",
}


def badge(words: Mapping[str, Badge], state: str) -> Badge:
    """Return the badge of a state; one that a newer release has noted is shown as it is called."""
    return words.get(state, Badge("plain", state))


def finding(run: RunView) -> str:
    """Say what a run that is done found; nothing of another one."""
    if run.state != RunState.DONE:
        return ""
    return count_of(run.lesions, "lesion") if run.outcome == Outcome.LESIONS else _OUTCOME.get(run.outcome, run.outcome)


_DEAD = Badge("bad", "not delivered")

_FIRST: tuple[tuple[str, str, Badge], ...] = (
    ("runs", RunState.FAILED, RUN[RunState.FAILED]),
    ("deliveries", DeliveryState.DEAD, _DEAD),
    ("runs", RunState.WAITING, RUN[RunState.WAITING]),
    ("runs", RunState.RUNNING, RUN[RunState.RUNNING]),
    ("runs", RunState.QUEUED, RUN[RunState.QUEUED]),
    ("series", SeriesState.RECEIVING, SERIES[SeriesState.RECEIVING]),
    ("deliveries", DeliveryState.RETRYING, Badge("care", "delivery retried")),
    ("deliveries", DeliveryState.UNKNOWN, Badge("care", "delivery retried")),
    ("deliveries", DeliveryState.WAITING, Badge("busy", "delivering")),
    ("deliveries", DeliveryState.STORED, Badge("busy", "awaiting confirmation")),
    ("runs", RunState.DONE, RUN[RunState.DONE]),
    ("runs", RunState.REJECTED, RUN[RunState.REJECTED]),
    ("runs", RunState.CANCELLED, RUN[RunState.CANCELLED]),
    ("runs", RunState.SUPERSEDED, RUN[RunState.SUPERSEDED]),
)
"""What needs most to be known of a study comes first."""


def study_badge(row: StudyRow) -> Badge:
    """Return where a study stands."""
    counts = {"runs": row.runs, "deliveries": row.deliveries, "series": row.series}
    return next((badge for part, state, badge in _FIRST if counts[part].get(state)), Badge("plain", "received"))


def study_finding(row: StudyRow) -> str:
    """Say what was found in a study, in all of its series together."""
    if row.lesions:
        return count_of(row.lesions, "lesion")
    for outcome in (Outcome.INCOMPLETE, Outcome.NO_LESION, Outcome.NO_LIVER):
        if row.outcomes.get(outcome):
            return _OUTCOME[outcome]
    return ""


def moment(at: float) -> str:
    """Return a time as HTML's ``datetime`` wants it.

    >>> moment(0.0)
    '1970-01-01T00:00:00Z'
    """
    return dt.datetime.fromtimestamp(at, dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def clock(at: float, now: float) -> str:
    """Return a time by the machine's clock; with the day, where that is another one."""
    then, today = dt.datetime.fromtimestamp(at).astimezone(), dt.datetime.fromtimestamp(now).astimezone()
    return then.strftime("%H:%M:%S" if then.date() == today.date() else "%Y-%m-%d %H:%M")


def decimal(value: float, places: int = 1) -> str:
    """Return a number as it is shown; a dash for one that could not be measured.

    >>> decimal(12.345), decimal(float("nan"))
    ('12.3', '–')
    """
    return f"{value:.{places}f}" if math.isfinite(value) else "–"


def zone(now: float) -> str:
    """Return what the machine's clock goes by, for who looks from elsewhere."""
    return dt.datetime.fromtimestamp(now).astimezone().tzname() or ""
