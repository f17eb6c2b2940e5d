"""What came in over each association, for the audit trail (PS3.15 A.5.3.7): one message an association and study.

Recorded when the association is over however it ended, right before its lease is removed. A keeper that is killed
reads the lease again, so that each transfer is recorded at least once.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Literal

from m3node.audit.events import InstancesTransferred, Node
from m3node.audit.trail import AuditTrail
from m3node.intake.receive.association import ArrivalEvent, Lease
from m3node.intake.series.patient import patient_id
from m3node.layout import DataLayout


@dataclass(slots=True)
class _Study:
    """What an association has stored of a study."""

    patient_id: str
    sop_classes: Counter[str] = field(default_factory=Counter)
    statuses: set[str] = field(default_factory=set)


class Transfers:
    """What open associations have stored so far.

    Parameters
    ----------
    layout : DataLayout
        The data folder.
    trail : AuditTrail
        Where it is recorded.
    """

    def __init__(self, layout: DataLayout, trail: AuditTrail) -> None:
        self._layout = layout
        self._trail = trail
        self._studies: dict[str, dict[str, _Study]] = {}

    def arrived(self, event: ArrivalEvent) -> None:
        """Count an instance."""
        studies = self._studies.setdefault(event.association, {})
        if event.study not in studies:
            # Read now, since the files may be gone when a long association ends: purged, as what is not needed.
            studies[event.study] = _Study(patient_id(self._layout.root / event.path))
        study = studies[event.study]
        study.sop_classes[event.sop_class] += 1
        study.statuses.add(event.status)

    def ended(self, lease: Lease) -> None:
        """Record what an association has stored; nothing the second time."""
        for uid, study in self._studies.pop(lease.id, {}).items():
            transferred = InstancesTransferred(
                direction="in",
                peer=Node(lease.calling, lease.peer),
                study_instance_uid=uid,
                patient_id=study.patient_id,
                sop_classes=dict(study.sop_classes),
                receiver=_held_before(study.statuses),
            )
            self._trail.record(transferred, at=lease.closed_at or lease.last_at)


def _held_before(statuses: set[str]) -> Literal["new", "held", "other"]:
    if "new" in statuses:
        return "new"
    return "other" if "revision" in statuses else "held"
