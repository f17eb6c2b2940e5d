"""The status page as a role of the node."""

from __future__ import annotations

import threading

from m3node.errors import ConfigError
from m3node.jobs.locks import hold
from m3node.jobs.node.ready import WEB
from m3node.jobs.node.supervisor import Report, Role
from m3node.layout import DataLayout
from m3node.settings import Settings


def web_role() -> Role:
    """Return the page's process; the node does its work without it."""
    return Role(WEB, web)


def web(settings: Settings, stop: threading.Event, report: Report) -> None:
    """Serve the page until ``stop`` is set.

    Raises
    ------
    RoleHeldError
        Another process does.
    ConfigError
        It would be open to other machines without TLS or without a secret, or a file that the settings name cannot be
        used.
    """
    from m3node.web.server import serve_page  # noqa: PLC0415 - who only starts it need not load it

    _check(settings)
    with hold(DataLayout(settings.data_dir), WEB) as tenure:

        def listening(port: int) -> None:
            tenure.listens_on([port])
            report(port)

        serve_page(settings, stop, listening)


def _check(settings: Settings) -> None:
    """Refuse what the settings refuse only where ``web.enabled`` is set; asked for by name, the page runs without."""
    page = settings.web
    if not page.loopback and (
        page.certificate_file is None or (page.password_file is None and page.token_file is None)
    ):
        raise ConfigError(
            "web.host is not of this machine alone: set web.certificate_file, and web.password_file or web.token_file"
        )
