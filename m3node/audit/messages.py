"""An event as an audit message: XML of the schema of PS3.15 A.5.1, the fields as A.5.3 wants them for its kind."""

from __future__ import annotations

import base64
import ipaddress
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from xml.etree import ElementTree as ET

from m3node.audit import codes
from m3node.audit.codes import Code
from m3node.audit.events import (
    ApplicationActivity,
    AuditLogUsed,
    Event,
    InstancesAccessed,
    InstancesTransferred,
    Node,
    SecurityAlert,
    UserAuthentication,
)

SUCCESS, MINOR, SERIOUS = "0", "4", "8"
"""Event outcome indicators (PS3.15 A.5.1.1)."""

MAX_TEXT = 1024
"""Characters of one value; a peer's words do not make a message long."""

# XML 1.0 forbids the C0 controls and surrogates; C1 controls and line separators would trouble terminals and readers
# of lines.
_UNFIT = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\ufffe\uffff]")


@dataclass(frozen=True, slots=True)
class Reporter:
    """The process that writes a message.

    Attributes
    ----------
    ae_title : str
        Of the node.
    host : str
        Name of the machine.
    site : str
        ``audit.site``.
    process : str
        Its role.
    pid : int
        Its process id, which the log has as well.
    log : str
        URI of the trail.
    """

    ae_title: str
    host: str
    site: str
    process: str
    pid: int
    log: str = ""


def encoded(event: Event, reporter: Reporter, at: float, *, again: int = 0) -> bytes:
    """Encode an event as one line of UTF-8, without its end.

    Parameters
    ----------
    event : Event
        What happened.
    reporter : Reporter
        Who says so.
    at : float
        When, in seconds since the epoch.
    again : int
        How often it came again, where that is what is reported.
    """
    line: bytes = ET.tostring(message(event, reporter, at, again=again), encoding="utf-8", xml_declaration=False)
    return line


def message(event: Event, reporter: Reporter, at: float, *, again: int = 0) -> ET.Element:
    """Build the message of an event; see `encoded`."""
    root = ET.Element("AuditMessage")
    identification = ET.SubElement(root, "EventIdentification")
    body = ET.Element("body")
    head = _BUILDERS[type(event)](event, reporter, body)
    _identify(identification, head, at, again)
    root.extend(body.findall("ActiveParticipant"))
    source = ET.SubElement(
        root, "AuditSourceIdentification", AuditSourceID=clean(f"{reporter.ae_title}@{reporter.host}")
    )
    if reporter.site:
        source.set("AuditEnterpriseSiteID", clean(reporter.site))
    ET.SubElement(source, "AuditSourceTypeCode", {"csd-code": "4"})  # an application server process
    root.extend(body.findall("ParticipantObjectIdentification"))
    return root


def clean(text: str) -> str:
    """Return a text without what XML 1.0 forbids and what would end a line, and not too long."""
    return _UNFIT.sub("\ufffd", text)[:MAX_TEXT]


