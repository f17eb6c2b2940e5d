"""Sends files by hand: every DICOM file of a folder, each once, in the transfer syntax that it has."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydicom.uid import MediaStorageDirectoryStorage

from m3node.delivery.address import Peer, Timeouts
from m3node.delivery.status import Verdict
from m3node.delivery.store_scu import MAX_CONTEXTS, Sendable, Sent, StoreAssociation, Syntax, sendable
from m3node.errors import DeliveryError

Told = Callable[[int, int], None]
"""Called with (done, total) after each object."""


@dataclass(frozen=True, slots=True)
class Skipped:
    """A file that is not sent, and why."""

    path: Path
    reason: str


@dataclass(frozen=True, slots=True)
class Found:
    """What a folder holds: files to send by name, and the others."""

    items: tuple[Sendable, ...]
    skipped: tuple[Skipped, ...]


@dataclass(frozen=True, slots=True)
class Shipment:
    """What became of each object."""

    outcomes: tuple[tuple[Sendable, Sent], ...]

    @property
    def stored(self) -> int:
        """How many the peer has."""
        return sum(1 for _, sent in self.outcomes if sent.verdict is Verdict.STORED)

    @property
    def failed(self) -> tuple[tuple[Sendable, Sent], ...]:
        """Those that it has not, or not for certain."""
        return tuple((item, sent) for item, sent in self.outcomes if sent.verdict is not Verdict.STORED)


def find_sendable(path: Path) -> Found:
    """Look through a file or a folder, with all folders below it.

    Raises
    ------
    DeliveryError
        There is no such file or folder.
    """
    if not path.exists():
        raise DeliveryError(f"{path} does not exist", retryable=False)
    files = [path] if path.is_file() else sorted(item for item in path.rglob("*") if item.is_file())
    items: list[Sendable] = []
    skipped: list[Skipped] = []
    for file in files:
        try:
            item = sendable(file)
        except DeliveryError as error:
            skipped.append(Skipped(file, str(error)))
            continue
        if item.syntax.sop_class_uid == MediaStorageDirectoryStorage:
            skipped.append(Skipped(file, "a DICOMDIR: it lists files and is not sent"))
        else:
            items.append(item)
    return Found(items=tuple(items), skipped=tuple(skipped))


def send(
    items: Sequence[Sendable],
    peer: Peer,
    calling_ae_title: str,
    timeouts: Timeouts,
    told: Told = lambda done, total: None,
) -> Shipment:
    """Send objects, each once, over as few associations as the peer allows.

    An association that is lost costs the object that was on its way; the others go over a new one.

    Raises
    ------
    DeliveryError
        There was never an association.
    """
    outcomes: list[tuple[Sendable, Sent]] = []
    for batch in _batches(items):
        rest = list(batch)
        while rest:
            try:
                with StoreAssociation(peer, calling_ae_title, (item.syntax for item in rest), timeouts) as association:
                    while rest:
                        item = rest.pop(0)
                        sent = association.send(item)
                        outcomes.append((item, sent))
                        told(len(outcomes), len(items))
                        if sent.verdict is Verdict.AGAIN and not association.is_open:
                            break
            except DeliveryError as error:
                if not outcomes:
                    raise
                outcomes.extend((item, Sent(Verdict.AGAIN, None, str(error))) for item in rest)
                told(len(outcomes), len(items))
                rest.clear()
    return Shipment(tuple(outcomes))


def _batches(items: Sequence[Sendable]) -> Iterator[tuple[Sendable, ...]]:
    """Cut where one association would need more presentation contexts than there are."""
    batch: list[Sendable] = []
    syntaxes: set[Syntax] = set()
    for item in items:
        if item.syntax not in syntaxes and len(syntaxes) == MAX_CONTEXTS:
            yield tuple(batch)
            batch, syntaxes = [], set()
        syntaxes.add(item.syntax)
        batch.append(item)
    if batch:
        yield tuple(batch)
