"""What is gathered of one baseline question while its image is changed, until its files are written."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from m3node.attention.images.image import InputImage
from m3node.attention.questions.question import Question
from m3node.attention.reading.looked import Looked
from m3node.attention.robustness.asking import comparable, flipped, said
from m3node.attention.robustness.families import Family
from m3node.attention.robustness.perturbation import Perturbation, Perturbed
from m3node.attention.robustness.record import Change, RobustnessRecord
from m3node.attention.robustness.sheet import Tile, tile_of
from m3node.attention.robustness.similarity import resampling_floor, similarity_of
from m3node.attention.robustness.undoing import Frame, Undone, undo


@dataclass(frozen=True, slots=True, eq=False)
class _Seen:
    """An answer about a picture, and its grid in the original's cells."""

    image: InputImage
    looked: Looked
    undone: Undone
    floor: float = 0.0


class Work:
    """Everything about one baseline question.

    Parameters
    ----------
    family : Family
        The question, and its variants.
    image : InputImage
        As it is.
    original : Looked
        What came of the baseline question about it.
    """

    def __init__(self, family: Family, image: InputImage, original: Looked) -> None:
        self.family = family
        self.arrays: dict[str, npt.NDArray[Any]] = {"original": original.grid}
        self.tiles: list[Tile] = [tile_of(image, original, "as it is")]
        self._image, self._original = image, original
        self._said = said(family.baseline, original)
        self._changes: list[Change] = []

    @property
    def record(self) -> RobustnessRecord:
        """What came of it."""
        return replace(
            blank_record(self.family),
            shape=self._image.shape,
            area=self._original.area,
            said=self._said,
            changes=tuple(self._changes),
        )

    def note_paraphrase(self, variant: Question, looked: Looked | str) -> None:
        """Note the answer to a variant of the question, or why there is none."""
        blank = Change(
            group="paraphrase",
            name=variant.strategy or "other words",
            arrays=f"paraphrase_{len(self._changes)}",
            question=variant.text,
            truth=variant.truth,
            variant_index=variant.variant_index,
        )
        if isinstance(looked, str):
            self._changes.append(replace(blank, error=looked))
            return
        same = Undone(looked.grid, np.ones(looked.grid.shape, dtype=np.bool_), 0.0)
        self.arrays[blank.arrays] = looked.grid
        self._judge(blank, variant, _Seen(self._image, looked, same))

    def note_perturbation(self, change: Perturbation, changed: Perturbed, looked: Looked | str) -> None:
        """Note the answer to the baseline question about a changed image, or why there is none."""
        baseline = self.family.baseline
        first, second = changed.to_original.tolist()
        blank = Change(
            group="perturbation",
            name=change.name,
            arrays=f"perturbation_{len(self._changes) - len(self.family.variants)}",
            question=baseline.text,
            truth=baseline.truth,
            variant_index=baseline.variant_index,
            strength=change.strength,
            seed=change.seed,
            to_original=(tuple(first), tuple(second)),
            shape=changed.image.shape,
        )
        if isinstance(looked, str):
            self._changes.append(replace(blank, error=looked))
            return
        before, now = Frame(self._original.area, self._image.shape), Frame(looked.area, changed.image.shape)
        undone = undo(looked.grid, now, changed.to_original, before)
        floor = resampling_floor(self._original.grid, before, now, changed.to_original) if change.moves else 0.0
        self.arrays[blank.arrays] = undone.grid
        self.arrays[f"{blank.arrays}_as_shown"] = looked.grid
        self.arrays[f"{blank.arrays}_compared"] = undone.compared
        self._judge(blank, baseline, _Seen(changed.image, looked, undone, floor))

    def _judge(self, blank: Change, question: Question, seen: _Seen) -> None:
        """Compare with the original, and draw."""
        now = said(question, seen.looked)
        change = replace(
            blank,
            area=seen.looked.area,
            said=now,
            flipped=flipped(self._said, self.family.baseline, now, question),
            comparable=comparable(self._said, now),
            similarity=similarity_of(self._original.grid, seen.undone, seen.floor),
        )
        apart = change.similarity if change.comparable else None
        note = "grids not comparable" if apart is None else f"divergence {apart.jensen_shannon:.3f}"
        self._changes.append(change)
        self.tiles.append(tile_of(seen.image, seen.looked, change.name, flipped=bool(change.flipped), note=note))


def blank_record(family: Family) -> RobustnessRecord:
    """Begin the record of a baseline question."""
    one = family.baseline
    return RobustnessRecord(one.key, one.study_id, one.dicom_id, one.text, one.truth)
