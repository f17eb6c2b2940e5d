"""HTTPS as this package wants it of `requests`: its own contexts, pinned certificates, failures in words.

`requests` alone brings authorities of its own, knows no password of a key, and takes a handshake that is not answered
for an answer that does not come, as if the object might have arrived.
"""

from __future__ import annotations

import ssl
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPSConnection
from urllib3.connectionpool import HTTPSConnectionPool

from m3node.tls.calling import Terms, handshake_error
from m3node.tls.contexts import check_pins


def mount(session: requests.Session, terms: Terms) -> None:
    """Let a session call by HTTPS on these terms only; files are read anew for each connection.

    Requests then raise `HandshakeError`, `PinError` or `ConfigError` before anything of them has left.
    """
    session.mount("https://", _Adapter(terms))


def below(error: BaseException | None) -> ssl.SSLError | None:
    """Return the error of TLS that the libraries have wrapped; None when there is none."""
    seen: set[int] = set()
    rest: list[Any] = [error]
    while rest:
        item = rest.pop()
        if isinstance(item, ssl.SSLError):
            return item
        if isinstance(item, BaseException) and id(item) not in seen:
            seen.add(id(item))
            rest += [getattr(item, "reason", None), item.__cause__, item.__context__, *item.args]
    return None


class _Adapter(HTTPAdapter):
    def __init__(self, terms: Terms) -> None:
        self._terms = terms
        super().__init__()

    def init_poolmanager(self, *arguments: Any, **keywords: Any) -> None:
        super().init_poolmanager(*arguments, **keywords)
        self.poolmanager.pool_classes_by_scheme = {"https": _pool(self._terms)}

    def cert_verify(self, conn: Any, url: str, verify: Any, cert: Any) -> None:
        """Leave the connection as it is: the context says whom to trust."""


def _pool(terms: Terms) -> type[HTTPSConnectionPool]:
    class Connection(HTTPSConnection):
        def connect(self) -> None:
            """Connect, and see that the service is who it should be; the request leaves behind that."""
            self.ssl_context = terms.context()
            self.cert_reqs = self.ssl_context.verify_mode
            self.ca_certs = self.ca_cert_dir = self.ca_cert_data = None  # requests brings authorities of its own
            self.assert_hostname = False if terms.pins else None
            try:
                super().connect()
            except OSError as error:  # of the handshake; trouble before it is an HTTPError
                raise handshake_error(error, (self.host, self.port or 443), terms) from error
            check_pins(self.sock, terms.pins)  # type: ignore[arg-type] # there is no proxy, so it is TLS's own
            self.is_verified = True  # or a warning would say that it is not, where the pin alone decides

        def send(self, data: Any) -> None:
            """Send; where the service has hung up, urllib3 goes on to read what it said before: an answer, or why."""
            try:
                super().send(data)
            except ssl.SSLEOFError as error:
                raise BrokenPipeError from error  # as it is without TLS

    class Pool(HTTPSConnectionPool):
        ConnectionCls = Connection

    return Pool
