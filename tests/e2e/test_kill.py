"""kill -9 of the whole node at 20 random moments while 10 series come in: nothing acknowledged is lost, and each series
is answered once."""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pynetdicom.association import Association

from m3node.evaluation.ct_writer import axial_geometry, seeded_uid, write_ct_series
from part10_file import split_file
from served import ServedNode

KILLS = 20
SERIES = 10
SLICES = 12
SENDERS = 2
SHORT_LIFE, LONG_LIFE = (0.0, 1.5), (0.5, 4.0)
"""Seconds to the kill, drawn from one of them: from listening, amid receiving; from when the worker is at a run, amid
judging and answering."""

# A kill counts as a step that took its worker down: nobody can tell the two apart.
SETTINGS = """
[listener]
receivers = 2
callers = [{ae_title = "PACS"}]
[completeness]
quiet_seconds = 1.5
[jobs]
poison_limit = 100
"""


class Sender(threading.Thread):
    """Sends its series one after the other, and again on a new association whatever was not acknowledged.

    It sends no more than its share of each of the node's lives, so that every kill finds something under way, and keeps
    its association open meanwhile.
    """

    def __init__(self, node: ServedNode, series: list[tuple[Path, ...]]) -> None:
        super().__init__()
        self.node = node
        self.waiting = [file for files in series for file in files]
        self.acknowledged: list[Path] = []
        self.allowed = threading.Semaphore(0)
        self.over = threading.Event()

    def run(self) -> None:
        while self.waiting and not self.over.is_set():
            association = self.node.associate() if self.node.listens else None
            if association is None or not association.is_established:
                time.sleep(0.05)
                continue
            association.network_timeout = None  # it is idle while its share is used up, and open all the same
            try:
                self._send_over(association)
            except (RuntimeError, OSError):
                pass  # the node died; what was not acknowledged is sent again
            finally:
                association.abort() if self.waiting else association.release()

    def _send_over(self, association: Association) -> None:
        while self.waiting and association.is_established:
            if not self.allowed.acquire(timeout=0.05):
                continue
            status = association.send_c_store(self.waiting[0])
            if status and status.Status == 0x0000:
                self.acknowledged.append(self.waiting.pop(0))
            else:
                self.allowed.release()
                return


def to_send(senders: list[Sender]) -> int:
    """How many instances are not acknowledged yet."""
    return sum(len(sender.waiting) for sender in senders)


def works(node: ServedNode, said: int) -> bool:
    """Whether the worker is at a run, or ready where there is none, by what the log says after so many characters."""
    log = node.log[said:]
    left = [path for path in node.layout.manifests.iterdir() if not node.answered(path.stem)]
    return "slot 0 is ready" in log and (" begins: " in log or not left)


@pytest.fixture
def node(tmp_path: Path) -> Iterator[ServedNode]:
    node = ServedNode(tmp_path / "node", SETTINGS)
    yield node
    node.clean_up()


@pytest.mark.slow
@pytest.mark.timeout(900)  # 20 starts of a node, and on a busy machine each takes ten seconds
def test_no_acknowledged_instance_is_lost_and_each_series_is_answered_once(node: ServedNode, tmp_path: Path) -> None:
    moments = random.Random(20)
    shape = (SLICES, 64, 64)
    geometry = axial_geometry(shape, (2.0, 1.0, 1.0))
    hu = np.random.default_rng(20).integers(-50, 50, shape)
    series = [write_ct_series(tmp_path / str(k), hu + k, geometry, seed=("kill", k)) for k in range(SERIES)]
    senders = [Sender(node, series[k::SENDERS]) for k in range(SENDERS)]
    left: list[int] = []
    answered: list[int] = []
    said = 0
    node.start()
    for sender in senders:
        sender.start()
    try:
        share = -(-SERIES * SLICES // (SENDERS * KILLS))
        for number in range(KILLS):
            for sender in senders:
                for _ in range(share):
                    sender.allowed.release()
            if number % 2:
                # On a busy machine a short life may be over before anybody has come back.
                before = left[-1]
                node.until(lambda before=before: to_send(senders) < before)
            life = SHORT_LIFE if moments.random() < 0.7 else LONG_LIFE
            if life == LONG_LIFE:
                node.until(partial(works, node, said))
            if number == KILLS // 2:
                # On a busy machine every other life may be too short for an answer.
                node.until(lambda: any(node.layout.results.glob("*/run.json")), 240)
            time.sleep(moments.uniform(*life))
            node.kill()
            said = len(node.log)
            left.append(to_send(senders))
            answered.append(len(list(node.layout.results.glob("*/run.json"))))
            node.start()
        for sender in senders:
            sender.allowed.release(SERIES * SLICES)
            sender.join()
    finally:
        for sender in senders:
            sender.over.set()

    assert len(set(left)) > KILLS / 2, f"the kills did not fall while series came in: {left} were still to be sent"
    assert 0 < answered[-1] < SERIES, f"the kills did not fall while series were answered: {answered} were"
    acknowledged = [file for sender in senders for file in sender.acknowledged]
    assert len(acknowledged) == SERIES * SLICES
    spooled = {path.name: path for path in node.layout.spool.rglob("*.dcm")}
    assert len(spooled) == SERIES * SLICES
    for file in acknowledged:
        uid = pydicom.dcmread(file, specific_tags=["SOPInstanceUID"]).SOPInstanceUID
        assert split_file(spooled[f"{uid}.dcm"])[1] == split_file(file)[1]

    uids = [seeded_uid(("kill", k), "series") for k in range(SERIES)]
    node.until(lambda: all(node.settled(uid, SLICES) for uid in uids))
    node.until(lambda: all(node.answered(f"{uid}.g1") for uid in uids))
    assert node.stop() == 0
    # A kill amid a write may leave its temporary file, whose name begins with a dot.
    assert sorted(path.name for path in node.layout.manifests.glob("[!.]*")) == sorted(f"{uid}.g1.json" for uid in uids)
    assert sorted(path.name for path in node.layout.results.iterdir()) == sorted(f"{uid}.g1" for uid in uids)
    for uid in uids:
        assert json.loads((node.layout.results / f"{uid}.g1" / "run.json").read_text())["outcome"] == "no-liver"
    assert list(node.layout.associations.iterdir()) == []
    assert not any(words in node.log for words in ("Traceback", "unexpected", "database is locked"))
