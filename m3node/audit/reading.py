"""Reads the trail back: each message as a record, for people and programs that look at it."""

from __future__ import annotations

import os
import pwd
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from xml.etree import ElementTree as ET

from m3node.audit.files import folder_of, months
from m3node.errors import M3NodeError
from m3node.settings import Settings

OUTCOMES = {"0": "success", "4": "minor failure", "8": "serious failure", "12": "major failure"}

_STUDY, _PATIENT = "110180", "2"


class TrailError(M3NodeError):
    """The trail cannot be read."""


@dataclass(frozen=True, slots=True)
class Participant:
    """Who took part: a process, a peer or a person.

    Attributes
    ----------
    user : str
        User ID: of a process its process id, of a peer its AE title, of a person the login name.
    name : str
        What kind of process it is; empty for others.
    ae_title, address : str
        Empty where there is none.
    role : str
        Meaning of the role's code; empty for none.
    requestor : bool
        Whether it began the event.
    """

    user: str
    name: str
    ae_title: str
    address: str
    role: str
    requestor: bool


@dataclass(frozen=True, slots=True)
class Record:
    """A message.

    Attributes
    ----------
    at : datetime
        When, in UTC.
    event, type : str
        Meanings of the codes; ``type`` is empty where the event has none.
    action : str
        One of ``C R U D E`` (PS3.15 A.5.1).
    outcome, description : str
        One of `OUTCOMES`, and what was wrong.
    study_instance_uid, patient_id : str
        Empty where it is not about a study.
    sop_classes : dict of str to int
        Instances of each SOP class.
    """

    at: datetime
    event: str
    type: str
    action: str
    outcome: str
    description: str
    participants: tuple[Participant, ...]
    study_instance_uid: str = ""
    patient_id: str = ""
    sop_classes: dict[str, int] = field(default_factory=dict)


def readable(settings: Settings) -> list[Path]:
    """Return the files of the trail, oldest first, each of which can be read.

    Raises
    ------
    TrailError
        There is none, or not all of them can be read: only their owner may.
    """
    folder = folder_of(settings)
    try:
        os.listdir(folder)
        files = months(folder)
        for path in files:
            path.open("rb").close()
    except FileNotFoundError:
        files = []
    except PermissionError as error:
        raise TrailError(f"{error.filename} cannot be read: {_whose(Path(error.filename))}") from error
    except OSError as error:
        raise TrailError(f"the audit trail in {folder} cannot be read: {error.strerror}") from error
    if not files:
        raise TrailError(f"there is no audit trail in {folder}: no node has run with these settings; see --config")
    return files


def _whose(path: Path) -> str:
    try:
        owner = pwd.getpwuid(path.stat().st_uid).pw_name
    except (KeyError, OSError):
        return "only its owner may read the audit trail; become that user"
    return f"only its owner may read the audit trail; become that user: sudo -u {owner} m3node audit"


def records(path: Path) -> Iterator[Record | None]:
    """Read a file's messages in the order in which they were written; None for a line that is no message.

    A last line that is just being written is left out.
    """
    with path.open("rb") as stream:
        for line in stream:
            if line.endswith(b"\n"):
                yield parse(line)


def parse(line: bytes) -> Record | None:
    """Read a message; None for what is none, as half of one that a full disk cut."""
    try:
        root = ET.fromstring(line)
        head = root.find("EventIdentification")
        if root.tag != "AuditMessage" or head is None:
            return None
        return Record(
            at=datetime.fromisoformat(head.attrib["EventDateTime"]),
            event=_meaning(head, "EventID"),
            type=_meaning(head, "EventTypeCode"),
            action=head.get("EventActionCode", ""),
            outcome=OUTCOMES.get(head.get("EventOutcomeIndicator", ""), "unknown"),
            description=head.findtext("EventOutcomeDescription", ""),
            participants=tuple(_participant(element) for element in root.findall("ActiveParticipant")),
            study_instance_uid=_object_id(root, _STUDY),
            patient_id=_object_id(root, _PATIENT),
            sop_classes={
                item.get("UID", ""): int(item.get("NumberOfInstances", "0")) for item in root.iter("SOPClass")
            },
        )
    except (ET.ParseError, KeyError, ValueError):
        return None


def _participant(element: ET.Element) -> Participant:
    return Participant(
        user=element.get("UserID", ""),
        name=element.get("UserName", ""),
        ae_title=element.get("AlternativeUserID", "").removeprefix("AETITLES="),
        address=element.get("NetworkAccessPointID", ""),
        role=_meaning(element, "RoleIDCode"),
        requestor=element.get("UserIsRequestor") == "true",
    )


def _meaning(element: ET.Element, tag: str) -> str:
    coded = element.find(tag)
    return "" if coded is None else coded.get("originalText", "")


def _object_id(root: ET.Element, id_type: str) -> str:
    for element in root.findall("ParticipantObjectIdentification"):
        kind = element.find("ParticipantObjectIDTypeCode")
        if kind is not None and kind.get("csd-code") == id_type:
            return element.get("ParticipantObjectID", "")
    return ""
