"""What the supervisor hears from its processes once they are ready: said in the log, and in a file for programs."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import Any

from m3node.intake.receive.ports import Ports
from m3node.jobs.locks import Tenure
from m3node.settings import Settings

_log = logging.getLogger(__name__)

WEB = "web"
"""Name of the role that is the status page, and of its lock."""


class Ready:
    """Takes reports of processes, and says what the node can be reached by.

    Parameters
    ----------
    settings : Settings
        The tree.
    file : Path or None
        Written as JSON once the node listens, and again when the page does.
    listening : Tenure
        How this process is the listener; told the ports.
    """

    def __init__(self, settings: Settings, file: Path | None, listening: Tenure) -> None:
        self._settings = settings
        self._file = file
        self._tenure = listening
        self._listener: dict[str, Any] = {}
        self._web: dict[str, Any] = {}

    def __call__(self, role: str, value: object) -> Settings | None:
        """Take a report; return the settings with the ports that the system chose, which stay the same from then on."""
        if role == "acceptor" and isinstance(value, Ports):
            self._listening(value)
        elif role == WEB and isinstance(value, int):
            web = self._settings.web.model_copy(update={"port": value})
            self._settings = self._settings.model_copy(update={"web": web})
            self._web = {"web_port": value}
        else:
            return None
        self._write()
        return self._settings

    def _listening(self, ports: Ports) -> None:
        self._tenure.listens_on([port for port in (ports.plain, ports.tls) if port is not None])
        listener = self._settings.listener
        if ports.plain is not None:
            _log.info("listening on %s:%d as %s", listener.host, ports.plain, listener.ae_title)
        if ports.tls is not None:
            _log.info("listening on %s:%d over TLS as %s", listener.host, ports.tls, listener.ae_title)
        if not listener.callers:
            _log.warning("listener.callers is empty: every caller is refused")
        self._listener = {
            "host": listener.host,
            "port": ports.plain,
            "tls_port": ports.tls,
            "ae_title": listener.ae_title,
            "pid": os.getpid(),
        }
        tls = listener.tls.model_copy(update={"port": listener.tls.port if ports.tls is None else ports.tls})
        port = listener.port if ports.plain is None else ports.plain
        self._settings = self._settings.model_copy(
            update={"listener": listener.model_copy(update={"port": port, "tls": tls})}
        )

    def _write(self) -> None:
        if self._file is not None and self._listener:
            write_ready(self._file, {**self._listener, **self._web})


def write_ready(file: Path, facts: dict[str, Any]) -> None:
    """Write a file that says what a process can be reached by; whoever reads it sees all of it or none."""
    temporary = file.with_name(f".{file.name}.part")
    temporary.write_text(json.dumps(facts) + "\n", encoding="utf-8")
    temporary.replace(file)
