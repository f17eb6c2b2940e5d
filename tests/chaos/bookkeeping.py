"""Whether the ledger, into which many wrote who were killed, says what one says that is made from the files."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sqlalchemy import Engine

from ledgers import opened_ledger
from m3node.jobs.ledger import views
from m3node.jobs.ledger.database import open_engine
from m3node.jobs.ledger.sync import sync
from m3node.settings import Settings, load
from served import ServedNode


def ledgers_differ(node: ServedNode, folder: Path) -> list[str]:
    """Make a ledger from the node's files; return where the node's own shows something else.

    Parameters
    ----------
    node : ServedNode
        Runs; it has nothing left to do.
    folder : Path
        New, for the other ledger.
    """
    studies = sorted({manifest.study_instance_uid for manifest in node.manifests})
    with opened_ledger(Settings(data_dir=folder)) as made:
        sync(node.layout, made)
        right = _shown(made.engine, studies)
    engine = open_engine(load(node.config))
    try:
        shown = _shown(engine, studies)
    finally:
        engine.dispose()
    return [
        f"{what}: {name} is {shown[what].get(name)} instead of {rows.get(name)}"
        for what, rows in right.items()
        for name in {**rows, **shown[what]}
        if rows.get(name) != shown[what].get(name)
    ]


def _shown(engine: Engine, studies: list[str]) -> dict[str, dict[str, Any]]:
    """What ``m3node status`` shows, but for the time of asking and the processes."""
    overview = asdict(views.overview(engine, time.time()))
    del overview["at"], overview["workers"]
    shown = {"the node": overview}
    for uid in studies:
        study = views.study(engine, uid)
        rows = asdict(study) if study is not None else {}
        shown[uid] = {name: value for name, value in rows.items() if not isinstance(value, tuple)}
        for part in ("series", "runs", "objects", "deliveries"):
            shown[uid] |= {f"{part} {number}": row for number, row in enumerate(rows.get(part, ()))}
    return shown
