"""What all associations of a receiver process share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from pynetdicom.ae import ApplicationEntity

from m3node.audit.trail import AuditTrail
from m3node.intake.receive.admission import Admission
from m3node.intake.receive.association import OpenLease
from m3node.intake.receive.repeats import RepeatedLines
from m3node.intake.receive.spool import Spool


class LeaseKeeper(Protocol):
    """Opens and closes the leases that a process keeps alive."""

    def open_lease(self, *, calling: str, called: str, peer: str) -> OpenLease:
        """Begin a lease."""

    def close_lease(self, lease: OpenLease) -> None:
        """End a lease."""


@dataclass(frozen=True, slots=True)
class Shared:
    """What all associations of a process share.

    Attributes
    ----------
    ae : ApplicationEntity
        This node.
    admission : Admission
        Whom it admits, and for what.
    spool : Spool
        Where instances go.
    leases : LeaseKeeper
        Who keeps leases alive.
    lines : RepeatedLines
        The log of what peers can bring about as often as they like.
    trail : AuditTrail
        Hears who was refused.
    """

    ae: ApplicationEntity
    admission: Admission
    spool: Spool
    leases: LeaseKeeper
    lines: RepeatedLines
    trail: AuditTrail
