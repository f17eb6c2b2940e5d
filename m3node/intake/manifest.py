"""The manifest: one generation of one stack, immutable, from which everything later is derived."""

from __future__ import annotations

from dataclasses import dataclass

from m3node.intake.header import InstanceHeader


@dataclass(frozen=True, slots=True, order=True)
class StackKey:
    """Names a stack: a series, and which of its stacks.

    Attributes
    ----------
    series_instance_uid : str
        The series.
    stack : str
        Short hexadecimal digest of what sets this stack apart in its series (orientation, acquisition number,
        temporal position, kernel); empty when the series holds one stack.
    """

    series_instance_uid: str
    stack: str

    @property
    def label(self) -> str:
        """``<SeriesInstanceUID>[.stack]``, the name of the stack's result folder."""
        return f"{self.series_instance_uid}.{self.stack}" if self.stack else self.series_instance_uid


@dataclass(frozen=True, slots=True)
class SliceRef:
    """One slice of a stack: a frame of an instance.

    Attributes
    ----------
    instance : int
        Index into the manifest's ``instances``.
    frame : int
        Index into that instance's ``frames`` (from 0).
    """

    instance: int
    frame: int


@dataclass(frozen=True, slots=True)
class Manifest:
    """One generation of one stack (decision 5 of the design).

    Attributes
    ----------
    key : str
        SHA-256 over the stack's key and its slices' instance UIDs and digests in order: the idempotent job key.
    stack : StackKey
        Which stack.
    generation : int
        From 1; a late slice or a changed revision makes the next one.
    supersedes : str
        Key of the generation before, or empty.
    root : str
        Absolute path of the folder that the headers' paths are relative to.
    instances : tuple of InstanceHeader
        The stack's instances, each once, in slice order of their first frame.
    slices : tuple of SliceRef
        The slices in order along the stack's normal, lowest first.
    liver_segs : tuple of InstanceHeader
        Received SEG instances that reference this series, newest last.
    senders : tuple of str
        Calling AE titles that delivered the instances, sorted.
    priority : str
        ``routine`` or ``stat``; what sets it comes with the job engine.
    created_at : float
        Seconds since the epoch; no part of the key.
    """

    key: str
    stack: StackKey
    generation: int
    supersedes: str
    root: str
    instances: tuple[InstanceHeader, ...]
    slices: tuple[SliceRef, ...]
    liver_segs: tuple[InstanceHeader, ...]
    senders: tuple[str, ...]
    priority: str
    created_at: float

    @property
    def study_instance_uid(self) -> str:
        """The study of the stack."""
        return self.instances[0].study_instance_uid
