"""A modality that sends again on a new association whatever was not acknowledged, until all of it was."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

from pynetdicom.association import Association

from served import ServedNode

BETWEEN = 0.03
"""Seconds between two instances, so that a kill can fall between them."""


class Sender(threading.Thread):
    """Sends its series one after the other, each when it is let.

    Parameters
    ----------
    node : ServedNode
        Whom to send to.
    title : str
        Its AE title.
    series : sequence of sequence of Path
        What to send.
    """

    def __init__(self, node: ServedNode, title: str, series: Sequence[Sequence[Path]]) -> None:
        super().__init__(name=title, daemon=True)
        self.node = node
        self.title = title
        self.acknowledged: list[Path] = []
        self.repeated = 0
        self._series = [list(files) for files in series]
        self._allowed = threading.Semaphore(0)
        self._given_up = threading.Event()
        self.busy = False

    def allow(self, count: int = 1) -> None:
        """Let it send so many more series."""
        self._allowed.release(count)

    def give_up(self) -> None:
        """Let it end, whatever is left."""
        self._given_up.set()
        self.allow(len(self._series))

    def run(self) -> None:
        for files in self._series:
            self._allowed.acquire()
            self.busy = True
            self._send(files)
            self.busy = False

    def _send(self, files: list[Path]) -> None:
        while files and not self._given_up.is_set():
            association = self.node.associate(self.title) if self.node.listens else None
            if association is None or not association.is_established:
                self._given_up.wait(0.1)
                continue
            try:
                self._send_over(association, files)
                association.abort() if files else association.release()
            except (RuntimeError, OSError):
                pass  # the node died; what was not acknowledged is sent again

    def _send_over(self, association: Association, files: list[Path]) -> None:
        while files and association.is_established:
            status = association.send_c_store(files[0])
            if "Status" not in status or status.Status != 0x0000:
                self.repeated += 1
                return
            self.acknowledged.append(files.pop(0))
            self._given_up.wait(BETWEEN)
