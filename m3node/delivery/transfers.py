"""What went out, for the audit trail (PS3.15 A.5.3.7): one message an object, also where sending was given up."""

from __future__ import annotations

from m3node.audit.events import InstancesTransferred, Node
from m3node.delivery.entry import Entry
from m3node.intake.series.patient import patient_id
from m3node.layout import DataLayout
from m3node.settings import Destination


def transferred(
    layout: DataLayout, destination: Destination, entry: Entry, *, failed: str = ""
) -> InstancesTransferred:
    """Describe the transfer of an object.

    Parameters
    ----------
    layout : DataLayout
        The data folder, whose file of the object says whose it is.
    destination : Destination
        Who got it, or should have got it.
    entry : Entry
        The object.
    failed : str
        Why it is not sent again; empty when it is there.
    """
    return InstancesTransferred(
        direction="out",
        peer=Node(destination.ae_title or "", destination.host or destination.url),
        study_instance_uid=entry.study_instance_uid,
        patient_id=patient_id(layout.root / entry.path),
        sop_classes={entry.sop_class_uid: 1},
        failed=failed,
    )
