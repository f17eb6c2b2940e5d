"""What a person has done by a button: put back into its queue, or taken back. The result is told on the next page."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from m3node.audit.events import InstancesAccessed
from m3node.errors import DatabaseError, M3NodeError
from m3node.jobs.engine.actions import Actions, Refused
from m3node.jobs.engine.dispatch import Dispatcher
from m3node.jobs.ledger import lists, views
from m3node.jobs.ledger.notes import Ledger
from m3node.jobs.ledger.view_types import DeliveryView, RunView
from m3node.jobs.node.amounts import count_of
from m3node.web.patients import Patient
from m3node.web.site import Site, Visit, site_of, visit_of

_log = logging.getLogger(__name__)

AT_ONCE = 200
"""So many dead letters go back into their queue by one click: a browser does not wait for ever."""


def requeue(request: Request) -> Response:
    """Put a job, a delivery or all dead letters that ended alike back into their queue."""
    form = visit_of(request).form
    if "error" in form:
        return _done(request, _requeue_alike)
    return _done(request, lambda job: _one(job, job.actions.requeue_run, job.actions.requeue_delivery))


def cancel(request: Request) -> Response:
    """Take back a job or a delivery, or dismiss a dead letter."""
    return _done(request, lambda job: _one(job, job.actions.cancel_run, job.actions.cancel_delivery))


@dataclass(frozen=True, slots=True)
class _Job:
    """What is to be done, and the studies that something was done with."""

    site: Site
    actions: Actions
    form: dict[str, str]
    studies: set[str]


def _done(request: Request, do: Callable[[_Job], str]) -> Response:
    site, visit = site_of(request), visit_of(request)
    back = RedirectResponse(local(visit.form.get("back", "")), 303)
    try:
        engine = site.engine()
    except DatabaseError as error:
        site.say(visit, "bad", f"Nothing was done: {error}.")
        return back
    dispatcher = Dispatcher(site.settings)
    job = _Job(site, Actions(site.settings, dispatcher, Ledger(engine)), visit.form, set())
    try:
        text = do(job)
    except DatabaseError as error:
        # The files are changed first, and they are what counts.
        _log.warning("what was asked for on the page takes effect when the database is there again: %s", error)
        site.say(visit, "care", "The database cannot be used; this takes effect when it is there again.")
    except M3NodeError as error:
        site.say(visit, "bad", str(error))
    else:
        _log.info("%s (asked for on the page, from %s)", text, visit.address)
        site.say(visit, "good", text)
    finally:
        dispatcher.close()
    _audit(site, visit, job.studies)
    site.acted()
    return back


def _one(job: _Job, on_run: Callable[[str], str], on_delivery: Callable[[str, str], str]) -> str:
    run, destination, name = (job.form.get(field, "") for field in ("run", "destination", "name"))
    known: RunView | DeliveryView | None = None
    # A database that is away keeps nothing from being done: it is for the audit trail that the study is asked for.
    with suppress(DatabaseError):
        engine = job.site.engine()
        known = views.run(engine, run) if run else lists.delivery(engine, destination, name)
    studies = {known.study_instance_uid} if known is not None else set()
    try:
        text = on_run(run) if run else on_delivery(destination, name)
    except DatabaseError:
        job.studies.update(studies)
        raise
    job.studies.update(studies)
    return text


def _requeue_alike(job: _Job) -> str:
    destination, error = job.form.get("destination", ""), job.form["error"]
    try:
        letters = lists.dead_letters(job.site.engine(), destination, error, limit=AT_ONCE + 1)
    except DatabaseError as away:
        raise Refused(f"Nothing was done: {away}.") from away
    if not letters:
        raise Refused("There are no such dead letters any more.")
    kept: list[str] = []
    for letter in letters[:AT_ONCE]:
        try:
            job.actions.requeue_delivery(letter.destination, letter.name)
        except DatabaseError:
            job.studies.add(letter.study_instance_uid)
            raise
        except M3NodeError as refused:
            kept.append(str(refused))
        else:
            job.studies.add(letter.study_instance_uid)
    queued = len(letters[:AT_ONCE]) - len(kept)
    text = f"{count_of(queued, 'object')} queued for {destination} again"
    if kept:
        text += f"; {len(kept)} are left as they are, the first because {kept[0]}"
    if len(letters) > AT_ONCE:
        text += "; there are more of them: repeat it"
    return text


def _audit(site: Site, visit: Visit, studies: set[str]) -> None:
    patients: dict[str, Patient] = {}
    with suppress(DatabaseError):
        patients = site.patients_of(sorted(studies))
    for study in sorted(studies):
        patient = patients.get(study, Patient())
        site.audit(InstancesAccessed(visit.user, visit.address, study, patient.id, "execute"))


def local(address: str) -> str:
    """Return an address of this page as it is, and the first page for any other.

    >>> local("/jobs?state=failed"), local("//elsewhere"), local("https://elsewhere/"), local("/\\\\elsewhere")
    ('/jobs?state=failed', '/', '/', '/')
    """
    plain = address.startswith("/") and "\\" not in address and address.isprintable() and address.isascii()
    parts = urlsplit(address) if plain else None
    return address if parts is not None and not parts.netloc and not parts.scheme and address[:2] != "//" else "/"
