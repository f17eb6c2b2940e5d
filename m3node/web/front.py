"""What every request passes first, and every answer last: hosts, headers, errors that nobody expected."""

from __future__ import annotations

import logging
import re

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from m3node.logs import describe
from m3node.metrics import counting
from m3node.settings.types import is_address
from m3node.web.site import Site

_log = logging.getLogger(__name__)

POLICY = "; ".join(
    [
        "default-src 'none'",
        *(f"{kind}-src 'self'" for kind in ("script", "style", "img", "connect")),
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    ]
)
"""Nothing from elsewhere, and nothing that stands in the page itself."""

HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    # Not "no-referrer": with it browsers send "Origin: null" with our own forms, which could not be told from others'.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}
"""Of every answer, errors among them."""

_HOST = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([^\[\]/?#@:\s]+))(?::[0-9]{1,5})?")

LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
UNEXPECTED = "The node goes on; its log says what it was."

ALWAYS_ANSWERED = "/livez"
"""Says nothing but that the process lives, to whoever asks in whatever name."""


class Front:
    """The outermost layer of the application.

    Parameters
    ----------
    app : ASGIApp
        The rest of it.
    site : Site
        Its settings name the host.
    """

    def __init__(self, app: ASGIApp, site: Site) -> None:
        self._app = app
        self._site = site
        web = site.settings.web
        self._names = LOOPBACK_NAMES | {name.lower() for name in (web.host, *web.names)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer."""
        if scope["type"] != "http":
            return  # no web sockets; there is nothing to start or stop
        status = 0

        async def dressed(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                _dress(MutableHeaders(scope=message), secure=scope["scheme"] == "https")
            await send(message)

        try:
            if scope["path"] != ALWAYS_ANSWERED and not self._is_ours(scope):
                text = "This is not the name of this page. Ask for it by its address, or add the name to web.names."
                await self._site.answer(Request(scope), 400, text)(scope, receive, dressed)
            else:
                await self._app(scope, receive, dressed)
        except Exception as error:  # noqa: BLE001 - whatever it is, the page lives on; values stay out of the log
            _log.error("an unexpected error while answering %s: %s", scope["method"], describe(error))
            if not status:
                answer = self._site.answer(Request(scope), 500, UNEXPECTED)
                await answer(scope, receive, dressed)
        finally:
            if status:  # else who asked has gone, or we are told to
                counting.web_request(status)

    def _is_ours(self, scope: Scope) -> bool:
        """Whether it was asked for by a name of ours: a page elsewhere may have its own name lead to this machine."""
        host = host_name(Headers(scope=scope).get("host", ""))
        if host in self._names:
            return True
        server = scope.get("server")
        return server is not None and host == str(server[0]).lower() and is_address(host)


def host_name(host: str) -> str:
    """Return the name in a Host header, without its port; nothing where it is not of name and port alone.

    >>> host_name("Localhost:80"), host_name("[::1]:80"), host_name("[::1]"), host_name("a.b."), host_name("a:80/b?")
    ('localhost', '::1', '::1', 'a.b', '')
    """
    found = _HOST.fullmatch(host)
    return (found[1] or found[2]).lower().removesuffix(".") if found else ""


def _dress(headers: MutableHeaders, *, secure: bool) -> None:
    for name, value in HEADERS.items():
        headers[name] = value
    headers.setdefault("Cache-Control", "no-store")
    if secure:
        headers["Strict-Transport-Security"] = "max-age=31536000"
