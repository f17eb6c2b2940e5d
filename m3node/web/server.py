"""The page's process: a port, TLS where a certificate is set, and an end in order."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from uvicorn import Config, Server
from uvicorn.protocols.http.h11_impl import H11Protocol

from m3node.errors import ConfigError
from m3node.settings import Settings
from m3node.settings.web import WebSettings
from m3node.tls.contexts import server_context
from m3node.tls.reloading import Reloading
from m3node.web.app import make_app
from m3node.web.crowd import CrowdedSocket
from m3node.web.site import Site

if TYPE_CHECKING:
    from types import FrameType

_log = logging.getLogger(__name__)

FIRST_PAUSE, LONGEST_PAUSE = 1.0, 30.0
"""Between two tries for a port that another program has."""
REQUEST_SECONDS = 15.0
"""How long a request may take to come, and a handshake; a browser takes milliseconds."""
_PORT_ADVICE = {
    errno.EADDRINUSE: "set web.port, or end what has it, as another node on this machine",
    errno.EACCES: "set web.port to one from 1024 on: those below need a right that the node does not have",
    errno.EADDRNOTAVAIL: "set web.host to an address of this machine, or bring up the network",
}
CONNECTIONS = 200
"""At once; of more the oldest go, of the address that has most. Each may have a file open besides its own handle."""
UNREAD_SECONDS = 30.0
"""How long an answer may wait to be read, when no more of it goes out."""
ANSWER_SECONDS = 5
"""What an answer that is under way has to be finished in, when the process is told to end."""


def serve_page(settings: Settings, stop: threading.Event, report: Callable[[int], None]) -> None:
    """Serve the page until ``stop`` is set; call it from the main thread.

    Parameters
    ----------
    settings : Settings
        The tree.
    stop : threading.Event
        Ends it in order.
    report : callable
        Told the port once it listens.

    Raises
    ------
    ConfigError
        The certificate, its key or a secret cannot be used, or there is no such host.
    """
    web = settings.web
    certificate = _certificate(web)
    listener = _listen(web, stop)
    if listener is None:
        return
    site = Site(settings)
    try:
        with listener:
            port = listener.getsockname()[1]
            _log.info("the status page is at %s://%s:%d/", "https" if certificate else "http", _shown(web.host), port)
            report(port)
            _serve(site, listener, certificate, stop)
    finally:
        site.close()


def _listen(web: WebSettings, stop: threading.Event) -> socket.socket | None:
    """Return the port, or None when it is told to end before another program gives it back."""
    pause = FIRST_PAUSE
    said = False
    while True:
        try:
            return _bound(web.host, web.port)
        except OSError as error:
            if isinstance(error, socket.gaierror):
                raise ConfigError(f"web.host {web.host} is no address of this machine: {error.strerror}") from error
            if not said:
                _log.error(
                    "the status page cannot have port %d of %s: %s; %s. The node does its work without; it is tried "
                    "again",
                    web.port,
                    web.host,
                    error.strerror,
                    _PORT_ADVICE.get(error.errno or 0, "set web.host and web.port"),
                )
            said = True
        if stop.wait(pause):
            return None
        pause = min(2 * pause, LONGEST_PAUSE)


def _bound(host: str, port: int) -> socket.socket:
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    made = CrowdedSocket(family, kind, protocol, most=CONNECTIONS)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(address)
        made.listen(128)
    except OSError:
        made.close()
        raise
    return made


def _certificate(web: WebSettings) -> Reloading[ssl.SSLContext] | None:
    """Return what makes the context anew when its files change; asked once, so that bad files are told at the start."""
    if web.certificate_file is None:
        return None
    certificate, key, password = web.certificate_file, web.key_file, web.key_password_file

    def make() -> ssl.SSLContext:
        return server_context(
            certificate,
            key,
            password,
            ca_file=None,
            client_certificates="none",
            minimum=web.minimum,
            section="web",
        )

    made = Reloading(make, [file for file in (certificate, key, password) if file is not None])
    made.current()
    return made


def _serve(
    site: Site, listener: socket.socket, certificate: Reloading[ssl.SSLContext] | None, stop: threading.Event
) -> None:
    logging.getLogger("uvicorn").setLevel(logging.ERROR)  # else whoever sends nonsense fills the log
    config = Config(
        make_app(site),
        http=_Impatient,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=ANSWER_SECONDS,
        ssl_context_factory=None if certificate is None else lambda _config, _default: _following(certificate),
    )
    server = _Server(config)

    def end() -> None:
        stop.wait()
        server.should_exit = True

    threading.Thread(target=end, name="end", daemon=True).start()
    with asyncio.Runner(loop_factory=_Loop) as runner:
        runner.run(server.serve([listener]))


def _following(certificate: Reloading[ssl.SSLContext]) -> ssl.SSLContext:
    """Return a context that hands each connection to the newest one, so that a new certificate counts at once."""
    front = certificate.current()

    def newest(connection: ssl.SSLObject | ssl.SSLSocket, _name: str | None, _context: ssl.SSLContext) -> None:
        current = certificate.current()
        if current is not front:
            connection.context = current

    front.sni_callback = newest
    return front


def _shown(host: str) -> str:
    return f"[{host}]" if ":" in host else host


class _Loop(asyncio.SelectorEventLoop):
    """Waits no longer for a handshake than for a request; uvicorn leaves asyncio's minute as it is."""

    async def create_server(self, *arguments: Any, **more: Any) -> asyncio.Server:
        """Listen."""
        if more.get("ssl") is not None:
            more["ssl_handshake_timeout"] = REQUEST_SECONDS
        return await super().create_server(*arguments, **more)


class _Server(Server):
    """Leaves the signals to the process, which is told to end by an event."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Do nothing; nobody calls it."""


class _Impatient(H11Protocol):
    """Closes connections whose request does not come, or whose answer is not read: they would be kept for ever."""

    _request_timer: asyncio.TimerHandle | None = None
    _unread_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to wait."""
        super().connection_made(transport)  # type: ignore[arg-type]
        self._wait()

    def data_received(self, data: bytes) -> None:
        """Go on waiting, unless a request is there."""
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:
            self._stop_waiting()

    def on_response_complete(self) -> None:
        """Wait for the next request; how long for its first byte, uvicorn says."""
        super().on_response_complete()
        self._stop_waiting()
        self._wait()

    def pause_writing(self) -> None:
        """Begin to wait for what was sent to be read."""
        super().pause_writing()
        self._unread_timer = asyncio.get_running_loop().call_later(UNREAD_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        """Go on sending."""
        super().resume_writing()
        self._stop_waiting_to_be_read()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it."""
        self._stop_waiting()
        super().connection_lost(exc)
        self._stop_waiting_to_be_read()

    def _wait(self) -> None:
        self._request_timer = asyncio.get_running_loop().call_later(REQUEST_SECONDS, self._give_up)

    def _stop_waiting(self) -> None:
        if self._request_timer is not None:
            self._request_timer.cancel()
            self._request_timer = None

    def _stop_waiting_to_be_read(self) -> None:
        if self._unread_timer is not None:
            self._unread_timer.cancel()
            self._unread_timer = None

    def _give_up(self) -> None:
        if self.transport.is_closing():
            self.transport.abort()  # the last of an answer was not read
        else:
            self.transport.close()
            self._wait()
