"""Start and stop of the node's processes, for the audit trail (PS3.15 A.5.3.1)."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from m3node.audit.events import ApplicationActivity
from m3node.audit.trail import AuditTrail
from m3node.errors import M3NodeError
from m3node.jobs.locks import Holder
from m3node.logs import describe
from m3node.settings import Settings


@contextmanager
def active(settings: Settings, process: str, *, before: Holder | None = None) -> Iterator[None]:
    """Record that the application starts, and that it stops and why.

    Parameters
    ----------
    settings : Settings
        The tree.
    process : str
        Which of the node's it is: the command's name.
    before : Holder, optional
        Who was it last and did not end in order: killed, or the machine went down. Nobody could record its end.
    """
    trail = AuditTrail(settings, process=process)
    if before is not None:
        trail.record(ApplicationActivity(started=False, outcome=f"{before}, ended without a word"))
    trail.record(ApplicationActivity(started=True))
    outcome = ""
    try:
        yield
    except M3NodeError as error:
        outcome = str(error)
        raise
    except BaseException as error:
        outcome = describe(error)
        raise
    finally:
        trail.record(ApplicationActivity(started=False, outcome=outcome))
        trail.close()


Work = Callable[[Settings, threading.Event], None]
"""What a process does until the event is set."""


def audited(process: str, work: Work) -> Work:
    """Return the work of a role that runs apart, with its start and stop recorded."""

    def run(settings: Settings, stop: threading.Event) -> None:
        with active(settings, process):
            work(settings, stop)

    return run
