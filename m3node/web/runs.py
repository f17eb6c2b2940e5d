"""What the page of a study shows of each run: its time line, what was found, its objects and where each of them is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from m3node.delivery.state import DeliveryState
from m3node.errors import ResultError
from m3node.jobs.ledger.states import RUN_ENDS, RunState
from m3node.jobs.ledger.view_types import DeliveryView, ObjectView, RunView, SeriesView, StudyView
from m3node.jobs.ledger.views import UNENDED
from m3node.jobs.node.amounts import count_of
from m3node.layout import DataLayout
from m3node.m3.lesion import Lesion
from m3node.rejection import Reason
from m3node.results.findings import Findings, Outcome
from m3node.results.objects import ObjectKind
from m3node.results.store import FINDINGS_FILE, load_findings
from m3node.web.advice import WHAT_TO_DO
from m3node.web.pictures import folder_of, pictures_of

ORDER = {kind.value: number for number, kind in enumerate(ObjectKind)}
"""Of a run's objects: the report first."""

_HAS_IT = (DeliveryState.STORED, DeliveryState.SENT, DeliveryState.CONFIRMED)

Progress = Literal["done", "now", "ahead", "failed"]


@dataclass(frozen=True, slots=True)
class Moment:
    """A point of a run's time line.

    Attributes
    ----------
    name : str
        ``received``, ``complete``, ``detected``, ``built``, ``delivered``, ``confirmed``.
    progress : str
        Whether it is past, is being worked on, is still to come, or went wrong.
    at : float or None
        When it was, where that is known.
    text : str
        What else is to be said.
    """

    name: str
    progress: Progress
    at: float | None = None
    text: str = ""


@dataclass(frozen=True, slots=True)
class SentObject:
    """A result object and its deliveries."""

    kind: str
    sop_instance_uid: str
    deliveries: tuple[DeliveryView, ...]


@dataclass(frozen=True, slots=True)
class RunPanel:
    """A run as it is shown.

    Attributes
    ----------
    run : RunView
        As the ledger has it.
    moments : tuple of Moment
        Its time line.
    lesions : tuple of Lesion
        What was found; masks are empty.
    views : str
        How many views were read, where not all were.
    pictures : dict of str to str
        Names of its pictures, and what they show.
    objects : tuple of SentObject
        What was built.
    what_to_do : str
        About its reason.
    can_requeue, can_cancel : bool
        Whether it makes sense to offer that.
    """

    run: RunView
    moments: tuple[Moment, ...]
    lesions: tuple[Lesion, ...]
    views: str
    pictures: dict[str, str]
    objects: tuple[SentObject, ...]
    what_to_do: str
    can_requeue: bool
    can_cancel: bool


def run_panel(layout: DataLayout, run: RunView, study: StudyView, committing: frozenset[str]) -> RunPanel:
    """Put together what is shown of a run.

    Parameters
    ----------
    layout : DataLayout
        The data folder.
    run : RunView
        One of the study's.
    study : StudyView
        With its series, objects and deliveries.
    committing : frozenset of str
        Destinations that confirm.
    """
    folder = folder_of(layout, run.run)
    findings = _findings(folder)
    deliveries = tuple(item for item in study.deliveries if item.run == run.run)
    objects = tuple(item for item in study.objects if item.run == run.run)
    series = next((item for item in study.series if item.series_instance_uid == run.series_instance_uid), None)
    ended = run.state in RUN_ENDS
    has_manifest = folder is not None and (layout.manifests / f"{run.run}.json").is_file()
    return RunPanel(
        run=run,
        moments=_moments(run, series, deliveries, _times(folder, objects), committing),
        lesions=findings.lesions if findings is not None else (),
        views=_views(findings),
        pictures=pictures_of(folder) if folder is not None else {},
        objects=_sent(objects, deliveries),
        what_to_do=WHAT_TO_DO[Reason(run.reason)] if run.reason in set(Reason) else "",
        can_requeue=has_manifest and run.state in (RunState.FAILED, RunState.REJECTED, RunState.CANCELLED),
        can_cancel=has_manifest and (not ended or any(item.state in UNENDED for item in deliveries)),
    )


def _findings(folder: Path | None) -> Findings | None:
    if folder is None or not (folder / FINDINGS_FILE).exists():
        return None
    try:
        findings = load_findings(folder, masks=False)
    except ResultError:
        return None
    return findings if all(_is_measured(lesion) for lesion in findings.lesions) else None


def _is_measured(lesion: Lesion) -> bool:
    """Whether numbers are numbers, which nobody asks of a file that we wrote before it is shown."""
    of = lesion.measurements
    lengths = (of.longest.length_mm, of.perpendicular.length_mm)
    numbers = (*lengths, of.volume_ml, of.hu_mean, of.hu_sd, of.hu_liver_mean, lesion.score, lesion.key_slice)
    # An integer may have any number of digits; a float has an end.
    return all(isinstance(number, float) or (isinstance(number, int) and abs(number) < 2**53) for number in numbers)


