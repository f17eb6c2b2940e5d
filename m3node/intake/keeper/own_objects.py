"""Knows our own objects when they come back without their Device UID: by the UIDs in the results' records."""

from __future__ import annotations

import json
import logging
import uuid
from pathlib import Path

_log = logging.getLogger(__name__)

PREFIX = "2.25."


class OwnObjects:
    """SOP Instance UIDs of everything that was ever built here.

    Parameters
    ----------
    results : Path
        ``DataLayout.results``; each finished run in it has a ``run.json``.
    """

    def __init__(self, results: Path) -> None:
        self._results = results
        self._read: set[str] = set()
        self._uids: set[str] = set()

    def has(self, sop_instance_uid: str) -> bool:
        """Whether an object is ours; the records are read only for UIDs that could be."""
        if not _may_be_ours(sop_instance_uid):
            return False
        if sop_instance_uid not in self._uids:
            self._update()
        return sop_instance_uid in self._uids

    def _update(self) -> None:
        for folder in self._results.iterdir():
            if folder.name in self._read:
                continue
            try:
                tree = json.loads((folder / "run.json").read_text(encoding="utf-8"))
                self._uids.update(item["sop_instance_uid"] for item in tree["objects"])
            except (FileNotFoundError, NotADirectoryError):
                continue  # not finished: nothing of it was sent
            except (ValueError, KeyError, TypeError):
                _log.error("run.json of run %s is damaged: its objects are not known", folder.name)
            self._read.add(folder.name)


def _may_be_ours(uid: str) -> bool:
    """Ours are made from UUIDs of version 5 (PS3.5 B.2): no scanner's are, and few others'."""
    number = uid.removeprefix(PREFIX)
    if number == uid or not number.isdigit() or int(number) >= 1 << 128:
        return False
    return uuid.UUID(int=int(number)).version == 5
