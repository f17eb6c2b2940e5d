"""A node of which any role can be killed: who is who comes from its own log and from the kernel."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Mapping
from pathlib import Path

from m3node.process import process_started
from served import ServedNode
from waiting import wait_for

SUPERVISOR, RECEIVER = "supervisor", "receiver"

_STARTED = re.compile(r"started (\S+) \(process (\d+)\)")


class KilledNode(ServedNode):
    """The real ``m3node serve``, with processes that die."""

    def __init__(self, root: Path, toml: str, environment: Mapping[str, str] | None = None) -> None:
        super().__init__(root, toml, environment)
        self.kills: list[str] = []

    def alive(self) -> dict[str, int]:
        """The living processes by role; of the receivers, any one."""
        latest = {role: int(pid) for role, pid in _STARTED.findall(self.log)}
        living = {role: pid for role, pid in latest.items() if _is_ours(pid, self.pid)}
        if "acceptor" in living and (receivers := self.receivers(living["acceptor"])):
            living[RECEIVER] = receivers[len(self.kills) % len(receivers)]
        return {SUPERVISOR: self.pid, **living}

    def receivers(self, acceptor: int) -> list[int]:
        """The children of the acceptor that receive."""
        return [pid for pid in _children(acceptor) if process_started(pid) and "resource_tracker" not in _command(pid)]

    def kill_role(self, role: str, pid: int) -> bool:
        """Kill a process as the kernel would; of the supervisor, the node is started anew as its host would do.

        Returns
        -------
        bool
            False when it had just died by itself, with another role.
        """
        if role != SUPERVISOR:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                return False
            self.kills.append(role)
            return True
        self.kills.append(role)
        others = {number: since for number in _descendants(self.pid) if (since := process_started(number))}
        os.kill(self.pid, signal.SIGKILL)
        self.reap()
        # The kernel kills what it had started; nothing of the old node may live beside the new one.
        wait_for(lambda: not any(process_started(number) == since for number, since in others.items()))
        self.start()
        return True

    def reap(self) -> None:
        """Take note of the first process's death."""
        assert self._process is not None
        self._process.wait()


def _is_ours(pid: int, parent: int) -> bool:
    return bool(process_started(pid)) and pid in _children(parent)


def _children(pid: int) -> list[int]:
    found: list[int] = []
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        found += [int(child) for child in _read(path).split()]
    return found


def _descendants(pid: int) -> list[int]:
    found = _children(pid)
    for child in found:
        found += _children(child)
    return found


def _command(pid: int) -> str:
    return _read(Path(f"/proc/{pid}/cmdline"))


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:  # it ended between two looks
        return ""
