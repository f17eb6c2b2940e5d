"""Who comes in by the TLS port: the handshake, and what is said of those whose handshake fails."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable
from contextlib import suppress

from m3node.audit.events import Node, SecurityAlert
from m3node.errors import ConfigError
from m3node.intake.receive.peer import address_of
from m3node.intake.receive.tls_socket import TlsConnection
from m3node.metrics import counting
from m3node.settings import ListenerTls
from m3node.tls.listening import reloading_listener_context
from m3node.tls.reasons import why_no_tls

LOGGER = logging.getLogger(__name__)


class TlsDoor:
    """Shakes hands, with certificates as they lie on disk at that moment; safe for threads.

    Parameters
    ----------
    tls : ListenerTls
        ``listener.tls``.
    alert : callable
        Takes what the audit trail is told.
    say : callable
        Takes level and line for the log.
    """

    def __init__(
        self,
        tls: ListenerTls,
        alert: Callable[[SecurityAlert], None],
        say: Callable[[int, str], None] = LOGGER.log,
    ) -> None:
        self._context = reloading_listener_context(tls)
        self._seconds = tls.handshake_seconds
        self._alert = alert
        self._say = say
        if tls.certificate_file is not None:
            # What is good now stays in use when it is broken before the first one calls.
            with suppress(ConfigError):  # in the log, and looked at again for each connection
                self._context.current()

    def admit(self, connection: socket.socket, ended: Callable[[], bool] = lambda: False) -> TlsConnection | None:
        """Shake hands, in the calling thread.

        Parameters
        ----------
        connection : socket.socket
            The accepted connection.
        ended : callable
            Whether we ended it ourselves meanwhile, which is nothing that the peer has done.

        Returns
        -------
        TlsConnection or None
            None when there is none: all has been said about it, and the socket is to be closed.
        """
        try:
            address = address_of(connection)
        except OSError:
            return None  # gone already
        try:
            context = self._context.current()
        except ConfigError:
            # The reason is in the log once, not for each connection; nobody was refused for what he is.
            counting.association_ended("refused_tls")
            return None
        tls = TlsConnection(connection, context)
        try:
            tls.shake_hands(self._seconds)
        except OSError as error:
            if ended() or (not tls.heard and not isinstance(error, TimeoutError)):
                return None  # the latter is a port scan, or a load balancer's probe
            self._refuse(address, why_no_tls(error))
            tls.refuse()
            return None
        return tls

    def _refuse(self, address: str, why: str) -> None:
        self._say(logging.WARNING, f"refused a connection from {address} to the TLS port: {why}")
        counting.association_ended("refused_tls")
        self._alert(SecurityAlert("node authentication", Node("", address), f"TLS: {why}"))
