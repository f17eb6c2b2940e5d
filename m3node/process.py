"""Processes, told apart for certain: a process id alone is used again by the system."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from pathlib import Path

PR_SET_PDEATHSIG = 1


def process_started(pid: int) -> str:
    """Return when a process started, in clock ticks since boot, so that a reused process id is recognised.

    Empty when there is no such process, or it has ended and only waits to be reaped (``/proc/<pid>/stat``, proc(5)).
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""
    fields = stat.rpartition(")")[2].split()  # the command's name may hold spaces and parentheses
    return "" if fields[0] in ("Z", "X") else fields[19]


def supervisor() -> str:
    """Name the process that started this one, so that another one is told apart that gets its id.

    In a container the supervisor has the same process id at every start.
    """
    pid = os.getppid()
    return f"{pid}.{process_started(pid)}"


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when the one that started it ends.

    Parameters
    ----------
    parent : int
        The starter's process id, against a death before this call.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)
