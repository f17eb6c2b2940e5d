"""Answers a complete series: each of its stacks gets a manifest or a recorded reason, once for each generation."""

from __future__ import annotations

import datetime as dt
import hashlib
import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from pydicom.uid import UID

from m3node.intake.keeper.generations import Answer, Next, contents, next_generation, read_answers
from m3node.intake.keeper.index import (
    Index,
    RejectedGeneration,
    SeriesRecord,
    Settled,
    apply,
    content_line,
    rejected_line,
)
from m3node.intake.keeper.revisions import choose
from m3node.intake.keeper.urgency import ROUTINE, STAT, is_urgent
from m3node.intake.series import sop_classes
from m3node.intake.series.eligibility import judge
from m3node.intake.series.header import InstanceHeader
from m3node.intake.series.manifest import StackKey, make_manifest, slices_digest, write_manifest
from m3node.intake.series.seg_reference import read_seg_reference
from m3node.intake.series.selection import select
from m3node.intake.series.stacks import Stack, group_stacks
from m3node.layout import DataLayout
from m3node.rejection import Reason, Rejection
from m3node.settings import Settings

_log = logging.getLogger(__name__)

Record = Callable[[StackKey, int, str, Rejection], object]
"""Records why a stack (with its generation) or instances of a series (generation 0) get no results."""

Content = Callable[[Path], str]
"""Digest of a file's decoded pixels, geometry and identity; raises ``InputRejected``."""


