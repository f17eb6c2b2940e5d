"""One object on its way to one destination, as the file in the outbox says it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields, replace

from m3node.delivery.state import DeliveryState
from m3node.errors import DeliveryError

SCHEMA = "m3node.delivery/1"

_TYPES: dict[str, tuple[type, ...]] = {
    "str": (str,),
    "int": (int,),
    "float": (int, float),
    "DeliveryState": (DeliveryState,),
}


@dataclass(frozen=True, slots=True)
class Entry:
    """An object and a destination.

    Attributes
    ----------
    name : str
        ``<run>.<kind>``: stem of the entry's file, and what makes queueing idempotent.
    destination : str
        Name of the destination in the settings.
    run : str
        The run that built the object, the name of its folder in ``results/``.
    kind : str
        Value of the object's `m3node.results.objects.ObjectKind`.
    order : int
        Place among the objects of its run: what others refer to goes first.
    path : str
        The object's file, relative to the data folder.
    sha256 : str
        Of that file; other bytes are never sent.
    queued_at : float
        Seconds since the epoch; equal for all objects of a run.
    attempts : int
        How often sending failed and may be tried again.
    not_before : float
        Seconds since the epoch before which it is not tried again.
    last_error : str
        What the last attempt ended with; in ``aside/`` the reason why it is there.
    finished_at : float
        When it was stored (or confirmed, where that is wanted), or set aside; 0 while it waits.
    state : DeliveryState
        Where it stands.
    priority : str
        ``routine`` or ``stat``, as the manifest has it.
    failing_since : float
        When the first of the failures in a row was; 0 without one.
    stored_at : float
        When the destination took it; 0 before.
    transaction_uid : str
        Of the storage commitment that was asked for (PS3.4 J.3.2); written down before it is asked.
    requested_at : float
        When it was asked for; 0 before.
    """

    name: str
    destination: str
    run: str
    kind: str
    order: int
    path: str
    sha256: str
    sop_class_uid: str
    sop_instance_uid: str
    study_instance_uid: str
    queued_at: float
    attempts: int = 0
    not_before: float = 0.0
    last_error: str = ""
    finished_at: float = 0.0
    state: DeliveryState = DeliveryState.WAITING
    priority: str = "routine"
    failing_since: float = 0.0
    stored_at: float = 0.0
    transaction_uid: str = ""
    requested_at: float = 0.0

    @property
    def turn(self) -> tuple[bool, float, str, int]:
        """What is urgent first, then the oldest run; within a run what others refer to first."""
        return self.priority != "stat", self.queued_at, self.run, self.order

    def tried(self, error: str, not_before: float) -> Entry:
        """Return the entry after an attempt that may be repeated."""
        return replace(self, attempts=self.attempts + 1, last_error=error, not_before=not_before)

    def finished(self, error: str, at: float) -> Entry:
        """Return the entry as it is filed in ``sent/`` (no error) or ``aside/``."""
        return replace(self, last_error=error, finished_at=at)


def to_json(entry: Entry) -> bytes:
    """Encode an entry, readable for a person."""
    return (json.dumps({"schema": SCHEMA, **asdict(entry)}, indent=1) + "\n").encode()


def from_json(content: bytes) -> Entry:
    """Decode an entry.

    Raises
    ------
    DeliveryError
        It is no entry of this schema.
    """
    try:
        tree = json.loads(content)
        if tree.pop("schema") != SCHEMA:
            raise ValueError("another schema")
        # An entry of an older release knows no states; where its file lies says the rest.
        tree["state"] = DeliveryState(tree.get("state", DeliveryState.WAITING))
        entry = Entry(**tree)
        for field in fields(Entry):
            if not isinstance(getattr(entry, field.name), _TYPES[str(field.type)]):
                raise TypeError(f"{field.name} is no {field.type}")
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise DeliveryError(f"not an entry of the outbox ({error})", retryable=False) from error
    return entry
