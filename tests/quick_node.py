"""A node for tests of its processes: it finds something in any liver at once, and never unexpectedly fails."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import audited
from fake_pacs import FakePacs
from m3node.jobs.locks import holder
from quick_series import quick_environment
from served import ServedNode

SETTINGS = """
[listener]
receivers = 1
callers = [{ae_title = "PACS"}]
[completeness]
quiet_seconds = 1
[detector]
name = "quick"
"""


def archive(pacs: FakePacs) -> str:
    """The settings of a destination that is a peer of the test."""
    to = pacs.destination("archive")
    return f'[[destinations]]\nname = "archive"\nae_title = "{to.ae_title}"\nhost = "{to.host}"\nport = {to.port}\n'


@contextmanager
def made(root: Path, toml: str = "", command: str = "serve", **environment: object) -> Iterator[ServedNode]:
    """A node that is not started yet, with the quick detector."""
    node = ServedNode(root, SETTINGS + toml, quick_environment(**environment), command)
    try:
        yield node
        assert "Traceback" not in node.log
        assert "unexpected" not in node.log
        assert audited.invalid(node.layout.audit) == []
    finally:
        node.clean_up()


def alive(node: ServedNode, *roles: str) -> bool:
    """Whether each of some roles is somebody."""
    return all(holder(node.layout, role) for role in roles)


def ended(process: subprocess.Popen[bytes]) -> int:
    """Tell a process to end; return its exit status."""
    process.send_signal(signal.SIGTERM)
    return process.wait(60)
