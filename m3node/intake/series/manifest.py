"""The manifest: one generation of one stack, immutable, from which everything later is derived."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from m3node.durable import write_once
from m3node.errors import M3NodeError
from m3node.intake.series.header import InstanceHeader
from m3node.intake.series.header_json import header_from_dict, header_to_dict

FORMAT = "m3node.manifest/1"


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
        SHA-256 over the stack's key, its slices' instance UIDs, digests and frames in order, and the SEGs: the
        idempotent job key (`manifest_key`).
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

    @property
    def file_name(self) -> str:
        """Name of the manifest's file: ``<label>.g<generation>.json``."""
        return f"{self.stack.label}.g{self.generation}.json"


class SortedStack(Protocol):
    """What a manifest is made from; `m3node.intake.series.stacks.Stack` is one."""

    @property
    def key(self) -> StackKey:
        """Which stack."""
        ...

    @property
    def instances(self) -> tuple[InstanceHeader, ...]:
        """Its instances."""
        ...

    @property
    def slices(self) -> tuple[SliceRef, ...]:
        """Its slices, sorted."""
        ...


def slices_digest(stack: StackKey, instances: Sequence[InstanceHeader], slices: Sequence[SliceRef]) -> str:
    """SHA-256 over a stack's key and its slices' instance UIDs, digests and frames in order.

    Generation, paths, senders and times have no part in it: the same slices always have the same digest.
    """
    digest = hashlib.sha256(f"{stack.series_instance_uid}\0{stack.stack}\0".encode())
    for ref in slices:
        instance = instances[ref.instance]
        digest.update(f"{instance.sop_instance_uid}\0{instance.sha256}\0{ref.frame}\0".encode())
    return digest.hexdigest()


def manifest_key(stack: SortedStack, liver_segs: Sequence[InstanceHeader] = ()) -> str:
    """SHA-256 over the slices' digest and the SEGs' digests: what a run looks at, and so its idempotent key."""
    slices = slices_digest(stack.key, stack.instances, stack.slices)
    segs = "".join(f"{seg.sop_instance_uid}\0{seg.sha256}\0" for seg in liver_segs)
    return hashlib.sha256(f"{slices}\0{segs}".encode()).hexdigest()


def make_manifest(
    stack: SortedStack,
    *,
    root: Path,
    generation: int = 1,
    supersedes: str = "",
    liver_segs: Sequence[InstanceHeader] = (),
    priority: str = "routine",
    created_at: float | None = None,
) -> Manifest:
    """Fix a stack as one generation.

    Parameters
    ----------
    stack : SortedStack
        Judged fit.
    root : Path
        Folder that the headers' paths are relative to.
    generation : int
        From 1.
    supersedes : str
        Key of the generation before, or empty.
    liver_segs : sequence of InstanceHeader
        SEGs that reference the series, newest last.
    priority : str
        ``routine`` or ``stat``.
    created_at : float, optional
        Seconds since the epoch; now when left out.
    """
    return Manifest(
        key=manifest_key(stack, liver_segs),
        stack=stack.key,
        generation=generation,
        supersedes=supersedes,
        root=str(root.resolve()),
        instances=tuple(stack.instances),
        slices=tuple(stack.slices),
        liver_segs=tuple(liver_segs),
        senders=tuple(sorted({instance.sender for instance in stack.instances if instance.sender})),
        priority=priority,
        created_at=time.time() if created_at is None else created_at,
    )


def write_manifest(manifest: Manifest, folder: Path) -> Path:
    """Write a manifest, durably and once.

    Parameters
    ----------
    manifest : Manifest
        What to write.
    folder : Path
        The data folder's ``manifests``.

    Returns
    -------
    Path
        ``<label>.g<generation>.json``.

    Raises
    ------
    M3NodeError
        A different generation lies there under the same name; it is immutable and stays.
    """
    path = folder / manifest.file_name
    tree = {
        "format": FORMAT,
        "key": manifest.key,
        "stack": [manifest.stack.series_instance_uid, manifest.stack.stack],
        "generation": manifest.generation,
        "supersedes": manifest.supersedes,
        "root": manifest.root,
        "instances": [header_to_dict(header) for header in manifest.instances],
        "slices": [[ref.instance, ref.frame] for ref in manifest.slices],
        "liver_segs": [header_to_dict(header) for header in manifest.liver_segs],
        "senders": list(manifest.senders),
        "priority": manifest.priority,
        "created_at": manifest.created_at,
    }
    content = json.dumps(tree, ensure_ascii=False, separators=(",", ":")).encode()
    if not write_once(path, content) and read_manifest(path).key != manifest.key:
        raise M3NodeError(
            f"{path.name} exists and lists other slices; a generation is never changed, make the next one"
        )
    return path


def read_manifest(path: Path) -> Manifest:
    """Read what `write_manifest` wrote.

    Raises
    ------
    M3NodeError
        The file is missing, or no manifest of this version.
    """
    try:
        tree = json.loads(path.read_bytes())
        if tree["format"] != FORMAT:
            raise M3NodeError(f"{path.name} has the format {tree['format']}; this version reads {FORMAT}")
        return Manifest(
            key=tree["key"],
            stack=StackKey(*tree["stack"]),
            generation=tree["generation"],
            supersedes=tree["supersedes"],
            root=tree["root"],
            instances=tuple(header_from_dict(header) for header in tree["instances"]),
            slices=tuple(SliceRef(*ref) for ref in tree["slices"]),
            liver_segs=tuple(header_from_dict(header) for header in tree["liver_segs"]),
            senders=tuple(tree["senders"]),
            priority=tree["priority"],
            created_at=tree["created_at"],
        )
    except OSError as error:
        raise M3NodeError(f"the manifest {path.name} cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise M3NodeError(f"{path.name} is not a manifest: {error}") from error
