"""What is audited: one frozen class an event, in the words of PS3.15 A.5.3; UIDs, titles and addresses as they are.

Who records an event knows nothing of XML, files and syslog (`m3node.audit.trail`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True, slots=True)
class Node:
    """A DICOM peer: its AE title and its address."""

    ae_title: str
    address: str


@dataclass(frozen=True, slots=True)
class ApplicationActivity:
    """The node was started or stopped (PS3.15 A.5.3.1)."""

    started: bool
    outcome: str = ""


@dataclass(frozen=True, slots=True)
class InstancesTransferred:
    """Instances of one study came in, or went out (PS3.15 A.5.3.7).

    Attributes
    ----------
    direction : str
        ``in``: peer to node; ``out``: node to peer.
    peer : Node
        For STOW-RS the title is empty and the address that of the service.
    study_instance_uid, patient_id
        Of the study; the standard asks for the patient ID, and the trail is the only place that has it.
    sop_classes : dict of str to int
        How many instances of each SOP class; an empty UID stands for those whose class nobody knows.
    failed : str
        What went wrong in words; empty for success.
    receiver : str
        What the receiver had before, where that is known: ``new`` to it, ``held`` the same, or held ``other`` ones.
    """

    direction: Literal["in", "out"]
    peer: Node
    study_instance_uid: str
    patient_id: str
    sop_classes: dict[str, int] = field(default_factory=dict)
    failed: str = ""
    receiver: Literal["unknown", "new", "held", "other"] = "unknown"


@dataclass(frozen=True, slots=True)
class SecurityAlert:
    """Somebody was refused, or something about security is wrong (PS3.15 A.5.3.11).

    Attributes
    ----------
    kind : str
        ``node authentication``: a title, an address or a certificate that is not known, or a failed handshake;
        ``limit``: somebody who is known wants more than he may; ``user authentication``: a wrong password or token;
        ``configuration``: settings or certificates that leave the node less secure than they seem to.
    peer : Node
        Title (empty where it came not so far) and address.
    reason : str
        In words; no value that the peer sent but its title, and the names in the certificate of one that was called.
    """

    kind: Literal["node authentication", "limit", "user authentication", "configuration"]
    peer: Node
    reason: str


@dataclass(frozen=True, slots=True)
class AuditLogUsed:
    """Somebody read the audit trail (PS3.15 A.5.3.2)."""

    user: str


@dataclass(frozen=True, slots=True)
class UserAuthentication:
    """Somebody signed in to the page, or out (PS3.15 A.5.3.12); a failure is a `SecurityAlert` as well."""

    user: str
    address: str
    action: Literal["login", "logout"]
    success: bool = True


@dataclass(frozen=True, slots=True)
class InstancesAccessed:
    """A person was shown a study on the page, or had something done with it (PS3.15 A.5.3.6).

    Attributes
    ----------
    action : str
        ``read``: the page of the study or a picture; ``execute``: a requeue.
    """

    user: str
    address: str
    study_instance_uid: str
    patient_id: str
    action: Literal["read", "execute"] = "read"


Event = (
    ApplicationActivity | InstancesTransferred | SecurityAlert | AuditLogUsed | UserAuthentication | InstancesAccessed
)
