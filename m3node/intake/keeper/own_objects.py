"""Knows our own objects when they come back without their Device UID: by the UIDs in the results' records."""

from __future__ import annotations

import json
import logging
import time
import uuid

from m3node.layout import DataLayout

_log = logging.getLogger(__name__)

PREFIX = "2.25."


class OwnObjects:
    """SOP Instance UIDs of everything that was ever built here.

    Parameters
    ----------
    layout : DataLayout
        Each of its manifests names a run, which has a ``run.json`` once it is finished.
    """

    def __init__(self, layout: DataLayout) -> None:
        self._layout = layout
        self._read: set[str] = set()
        self._unread: set[str] = set()
        self._stamp = -1
        self._uids: set[str] = set()

    def has(self, sop_instance_uid: str) -> bool:
        """Whether an object is ours; the records are read only for UIDs that could be."""
        if not _may_be_ours(sop_instance_uid):
            return False
        if sop_instance_uid not in self._uids:
            self._update()
        return sop_instance_uid in self._uids

    def _update(self) -> None:
        # By the manifests, not by the results: rejections lie there too, and are looked at again for every instance of
        # a sender whose UIDs are made like ours (a de-identifier's often are).
        stamp = self._layout.manifests.stat().st_mtime_ns
        if stamp != self._stamp:
            self._unread = {path.stem for path in self._layout.manifests.glob("*.json")} - self._read
            # A name linked within the clock's tick of this look would not change the stamp: look again next time.
            self._stamp = stamp if time.time_ns() - stamp > 50_000_000 else -1
        for run in sorted(self._unread):
            try:
                tree = json.loads((self._layout.results / run / "run.json").read_text(encoding="utf-8"))
                self._uids.update(item["sop_instance_uid"] for item in tree["objects"])
            except (FileNotFoundError, NotADirectoryError):
                continue  # not finished: nothing of it was sent
            except (ValueError, KeyError, TypeError):
                _log.error("run.json of run %s is damaged: its objects are not known", run)
            self._read.add(run)
            self._unread.discard(run)


def _may_be_ours(uid: str) -> bool:
    """Ours are made from UUIDs of version 5 (PS3.5 B.2): no scanner's are, and few others'."""
    number = uid.removeprefix(PREFIX)
    if number == uid or not number.isdigit() or int(number) >= 1 << 128:
        return False
    return uuid.UUID(int=int(number)).version == 5
