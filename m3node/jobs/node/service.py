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
from m3node.jobs.engine.setup import prepare
from m3node.jobs.locks import hold, left_by
from m3node.jobs.node import roles
from m3node.jobs.node.supervisor import Role, Supervisor
from m3node.layout import DataLayout
from m3node.settings import Settings

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
        Written as JSON (``host``, ``port``, ``ae_title``, ``pid``) once the node listens; removed before that.

    Raises
    ------
    ConfigError
        One of the roles runs already, the data folder cannot be written, or the watched folder's results would land
        in itself.
    StartError
        The port cannot be listened on.
    """
    if settings.watch.folder is not None:
        roles.prepare_watch(settings)
    _run(settings, stop, roles.serving(settings), roles.locks_taken(settings), ready_file)


def listen(settings: Settings, stop: threading.Event, *, ready_file: Path | None = None) -> None:
    """Receive until ``stop`` is set, and hand over what is complete; see `serve`.

    Raises
    ------
    ConfigError
        A listener runs on the data folder already, or it cannot be written.
    StartError
        The port cannot be listened on.
    """
    _run(settings, stop, roles.listening(), (), ready_file)


def _run(
    settings: Settings,
    stop: threading.Event,
    processes: Sequence[Role],
    free: Sequence[str],
    ready_file: Path | None,
) -> None:
    layout = DataLayout(settings.data_dir)
    if ready_file is not None:
        ready_file.unlink(missing_ok=True)
    with hold(layout, roles.LISTEN):
        layout.create()
        for name in free:
            # The process that is the role takes it again. Looked at here, so that a role that runs apart is named
            # at the start, and not by a process that is started in vain for ever.
            left = left_by(layout, name)
            with hold(layout, name) as tenure:
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
    if role != "acceptor" or not isinstance(value, int):
        return None
    listener = settings.listener
    _log.info("listening on %s:%d as %s", listener.host, value, listener.ae_title)
    if not listener.callers:
        _log.warning("listener.callers is empty: every caller is refused")
    if ready_file is not None:
        facts = {"host": listener.host, "port": value, "ae_title": listener.ae_title, "pid": os.getpid()}
        temporary = ready_file.with_name(f".{ready_file.name}.part")
        temporary.write_text(json.dumps(facts) + "\n", encoding="utf-8")
        temporary.replace(ready_file)
    fixed = listener.model_copy(update={"port": value})
    return settings.model_copy(update={"listener": fixed})
