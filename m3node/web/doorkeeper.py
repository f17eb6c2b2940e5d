"""Who may come in: a signed-in browser, a program with a token, or anybody where nothing is asked for.

What changes something is let in only from a form of ours: it carries a token of the same session, and the browser says
that it comes from a page of the same origin.
"""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from urllib.parse import parse_qsl, quote, urlsplit

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import MutableHeaders
from starlette.requests import ClientDisconnect, Request
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from m3node.audit.events import Node, SecurityAlert
from m3node.errors import ConfigError
from m3node.intake.receive.repeats import RepeatedLines
from m3node.web.front import ALWAYS_ANSWERED
from m3node.web.sessions import Session
from m3node.web.signing_in import neighbourhood
from m3node.web.site import Site, Visit

_log = logging.getLogger(__name__)

OPEN = (ALWAYS_ANSWERED, "/readyz", "/sign-in")
"""What anybody may ask for, besides what lies below ``/static/``; the first two say little to who is not known."""
FORM_BYTES = 65_536
FORM_FIELDS = 20
FORM_SECONDS = 15.0
FOR_ANYBODY = "anybody"
"""Whom the audit trail names where nobody has to sign in."""
A_PROGRAM = "a program with the token"


class Doorkeeper:
    """Finds out who asks, and sends away who may not.

    Parameters
    ----------
    app : ASGIApp
        What is behind the door; finds a `Visit` in the scope.
    site : Site
        Sessions and secrets.
    """

    def __init__(self, app: ASGIApp, site: Site) -> None:
        self._app = app
        self._site = site
        self._lines = RepeatedLines(_log)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer."""
        request = Request(scope, receive)
        answer, began = await self._let_in(request)

        async def with_cookie(message: Message) -> None:
            if began is not None and message["type"] == "http.response.start":
                holder = Response()
                set_session(holder, self._site, scope, began)
                MutableHeaders(scope=message).append("set-cookie", holder.headers["set-cookie"])
            await send(message)

        await (answer or self._app)(scope, receive, with_cookie)

    async def _let_in(self, request: Request) -> tuple[Response | None, Session | None]:
        """Return how to answer who may not come in, and a session that begins."""
        # The path that leads to a page, not the one of an address put together with the Host header.
        site, scope, path = self._site, request.scope, str(request.scope["path"])
        address = request.client.host if request.client is not None else ""
        session = site.sessions.read(request.cookies.get(cookie_name(scope), ""))
        user = session.user if session is not None else ""
        if not site.secrets.asked_for:
            user = FOR_ANYBODY
        elif not user and path != ALWAYS_ANSWERED and request.method != "POST" and (token := _shown_token(request)):
            refusal = await self._look_at_token(request, token, address)
            if refusal is not None:
                return refusal, None
            user = A_PROGRAM
        form: dict[str, str] = {}
        if request.method == "POST":
            try:
                form = await _form(request)
            except ValueError as error:
                return site.answer(request, 400, f"The form cannot be read: {error}."), None
            if session is None or not _from_here(request) or not self._is_ours(session, form):
                self._lines.say(
                    logging.WARNING, f"a form from {address} was refused: it was not made by this page, or long ago"
                )
                text = "The form was not made by this page, or long ago. Go back, load the page again and repeat it."
                return site.answer(request, 403, text), None
        open_to_all = path in OPEN or path.startswith("/static/")
        if not user and not open_to_all:
            return self._send_away(request), None
        began = None
        if session is None and request.method == "GET" and _shows_forms(request, user, path):
            session = began = site.sessions.begin()
        scope["m3node.visit"] = Visit(
            session=session,
            user=user,
            address=address,
            form=form,
            live="x-live" in request.headers,
        )
        return None, began

    def _is_ours(self, session: Session, form: dict[str, str]) -> bool:
        return self._site.sessions.is_form_token(session, form.get("token", ""))

    async def _look_at_token(self, request: Request, token: str, address: str) -> Response | None:
        site, key = self._site, f"token {neighbourhood(address)}"
        try:
            tried = await run_in_threadpool(site.lock_out.attempt, key, partial(site.secrets.is_token, token))
        except ConfigError as error:
            _log.error("%s", error)
            return site.answer(request, 503, "The token cannot be checked. The node's log says why.")
        if tried.wait:
            return site.answer(request, 429, "Too many wrong tokens.", {"Retry-After": str(int(tried.wait) + 1)})
        if tried.right:
            return None
        _log.warning("a wrong token was shown by %s", address)
        await run_in_threadpool(
            site.audit, SecurityAlert("user authentication", Node("", address), "a wrong token was shown to the page")
        )
        return site.answer(request, 401, "The token is wrong.", {"WWW-Authenticate": "Bearer"})

    def _send_away(self, request: Request) -> Response:
        for_people = self._site.secrets.for_people
        wants_page = "text/html" in request.headers.get("accept", "") and "x-live" not in request.headers
        if for_people and wants_page and request.method == "GET":
            query = request.scope["query_string"].decode("latin-1")
            asked = request.scope["path"] + (f"?{query}" if query else "")
            return RedirectResponse(f"/sign-in?next={quote(asked)}", 303)
        how = "Sign in" if for_people else "Programs show web.token_file's token; for people, set web.password_file"
        return self._site.answer(request, 401, f"{how}.", {"WWW-Authenticate": "Bearer"})


def cookie_name(scope: Scope) -> str:
    """Return the name of the session's cookie; browsers send one machine's cookies to each of its ports."""
    server = scope.get("server")
    return f"m3node-{server[1] if server is not None else 0}"


def set_session(response: Response, site: Site, scope: Scope, session: Session | None) -> None:
    """Have the browser keep a session; or forget it, without one."""
    response.set_cookie(
        cookie_name(scope),
        site.sessions.cookie(session) if session is not None else "",
        max_age=None if session is not None else 0,
        httponly=True,
        samesite="strict",
        secure=scope["scheme"] == "https",
    )


def _shown_token(request: Request) -> str:
    """Return the token that a program shows; what other ways to authorise say, proxies among them, is not looked at."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def _shows_forms(request: Request, user: str, path: str) -> bool:
    """Whether the answer may be a page with a form, for which a session is needed."""
    return "text/html" in request.headers.get("accept", "") and (path == "/sign-in" or user == FOR_ANYBODY)


def _from_here(request: Request) -> bool:
    """Whether the browser says that a form was sent from a page of this origin; all of today's do."""
    origin = urlsplit(request.headers.get("origin", ""))
    if not origin.netloc or origin.netloc != request.headers.get("host"):
        return False
    fetched = request.headers.get("sec-fetch-site")
    # What browsers say of themselves holds behind a proxy that speaks TLS for us, too.
    return fetched == "same-origin" if fetched is not None else origin.scheme == request.scope["scheme"]


async def _form(request: Request) -> dict[str, str]:
    """Read what was posted.

    Raises
    ------
    ValueError
        It is too long, or no form.
    """
    if request.headers.get("content-type", "").partition(";")[0] != "application/x-www-form-urlencoded":
        raise ValueError("it is of another type")
    body = bytearray()
    try:
        async with asyncio.timeout(FORM_SECONDS):
            async for part in request.stream():
                body += part
                if len(body) > FORM_BYTES:
                    raise ValueError("it is too long")
    except (ClientDisconnect, TimeoutError) as error:
        raise ValueError("it was cut short") from error
    text = body.decode("ascii", "strict")
    return dict(parse_qsl(text, keep_blank_values=True, max_num_fields=FORM_FIELDS, errors="replace"))
