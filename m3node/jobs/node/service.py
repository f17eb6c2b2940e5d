"""The node: which processes it is made of, and how it comes up.

Every process talks to the others through files under the data folder only, so each can be killed and started again by
itself. Imports are inside the roles, so that a process loads what it needs and no more.
"""

from __future__ import annotations

import json
import logging
import os
import threading
from functools import partial
from pathlib import Path
from typing import Any

from m3node.errors import ConfigError
from m3node.jobs.engine.setup import prepare
from m3node.jobs.node.lock import exclusive
from m3node.jobs.node.supervisor import Report, Role, Supervisor
from m3node.layout import DataLayout
from m3node.settings import Settings

_log = logging.getLogger(__name__)


def serve(settings: Settings, stop: threading.Event, *, ready_file: Path | None = None) -> None:
    """Run the node until ``stop`` is set; call it from the main thread.

    Parameters
    ----------
    settings : Settings
        The tree; port 0 lets the system choose.
    stop : threading.Event
        Ends the node in order.
    ready_file : Path, optional
        Written as JSON (``host``, ``port``, ``ae_title``, ``pid``) once the node listens; removed before that.

    Raises
    ------
    ConfigError
        The data folder is in use or cannot be written, or the watched folder's results would land in itself.
    StartError
        The port cannot be listened on.
    """
    settings = _portable(settings)
    _prepare_watch(settings)
    if ready_file is not None:
        ready_file.unlink(missing_ok=True)
    with exclusive(settings.data_dir):
        DataLayout(settings.data_dir).create()
        prepare(settings)
        Supervisor(roles(settings), settings, partial(_on_ready, settings, ready_file)).run(stop)
    if ready_file is not None:
        ready_file.unlink(missing_ok=True)


def roles(settings: Settings) -> tuple[Role, ...]:
    """Return the node's processes; the one that stops first, because it takes work in, stands first."""
    watching = (Role("watch", _watch),) if settings.watch.folder is not None else ()
    return (
        Role("acceptor", _acceptor, essential=True),
        *watching,
        # Quiet is counted from when senders can come back, not from when their node began to start.
        Role("keeper", _keeper, after="acceptor"),
        Role("clerk", _clerk),
        Role("worker", _worker),
        Role("deliverer", _deliverer),
    )


def _acceptor(settings: Settings, stop: threading.Event, report: Report) -> None:
    from m3node.intake.receive.acceptor import serve_associations  # noqa: PLC0415

    serve_associations(settings, ready=report, stop=stop)


def _keeper(settings: Settings, stop: threading.Event, report: Report) -> None:
    from m3node.imaging.digest import content_digest  # noqa: PLC0415
    from m3node.intake.keeper.keeper import run_keeper  # noqa: PLC0415
    from m3node.jobs.answer.rejections import record_rejection  # noqa: PLC0415

    record = partial(record_rejection, DataLayout(settings.data_dir))
    run_keeper(settings, stop, record=record, content_digest=content_digest)


def _clerk(settings: Settings, stop: threading.Event, report: Report) -> None:
    from m3node.jobs.node.clerk import run_clerk  # noqa: PLC0415

    run_clerk(settings, stop)


def _worker(settings: Settings, stop: threading.Event, report: Report) -> None:
    from m3node.jobs.node.worker import run_worker  # noqa: PLC0415

    run_worker(settings, 0, stop)


def _deliverer(settings: Settings, stop: threading.Event, report: Report) -> None:
    from m3node.delivery.deliverer import run_deliverer  # noqa: PLC0415

    run_deliverer(settings, stop)


def _watch(settings: Settings, stop: threading.Event, report: Report) -> None:
    from m3node.jobs.inputs.watching import run_watch  # noqa: PLC0415

    run_watch(settings, stop)


def _portable(settings: Settings) -> Settings:
    """Return the tree as a plain ``Settings`` (it travels to other processes) with absolute folders."""
    values: dict[str, Any] = {name: getattr(settings, name) for name in Settings.model_fields}
    values["data_dir"] = settings.data_dir.expanduser().absolute()
    return Settings.model_construct(**values)


def _prepare_watch(settings: Settings) -> None:
    """Make the watched folder before anybody is told that the node is ready."""
    folder, out = settings.watch.folder, settings.watch.out
    if folder is None or out is None:
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"cannot make the watched folder {folder} (watch.folder): {error.strerror}") from error
    if out.resolve().is_relative_to(folder.resolve()):
        raise ConfigError(f"watch.out ({out}) lies in watch.folder ({folder}): results would be taken for input")


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
