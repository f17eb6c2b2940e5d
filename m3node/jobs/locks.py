"""One process a role: a lock that ends with the process that holds it, however that ends."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from m3node.errors import ConfigError
from m3node.layout import DataLayout

PATIENCE_SECONDS = 2.0
"""A role that is replaced may need so long to be gone."""


class RoleHeldError(ConfigError):
    """Another process is the role already."""


@dataclass(frozen=True, slots=True)
class Holder:
    """Who is a role.

    Attributes
    ----------
    host : str
        Name of the machine.
    pid : int
        Process, on that machine.
    since : float
        Seconds since the epoch.
    ports : tuple of int
        What it listens on, where it has said so.
    """

    host: str
    pid: int
    since: float
    ports: tuple[int, ...] = ()

    def __str__(self) -> str:
        at = time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(self.since))
        return f"process {self.pid} on {self.host}, since {at}"


class Tenure:
    """How a process is a role; it says whether something of it is left when it ends."""

    def __init__(self, tell: Callable[[Sequence[int]], None] = lambda _: None) -> None:
        self.leaves_something = False
        self._tell = tell

    def listens_on(self, ports: Sequence[int]) -> None:
        """Say which ports the role listens on, to whoever asks for its `holder`."""
        self._tell(ports)


def slot_lock(slot: int) -> str:
    """Return the name of a worker slot's lock."""
    return f"worker-{slot}"


def slot_of_lock(role: str) -> int | None:
    """Return the worker slot whose lock has this name; None for another role's."""
    kind, _, number = role.partition("-")
    return int(number) if kind == "worker" and number.isdecimal() else None


@contextmanager
def hold(layout: DataLayout, role: str) -> Iterator[Tenure]:
    """Be a role, as the only process with this data folder.

    Who leaves the context in order is forgotten. Who is killed, or leaves something, is remembered by the lock's file
    (`left_by`).

    Parameters
    ----------
    layout : DataLayout
        The data folder; on several machines, a shared one whose file system has locks (NFS 4 has).
    role : str
        ``listen``, ``worker-<slot>``, ``deliver``, ``watch``.

    Raises
    ------
    RoleHeldError
        Another process is that; the message names it.
    ConfigError
        The data folder cannot be written.
    """
    path = _file(layout, role)
    try:
        layout.create_root()
        path.parent.mkdir(exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise ConfigError(f"cannot write the data folder {layout.root}: {error.strerror}; set data_dir") from error
    try:
        if not _locked(handle):
            raise RoleHeldError(
                f"{role} of the data folder {layout.root} runs already ({_read(path) or 'an unknown process'}); "
                "stop it, or set another data_dir"
            )
        here = {"host": socket.gethostname(), "pid": os.getpid(), "since": time.time()}
        os.ftruncate(handle, 0)
        _note(handle, here)
        tenure = Tenure(lambda ports: _note(handle, {**here, "ports": list(ports)}))
        yield tenure
        if not tenure.leaves_something:
            os.ftruncate(handle, 0)
    finally:
        os.close(handle)


def holder(layout: DataLayout, role: str) -> Holder | None:
    """Return who is a role now; None when nobody is."""
    path = _file(layout, role)
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)  # who asks may not be allowed to write
    except OSError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _read(path) or Holder("unknown", 0, 0.0)
    finally:
        os.close(handle)
    return None


def left_by(layout: DataLayout, role: str) -> Holder | None:
    """Return who was a role last and did not end in order; None when somebody is it now, or nothing is left."""
    return None if holder(layout, role) is not None else _read(_file(layout, role))


def roles_seen(layout: DataLayout) -> tuple[str, ...]:
    """Return the names of all roles that somebody ever was, with this data folder."""
    return tuple(sorted(path.stem for path in layout.locks.glob("*.lock") if path.stem != "migration"))


def _locked(handle: int) -> bool:
    """Lock exclusively; who asks whether the lock is held, or is just ending, is waited for."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.05)
        else:
            return True


def _note(handle: int, facts: dict[str, Any]) -> None:
    content = f"{json.dumps(facts)}\n".encode("ascii")
    with suppress(OSError):  # a full disk: the lock counts without its holder's name, too
        os.pwrite(handle, content, 0)
        os.ftruncate(handle, len(content))


def _read(path: Path) -> Holder | None:
    try:
        tree = json.loads(path.read_bytes())
        ports = tuple(int(port) for port in tree.get("ports", ()))
        return Holder(str(tree["host"]), int(tree["pid"]), float(tree["since"]), ports)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _file(layout: DataLayout, role: str) -> Path:
    return layout.locks / f"{role}.lock"
