"""Every baseline question, asked again in other words and about changed images; each one's files whole or not at all.

Questions about one image go together. It and each changed image are encoded once, and no more than one changed image is
held at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from m3node.attention.images.body import BodyKind, find_body
from m3node.attention.images.finding import ImageFolder
from m3node.attention.images.image import InputImage
from m3node.attention.images.liver import LiverOutlines
from m3node.attention.images.reading import read_image
from m3node.attention.output.folder import ROBUSTNESS
from m3node.attention.output.record import digest_of
from m3node.attention.output.setup import Setup
from m3node.attention.questions.question import Question
from m3node.attention.reading.looked import Looked
from m3node.attention.robustness.asking import ask_all
from m3node.attention.robustness.draws import derived_seed
from m3node.attention.robustness.families import Family, by_image, families
from m3node.attention.robustness.perturbation import Perturbation
from m3node.attention.robustness.record import RobustnessRecord, whole_record, write_record
from m3node.attention.robustness.sheet import draw_sheet
from m3node.attention.robustness.work import Work, blank_record
from m3node.attention.running import Looks
from m3node.durable import remove_parts
from m3node.errors import ConfigError, ImageError, M3NodeError
from m3node.progress import Progress


@dataclass(frozen=True, slots=True)
class Bench:
    """What is needed: who looks and how, at which images, by which changes, and where results go.

    Attributes
    ----------
    folder : Path
        The folder ``robustness`` of the results, which exists.
    changes : tuple of Perturbation
        Their seeds do not count.
    seed : int
        Of the run: with it, an image's id and a change's name, each change has its own.
    """

    looker: Looks
    setup: Setup
    images: ImageFolder
    livers: LiverOutlines
    folder: Path
    changes: tuple[Perturbation, ...]
    seed: int


@dataclass(frozen=True, slots=True)
class RobustnessRun:
    """What came of it: a record for each baseline question, in the table's order, and how many were there already."""

    records: tuple[RobustnessRecord, ...]
    reused: int

    @property
    def failed(self) -> int:
        """Records of which something failed."""
        return sum(record.failed for record in self.records)

    @property
    def usable(self) -> bool:
        """Whether there is anything at all."""
        return any(not record.error for record in self.records)


def open_robustness(out: Path, images: Path, *, resume: bool) -> Path:
    """Make the folder ``robustness`` below ``out``, and return it.

    Raises
    ------
    ConfigError
        It holds an earlier run's results, cannot be made, or lies among the images.
    """
    if out.resolve().is_relative_to(images.resolve()):
        raise ConfigError(f"--out: {out} lies in the folder of images, and its pictures would be; name one outside it")
    folder = out / ROBUSTNESS
    if not resume and folder.is_dir() and any(folder.iterdir()):
        raise ConfigError(f"--out: {folder} holds an earlier run; name another folder, or go on with it by --resume")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"--out: cannot make the folder {folder}: {error.strerror}") from error
    remove_parts(folder)
    return folder


def run_robustness(bench: Bench, questions: Sequence[Question], progress: Progress, *, resume: bool) -> RobustnessRun:
    """Try every baseline question.

    Parameters
    ----------
    questions : sequence of Question
        The table's; variants are put to their baselines.
    resume : bool
        Keep what an earlier run left, where it is whole and was made on the same basis.

    Raises
    ------
    OSError
        Results cannot be written.
    """
    every = families(questions)
    records: dict[str, RobustnessRecord] = {}
    reused = 0
    progress("trying changes", 0, len(every))
    for group in by_image(every):
        path, error = _found(bench, group[0].baseline.dicom_id)
        bases = {family.baseline.key: _basis(bench, family, path) for family in group}
        missing = []
        for family in group:
            key = family.baseline.key
            held = whole_record(bench.folder, key, bases[key]) if resume else None
            if held is None:
                missing.append(family)
            else:
                records[key] = held
                reused += 1
        progress("trying changes", len(records), len(every))
        for record in _tried(bench, missing, bases, path, error):
            records[record.key] = record
            progress("trying changes", len(records), len(every))
    return RobustnessRun(tuple(records[family.baseline.key] for family in every), reused)


def _found(bench: Bench, dicom_id: str) -> tuple[Path | None, str]:
    try:
        return bench.images.find(dicom_id), ""
    except ImageError as error:
        return None, str(error)


def _basis(bench: Bench, family: Family, path: Path | None) -> dict[str, Any]:
    asked = [asdict(replace(question, line=0)) for question in (family.baseline, *family.variants)]
    return bench.setup.basis | {
        "seed": bench.seed,
        "changes": [change.name for change in bench.changes],
        "questions": asked,
        "image": "" if path is None else digest_of(path),
    }


def _tried(
    bench: Bench, group: Sequence[Family], bases: Mapping[str, dict[str, Any]], path: Path | None, error: str
) -> Iterator[RobustnessRecord]:
    """Try the families of one image; each record is written before the next."""
    if not group:
        return
    image = None
    if path is not None:
        try:
            image = read_image(path)
            image = replace(image, body=find_body(image, BodyKind(bench.setup.body), livers=bench.livers))
        except M3NodeError as problem:
            image, error = None, str(problem)
    if image is None:
        yield from (_failed(bench, family, bases, error) for family in group)
        return
    working = []
    for family, answers in _asked(bench, image, group):
        if isinstance(answers[0], str):
            yield _failed(bench, family, bases, answers[0])
            continue
        work = Work(family, image, answers[0])
        for variant, looked in zip(family.variants, answers[1:], strict=True):
            work.note_paraphrase(variant, looked)
        working.append(work)
    baselines = [work.family.baseline for work in working]
    for change in bench.changes if working else ():
        seeded = replace(change, seed=derived_seed(bench.seed, baselines[0].dicom_id, change.name))
        changed = seeded.apply(image)
        for work, looked in zip(working, ask_all(bench.looker, changed.image, baselines), strict=True):
            work.note_perturbation(seeded, changed, looked)
    for work in working:
        record = work.record
        sheet = draw_sheet(work.tiles, record, bench.setup.marks)
        write_record(bench.folder, record, bases[record.key], work.arrays, sheet)
        yield record


def _asked(bench: Bench, image: InputImage, group: Sequence[Family]) -> Iterator[tuple[Family, list[Looked | str]]]:
    """Ask all questions of some families together."""
    questions = [question for family in group for question in (family.baseline, *family.variants)]
    answers = iter(ask_all(bench.looker, image, questions))
    for family in group:
        yield family, [next(answers) for _ in range(1 + len(family.variants))]


def _failed(bench: Bench, family: Family, bases: Mapping[str, dict[str, Any]], error: str) -> RobustnessRecord:
    record = replace(blank_record(family), error=error)
    write_record(bench.folder, record, bases[record.key], {}, None)
    return record
