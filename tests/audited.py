"""Audit messages as the tests look at them: against the standard's schema, and in words."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from pathlib import Path

import rnc2rng
from lxml import etree

from m3node.layout import DataLayout

SCHEMA = Path(__file__).parent / "audit-schema" / "audit-message.rnc"


@cache
def schema() -> etree.RelaxNG:
    """The audit message schema of PS3.15 A.5.1.1."""
    return etree.RelaxNG(etree.fromstring(rnc2rng.dumps(rnc2rng.load(str(SCHEMA))).encode()))


def faults(line: bytes) -> list[str]:
    """What is wrong with a message by the schema; nothing for a valid one."""
    root = etree.fromstring(line)
    return [] if schema().validate(root) else [str(error) for error in schema().error_log]


def lines(folder: Path) -> list[bytes]:
    """Every line of a trail, oldest file first."""
    return [line for path in sorted(folder.glob("*.xml")) for line in path.read_bytes().splitlines()]


def valid(folder: Path) -> list[etree._Element]:
    """Every message of a trail; each must be valid."""
    found = lines(folder)
    assert [(line, faults(line)) for line in found if faults(line)] == []
    return [etree.fromstring(line) for line in found]


def invalid(folder: Path) -> list[bytes]:
    """The messages of a trail that are not valid, but for those that a full disk cut short."""
    return [line for line in lines(folder) if line.endswith(b"</AuditMessage>") and faults(line)]


def of_node(layout: DataLayout) -> list[etree._Element]:
    """Every message of a node's trail; each must be valid."""
    return valid(layout.audit)


def code(message: etree._Element, tag: str = "EventID") -> str:
    """The meaning of a coded value of the event's identification; empty when there is none."""
    element = message.find(f"EventIdentification/{tag}")
    return "" if element is None else str(element.get("originalText"))


def outcome(message: etree._Element) -> str:
    return str(message.find("EventIdentification").get("EventOutcomeIndicator"))


def words(message: etree._Element) -> str:
    return message.findtext("EventIdentification/EventOutcomeDescription") or ""


def action(message: etree._Element) -> str:
    return str(message.find("EventIdentification").get("EventActionCode"))


def participant(message: etree._Element, role: str) -> etree._Element:
    """The active participant in a role (source, destination, application)."""
    (found,) = [
        element
        for element in message.findall("ActiveParticipant")
        if any(role in str(item.get("originalText")) for item in element.findall("RoleIDCode"))
    ]
    return found


def object_id(message: etree._Element, type_code: str) -> str:
    """The identifier of a participating object of a kind (110180 study, 2 patient, 110182 node)."""
    (found,) = [
        element
        for element in message.findall("ParticipantObjectIdentification")
        if element.find("ParticipantObjectIDTypeCode").get("csd-code") == type_code
    ]
    return str(found.get("ParticipantObjectID"))


def sop_classes(message: etree._Element) -> dict[str, int]:
    return {
        str(element.get("UID") or ""): int(str(element.get("NumberOfInstances")))
        for element in message.iter("SOPClass")
    }


def named(messages: Iterable[etree._Element], meaning: str) -> list[etree._Element]:
    """The messages of one kind of event."""
    return [message for message in messages if code(message) == meaning]
