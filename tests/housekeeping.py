"""A data folder with runs and deliveries of chosen ages, as the files say them."""

from __future__ import annotations

import os
from pathlib import Path

from m3node.delivery.entry import Entry, to_json
from m3node.delivery.outbox import box_of
from m3node.delivery.state import DeliveryState
from m3node.jobs.answer.record import RunRecord, write_record
from m3node.layout import DataLayout
from m3node.rejection import Rejection
from m3node.results.findings import Outcome
from m3node.results.objects import ObjectKind, ResultObject

HOUR = 3600.0
KIND = ObjectKind.REPORT


class House:
    """Writes files; nothing runs."""

    def __init__(self, root: Path) -> None:
        self.layout = DataLayout(root / "data")
        self.layout.create()

    def manifest(self, run: str) -> None:
        """A generation, by its name only."""
        (self.layout.manifests / f"{run}.json").write_text("{}")

    def run(
        self,
        series: str,
        *,
        stack: str = "",
        generation: int = 1,
        supersedes: str = "",
        ended: float,
        rejection: Rejection | None = None,
        cancelled: str = "",
    ) -> str:
        """A run that has ended, with one object unless it was not answered; return the key of its manifest."""
        label = f"{series}.{stack}" if stack else series
        name = f"{label}.g{generation}"
        self.manifest(name)
        folder = self.layout.results / name
        folder.mkdir(parents=True, exist_ok=True)
        objects: tuple[ResultObject, ...] = ()
        if rejection is None and not cancelled:
            for file in (KIND.file_name, "masks.npz", "overlay.png", "findings.json"):
                (folder / file).write_bytes(b"x")
            objects = (ResultObject(KIND, folder / KIND.file_name, "ab", "1.2.840", f"9.{series}", "9.1", "9.2"),)
        write_record(
            RunRecord(
                label=label,
                generation=generation,
                manifest_key=f"key of {name}",
                study_instance_uid="1",
                series_instance_uid=series,
                outcome=Outcome.REJECTED if rejection else None if cancelled else Outcome.LESIONS,
                lesions=0,
                objects=objects,
                supersedes=supersedes,
                superseded_by="",
                failure="",
                rejection=rejection,
                cancelled=cancelled,
                finished_at=ended,
            ),
            folder,
        )
        return f"key of {name}"

    def delivery(self, run: str, state: DeliveryState, *, destination: str = "pacs", ended: float) -> Path:
        """The delivery of a run's object; return its file."""
        box = box_of(self.layout, destination)
        box.create()
        folder = {
            DeliveryState.SENT: box.sent,
            DeliveryState.CONFIRMED: box.sent,
            DeliveryState.DEAD: box.aside,
            DeliveryState.CANCELLED: box.aside,
        }.get(state, box.folder)
        filed = folder != box.folder
        entry = Entry(
            name=f"{run}.{KIND.value}",
            destination=destination,
            run=run,
            kind=KIND.value,
            order=0,
            path=f"results/{run}/{KIND.file_name}",
            sha256="ab",
            sop_class_uid="1.2.840",
            sop_instance_uid="9.9",
            study_instance_uid="1",
            queued_at=ended,
            finished_at=ended if filed else 0.0,
            state=state,
        )
        path = folder / f"{entry.name}.json"
        path.write_bytes(to_json(entry))
        os.utime(path, (ended, ended))
        return path
