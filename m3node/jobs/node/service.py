"""How a node comes up: its data folder taken, its databases made ready, its processes started."""

from __future__ import annotations

import json
import logging
import os
import threading
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from m3node.errors import DatabaseError
from m3node.intake.receive.ports import Ports
from m3node.jobs.engine.setup import prepare
from m3node.jobs.locks import hold, left_by
from m3node.jobs.node import roles
from m3node.jobs.node.activity import active
from m3node.jobs.node.supervisor import Role, Supervisor
from m3node.layout import DataLayout
from m3node.settings import Settings
from m3node.tls.listening import listener_context

_log = logging.getLogger(__name__)


def serve(settings: Settings, stop: threading.Event, *, ready_file: Path | None = None) -> None:
    """Run all roles on this machine until ``stop`` is set; call it from the main thread.

    Parameters
    ----------
    settings : Settings
        The tree, which travels to other processes; port 0 lets the system choose.
    stop : threading.Event
        Ends the node in order.
    ready_file : Path, optional
        Written as JSON (``host``, ``port``, ``tls_port``, ``ae_title``, ``pid``) once the node listens; a port that it
        does not have is null. Removed before that.

    Raises
    ------
    ConfigError
        One of the roles runs already, the data folder cannot be written, the watched folder's results would land in
        itself, or the listener's certificate cannot be used.
    StartError
        The port cannot be listened on.
    """
    if settings.watch.folder is not None:
        roles.prepare_watch(settings)
    _run(
        "serve",
        settings,
        stop,
        processes=roles.serving(settings),
        free=roles.locks_taken(settings),
        ready_file=ready_file,
    )


def listen(settings: Settings, stop: threading.Event, *, ready_file: Path | None = None) -> None:
    """Receive until ``stop`` is set, and hand over what is complete; see `serve`.

    Raises
    ------
    ConfigError
        A listener runs on the data folder already, it cannot be written, or the listener's certificate cannot be used.
    StartError
        The port cannot be listened on.
    """
    _run(
        "listen",
        settings,
        stop,
        processes=roles.listening(settings),
        free=roles.auditing(settings),
        ready_file=ready_file,
    )


def _run(
    name: str,
    settings: Settings,
    stop: threading.Event,
    *,
    processes: Sequence[Role],
    free: Sequence[str],
    ready_file: Path | None,
) -> None:
    layout = DataLayout(settings.data_dir)
    if ready_file is not None:
        ready_file.unlink(missing_ok=True)
    if settings.listener.tls.certificate_file is not None:
        # Who sets them up hears it now. Files that break later are no reason for a running node to go down.
        listener_context(settings.listener.tls)
    before = left_by(layout, roles.LISTEN)
    with hold(layout, roles.LISTEN), active(settings, name, before=before):
        layout.create()
        for lock in free:
            # The process that is the role takes it again. Looked at here, so that a role that runs apart is named
            # at the start, and not by a process that is started in vain for ever.
            left = left_by(layout, lock)
            with hold(layout, lock) as tenure:
                tenure.leaves_something = left is not None
        try:
            prepare(settings)
        except DatabaseError as error:
            # What comes in is stored all the same, and waits for the processes that wait for the database.
            _log.error("%s; series are received, and processed when it is there", error)
        Supervisor(processes, settings, partial(_on_ready, settings, ready_file)).run(stop)
    if ready_file is not None:
        ready_file.unlink(missing_ok=True)


def _on_ready(settings: Settings, ready_file: Path | None, role: str, value: object) -> Settings | None:
    if role != "acceptor" or not isinstance(value, Ports):
        return None
    listener = settings.listener
    if value.plain is not None:
        _log.info("listening on %s:%d as %s", listener.host, value.plain, listener.ae_title)
    if value.tls is not None:
        _log.info("listening on %s:%d over TLS as %s", listener.host, value.tls, listener.ae_title)
    if not listener.callers:
        _log.warning("listener.callers is empty: every caller is refused")
    if ready_file is not None:
        facts = {
            "host": listener.host,
            "port": value.plain,
            "tls_port": value.tls,
            "ae_title": listener.ae_title,
            "pid": os.getpid(),
        }
        temporary = ready_file.with_name(f".{ready_file.name}.part")
        temporary.write_text(json.dumps(facts) + "\n", encoding="utf-8")
        temporary.replace(ready_file)
    # What the system chose stays the same for processes that are started again.
    tls = listener.tls.model_copy(update={"port": listener.tls.port if value.tls is None else value.tls})
    port = listener.port if value.plain is None else value.plain
    return settings.model_copy(update={"listener": listener.model_copy(update={"port": port, "tls": tls})})
