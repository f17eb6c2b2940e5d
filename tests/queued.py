"""A run's objects waiting in an outbox, for tests of what becomes of them there."""

from __future__ import annotations

from fake_pacs import make_run
from m3node.delivery.entry import Entry
from m3node.delivery.outbox import Box, box_of, waiting
from m3node.delivery.queueing import enqueue
from m3node.layout import DataLayout
from m3node.results.objects import ObjectKind
from m3node.settings import Destination

RUN = "1.2.3.g1"


def destination(name: str = "pacs", sr: str = "comprehensive3d") -> Destination:
    return Destination(name=name, ae_title="PACS", host="127.0.0.1", port=104, sr=sr)


def one_waiting(layout: DataLayout) -> tuple[Box, Entry]:
    """The report of `RUN`."""
    enqueue(layout, RUN, make_run(layout, RUN, [ObjectKind.REPORT]), [destination()])
    box = box_of(layout, "pacs")
    (entry,) = waiting(box)
    return box, entry


def kinds_waiting(box: Box) -> list[str]:
    return [entry.kind for entry in waiting(box)]
