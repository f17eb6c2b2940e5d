"""Settings of what comes in: listener, completeness, eligibility, selection, the watched folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from m3node.settings.types import AETitle, Fraction, NotNegative, Pattern, Port, Positive, Section


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
    """

    ae_title: AETitle
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
    maximum_pdu_size : int
        Bytes; 128 KiB is what makes receiving fast.
    idle_seconds : float
        An association without traffic for so long is aborted.
    durable : bool
        fdatasync and folder fsync before 0x0000. False only for measuring.
    """

    ae_title: AETitle = "M3NODE"
    host: str = "127.0.0.1"
    port: Port = 11112
    callers: tuple[Caller, ...] = ()
    receivers: Annotated[int, Field(ge=1, le=64)] = 4
    max_associations: Annotated[int, Field(ge=1)] = 50
    maximum_pdu_size: Annotated[int, Field(ge=4096)] = 131072
    idle_seconds: Positive = 60.0
    durable: bool = True


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
