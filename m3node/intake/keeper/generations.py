"""Which generation of a stack comes next, seen from what was answered before (decisions 5 and 8 of the design)."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from m3node.intake.keeper.index import RejectedGeneration
from m3node.intake.series.header import InstanceHeader
from m3node.intake.series.manifest import Manifest, StackKey, read_manifest, slices_digest


@dataclass(frozen=True, slots=True)
class Answer:
    """A generation that has its manifest, or its rejection.

    Attributes
    ----------
    stack : StackKey
        Whose.
    generation : int
        From 1.
    key : str
        The manifest's key; empty for a rejection.
    slices : str
        Digest of the slices (`m3node.intake.series.manifest.slices_digest`).
    instances : frozenset of str
        SOP Instance UIDs with digests of a manifest's instances; empty for a rejection.
    segs : frozenset of str
        Digests of the liver SEGs it was made with.
    fit : bool
        Whether there is a manifest.
    """

    stack: StackKey
    generation: int
    key: str
    slices: str
    instances: frozenset[str]
    segs: frozenset[str]
    fit: bool


@dataclass(frozen=True, slots=True)
class Next:
    """What to make.

    Attributes
    ----------
    generation : int
        Its number.
    supersedes : str
        Key of the manifest before it, or empty.
    judged : bool
        Whether this very set was judged before and was not fit: it is made only if it is fit now.
    """

    generation: int
    supersedes: str
    judged: bool = False


def read_answers(manifests: Path, series: str, rejected: Iterable[RejectedGeneration]) -> tuple[Answer, ...]:
    """Collect what was answered of a series: manifests from their folder, rejections from the index."""
    answers = [
        Answer(StackKey(series, item.stack), item.generation, "", item.slices, frozenset(), frozenset(), fit=False)
        for item in rejected
    ]
    for path in manifests.glob(f"{series}.*json"):
        manifest = read_manifest(path)
        # 1.2.3.g1.json is found for 1.2.3, and so is 1.2.3.4.g1.json of another series.
        if manifest.stack.series_instance_uid == series:
            answers.append(answer_of(manifest))
    return tuple(sorted(answers, key=lambda answer: (answer.generation, answer.fit)))


def answer_of(manifest: Manifest) -> Answer:
    """Return a manifest as an answer."""
    return Answer(
        manifest.stack,
        manifest.generation,
        manifest.key,
        slices_digest(manifest.stack, manifest.instances, manifest.slices),
        contents(manifest.instances),
        frozenset(seg.sha256 for seg in manifest.liver_segs),
        fit=True,
    )


def contents(instances: Iterable[InstanceHeader]) -> frozenset[str]:
    """Return what identifies a set of instances and their bytes."""
    return frozenset(f"{header.sop_instance_uid} {header.sha256}" for header in instances)


def next_generation(
    wanted: Answer, answers: Collection[Answer], present: Collection[StackKey], *, segs_count: bool
) -> Next | None:
    """Decide whether a stack as it is now needs a generation.

    Parameters
    ----------
    wanted : Answer
        The stack as it is now; its generation does not count.
    answers : collection of Answer
        All of its series so far.
    present : collection of StackKey
        The stacks that the series holds now. One that was answered and is not among them was split, and its name
        with it: a series that held one stack holds two once a second acquisition arrives.
    segs_count : bool
        Whether another SEG is reason enough (``completeness.late_seg_makes_generation``).

    Returns
    -------
    Next or None
        None when this very set has its manifest.
    """
    own = [answer for answer in answers if answer.stack == wanted.stack]
    if not own:
        return _after_split(wanted, [answer for answer in answers if answer.stack not in present])
    newest = own[-1]
    following = Next(
        newest.generation + 1, _newest_manifest(own), judged=newest.slices == wanted.slices and not newest.fit
    )
    if newest.slices == wanted.slices and newest.fit and (not segs_count or newest.segs == wanted.segs):
        return None
    return following


def _after_split(wanted: Answer, gone: list[Answer]) -> Next | None:
    """Find what a stack was part of before its series was split otherwise."""
    shared = [(len(answer.instances & wanted.instances), answer.generation, answer) for answer in gone]
    overlap, generation, answer = max(shared, key=lambda item: item[:2], default=(0, 0, wanted))
    if not overlap:
        return Next(1, "")
    if answer.instances == wanted.instances:
        return None
    return Next(generation + 1, answer.key)


def _newest_manifest(answers: list[Answer]) -> str:
    return next((answer.key for answer in reversed(answers) if answer.fit), "")