class Answering:
    """Writes manifests and reasons for one data folder.

    Parameters
    ----------
    layout : DataLayout
        The data folder.
    settings : Settings
        ``eligibility``, ``selection`` and ``completeness`` count.
    index : Index
        Gets what was not fit, and the content digests of revisions.
    record, content_digest : callable
        Come from later stages, which intake does not know.
    """

    def __init__(
        self,
        layout: DataLayout,
        settings: Settings,
        index: Index,
        *,
        record: Record,
        content_digest: Content,
    ) -> None:
        self._layout = layout
        self._settings = settings
        self._index = index
        self._record = record
        self._content_digest = content_digest

    def answer(self, series: str, record: SeriesRecord) -> Settled:
        """Answer a complete series; what is answered already stays as it is.

        Returns
        -------
        Settled
            For the index, which the caller tells.

        Raises
        ------
        OSError
            The disk refuses; calling again later goes on where this ended.
        """
        chosen = choose(record.headers.values(), lambda header: self._content(series, record, header))
        self._refuse(series, (*record.refused.values(), *chosen.undecodable))
        used = self._without_late(series, record, chosen.used)
        images = [header for header in used if header.sop_class_uid in sop_classes.CT]
        stacks = group_stacks(images)
        stacked = {header.sop_instance_uid for stack in stacks for header in stack.instances}
        self._refuse(series, self._unused(header for header in used if header.sop_instance_uid not in stacked))
        # A SEG whose file was removed since is no input any more.
        segs = _newest(seg for seg in record.segs.values() if (self._layout.spool / seg.path).exists())
        answers = read_answers(self._layout.manifests, series, record.rejected)
        present = [stack.key for stack in stacks]
        unfit = False
        for stack in stacks:
            wanted = _wanted(stack, segs)
            following = next_generation(
                wanted,
                answers,
                present,
                segs_count=self._settings.completeness.late_seg_makes_generation,
            )
            if following is None:
                _log.info("stack %s: nothing new", stack.key.label)
            elif (rejection := self._judge(stack)) is None:
                self._make(stack, self._not_taken(stack, following), segs, asked=record.urgent)
            else:
                unfit = True
                if not following.judged:
                    self._reject(stack, following, rejection, record)
        return Settled(record.files, unfit, purged=bool(record.purged))

    def fail(self, series: str, what: str) -> None:
        """Record that a series could not be judged, for no fault of its own."""
        message = f"series {series} could not be judged, for no fault of its own: {what}; it is kept"
        self._refuse(series, [Rejection(Reason.FAILED, message, series)])

    def _without_late(
        self, series: str, record: SeriesRecord, headers: Sequence[InstanceHeader]
    ) -> Sequence[InstanceHeader]:
        """Set images apart that came when the earlier ones of their series were removed: a part is not analysed."""
        if not any(header.sop_class_uid in sop_classes.CT for header in record.purged.values()):
            return headers
        late = [header for header in headers if header.sop_class_uid in sop_classes.CT]
        if late:
            day = dt.datetime.fromtimestamp(record.purged_at).astimezone().date().isoformat()
            message = (
                f"series {series}: {len(late)} slices came after its earlier slices were purged ({day}), and a part of "
                "a series is not analysed; the earlier results stay. Send the whole series under a new Series "
                "Instance UID to have it analysed"
            )
            digest = hashlib.sha256("\0".join(sorted(contents(late))).encode()).hexdigest()
            self._record(StackKey(series, ""), 0, digest, Rejection(Reason.EARLIER_PURGED, message, series))
        return [header for header in headers if header.sop_class_uid not in sop_classes.CT]

    def _judge(self, stack: Stack) -> Rejection | None:
        return judge(stack, self._settings.eligibility) or select(stack, self._settings.selection)

    def _not_taken(self, stack: Stack, following: Next) -> Next:
        """Pass over numbers under which a reason is recorded that the index has lost, in a power cut for example.

        It lies where the run's findings would, and the run would end with it.
        """
        generation = following.generation
        while _holds_reason(self._layout.results / f"{stack.key.label}.g{generation}"):
            generation += 1
        return replace(following, generation=generation)

    def _reject(self, stack: Stack, following: Next, rejection: Rejection, record: SeriesRecord) -> None:
        slices = _slices(stack)
        self._record(stack.key, following.generation, slices, rejection)
        fact = rejected_line(RejectedGeneration(stack.key.stack, following.generation, slices))
        self._index.append(stack.key.series_instance_uid, [fact])
        apply(record, fact)

    def _make(self, stack: Stack, following: Next, segs: Sequence[InstanceHeader], *, asked: bool) -> None:
        urgent = is_urgent(stack.instances, self._settings, asked=asked)
        manifest = make_manifest(
            stack,
            root=self._layout.spool,
            generation=following.generation,
            supersedes=following.supersedes,
            liver_segs=segs,
            priority=STAT if urgent else ROUTINE,
        )
        path = write_manifest(manifest, self._layout.manifests)
        slices, stat = len(stack.slices), ", urgent" if urgent else ""
        _log.info("manifest %s: %d slices, %d SEGs with a liver%s", path.stem, slices, len(segs), stat)

    def _content(self, series: str, record: SeriesRecord, header: InstanceHeader) -> str:
        digest = record.contents.get(header.path)
        if digest is None:
            digest = self._content_digest(self._layout.spool / header.path)
            fact = content_line(header.path, digest)
            self._index.append(series, [fact])
            apply(record, fact)
        return digest

    def _unused(self, headers: Iterable[InstanceHeader]) -> list[Rejection]:
        """Say why instances that are in no stack are not used; SEGs with a liver are."""
        unused: list[Rejection] = []
        for header in headers:
            uid = header.sop_instance_uid
            if header.sop_class_uid in sop_classes.CT:
                message = f"instance {uid} holds no frame whose geometry can be read; send it again"
                unused.append(Rejection(Reason.MISSING_GEOMETRY, message, uid))
            elif header.sop_class_uid == sop_classes.SEGMENTATION:
                reference = read_seg_reference(self._layout.spool / header.path)
                if not reference.liver or not reference.series:
                    message = f"SEG {uid} has no liver segment (SCT 10200004 or SRT T-62000) on a named series"
                    unused.append(Rejection(Reason.NOT_CT, message, uid))
            else:
                name = UID(header.sop_class_uid).name
                unused.append(Rejection(Reason.NOT_CT, f"instance {uid} is no CT image but {name}", uid))
        return unused

    def _refuse(self, series: str, rejections: Iterable[Rejection]) -> None:
        """Record what is no stack, once for each reason of a series."""
        by_reason: dict[Reason, list[Rejection]] = defaultdict(list)
        for rejection in rejections:
            by_reason[rejection.reason].append(rejection)
        for reason, group in by_reason.items():
            more = f" (and {len(group) - 1} more instances of series {series})" if len(group) > 1 else ""
            digest = hashlib.sha256(f"{series}\0{reason.value}".encode()).hexdigest()
            rejection = Rejection(reason, f"{group[0].message}{more}", series)
            self._record(StackKey(series, ""), 0, digest, rejection)


def _holds_reason(folder: Path) -> bool:
    return (folder / "findings.json").exists() and not (folder / "run.json").exists()


def _slices(stack: Stack) -> str:
    return slices_digest(stack.key, stack.instances, stack.slices)


def _wanted(stack: Stack, segs: Iterable[InstanceHeader]) -> Answer:
    return Answer(
        stack=stack.key,
        generation=0,
        key="",
        slices=_slices(stack),
        instances=contents(stack.instances),
        segs=frozenset(seg.sha256 for seg in segs),
        fit=True,
    )


def _newest(segs: Iterable[InstanceHeader]) -> tuple[InstanceHeader, ...]:
    """Return the newest file of each SEG, newest last."""
    newest = {seg.sop_instance_uid: seg for seg in sorted(segs, key=lambda seg: (seg.received_at, seg.path))}
    return tuple(sorted(newest.values(), key=lambda seg: (seg.received_at, seg.path)))
