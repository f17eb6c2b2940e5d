"""Signing in and out."""

from __future__ import annotations

import asyncio
import logging
from functools import partial

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from m3node.audit.events import Node, SecurityAlert, UserAuthentication
from m3node.errors import ConfigError
from m3node.web.acting import local
from m3node.web.doorkeeper import set_session
from m3node.web.signing_in import neighbourhood
from m3node.web.site import Site, Visit, site_of, visit_of

_log = logging.getLogger(__name__)

DELAY_SECONDS = 0.5
"""How long a wrong password takes to be answered; other requests do not wait for it."""


def form(request: Request) -> Response:
    """Show the form."""
    site = site_of(request)
    if not site.secrets.for_people:
        return site.answer(request, 404, "Nobody signs in here: there is no web.password_file.")
    return _form(request, 200, "")


async def sign_in(request: Request) -> Response:
    """Let somebody in who knows the password."""
    site, visit = site_of(request), visit_of(request)
    user = visit.form.get("user", "")
    check = partial(site.secrets.is_password, user, visit.form.get("password", ""))
    try:
        tried = await run_in_threadpool(site.lock_out.attempt, neighbourhood(visit.address), check)
    except ConfigError as error:
        _log.error("%s", error)
        return await run_in_threadpool(_form, request, 503, "The password cannot be checked. The node's log says why.")
    if tried.wait:
        text = f"There were too many wrong passwords. Try again in {int(tried.wait) + 1} seconds."
        answer = await run_in_threadpool(_form, request, 429, text)
        answer.headers["Retry-After"] = str(int(tried.wait) + 1)
        return answer
    if not tried.right:
        _log.warning("a wrong password was given by %s", visit.address)
        await run_in_threadpool(_audit_failure, site, visit)
        await asyncio.sleep(DELAY_SECONDS)
        return await run_in_threadpool(_form, request, 401, "User or password is wrong.")
    await run_in_threadpool(site.audit, UserAuthentication(user, visit.address, "login"))
    _log.info("somebody signed in from %s", visit.address)
    if visit.session is not None:
        site.sessions.end(visit.session)
    answer = RedirectResponse(local(visit.form.get("next", "/")), 303)
    set_session(answer, site, request.scope, site.sessions.begin(user))
    return answer


def sign_out(request: Request) -> Response:
    """Let somebody go."""
    site, visit = site_of(request), visit_of(request)
    if visit.session is not None:
        site.sessions.end(visit.session)
        if visit.session.user:
            site.audit(UserAuthentication(visit.session.user, visit.address, "logout"))
    answer = RedirectResponse("/", 303)
    set_session(answer, site, request.scope, None)
    return answer


def _form(request: Request, status: int, text: str) -> Response:
    asked = request.query_params.get("next") or visit_of(request).form.get("next", "/")
    return site_of(request).render(request, "sign_in.html", status, text=text, next=local(asked))


def _audit_failure(site: Site, visit: Visit) -> None:
    # What was given as the user may be a password in the wrong field, so it is not written down.
    site.audit(UserAuthentication(site.settings.web.user, visit.address, "login", success=False))
    site.audit(SecurityAlert("user authentication", Node("", visit.address), "a wrong password was given to the page"))
