"""What came of all baseline questions together: for the terminal, for programs, and for the report."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from m3node.attention.output.folder import ROBUSTNESS
from m3node.attention.robustness.kinds import KINDS, Kind
from m3node.attention.robustness.record import Change, RobustnessRecord, read_record, sheet_name

MOST_SHOWN = 6
"""Questions whose pictures the report shows."""


@dataclass(frozen=True, slots=True)
class ChangeSummary:
    """One kind of change over all baseline questions.

    Attributes
    ----------
    group, name, meaning : str
        As `Change` has them, and what the strength says.
    asked : int
        Questions that were answered.
    flips : int
        Answers that contradict the one before the change.
    right : int
    judged : int
        Answers that are right, of those whose truth is known.
    compared : int
        Pairs of grids whose similarity says something; the means below are over them.
    jensen_shannon, floor, pearson, spearman, top_overlap, left_out_before, left_out_after : float or None
        Means of `Similarity`; None without a pair.
    failed : int
        Questions that were not answered.
    """

    group: str
    name: str
    meaning: str
    asked: int
    flips: int
    right: int
    judged: int
    compared: int
    jensen_shannon: float | None
    floor: float | None
    pearson: float | None
    spearman: float | None
    top_overlap: float | None
    left_out_before: float | None
    left_out_after: float | None
    failed: int

    @property
    def flip_rate(self) -> float | None:
        """Flips among what was answered."""
        return self.flips / self.asked if self.asked else None


@dataclass(frozen=True, slots=True)
class Unsteady:
    """A question whose answers flipped, or whose grids moved most.

    Attributes
    ----------
    key, study_id, dicom_id, question, answer : str
        Which, and what was answered at first.
    changed : tuple of str
        Names of the changes that flipped the answer, each with the new answer.
    flips, asked : int
        How many of how many.
    jensen_shannon : float or None
        Mean over what can be compared.
    picture : str
        Below the folder of results; empty when there is none.
    """

    key: str
    study_id: str
    dicom_id: str
    question: str
    answer: str
    changed: tuple[str, ...]
    flips: int
    asked: int
    jensen_shannon: float | None
    picture: str


@dataclass(frozen=True, slots=True)
class RobustnessSection:
    """All of it.

    Attributes
    ----------
    models : tuple of str
        Names of the models that answered; more than one when a folder was gone on with by another.
    is_test_model : bool
        One of them is a test model.
    seeds : tuple of int
        Of the runs.
    questions, failed : int
        Baseline questions, and how many of them are not whole.
    steady : int
        Whole ones of which no change flipped the answer.
    changes : tuple of ChangeSummary
        Paraphrases by strategy, then perturbations.
    unsteady : tuple of Unsteady
        The worst first, `MOST_SHOWN` at most.
    errors : tuple of (str, str)
        What failed, by image and question, and why.
    """

    models: tuple[str, ...]
    is_test_model: bool
    seeds: tuple[int, ...]
    questions: int
    failed: int
    steady: int
    changes: tuple[ChangeSummary, ...]
    unsteady: tuple[Unsteady, ...]
    errors: tuple[tuple[str, str], ...]

    def as_json(self) -> dict[str, Any]:
        """Return it as programs read it."""
        return asdict(self)


def summary_section(out: Path, keys: Collection[str] | None = None) -> RobustnessSection | None:
    """Read the records below a folder of results; None when there are none.

    Parameters
    ----------
    out : Path
        The folder of results, not its folder ``robustness``.
    keys : collection of str, optional
        Only these; else also those of questions that an earlier table had.
    """
    folder = out / ROBUSTNESS
    paths = (path for path in sorted(folder.glob("*.json")) if keys is None or path.stem in keys)
    found = [held for path in paths if (held := read_record(path)) is not None]
    if not found:
        return None
    records = [record for record, _, _ in found]
    models = [basis.get("model", {}) for _, basis, _ in found]
    errors = [(f"{r.study_id} / {r.dicom_id}: {r.question}", r.error) for r in records if r.error]
    errors += [
        (f"{r.study_id} / {r.dicom_id}: {change.question} ({change.name})", change.error)
        for r in records
        for change in r.changes
        if change.error
    ]
    return RobustnessSection(
        models=tuple(dict.fromkeys(str(model.get("name", "")) for model in models)),
        is_test_model=any(bool(model.get("is_test_model")) for model in models),
        seeds=tuple(dict.fromkeys(int(basis.get("seed", 0)) for _, basis, _ in found)),
        questions=len(records),
        failed=sum(record.failed for record in records),
        steady=sum(not record.failed and not any(change.flipped for change in record.changes) for record in records),
        changes=summarise(records),
        unsteady=_unsteady(records, folder),
        errors=tuple(errors),
    )


def summarise(records: Iterable[RobustnessRecord]) -> tuple[ChangeSummary, ...]:
    """Add up by change: paraphrases by name, then perturbations by kind and strength."""
    groups: dict[tuple[str, str], list[Change]] = {}
    for record in records:
        for change in record.changes:
            groups.setdefault((change.group, change.name), []).append(change)
    return tuple(_summary(changes) for changes in sorted(groups.values(), key=lambda changes: _order(changes[0])))


def _order(first: Change) -> tuple[int, int, float, str]:
    if first.group == "paraphrase":
        return 0, 0, 0.0, first.name
    return 1, [*map(str, KINDS)].index(first.name.partition(":")[0]), first.strength or 0.0, first.name


def _summary(changes: Sequence[Change]) -> ChangeSummary:
    first = changes[0]
    said = [change for change in changes if change.said is not None]
    alike = [change.similarity for change in said if change.comparable and change.similarity is not None]
    correct = [change.said.correct for change in said if change.said is not None and change.said.correct is not None]
    return ChangeSummary(
        group=first.group,
        name=first.name,
        meaning=KINDS[Kind(first.name.partition(":")[0])].meaning if first.group == "perturbation" else "",
        asked=len(said),
        flips=sum(change.flipped is True for change in said),
        right=sum(correct),
        judged=len(correct),
        compared=len(alike),
        jensen_shannon=_mean(one.jensen_shannon for one in alike),
        floor=_mean(one.floor for one in alike),
        pearson=_mean(one.pearson for one in alike),
        spearman=_mean(one.spearman for one in alike),
        top_overlap=_mean(one.top_overlap for one in alike),
        left_out_before=_mean(one.left_out_before for one in alike),
        left_out_after=_mean(one.left_out_after for one in alike),
        failed=len(changes) - len(said),
    )


def _unsteady(records: Sequence[RobustnessRecord], folder: Path) -> tuple[Unsteady, ...]:
    """The questions with most flips, of equal ones those whose grids moved most."""
    found = []
    for record in records:
        if record.said is None:
            continue
        said = [change for change in record.changes if change.said is not None]
        picture = sheet_name(record.key)
        found.append(
            Unsteady(
                key=record.key,
                study_id=record.study_id,
                dicom_id=record.dicom_id,
                question=record.question,
                answer=record.said.answer,
                changed=tuple(f"{one.name}: {one.said.answer}" for one in said if one.flipped and one.said is not None),
                flips=sum(change.flipped is True for change in said),
                asked=len(said),
                jensen_shannon=_mean(
                    change.similarity.jensen_shannon
                    for change in said
                    if change.comparable and change.similarity is not None
                ),
                picture=f"{ROBUSTNESS}/{picture}" if (folder / picture).is_file() else "",
            )
        )
    # Answers first, whatever the grids do.
    found.sort(key=lambda one: (-one.flips / max(1, one.asked), -(one.jensen_shannon or 0.0), one.key))
    return tuple(found[:MOST_SHOWN])


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
