"""What the conformance statement says of the network: read from what the node negotiates, not from what it should."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

from pydicom.uid import UID
from pynetdicom import AE
from pynetdicom.presentation import PresentationContext

from documents.markers import table
from m3node.delivery import association, commitment_scu, echo
from m3node.delivery.address import Peer, Timeouts
from m3node.delivery.commitment import LINGER_SECONDS as REPORT_SECONDS
from m3node.delivery.courier import LINGER_SECONDS
from m3node.delivery.status import _MEANINGS as STORE_MEANINGS
from m3node.delivery.status import Verdict
from m3node.errors import DeliveryError
from m3node.intake.receive.contexts import COMPRESSED, SOP_CLASSES, UNCOMPRESSED, presentation_contexts
from m3node.intake.receive.receiver import application_entity
from m3node.results.objects import ObjectKind
from m3node.settings import DeliverySettings, ListenerSettings

ALL, PLAIN = {syntax.uid for syntax in UNCOMPRESSED + COMPRESSED}, {syntax.uid for syntax in UNCOMPRESSED}
_VERDICTS = {
    Verdict.STORED: "stored",
    Verdict.AGAIN: "sent again",
    Verdict.REFUSED: "set aside",
}


@dataclass(frozen=True)
class Created:
    """What is sent of one kind of object."""

    kind: ObjectKind
    sop_class: UID
    transfer_syntax: UID


def network_tables(created: list[Created]) -> dict[str, str]:
    """All tables of the sections on networking, by name."""
    return {
        "services": _services(created),
        "provider-contexts": _provider_contexts(),
        "transfer-syntaxes": _transfer_syntaxes(),
        "provider-defaults": _provider_defaults(),
        "user-contexts": _user_contexts(created),
        "user-defaults": _user_defaults(),
        "store-statuses": _store_statuses(),
        "action-statuses": _action_statuses(),
    }


def _services(created: list[Created]) -> str:
    user = {UID(context.abstract_syntax) for context in (*_asked_for_echo()[0], *_asked_for_commitment()[0])}
    user |= {item.sop_class for item in created}
    provider = {UID(sop.uid): sop.use for sop in SOP_CLASSES}
    rows = []
    for uid in sorted(user | provider.keys(), key=lambda uid: (uid.name != "Verification SOP Class", uid.name)):
        # Of Storage Commitment the listener takes reports: the peer is its provider there as well.
        taken = provider.get(uid, "")
        is_provider = "" if taken in ("", "reports taken") else "yes"
        rows.append((uid.name, f"`{uid}`", "yes" if uid in user else "", is_provider, taken))
    return table(("SOP class", "UID", "user (SCU)", "provider (SCP)", "what becomes of what is received"), rows)


def _provider_contexts() -> str:
    rows = []
    for context in presentation_contexts():
        uid = UID(context.abstract_syntax)
        role = "SCU, by role selection; the peer is the SCP" if context.scp_role else "SCP"
        rows.append((uid.name, f"`{uid}`", _syntaxes(context), role, "none"))
    return table(("abstract syntax", "UID", "transfer syntaxes", "role", "extended negotiation"), rows)


def _syntaxes(context: PresentationContext) -> str:
    offered = set(map(str, context.transfer_syntax))
    if offered == ALL:
        return f"all {len(ALL)} below"
    if offered == PLAIN:
        return f"the {len(PLAIN)} uncompressed ones below"
    return ", ".join(UID(uid).name for uid in context.transfer_syntax)


def _transfer_syntaxes() -> str:
    rows = [(item.name, f"`{item.uid}`", "yes", item.decoder) for item in UNCOMPRESSED]
    rows += [(item.name, f"`{item.uid}`", "", item.decoder) for item in COMPRESSED]
    return table(("transfer syntax", "UID", "uncompressed", "decoded by"), rows)


def _provider_defaults() -> str:
    listener = ListenerSettings()
    entity = application_entity(listener)
    return table(
        ("parameter", "set by", "default"),
        [
            ("AE title", "`listener.ae_title`", entity.ae_title),
            ("address", "`listener.host`", f"{listener.host} (this machine only)"),
            ("port", "`listener.port`", listener.port),
            ("who may call", "`listener.callers`", "nobody" if not listener.callers else "somebody"),
            ("largest PDU that is taken", "`listener.maximum_pdu_size`", f"{entity.maximum_pdu_size} bytes"),
            ("associations at once", "`listener.max_associations`", listener.max_associations),
            ("connections that have asked for nothing yet", "`listener.max_waiting`", listener.max_waiting),
            ("largest instance", "`listener.max_object_mb`", f"{listener.max_object_mb:g} MB"),
            (
                "instances a minute",
                "`listener.instances_per_minute`",
                listener.instances_per_minute or "as many as come",
            ),
            ("an idle association is aborted after", "`listener.idle_seconds`", f"{entity.network_timeout:g} s"),
            ("an association request has to come within", "`listener.request_seconds`", f"{entity.acse_timeout:g} s"),
            ("implementation class UID", "–", f"`{entity.implementation_class_uid}`"),
            ("implementation version name", "–", "`M3NODE_` and the version"),
            ("asynchronous operations", "–", "not negotiated: one at a time"),
        ],
    )


def _user_contexts(created: list[Created]) -> str:
    rows: list[tuple[str, ...]] = [
        (f"`{item.kind.file_name}`", item.sop_class.name, f"`{item.sop_class}`", item.transfer_syntax.name, "SCU")
        for item in created
    ]
    for what, contexts in (("`m3node echo`", _asked_for_echo()[0]), ("commitment", _asked_for_commitment()[0])):
        for context in contexts:
            uid, names = UID(context.abstract_syntax), [UID(syntax).name for syntax in context.transfer_syntax]
            rows.append((what, uid.name, f"`{uid}`", ", ".join(names), "SCU"))
    return table(("what for", "abstract syntax", "UID", "transfer syntaxes proposed", "role"), rows)


def _user_defaults() -> str:
    settings, entity = DeliverySettings(), _asked_for_echo()[1]
    return table(
        ("parameter", "set by", "default"),
        [
            ("calling AE title", "`delivery.calling_ae_title`", "that of the listener"),
            ("largest PDU that is taken", "–", f"{entity.maximum_pdu_size} bytes"),
            (
                "wait for a connection and its acceptance",
                "`delivery.connect_seconds`",
                f"{settings.connect_seconds:g} s",
            ),
            ("wait for each answer", "`delivery.response_seconds`", f"{settings.response_seconds:g} s"),
            ("associations at once to one destination", "–", 1),
            ("kept open behind the last object", "–", f"{LINGER_SECONDS:g} s"),
            ("kept open for a commitment report", "–", f"{REPORT_SECONDS:g} s"),
            (
                "first pause before trying again",
                "`delivery.retry_first_seconds`",
                f"{settings.retry_first_seconds:g} s",
            ),
            ("longest pause", "`delivery.retry_max_seconds`", f"{settings.retry_max_seconds:g} s"),
            ("given up after", "`delivery.give_up_hours`", f"{settings.give_up_hours:g} h (0: never)"),
            ("wait for a commitment report", "`delivery.commitment_seconds`", f"{settings.commitment_seconds:g} s"),
            ("implementation class UID", "–", f"`{entity.implementation_class_uid}`"),
            ("asynchronous operations", "–", "not negotiated: one at a time"),
        ],
    )


def _store_statuses() -> str:
    rows = [(words, f"`{_codes(first, last)}`", _VERDICTS[verdict]) for first, last, verdict, words in STORE_MEANINGS]
    return table(
        ("status of C-STORE", "code", "the object is"), [*rows, ("every other", "", _VERDICTS[Verdict.REFUSED])]
    )


def _action_statuses() -> str:
    meant = {"asked": "the report is awaited", "again": "asked again", "refused": "set aside"}
    rows = [(words, f"`{_codes(code, code)}`", meant[verdict]) for code, (verdict, words) in _action_meanings().items()]
    return table(("status of N-ACTION", "code", "what happens"), [*rows, ("every other", "", meant["refused"])])


def _action_meanings() -> dict[int, tuple[Any, str]]:
    return commitment_scu._MEANINGS


def _codes(first: int, last: int) -> str:
    code = f"{first:04X}"
    return "0x" + (code if first == last else code[: 4 - len(f"{last - first:X}")].ljust(4, "x"))


def _asked(ask: Callable[[], object]) -> tuple[list[PresentationContext], AE]:
    """What would be proposed, and by which application entity; nobody is connected to."""
    asked: list[tuple[list[PresentationContext], AE]] = []

    class Asking(association.Entity):
        def associate(self, *_: object, contexts: list[PresentationContext], **__: object) -> Any:
            asked.append((contexts, self))
            raise OSError("nothing is sent")

    with patch.object(association, "Entity", Asking):
        ask()
    return asked[0]


def _asked_for_echo() -> tuple[list[PresentationContext], AE]:
    def ask() -> None:
        try:
            echo.echo(Peer("PACS", "127.0.0.1", 104), "M3NODE", Timeouts())
        except DeliveryError:
            return

    return _asked(ask)


def _asked_for_commitment() -> tuple[list[PresentationContext], AE]:
    def ask() -> None:
        commitment_scu.request(
            Peer("PACS", "127.0.0.1", 104),
            "M3NODE",
            [],
            "1.2",
            Timeouts(),
            on_answer=lambda: None,
            on_report=lambda report: None,
            linger_seconds=0.0,
            arrived=lambda: True,
        )

    return _asked(ask)
