"""How many files may be open, and what has to fit into that.

A connection that waits costs a handle. Where the system allows too few of them, silent connections must not take those
that associations need.
"""

from __future__ import annotations

import resource

from m3node.settings import ListenerSettings

_OF_PROCESS = 256
_OF_ASSOCIATION = 6
"""Its socket, its lease, an instance and its folder, a data set that is too large for the memory."""


def allow_handles(listener: ListenerSettings) -> None:
    """Raise the soft limit of open files, as far as the hard one allows, so that one receiver could serve all."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = handles_needed(listener)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, most), hard))


def handles_needed(listener: ListenerSettings) -> int:
    """How many files a receiver may have open that serves all that the limits allow."""
    return _OF_PROCESS + listener.max_waiting + _OF_ASSOCIATION * listener.max_associations


def waiting_that_fit(listener: ListenerSettings) -> int:
    """How many connections may wait: ``max_waiting``, or what the system's limit leaves beside associations."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY:
        return listener.max_waiting
    left = hard - (handles_needed(listener) - listener.max_waiting)
    return min(listener.max_waiting, max(left, hard // 4))
