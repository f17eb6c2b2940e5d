"""How a node comes up: its data folder taken, its databases made ready, its processes started."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from pathlib import Path

from m3node.errors import DatabaseError
from m3node.jobs.engine.setup import prepare
from m3node.jobs.locks import hold, left_by
from m3node.jobs.node import roles
from m3node.jobs.node.activity import active
from m3node.jobs.node.ready import Ready
from m3node.jobs.node.supervisor import Role, Supervisor
from m3node.layout import DataLayout
from m3node.settings import Settings
from m3node.tls.listening import listener_context

_log = logging.getLogger(__name__)


def serve(
    settings: Settings, stop: threading.Event, *, ready_file: Path | None = None, beside: Sequence[Role] = ()
) -> None:
    """Run all roles on this machine until ``stop`` is set; call it from the main thread.

    Parameters
    ----------
    settings : Settings
        The tree, which travels to other processes; port 0 lets the system choose.
    stop : threading.Event
        Ends the node in order.
    ready_file : Path, optional
        Written as JSON (``host``, ``port``, ``tls_port``, ``ae_title``, ``pid``) once the node listens; a port that it
        does not have is null. Removed before that. ``web_port`` is added once the page is served.
    beside : sequence of Role
        Processes that this package does not know; each holds the lock of its name.

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
        processes=(*roles.serving(settings), *beside),
        free=(*roles.locks_taken(settings), *(role.name for role in beside)),
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
    with hold(layout, roles.LISTEN) as listening, active(settings, name, before=before):
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
        Supervisor(processes, settings, Ready(settings, ready_file, listening)).run(stop)
    if ready_file is not None:
        ready_file.unlink(missing_ok=True)
