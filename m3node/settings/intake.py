"""Settings of what comes in: listener, completeness, eligibility, selection, the watched folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from m3node.settings.tls import ListenerTls
from m3node.settings.types import (
    AETitle,
    Fingerprint,
    Fraction,
    Network,
    NotNegative,
    Pattern,
    Port,
    Positive,
    Section,
)

PduSize = Annotated[int, Field(ge=4096, le=16 * 1024 * 1024)]


class Caller(Section):
    """An AE title that may open associations.

    Attributes
    ----------
    quiet_seconds : float or None
        Overrides ``completeness.quiet_seconds`` for stacks from this sender.
    wait_for_seg_seconds : float
        How long a complete stack from this sender waits for a SEG with a liver.
    stat : bool
        Whether everything that it sends is urgent.
    return_to : str
        Destination that gets the results of what it sent, besides those that ``routing`` names; empty for none.
    addresses : tuple of network
        Where it may call from; anywhere when empty.
    tls : bool
        Whether it is refused on the plain port.
    certificate_sha256 : tuple of str
        Fingerprints of the certificates that it may show, besides being vouched for; it has to come over TLS then. Any
        certificate that ``listener.tls.ca_file`` vouches for when empty.
    max_associations, instances_per_minute, max_object_mb, maximum_pdu_size, idle_seconds
        Its own limits, within those of the listener; the listener's when not set.
    """

    ae_title: AETitle
    addresses: tuple[Network, ...] = ()
    tls: bool = False
    certificate_sha256: tuple[Fingerprint, ...] = ()
    max_associations: Annotated[int, Field(ge=1)] | None = None
    instances_per_minute: Annotated[int, Field(ge=1)] | None = None
    max_object_mb: Positive | None = None
    maximum_pdu_size: PduSize | None = None
    idle_seconds: Positive | None = None
    quiet_seconds: Positive | None = None
    wait_for_seg_seconds: NotNegative = 0.0
    stat: bool = False
    return_to: str = ""


class ListenerSettings(Section):
    """The C-STORE listener.

    Attributes
    ----------
    host : str
        Address to bind; the default is reached from this machine only.
    callers : tuple of Caller
        Who may call; nobody by default.
    receivers : int
        Receiver processes.
    max_associations : int
        Open associations in all; one more is rejected as transient.
    max_waiting : int
        Connections in all that have not asked for an association yet; when one more comes, the oldest from the address
        that has most of them is closed.
    request_seconds : float
        How long a connection has to ask for an association (ARTIM, PS3.8 9.1.5).
    instances_per_minute : int
        Taken in from all callers; beyond it they are slowed down, and answered 0xA700 when that is not enough. 0: as
        many as come.
    max_object_mb : float
        A larger instance is answered 0xA700, in MB (10^6 bytes).
    maximum_pdu_size : int
        Bytes; 128 KiB is what makes receiving fast.
    idle_seconds : float
        An association without traffic for so long is aborted.
    plain : bool
        Whether ``port`` is listened on; false leaves the port of ``tls`` alone.
    tls : ListenerTls
        The port for DICOM over TLS.
    durable : bool
        fdatasync and folder fsync before 0x0000. False only for measuring.
    """

    ae_title: AETitle = "M3NODE"
    host: str = "127.0.0.1"
    port: Port = 11112
    callers: tuple[Caller, ...] = ()
    receivers: Annotated[int, Field(ge=1, le=64)] = 4
    max_associations: Annotated[int, Field(ge=1)] = 50
    max_waiting: Annotated[int, Field(ge=1, le=10_000)] = 250
    request_seconds: Positive = 30.0
    instances_per_minute: Annotated[int, Field(ge=0)] = 0
    max_object_mb: Positive = 2_000.0
    maximum_pdu_size: PduSize = 131072
    idle_seconds: Positive = 60.0
    durable: bool = True
    plain: bool = True
    tls: ListenerTls = ListenerTls()

    @model_validator(mode="after")
    def _reachable(self) -> Self:
        if self.tls.certificate_file is None:
            if not self.plain:
                raise ValueError("listener.plain = false needs listener.tls.certificate_file")
            for caller in self.callers:
                if caller.tls or caller.certificate_sha256:
                    raise ValueError(f"caller {caller.ae_title} needs TLS: set listener.tls.certificate_file")
        elif self.plain and self.port and self.port == self.tls.port:
            raise ValueError("listener.port and listener.tls.port are the same")
        elif self.tls.client_certificates == "none":
            for caller in self.callers:
                if caller.certificate_sha256:
                    raise ValueError(
                        f"caller {caller.ae_title} has certificate_sha256, which needs "
                        'listener.tls.client_certificates = "required"'
                    )
        return self


class CompletenessSettings(Section):
    """When a stack is complete."""

    quiet_seconds: Positive = 10.0
    late_seg_makes_generation: bool = False


class EligibilitySettings(Section):
    """What geometry is fit for the method."""

    min_slices: Annotated[int, Field(ge=1)] = 8
    max_normal_angle_degrees: Positive = 5.0
    max_stacking_angle_degrees: Positive = 1.0
    spacing_tolerance: Fraction = 0.05


class SelectionRule(Section):
    """Accepts or refuses stacks; the first rule that matches decides, and without a match a stack is accepted.

    Attributes
    ----------
    kernel, description, sender : str
        Regular expressions, searched without regard to case; empty matches everything.
    min_thickness_mm, max_thickness_mm : float or None
        Bounds on the slice thickness.
    """

    action: Literal["accept", "refuse"]
    kernel: Pattern = ""
    description: Pattern = ""
    sender: Pattern = ""
    min_thickness_mm: Positive | None = None
    max_thickness_mm: Positive | None = None


class SelectionSettings(Section):
    """Which of the fit stacks are processed."""

    rules: tuple[SelectionRule, ...] = ()
    unmatched: Literal["accept", "refuse"] = "accept"


class PriorityRule(Section):
    """Makes a stack urgent (STAT) when every pattern is found; an empty one matches everything.

    Attributes
    ----------
    description, protocol, sender : str
        Regular expressions, searched without regard to case.
    """

    description: Pattern = ""
    protocol: Pattern = ""
    sender: Pattern = ""


class WatchSettings(Section):
    """The watched folder.

    Attributes
    ----------
    folder : Path or None
        What is dropped here is processed; off when not set.
    out : Path or None
        Where results appear; needed with ``folder``.
    settle_seconds : float
        An entry is taken when it has not changed for so long (NFS and SMB send no events).
    """

    folder: Path | None = None
    out: Path | None = None
    settle_seconds: Positive = 5.0
    max_unpacked_bytes: Annotated[int, Field(gt=0)] = 20 * 1024**3
    max_members: Annotated[int, Field(gt=0)] = 100_000
