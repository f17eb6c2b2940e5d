"""Turns what went wrong in a run into a recorded reason, without a value of the data set in it."""

from __future__ import annotations

import errno
import logging
import os
import traceback
from pathlib import Path

from m3node.errors import InputRejected, M3NodeError
from m3node.rejection import Reason, Rejection

_log = logging.getLogger(__name__)

_TRANSIENT = frozenset(
    {
        errno.EACCES,  # of the node's own files: an administrator did something as root, and can undo it
        errno.EDQUOT,
        errno.EIO,
        errno.EMFILE,
        errno.ENOMEM,
        errno.ENOSPC,
        errno.EROFS,
        errno.ESTALE,
    }
)


def transient(error: BaseException) -> OSError | None:
    """Return the trouble of disk or memory behind an error, after which the same run may succeed; None without one."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno in _TRANSIENT:
            return cause
        if isinstance(cause, MemoryError):
            return OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))
        cause = cause.__cause__
    return None


def failure(error: Exception, subject: str) -> Rejection:
    """Return the reason that is recorded for a run that ended with an error.

    An error that m3node raised on purpose keeps its words. Any other one is named by its type and the place in our
    code only: its message may quote a data set, and with it a patient.
    """
    if isinstance(error, InputRejected):
        return Rejection(error.reason, error.message, subject)
    if isinstance(error, M3NodeError):
        return Rejection(Reason.FAILED, str(error), subject)
    place = _place(error)
    _log.error("run of %s failed inside m3node: %s at %s", subject, type(error).__name__, place)
    message = (
        f"processing {subject} failed inside m3node ({type(error).__name__} at {place}); "
        "the input is kept: please report this"
    )
    return Rejection(Reason.FAILED, message, subject)


def _place(error: Exception) -> str:
    package = Path(__file__).resolve().parents[2]
    ours = [
        frame for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename).is_relative_to(package)
    ]
    if not ours:
        return "an unknown place"
    last = ours[-1]
    return f"{Path(last.filename).relative_to(package.parent)}:{last.lineno}"
