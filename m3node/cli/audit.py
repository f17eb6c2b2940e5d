"""``m3node audit``: the audit trail as a table, or as JSON; looking at it is audited."""

from __future__ import annotations

import argparse
import json
import os
import pwd
import sys
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from m3node.cli.options import add_config, add_data_dir, load_settings, text_epilog

if TYPE_CHECKING:
    from m3node.audit.reading import Participant, Record
    from m3node.settings import Settings

EVENTS = {
    "application-activity": "Application Activity",
    "instances-transferred": "DICOM Instances Transferred",
    "instances-accessed": "DICOM Instances Accessed",
    "security-alert": "Security Alert",
    "user-authentication": "User Authentication",
    "audit-log-used": "Audit Log Used",
}
"""What ``--event`` takes, and what the standard calls it (PS3.15 A.5.3)."""

_LINE = "{:<23}  {:<34}  {:<36}  {}"


def add_parser(subparsers: Any) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "audit",
        help="show the audit trail: who sent, got, looked at or was refused what",
        description="Shows the audit trail, oldest first. Only the owner of its files can read it, and each look is "
        "recorded in it. Exit status: 0, 1 when it cannot be read, 2 on wrong usage or settings.",
        epilog=text_epilog(
            "m3node audit --since 2026-11-22 --config /etc/m3node.toml",
            "m3node audit --event security-alert --since 2026-11-01 --until 2026-11-30",
            "m3node audit --study 1.2.826.0.1.3680043.8.498.1 --json | jq .participants",
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_config(parser)
    add_data_dir(parser)
    parser.add_argument("--since", type=_begin, metavar="TIME", help="from then on: a date, or 2026-11-22T10:30; UTC")
    parser.add_argument("--until", type=_end, metavar="TIME", help="up to then; a date's whole day counts")
    parser.add_argument("--event", choices=tuple(EVENTS), help="only events of a kind")
    parser.add_argument("--study", metavar="UID", help="only what is about the study of this Study Instance UID")
    parser.add_argument(
        "--json", action="store_true", help="print a JSON object for each event, a line each, with the patient's ID"
    )
    parser.set_defaults(handler=run)


def run(arguments: argparse.Namespace) -> int:
    """Carry the command out.

    Raises
    ------
    TrailError
        There is no trail, or this user may not read it.
    """
    from m3node.audit.events import AuditLogUsed  # noqa: PLC0415 - keeps --help and --version quick
    from m3node.audit.reading import readable  # noqa: PLC0415
    from m3node.audit.trail import AuditTrail  # noqa: PLC0415

    settings = load_settings(arguments)
    readable(settings)
    trail = AuditTrail(settings, process="audit")
    trail.record(AuditLogUsed(_user()))
    trail.close()
    if not arguments.json:
        print(_LINE.format("TIME (UTC)", "EVENT", "WHO", "WHAT"))
    for record in _chosen(settings, arguments):
        print(json.dumps(_to_json(record)) if arguments.json else _line(record))
    return 0


def _chosen(settings: Settings, arguments: argparse.Namespace) -> Iterator[Record]:
    from m3node.audit.reading import readable, records  # noqa: PLC0415

    broken = 0
    for path in readable(settings):
        for record in records(path):
            if record is None:
                broken += 1
            elif _wanted(record, arguments):
                yield record
    if broken:
        print(f"m3node: {broken} lines are no whole message and are left out", file=sys.stderr)


def _wanted(record: Record, arguments: argparse.Namespace) -> bool:
    return (
        (arguments.since is None or record.at >= arguments.since)
        and (arguments.until is None or record.at < arguments.until)
        and (arguments.event is None or record.event == EVENTS[arguments.event])
        and (arguments.study is None or record.study_instance_uid == arguments.study)
    )


def _to_json(record: Record) -> dict[str, Any]:
    return {**asdict(record), "at": record.at.isoformat(timespec="milliseconds")}


def _line(record: Record) -> str:
    at = record.at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]
    event = f"{record.event}: {record.type}" if record.type else record.event
    line = _LINE.format(at, event, _who(record), "; ".join(_what(record)))
    # What stands in the file was cleaned when it was written; but a terminal obeys more than a file.
    return "".join(character if character.isprintable() else "?" for character in line).rstrip()


def _who(record: Record) -> str:
    """Name who began it, or who was refused, and whom it was for."""
    if record.event == EVENTS["security-alert"]:
        others = [item for item in record.participants if not item.requestor]
        return _name(others[0]) if others else "-"
    begun = [item for item in record.participants if item.requestor] or list(record.participants)
    if record.event == EVENTS["instances-transferred"]:
        begun += [item for item in record.participants if not item.requestor]
    return " > ".join(_name(item) for item in begun)


def _name(participant: Participant) -> str:
    if participant.name:  # a process of ours
        return f"{participant.ae_title} ({participant.name})"
    who = participant.ae_title or participant.user
    return f"{who}@{participant.address}" if participant.address not in ("", who) else who


def _what(record: Record) -> Iterator[str]:
    if record.outcome != "success":
        yield record.outcome
    if record.description:
        yield record.description
    if record.study_instance_uid:
        yield f"study {record.study_instance_uid}"
    if count := sum(record.sop_classes.values()):
        yield f"{count} instance{'s' if count > 1 else ''}"


def _begin(text: str) -> datetime:
    try:
        at = datetime.fromisoformat(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no time; write 2026-11-22 or 2026-11-22T10:30") from error
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def _end(text: str) -> datetime:
    at = _begin(text)
    return at + timedelta(days=1) if len(text) == len("2026-11-22") else at


def _user() -> str:
    """Name who looks, and who that is behind ``sudo``."""
    try:
        user = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # a user of a container, which no file knows
        user = str(os.getuid())
    behind = os.environ.get("SUDO_USER", "")
    return f"{user} (sudo of {behind})" if behind else user
