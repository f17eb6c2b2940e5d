"""Where everything lies under the data folder: one place that knows, and part of the product's promise.

::

    <data>/spool/<study>/<series>/<sop>.dcm        an instance, its bytes as received
    <data>/spool/<study>/<series>/<sop>.r<sha8>.dcm  a revision: same SOP Instance UID, other bytes
    <data>/associations/<id>.jsonl                 an open association: who, and each instance it stored
    <data>/index/<series>.jsonl                    the headers of a series' instances, one line each
    <data>/manifests/<label>.g<generation>.json    a generation of a stack
    <data>/results/<run>/                          findings.json, masks.npz, attention.npz, objects, run.json …
    <data>/outbox/<destination>/                   deliveries that wait; sent/ and aside/ below it
    <data>/commitments/<transaction>.json          storage commitment reports that came in
    <data>/audit/<year>-<month>.xml                the audit trail, where no audit.folder is set
    <data>/metrics/<process>.json                  what a process has counted
    <data>/locks/<role>.lock                       held by the process that is the role
    <data>/database/{engine,ledger}.sqlite         jobs and ledger, where no database_url is set
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class DataLayout:
    """The folders under ``data_dir``."""

    root: Path

    @property
    def spool(self) -> Path:
        """Received instances."""
        return self.root / "spool"

    @property
    def associations(self) -> Path:
        """Open associations, leased."""
        return self.root / "associations"

    @property
    def index(self) -> Path:
        """Headers of received instances."""
        return self.root / "index"

    @property
    def manifests(self) -> Path:
        """Generations of stacks."""
        return self.root / "manifests"

    @property
    def results(self) -> Path:
        """What runs leave behind."""
        return self.root / "results"

    @property
    def outbox(self) -> Path:
        """Deliveries that wait, by destination."""
        return self.root / "outbox"

    @property
    def commitments(self) -> Path:
        """Storage commitment reports that nobody has acted on yet."""
        return self.root / "commitments"

    @property
    def audit(self) -> Path:
        """The audit trail; its owner alone may read it."""
        return self.root / "audit"

    @property
    def metrics(self) -> Path:
        """What each process has counted since the node was started."""
        return self.root / "metrics"

    @property
    def locks(self) -> Path:
        """One lock file a role."""
        return self.root / "locks"

    @property
    def database(self) -> Path:
        """SQLite files, where no other database is set."""
        return self.root / "database"

    def create_root(self) -> None:
        """Make the data folder, for its owner alone; one that is there keeps its mode."""
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)

    def create(self) -> None:
        """Make every folder; existing ones stay."""
        self.create_root()
        for folder in (
            self.spool,
            self.associations,
            self.index,
            self.manifests,
            self.results,
            self.outbox,
            self.commitments,
            self.metrics,
            self.locks,
            self.database,
        ):
            folder.mkdir(parents=True, exist_ok=True)
