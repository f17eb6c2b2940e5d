"""The pages: each asks, shows, and changes nothing."""

from __future__ import annotations

import platform
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response

from m3node.delivery.state import DeliveryState
from m3node.errors import DatabaseError
from m3node.health.checks import ready
from m3node.intake.uid import MAX_LENGTH, is_uid
from m3node.jobs.ledger import lists, views
from m3node.jobs.ledger.paging import PAGE, Cursor
from m3node.jobs.ledger.states import RunState
from m3node.jobs.ledger.study_list import StudyFilter, StudyRow, studies
from m3node.jobs.ledger.view_types import DeliveryView, DestinationView
from m3node.settings import Destination
from m3node.web import pictures
from m3node.web.patients import Patient
from m3node.web.runs import run_panel
from m3node.web.site import Site, site_of, visit_of
from m3node.web.words import RUN

NEWEST = 10
"""Studies on the overview."""
SHOWN_RUNS = 100
"""Runs on the page of a study, the newest."""
SHOWN_ALIKE = 20
"""Dead letters that are shown one by one of those that ended alike."""

PNG = "image/png"


@dataclass(frozen=True, slots=True)
class StudyLine:
    """A study in a list, and whose it is."""

    row: StudyRow
    patient: Patient


@dataclass(frozen=True, slots=True)
class DeadLine:
    """Dead letters that ended alike, and the first of them."""

    group: lists.DeadGroup
    letters: tuple[DeliveryView, ...]


@dataclass(frozen=True, slots=True)
class DestinationLine:
    """A destination: how it is set, and how it does; one of both may be missing."""

    name: str
    setting: Destination | None
    view: DestinationView | None

    @property
    def waiting(self) -> int:
        """How many objects are under way to it."""
        counts = self.view.states if self.view is not None else {}
        return sum(counts.get(state, 0) for state in views.UNENDED)

    @property
    def delivered(self) -> int:
        """How many objects it has, as far as the ledger remembers."""
        counts = self.view.states if self.view is not None else {}
        return counts.get(DeliveryState.SENT, 0) + counts.get(DeliveryState.CONFIRMED, 0)

    @property
    def dead(self) -> int:
        """How many dead letters there are for it."""
        return self.view.states.get(DeliveryState.DEAD, 0) if self.view is not None else 0


def overview(request: Request) -> Response:
    """Show the node at a glance."""
    site = site_of(request)
    seen, checks = site.glance(), site.checks()
    newest: tuple[StudyLine, ...] = ()
    if seen is not None and seen.overview is not None:
        # It went away since it was looked at: the next look says so.
        with suppress(DatabaseError):
            newest = _lines(site, studies(site.engine(), limit=NEWEST).rows)
    return site.render(
        request,
        "overview.html",
        glance=seen,
        overview=seen.overview if seen is not None else None,
        checks=checks,
        ready=ready(checks),
        destinations=_destinations(site),
        newest=newest,
    )


def study_list(request: Request) -> Response:
    """Show studies, a page of them."""
    site = site_of(request)
    asked = request.query_params
    uid = asked.get("q", "").strip()[: 2 * MAX_LENGTH]
    state = asked.get("state", "")
    wanted = StudyFilter(state) if state in set(StudyFilter) else None
    page = studies(site.reader(), wanted, uid=uid, before=_cursor(request, "before"), after=_cursor(request, "after"))
    return site.render(
        request,
        "studies.html",
        page=page,
        lines=_lines(site, page.rows),
        wanted=wanted,
        uid=uid,
        no_uid=bool(uid) and not is_uid(uid.removesuffix(".")),
        filters=tuple(StudyFilter),
    )


def study(request: Request) -> Response:
    """Show all that is known of a study."""
    site = site_of(request)
    uid = request.path_params["uid"]
    found = views.study(site.reader(), uid) if is_uid(uid) else None
    if found is None:
        return site.answer(request, 404, "Nothing is known of this study. What has just come in is known in seconds.")
    patient = site.patients_of([uid])[uid]
    site.audit_read(visit_of(request), uid, patient)
    committing = frozenset(item.name for item in site.settings.destinations if item.commitment)
    newest = found.runs[::-1][:SHOWN_RUNS]
    return site.render(
        request,
        "study.html",
        study=found,
        patient=patient,
        panels=tuple(run_panel(site.layout, run, found, committing) for run in newest),
        left_out=len(found.runs) - len(newest),
    )


def picture(request: Request) -> Response:
    """Show a picture of a run."""
    site = site_of(request)
    folder = pictures.folder_of(site.layout, request.path_params["run"])
    found = pictures.picture(folder, request.path_params["picture"]) if folder is not None else None
    if found is None:
        return site.answer(request, 404, "There is no such picture, or retention has removed it.")
    return Response(found, media_type=PNG)


def job_list(request: Request) -> Response:
    """Show jobs, a page of them."""
    site = site_of(request)
    state = request.query_params.get("state", "")
    states = [RunState(state)] if state in set(RunState) else []
    page = lists.runs(site.reader(), states, before=_cursor(request, "before"), after=_cursor(request, "after"))
    return site.render(request, "jobs.html", page=page, wanted=state if states else "", states=RUN)


def dead(request: Request) -> Response:
    """Show dead letters, those that ended alike together."""
    site = site_of(request)
    engine = site.reader()
    found = lists.dead_groups(engine, PAGE + 1)
    groups = tuple(
        DeadLine(group, lists.dead_letters(engine, group.destination, group.last_error, limit=SHOWN_ALIKE))
        for group in found[:PAGE]
    )
    return site.render(request, "dead.html", groups=groups, more=len(found) > PAGE)


def destinations(request: Request) -> Response:
    """Show destinations and how they do."""
    site = site_of(request)
    seen = site.glance()
    if seen is None or seen.trouble:
        raise DatabaseError(seen.trouble if seen is not None else "")
    return site.render(request, "destinations.html", destinations=_destinations(site))


def about(request: Request) -> Response:
    """Show what this node is, and how it is set; no secret, and no file that holds one."""
    site = site_of(request)
    settings, seen = site.settings, site.glance()
    facts = {
        "m3node": request.app.state.version,
        "Python": platform.python_version(),
        "AE title": settings.listener.ae_title,
        "Port": str(settings.listener.port),
        "Callers": ", ".join(caller.ae_title for caller in settings.listener.callers)
        or "none: every caller is refused",
        "Detector": settings.detector.name,
        "Worker slots": str(settings.jobs.slots),
        "Destinations": ", ".join(item.name for item in settings.destinations)
        or "none: results stay in the data folder",
        "Data folder": str(Path(settings.data_dir).absolute()),
        "Database": seen.database if seen is not None else "",
    }
    return site.render(request, "about.html", facts=facts)


def _lines(site: Site, rows: tuple[StudyRow, ...]) -> tuple[StudyLine, ...]:
    patients = site.patients_of([row.study_instance_uid for row in rows])
    return tuple(StudyLine(row, patients[row.study_instance_uid]) for row in rows)


def _destinations(site: Site) -> tuple[DestinationLine, ...]:
    """Return those that the settings name, and those that something was ever queued for."""
    seen = site.glance()
    known = {item.name: item for item in seen.overview.destinations} if seen is not None and seen.overview else {}
    named = {item.name: item for item in site.settings.destinations}
    return tuple(DestinationLine(name, named.get(name), known.get(name)) for name in {**named, **known})


def _cursor(request: Request, name: str) -> Cursor | None:
    return Cursor.parse(request.query_params.get(name, ""))
