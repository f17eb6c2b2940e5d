"""Every event becomes a message that is valid by the standard's schema, whatever a peer calls itself."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lxml import etree
from pydicom.sr._concepts_dict import concepts

import audited
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
from m3node.audit.messages import MAX_TEXT, Reporter, clean, encoded, instant

REPORTER = Reporter(ae_title="M3NODE", host="ct-node", site="Radiology", process="keeper", pid=4711, log="file:///a")
CT = "1.2.840.10008.5.1.4.1.1.2"
SCANNER = Node("CT1", "10.1.2.3")

texts = st.text(st.characters(), max_size=40)  # surrogates and controls too
nodes = st.builds(Node, texts, texts | st.ip_addresses().map(str))
events: st.SearchStrategy[Event] = st.one_of(
    st.builds(ApplicationActivity, st.booleans(), texts),
    st.builds(
        InstancesTransferred,
        st.sampled_from(["in", "out"]),
        nodes,
        texts,
        texts,
        st.dictionaries(texts, st.integers(1, 5000), max_size=4),
        texts,
        st.sampled_from(["unknown", "new", "held", "other"]),
    ),
    st.builds(
        SecurityAlert,
        st.sampled_from(["node authentication", "limit", "user authentication", "configuration"]),
        nodes,
        texts,
    ),
    st.builds(AuditLogUsed, texts),
    st.builds(UserAuthentication, texts, texts, st.sampled_from(["login", "logout"]), st.booleans()),
    st.builds(InstancesAccessed, texts, texts, texts, texts, st.sampled_from(["read", "execute"])),
)


def built(event: Event, again: int = 0) -> etree._Element:
    line = encoded(event, REPORTER, 1_700_000_000.25, again=again)
    assert audited.faults(line) == []
    return etree.fromstring(line)


@given(events, st.floats(0, 4e9), st.integers(0, 10**6))
def test_every_message_is_valid_and_one_line_whatever_it_says(event: Event, at: float, again: int) -> None:
    line = encoded(event, REPORTER, at, again=again)
    assert audited.faults(line) == []
    assert len(line.decode("utf-8").splitlines()) == 1


@pytest.mark.parametrize(
    ("good", "bad"),
    [
        (b'EventOutcomeIndicator="0"', b'EventOutcomeIndicator="1"'),
        (b' EventDateTime="2023-11-14T22:13:20.250Z"', b' EventDateTime="yesterday"'),
        (b'EventActionCode="C"', b'EventActionCode="X"'),
        (b'UserID="CT1"', b""),
        (b'UserIsRequestor="true"', b'UserIsRequestor="perhaps"'),
        (b'NumberOfInstances="3"', b'NumberOfInstances="three"'),
        (b'ParticipantObjectTypeCodeRole="3"', b'ParticipantObjectTypeCodeRole="27"'),
        (b"<ParticipantObjectName />", b""),
        (b"<AuditMessage>", b"<AuditMessage><ActiveParticipant UserID='a' UserIsRequestor='true' />"),
        (b"csd-code", b"code"),
    ],
)
def test_the_schema_finds_a_planted_fault(good: bytes, bad: bytes) -> None:
    event = InstancesTransferred("in", SCANNER, "1.2.3", "4711", {CT: 3}, receiver="new")
    line = encoded(event, REPORTER, 1_700_000_000.25)
    assert audited.faults(line) == []
    assert good in line
    assert audited.faults(line.replace(good, bad, 1))


def test_the_schema_wants_a_source_and_a_participant() -> None:
    message = built(ApplicationActivity(started=True))
    for tag in ("ActiveParticipant", "AuditSourceIdentification", "EventIdentification"):
        other = etree.fromstring(etree.tostring(message))
        other.remove(other.find(tag))
        assert audited.faults(etree.tostring(other)), tag


def test_codes_are_those_of_the_standard() -> None:
    standard = {value: meaning for names in concepts["DCM"].values() for value, (meaning, _) in names.items()}
    ours = [item for item in [*vars(codes).values(), *codes.ALERTS.values()] if isinstance(item, Code)]
    assert len(ours) >= 18
    assert [item for item in ours if item.system == "DCM" and standard[item.value] != item.meaning] == []


def test_a_transfer_in_names_who_what_and_whose() -> None:
    message = built(InstancesTransferred("in", SCANNER, "1.2.3", "4711", {CT: 3, "1.2.9": 1}, receiver="new"))
    assert (audited.code(message), audited.action(message), audited.outcome(message)) == (
        "DICOM Instances Transferred",
        "C",
        "0",
    )
    source = audited.participant(message, "Source")
    assert (source.get("UserID"), source.get("AlternativeUserID"), source.get("UserIsRequestor")) == (
        "CT1",
        "AETITLES=CT1",
        "true",
    )
    assert (source.get("NetworkAccessPointID"), source.get("NetworkAccessPointTypeCode")) == ("10.1.2.3", "2")
    ours = audited.participant(message, "Destination")
    assert (ours.get("UserID"), ours.get("AlternativeUserID"), ours.get("NetworkAccessPointTypeCode")) == (
        "4711",
        "AETITLES=M3NODE",
        "1",
    )
    assert (audited.object_id(message, "110180"), audited.object_id(message, "2")) == ("1.2.3", "4711")
    assert audited.sop_classes(message) == {CT: 3, "1.2.9": 1}
    origin = message.find("AuditSourceIdentification")
    assert (origin.get("AuditSourceID"), origin.get("AuditEnterpriseSiteID")) == ("M3NODE@ct-node", "Radiology")


@pytest.mark.parametrize(("receiver", "code"), [("new", "C"), ("held", "R"), ("other", "U"), ("unknown", "R")])
def test_the_action_says_what_the_receiver_had_before(receiver: str, code: str) -> None:
    event = InstancesTransferred("in", SCANNER, "1.2.3", "", {CT: 1}, receiver=receiver)  # type: ignore[arg-type]
    assert audited.action(built(event)) == code


def test_a_transfer_out_that_failed_for_good_is_a_serious_failure_with_its_reason() -> None:
    service = Node("", "https://pacs.example/dicom-web")
    message = built(InstancesTransferred("out", service, "1.2.3", "4711", {CT: 1}, failed="refused: 0xA700"))
    assert (audited.outcome(message), audited.words(message)) == ("8", "refused: 0xA700")
    assert audited.participant(message, "Source").get("UserID") == "4711"
    destination = audited.participant(message, "Destination")
    assert (destination.get("UserID"), destination.get("AlternativeUserID")) == (service.address, None)
    assert destination.get("NetworkAccessPointTypeCode") == "5"


def test_instances_whose_class_nobody_knows_are_counted_without_one() -> None:
    message = built(InstancesTransferred("in", SCANNER, "1.2.3", "", {"": 2}))
    assert audited.sop_classes(message) == {"": 2}
    assert message.find(".//SOPClass").get("UID") is None


@pytest.mark.parametrize(
    ("kind", "type_code", "outcome"),
    [
        ("node authentication", "Node Authentication", "8"),
        ("limit", "Use of Restricted Function", "4"),
        ("user authentication", "Use of Restricted Function", "8"),
        ("configuration", "Security Configuration", "4"),
    ],
)
def test_an_alert_says_who_and_why(kind: str, type_code: str, outcome: str) -> None:
    message = built(SecurityAlert(kind, SCANNER, "not known"))  # type: ignore[arg-type]
    assert (audited.code(message, "EventTypeCode"), audited.outcome(message)) == (type_code, outcome)
    assert audited.words(message) == f"{kind}: not known"
    assert audited.object_id(message, "110182") == "CT1@10.1.2.3"
    assert base64.b64decode(message.find(".//ParticipantObjectDetail").get("value")) == b"not known"


def test_an_alert_that_came_again_says_how_often() -> None:
    message = built(SecurityAlert("limit", SCANNER, "too many"), again=41)
    assert audited.words(message) == "limit: too many (41 times more)"


def test_start_and_stop_name_the_node_as_the_application() -> None:
    start, stop = built(ApplicationActivity(started=True)), built(ApplicationActivity(started=False))
    assert [audited.code(message, "EventTypeCode") for message in (start, stop)] == [
        "Application Start",
        "Application Stop",
    ]
    assert audited.participant(start, "Application").get("AlternativeUserID") == "AETITLES=M3NODE"
    assert audited.outcome(built(ApplicationActivity(started=False, outcome="killed"))) == "8"


def test_reading_the_trail_names_reader_and_trail() -> None:
    message = built(AuditLogUsed("root"))
    assert message.find("ActiveParticipant").get("UserID") == "root"
    assert audited.object_id(message, "12") == "file:///a"
    assert message.findtext(".//ParticipantObjectName") == "Security Audit Log"


def test_signing_in_and_looking_name_the_person() -> None:
    failed = built(UserAuthentication("admin", "::1", "login", success=False))
    assert (audited.code(failed, "EventTypeCode"), audited.outcome(failed)) == ("Login", "4")
    assert failed.find("ActiveParticipant").get("NetworkAccessPointTypeCode") == "2"
    looked = built(InstancesAccessed("admin", "10.0.0.9", "1.2.3", "4711"))
    assert (audited.action(looked), audited.object_id(looked, "2")) == ("R", "4711")
    assert audited.action(built(InstancesAccessed("admin", "10.0.0.9", "1.2.3", "4711", "execute"))) == "U"


def test_times_are_utc_to_the_millisecond() -> None:
    assert instant(0.9996) == "1970-01-01T00:00:01.000Z"
    assert instant(1_700_000_000.25) == "2023-11-14T22:13:20.250Z"


@given(texts)
def test_what_is_fit_stays_as_it_is(text: str) -> None:
    assert len(clean(text)) == len(text)
    assert all(new in (old, "\ufffd") for old, new in zip(text, clean(text), strict=True))
    assert clean("Ünïcode ☃ <&>\"'") == "Ünïcode ☃ <&>\"'"


def test_long_values_are_cut() -> None:
    assert len(clean("x" * 10 * MAX_TEXT)) == MAX_TEXT