def instant(at: float) -> str:
    """Return a time as xsd:dateTime with milliseconds, in UTC."""
    milliseconds = round(at * 1000)
    whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(milliseconds // 1000))
    return f"{whole}.{milliseconds % 1000:03d}Z"


@dataclass(frozen=True, slots=True)
class _Head:
    """What stands in the event's identification."""

    id: Code
    action: str
    outcome: str = SUCCESS
    description: str = ""
    type: Code | None = None


def _identify(element: ET.Element, head: _Head, at: float, again: int) -> None:
    element.set("EventActionCode", head.action)
    element.set("EventDateTime", instant(at))
    element.set("EventOutcomeIndicator", head.outcome)
    _coded(element, "EventID", head.id)
    if head.type is not None:
        _coded(element, "EventTypeCode", head.type)
    more = f" ({again} times more)" if again > 1 else " (once more)" if again else ""
    description = f"{head.description}{more}"
    if description:
        ET.SubElement(element, "EventOutcomeDescription").text = clean(description)


def _activity(event: ApplicationActivity, reporter: Reporter, body: ET.Element) -> _Head:
    _this_process(body, reporter, codes.APPLICATION)
    outcome = SERIOUS if event.outcome else SUCCESS
    kind = codes.APPLICATION_START if event.started else codes.APPLICATION_STOP
    return _Head(codes.APPLICATION_ACTIVITY, "E", outcome, event.outcome, kind)


def _transferred(event: InstancesTransferred, reporter: Reporter, body: ET.Element) -> _Head:
    incoming = event.direction == "in"
    # Who sends is the requestor of a C-STORE, and of a STOW-RS request.
    _peer(body, event.peer, codes.SOURCE if incoming else codes.DESTINATION, requestor=incoming)
    _this_process(body, reporter, codes.DESTINATION if incoming else codes.SOURCE, requestor=not incoming)
    _study(body, event.study_instance_uid, event.sop_classes)
    _patient(body, event.patient_id)
    action = {"unknown": "R", "new": "C", "held": "R", "other": "U"}[event.receiver]
    return _Head(codes.INSTANCES_TRANSFERRED, action, SERIOUS if event.failed else SUCCESS, event.failed)


def _alert(event: SecurityAlert, reporter: Reporter, body: ET.Element) -> _Head:
    _this_process(body, reporter, requestor=True)
    if event.peer != Node("", ""):
        _peer(body, event.peer)
    subject = _object(body, codes.NODE_ID, _name(event.peer) or reporter.ae_title, kind="2", role="13")
    words = base64.b64encode(clean(event.reason).encode()).decode("ascii")
    ET.SubElement(subject, "ParticipantObjectDetail", type="Alert Description", value=words)
    outcome = SERIOUS if event.kind in ("node authentication", "user authentication") else MINOR
    return _Head(codes.SECURITY_ALERT, "E", outcome, f"{event.kind}: {event.reason}", codes.ALERTS[event.kind])


def _log_used(event: AuditLogUsed, reporter: Reporter, body: ET.Element) -> _Head:
    _user(body, event.user, reporter.host)
    trail = _object(body, codes.URI, reporter.log or "audit", kind="2", role="13")
    named = trail.find("ParticipantObjectName")
    assert named is not None
    named.text = "Security Audit Log"
    return _Head(codes.AUDIT_LOG_USED, "R")


def _authenticated(event: UserAuthentication, reporter: Reporter, body: ET.Element) -> _Head:
    _user(body, event.user, event.address)
    _this_process(body, reporter)
    kind = codes.LOGIN if event.action == "login" else codes.LOGOUT
    return _Head(codes.USER_AUTHENTICATION, "E", SUCCESS if event.success else MINOR, type=kind)


def _accessed(event: InstancesAccessed, reporter: Reporter, body: ET.Element) -> _Head:
    _user(body, event.user, event.address)
    _this_process(body, reporter)
    _study(body, event.study_instance_uid, {})
    _patient(body, event.patient_id)
    # The standard knows create, read, update and delete here: a requeue makes results anew.
    return _Head(codes.INSTANCES_ACCESSED, "R" if event.action == "read" else "U")


_BUILDERS: dict[type, Callable[..., _Head]] = {
    ApplicationActivity: _activity,
    InstancesTransferred: _transferred,
    SecurityAlert: _alert,
    AuditLogUsed: _log_used,
    UserAuthentication: _authenticated,
    InstancesAccessed: _accessed,
}


def _this_process(body: ET.Element, reporter: Reporter, role: Code | None = None, *, requestor: bool = False) -> None:
    element = _participant(body, str(reporter.pid), role, requestor=requestor)
    element.set("AlternativeUserID", clean(f"AETITLES={reporter.ae_title}"))
    element.set("UserName", clean(f"m3node {reporter.process}"))
    _at(element, reporter.host)


def _peer(body: ET.Element, peer: Node, role: Code | None = None, *, requestor: bool = False) -> None:
    element = _participant(body, peer.ae_title or peer.address, role, requestor=requestor)
    if peer.ae_title:
        element.set("AlternativeUserID", clean(f"AETITLES={peer.ae_title}"))
    _at(element, peer.address)


def _user(body: ET.Element, user: str, address: str) -> None:
    _at(_participant(body, user, None, requestor=True), address)


def _participant(body: ET.Element, user: str, role: Code | None, *, requestor: bool) -> ET.Element:
    attributes = {"UserID": clean(user), "UserIsRequestor": "true" if requestor else "false"}
    element = ET.SubElement(body, "ActiveParticipant", attributes)
    if role is not None:
        _coded(element, "RoleIDCode", role)
    return element


def _at(element: ET.Element, address: str) -> None:
    if not address:
        return
    element.set("NetworkAccessPointID", clean(address))
    element.set("NetworkAccessPointTypeCode", _address_kind(address))


def _address_kind(address: str) -> str:
    """Return 2 for an IP address, 5 for a URI, 1 for a name."""
    if "://" in address:
        return "5"
    try:
        ipaddress.ip_address(address)
    except ValueError:
        return "1"
    return "2"


def _study(body: ET.Element, uid: str, sop_classes: dict[str, int]) -> None:
    study = _object(body, codes.STUDY_INSTANCE_UID, uid, kind="2", role="3")
    if not sop_classes:
        return
    description = ET.SubElement(study, "ParticipantObjectDescription")
    for sop_class, count in sorted(sop_classes.items()):
        attributes = {"UID": clean(sop_class)} if sop_class else {}
        ET.SubElement(description, "SOPClass", {**attributes, "NumberOfInstances": str(count)})


def _patient(body: ET.Element, patient_id: str) -> None:
    _object(body, codes.PATIENT_NUMBER, patient_id, kind="1", role="1")


def _object(body: ET.Element, id_type: Code, identifier: str, *, kind: str, role: str) -> ET.Element:
    element = ET.SubElement(
        body,
        "ParticipantObjectIdentification",
        ParticipantObjectID=clean(identifier),
        ParticipantObjectTypeCode=kind,
        ParticipantObjectTypeCodeRole=role,
    )
    _coded(element, "ParticipantObjectIDTypeCode", id_type)
    # The schema wants the element. A patient's name does not belong here, and UIDs have none.
    ET.SubElement(element, "ParticipantObjectName")
    return element


def _coded(parent: ET.Element, tag: str, code: Code) -> None:
    attributes = {"csd-code": code.value, "codeSystemName": code.system, "originalText": code.meaning}
    ET.SubElement(parent, tag, attributes)


def _name(peer: Node) -> str:
    return "@".join(part for part in (peer.ae_title, peer.address) if part)
