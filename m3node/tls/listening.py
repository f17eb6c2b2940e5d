"""The listener's side of TLS, as its settings have it."""

from __future__ import annotations

import ssl
from pathlib import Path

from m3node.errors import ConfigError
from m3node.settings import ListenerTls
from m3node.tls.contexts import server_context
from m3node.tls.reloading import Reloading

MOST_SESSIONS = 256
"""Of TLS 1.2, which a context keeps to resume them: OpenSSL's own limits are 20,480 sessions and two hours, which is a
quarter of a gigabyte, and Python does not let us set them."""


def listener_context(tls: ListenerTls) -> ssl.SSLContext:
    """Make the listener's context.

    Raises
    ------
    ConfigError
        There is no certificate, or a file cannot be used.
    """
    if tls.certificate_file is None:
        raise ConfigError("the listener has no certificate (listener.tls.certificate_file)")
    return server_context(
        tls.certificate_file,
        tls.key_file,
        tls.key_password_file,
        ca_file=tls.ca_file,
        client_certificates=tls.client_certificates,
        minimum=tls.minimum,
        section="listener.tls",
    )


def reloading_listener_context(tls: ListenerTls) -> Reloading[ssl.SSLContext]:
    """Return the listener's context, made anew when its files change; nothing is read before it is asked for."""
    named: tuple[Path | None, ...] = (tls.certificate_file, tls.key_file, tls.key_password_file, tls.ca_file)
    files = [file for file in named if file is not None]
    return Reloading(lambda: listener_context(tls), files, worn=_keeps_many_sessions)


def _keeps_many_sessions(context: ssl.SSLContext) -> bool:
    return context.session_stats()["number"] >= MOST_SESSIONS
