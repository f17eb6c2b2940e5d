"""The baseline question about an image, and the same question in other words."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from m3node.attention.questions.question import BASELINE, Question


@dataclass(frozen=True, slots=True)
class Family:
    """One baseline question about one image.

    Attributes
    ----------
    baseline : Question
        Made from a variant where the table has no row of it; its truth is not known then.
    variants : tuple of Question
        By their index.
    """

    baseline: Question
    variants: tuple[Question, ...]


def families(questions: Iterable[Question]) -> list[Family]:
    """Put variants to their baseline questions, in the order of each one's first row."""
    groups: dict[tuple[str, str, str], list[Question]] = {}
    for question in questions:
        groups.setdefault(question.group, []).append(question)
    return [_family(group) for group in groups.values()]


def first_families(questions: Iterable[Question], most: int) -> list[Question]:
    """Keep the questions of the first few families."""
    return [question for family in families(questions)[:most] for question in (family.baseline, *family.variants)]


def by_image(every: Sequence[Family]) -> Iterator[tuple[Family, ...]]:
    """Put families of one image together, so that it is read and encoded once."""
    groups: dict[str, list[Family]] = {}
    for family in every:
        groups.setdefault(family.baseline.dicom_id, []).append(family)
    yield from map(tuple, groups.values())


def _family(group: Sequence[Question]) -> Family:
    # By its words: tables that count their variants from 0 have another question under the baseline's index.
    baseline = next((question for question in group if question.text == question.baseline), None)
    variants = sorted((q for q in group if q is not baseline), key=lambda question: question.variant_index)
    if baseline is None:
        first = variants[0]
        baseline = replace(first, text=first.baseline, variant_index=BASELINE, strategy="", truth="")
    return Family(baseline, tuple(variants))
