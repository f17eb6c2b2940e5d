"""An archive that fails: it refuses, hangs up, loses its own answer after it kept the object, or answers nothing."""

from __future__ import annotations

import hashlib
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum

from pydicom.dataset import Dataset
from pynetdicom import AE, build_role
from pynetdicom.association import Association
from pynetdicom.dimse_messages import C_STORE_RSP
from pynetdicom.events import Event
from pynetdicom.presentation import build_context
from pynetdicom.sop_class import StorageCommitmentPushModel, StorageCommitmentPushModelInstance

from fake_pacs import fake_pacs

SUCCESS, OUT_OF_RESOURCES = 0x0000, 0xA700
REPORT_SECONDS = 20.0
"""How long it tries to reach whom a report is for."""


class Failure(StrEnum):
    """What goes wrong with a store."""

    REFUSED = "0xA700"
    HUNG_UP = "association aborted, object not kept"
    ANSWER_LOST = "association aborted, object kept"
    EMPTY = "answer without a status, object kept"


KEEPS = (None, Failure.ANSWER_LOST, Failure.EMPTY)

_this_thread = threading.local()


class Archive:
    """Keeps what it is sent, and fails a share of the stores.

    Parameters
    ----------
    name : str
        Of the destination.
    share : float
        Of the stores that fail.
    seed : int
        What fails follows from it and from the order of the stores.
    report_to : int
        Port of the node's listener, for an archive that commits to what it keeps; 0 for one that does not.
    """

    def __init__(self, name: str, share: float, seed: int, report_to: int = 0) -> None:
        self.name = name
        self.port = 0
        self.share = share
        self.offered: Counter[str] = Counter()
        self.failures: Counter[Failure] = Counter()
        self.kept: dict[str, set[str]] = {}
        self.differing: set[str] = set()
        self.reports: Counter[str] = Counter()
        self.committed: set[str] = set()
        self._seen: dict[str, str] = {}
        self.commits = bool(report_to)
        self._report_to = report_to
        self._random = random.Random(seed)
        self._lock = threading.Lock()
        self._reporting = threading.Lock()

    @property
    def toml(self) -> str:
        """It as a destination of the node."""
        commitment = "commitment = true\n" if self.commits else ""
        return (
            f'[[destinations]]\nname = "{self.name}"\nae_title = "PACS"\nhost = "127.0.0.1"\nport = {self.port}\n'
            f"{commitment}"
        )

    def store(self, event: Event) -> int:
        """Answer a store, or not."""
        uid = str(event.request.AffectedSOPInstanceUID)
        digest = hashlib.sha256(event.request.DataSet.getvalue()).hexdigest()
        with self._lock:
            self.offered[uid] += 1
            if self._seen.setdefault(uid, digest) != digest:
                self.differing.add(uid)
            failure = self._random.choice(list(Failure)) if self._random.random() < self.share else None
            if failure is not None:
                self.failures[failure] += 1
            if failure in KEEPS:
                self.kept.setdefault(uid, set()).add(digest)
        if failure in (Failure.HUNG_UP, Failure.ANSWER_LOST):
            event.assoc.abort()
        _this_thread.silent = failure is Failure.EMPTY
        return OUT_OF_RESOURCES if failure is Failure.REFUSED else SUCCESS

    def commit(self, event: Event) -> int:
        """Promise to report on an association of our own; some of the reports say no, or never come."""
        information = event.action_information
        with self._lock:
            fate = self._random.random()
            if fate < self.share / 2:
                self.reports["never sent"] += 1
                return SUCCESS
        threading.Timer(0.1, self._report, (information, fate >= self.share)).start()
        return SUCCESS

    def _report(self, asked: Dataset, well: bool) -> None:
        with self._reporting:  # one after the other, so that a kill loses one
            self._report_alone(asked, well)

    def _report_alone(self, asked: Dataset, well: bool) -> None:
        ds = Dataset()
        ds.TransactionUID = asked.TransactionUID
        there: list[Dataset] = []
        missing: list[Dataset] = []
        for item in asked.ReferencedSOPSequence:
            (there if well and item.ReferencedSOPInstanceUID in self.kept else missing).append(item)
        for item in missing:
            item.FailureReason = 0x0110
        if there:
            ds.ReferencedSOPSequence = there
            self.committed |= {str(item.ReferencedSOPInstanceUID) for item in there}
        if missing:
            ds.FailedSOPSequence = missing
        model = StorageCommitmentPushModel
        try:
            association = self._reached()
            event_type = 2 if missing else 1
            status, _ = association.send_n_event_report(ds, event_type, model, StorageCommitmentPushModelInstance)
            taken = "Status" in status and status.Status == SUCCESS
            self.reports[("failure" if missing else "success") if taken else "not taken"] += 1
            association.release()
        except (RuntimeError, OSError):  # the node died meanwhile
            self.reports["not taken"] += 1

    def _reached(self) -> Association:
        """An association with whom it reports to, who may be starting again; no association when that takes long."""
        model = StorageCommitmentPushModel
        roles = [build_role(model, scu_role=False, scp_role=True)]
        ae = AE(ae_title="PACS")
        ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = ae.connection_timeout = 10
        until = time.monotonic() + REPORT_SECONDS
        while True:
            association = ae.associate(
                "127.0.0.1", self._report_to, contexts=[build_context(model)], ae_title="M3NODE", ext_neg=roles
            )
            if association.is_established or time.monotonic() >= until:
                return association
            time.sleep(0.2)


@contextmanager
def open_archive(archive: Archive, port: int = 0) -> Iterator[Archive]:
    """Have an archive listen."""
    commit = archive.commit if archive.commits else None
    with fake_pacs(archive.store, port=port, commit=commit) as server:
        archive.port = server.port
        yield archive


@contextmanager
def answers_without_status() -> Iterator[None]:
    """Let an answer leave without (0000,0900) where its archive wants that; pynetdicom offers no way to."""
    plain = C_STORE_RSP.primitive_to_message

    def strip(self: C_STORE_RSP, primitive: object) -> None:
        plain(self, primitive)
        if getattr(_this_thread, "silent", False):
            _this_thread.silent = False
            del self.command_set.Status

    C_STORE_RSP.primitive_to_message = strip
    try:
        yield
    finally:
        C_STORE_RSP.primitive_to_message = plain
