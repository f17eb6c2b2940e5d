"""What a person has done by a button: put back into its queue, or taken back. The result is told on the next page."""

from __future__ import annotations

import logging
from collections.abc import Callable
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from m3node.audit.events import InstancesAccessed
from m3node.errors import DatabaseError, M3NodeError
from m3node.jobs.engine.actions import Actions
from m3node.jobs.engine.dispatch import Dispatcher
from m3node.jobs.ledger import lists, views
from m3node.jobs.ledger.notes import Ledger
from m3node.jobs.node.amounts import count_of
from m3node.web.site import Site, Visit, site_of, visit_of

_log = logging.getLogger(__name__)

AT_ONCE = 200
"""So many dead letters go back into their queue by one click: a browser does not wait for ever."""


def requeue(request: Request) -> Response:
    """Put a job, a delivery or all dead letters that ended alike back into their queue."""
    form = visit_of(request).form
    if "error" in form:
        return _done(request, _requeue_alike)
    return _done(request, lambda site, actions, form: _one(site, form, actions.requeue_run, actions.requeue_delivery))


def cancel(request: Request) -> Response:
    """Take back a job or a delivery, or dismiss a dead letter."""
    return _done(request, lambda site, actions, form: _one(site, form, actions.cancel_run, actions.cancel_delivery))


_Result = tuple[str, set[str]]
"""What was done, in words, and with which studies."""


def _done(request: Request, do: Callable[[Site, Actions, dict[str, str]], _Result]) -> Response:
    site, visit = site_of(request), visit_of(request)
    back = RedirectResponse(local(visit.form.get("back", "")), 303)
    try:
        engine = site.engine()
        dispatcher = Dispatcher(site.settings)
        try:
            text, studies = do(site, Actions(site.settings, dispatcher, Ledger(engine)), visit.form)
        finally:
            dispatcher.close()
    except DatabaseError as error:
        # The files are changed first, and they are what counts.
        _log.warning("what was asked for on the page takes effect when the database is there again: %s", error)
        site.say(visit, "care", "The database cannot be used; this takes effect when it is there again.")
    except M3NodeError as error:
        site.say(visit, "bad", str(error))
    else:
        _log.info("%s (asked for on the page, from %s)", text, visit.address)
        _audit(site, visit, studies)
        site.say(visit, "good", text)
    site.acted()
    return back


def _one(
    site: Site, form: dict[str, str], on_run: Callable[[str], str], on_delivery: Callable[[str, str], str]
) -> _Result:
    engine = site.engine()
    if run := form.get("run", ""):
        known = views.run(engine, run)
        return on_run(run), {known.study_instance_uid} if known is not None else set()
    destination, name = form.get("destination", ""), form.get("name", "")
    delivery = lists.delivery(engine, destination, name)
    return on_delivery(destination, name), {delivery.study_instance_uid} if delivery is not None else set()


def _requeue_alike(site: Site, actions: Actions, form: dict[str, str]) -> _Result:
    destination, error = form.get("destination", ""), form["error"]
    letters = lists.dead_letters(site.engine(), destination, error, limit=AT_ONCE + 1)
    studies: set[str] = set()
    kept: list[str] = []
    for letter in letters[:AT_ONCE]:
        try:
            actions.requeue_delivery(letter.destination, letter.name)
        except DatabaseError:
            raise
        except M3NodeError as refused:
            kept.append(str(refused))
        else:
            studies.add(letter.study_instance_uid)
    queued = len(letters[:AT_ONCE]) - len(kept)
    text = f"{count_of(queued, 'object')} queued for {destination} again"
    if kept:
        text += f"; {len(kept)} are left as they are, the first because {kept[0]}"
    if len(letters) > AT_ONCE:
        text += "; there are more of them: repeat it"
    return text, studies


def _audit(site: Site, visit: Visit, studies: set[str]) -> None:
    patients = site.patients_of(sorted(studies))
    for study, patient in patients.items():
        site.audit(InstancesAccessed(visit.user, visit.address, study, patient.id, "execute"))


def local(address: str) -> str:
    """Return an address of this page as it is, and the first page for any other.

    >>> local("/jobs?state=failed"), local("//elsewhere"), local("https://elsewhere/"), local("/\\\\elsewhere")
    ('/jobs?state=failed', '/', '/', '/')
    """
    plain = address.startswith("/") and "\\" not in address and address.isprintable() and address.isascii()
    parts = urlsplit(address) if plain else None
    return address if parts is not None and not parts.netloc and not parts.scheme and address[:2] != "//" else "/"