def _views(findings: Findings | None) -> str:
    if findings is None or findings.outcome is Outcome.REJECTED or findings.views_read == findings.views_total:
        return ""
    return f"{findings.views_read} of {findings.views_total} views could be read"


@dataclass(frozen=True, slots=True)
class _Times:
    """When files were written, where they are there."""

    detected: float | None
    built: float | None


def _times(folder: Path | None, objects: Sequence[ObjectView]) -> _Times:
    if folder is None:
        return _Times(None, None)
    built = [at for item in objects if (at := _written(folder / Path(item.path).name)) is not None]
    return _Times(_written(folder / FINDINGS_FILE), max(built, default=None))


def _written(path: Path) -> float | None:
    try:
        return path.stat().st_mtime
    except OSError:
        return None


def _moments(
    run: RunView,
    series: SeriesView | None,
    deliveries: Sequence[DeliveryView],
    times: _Times,
    committing: frozenset[str],
) -> tuple[Moment, ...]:
    received = Moment("received", "done")
    if series is not None:
        received = Moment("received", "done", series.last_received_at or None, count_of(series.instances, "instance"))
    if run.state == RunState.REJECTED and not run.started_at:
        return (received, Moment("complete", "done", run.created_at), Moment("not used", "failed", run.finished_at))
    moments = [
        received,
        Moment("complete", "done", run.created_at, count_of(run.slices, "slice") if run.slices else ""),
    ]
    moments += _work(run, times)
    if run.state in (RunState.FAILED, RunState.REJECTED, RunState.CANCELLED, RunState.SUPERSEDED):
        return tuple(moments)
    return (*moments, *_sending(run, deliveries, committing))


def _work(run: RunView, times: _Times) -> list[Moment]:
    """Return detection and building."""
    done, detected_at = run.state == RunState.DONE, times.detected
    if run.state in (RunState.QUEUED, RunState.WAITING):
        return [Moment("detected", "now", None, run.state), Moment("built", "ahead")]
    if run.state == RunState.RUNNING:
        stage = f"{run.stage}, {run.done} of {run.total}" if run.total > 1 else run.stage or "just begun"
        if detected_at is None:
            return [Moment("detected", "now", None, stage), Moment("built", "ahead")]
        return [Moment("detected", "done", detected_at), Moment("built", "now", None, stage)]
    if done:
        return [Moment("detected", "done", detected_at), Moment("built", "done", times.built or run.finished_at)]
    moments = [Moment("detected", "done", detected_at)] if detected_at and run.state != RunState.REJECTED else []
    ends: dict[str, str] = {RunState.REJECTED: "not used", RunState.FAILED: "failed"}
    wrong = run.state in ends
    return [*moments, Moment(ends.get(run.state, run.state), "failed" if wrong else "done", run.finished_at)]


def _sending(run: RunView, deliveries: Sequence[DeliveryView], committing: frozenset[str]) -> list[Moment]:
    """Return delivery and, where a destination confirms, confirmation."""
    sent = [item for item in deliveries if item.state != DeliveryState.CANCELLED]
    if run.state != RunState.DONE:
        return [Moment("delivered", "ahead")]
    if not sent:
        # Nothing to send, or long ago: the ledger forgets what is delivered (retention.rows_days).
        return []
    there = [item for item in sent if item.state in _HAS_IT]
    count = f"{len(there)} of {len(sent)}"
    dead = sum(item.state == DeliveryState.DEAD for item in sent)
    if len(there) == len(sent):
        at = max((item.stored_at or item.finished_at or 0.0 for item in sent), default=0.0)
        moments = [Moment("delivered", "done", at or None, count)]
    else:
        moments = [Moment("delivered", "failed" if dead else "now", None, count)]
    wanted = [item for item in sent if item.destination in committing or item.state == DeliveryState.CONFIRMED]
    if wanted:
        confirmed = [item for item in wanted if item.state == DeliveryState.CONFIRMED]
        count = f"{len(confirmed)} of {len(wanted)}"
        if len(confirmed) == len(wanted):
            at = max(item.finished_at or 0.0 for item in confirmed)
            moments.append(Moment("confirmed", "done", at or None, count))
        else:
            moments.append(Moment("confirmed", "now" if len(there) == len(sent) else "ahead", None, count))
    return moments


def _sent(objects: Sequence[ObjectView], deliveries: Sequence[DeliveryView]) -> tuple[SentObject, ...]:
    known = {item.sop_instance_uid: item.kind for item in deliveries}
    known |= {item.sop_instance_uid: item.kind for item in objects}
    return tuple(
        SentObject(kind, uid, tuple(item for item in deliveries if item.sop_instance_uid == uid))
        for uid, kind in sorted(known.items(), key=lambda item: (ORDER.get(item[1], len(ORDER)), item[0]))
    )
