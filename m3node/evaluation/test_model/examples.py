"""Training examples: what a detector would be shown of a 2-D phantom, and what it should see there."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from m3node.evaluation.phantom_slices import SliceAnatomy, SlicePhantom, draw_anatomies, draw_count, draw_slice
from m3node.gemma.images import Edges, SquareFrame

Crop = tuple[int, int, int, int]
"""Half-open pixel bounds of a slice: r0, c0, r1, c1."""

CROPS_A_SLICE = 6
_POOL = 160
_CLOSE_UP, _WHOLE, _BLANK = 0.12, 0.15, 0.03
_MIN_SHARE_SEEN = 0.5


@dataclass(frozen=True, slots=True, eq=False)
class Example:
    """A picture and its truth.

    Attributes
    ----------
    hu : ndarray of int16, shape (rows, columns)
        The crop.
    frame : SquareFrame
        How it lies in the model's square.
    whole : bool
        It is the whole slice, and asked about as such.
    boxes : tuple of Edges
        Lesions at least half in the crop, as ``y0, x0, y1, x1`` of 0…1000.
    liver, lesion : ndarray of bool, shape (rows, columns)
        Where they are, for the helpers of the training.
    """

    hu: npt.NDArray[np.int16]
    frame: SquareFrame
    whole: bool
    boxes: tuple[Edges, ...]
    liver: npt.NDArray[np.bool_]
    lesion: npt.NDArray[np.bool_]


def example_of(phantom: SlicePhantom, crop: Crop, *, whole: bool = False) -> Example:
    """Cut a crop from a phantom, with what of its lesions can be seen there."""
    r0, c0, r1, c1 = crop
    hu = phantom.hu[r0:r1, c0:c1]
    frame = SquareFrame.of(hu.shape, phantom.spacing)
    boxes: list[Edges] = []
    lesions = np.zeros(hu.shape, dtype=bool)
    for lesion in phantom.lesions:
        seen = lesion.mask[r0:r1, c0:c1]
        if np.count_nonzero(seen) < _MIN_SHARE_SEEN * np.count_nonzero(lesion.mask):
            continue
        lesions |= seen
        y0, x0, y1, x1 = lesion.box
        boxes.append(
            frame.to_units(max(y0, r0) - r0, max(x0, c0) - c0, min(y1, r1) - r0, min(x1, c1) - c0),
        )
    return Example(
        hu=hu, frame=frame, whole=whole, boxes=tuple(boxes), liver=phantom.liver[r0:r1, c0:c1], lesion=lesions
    )


def whole_slice(phantom: SlicePhantom) -> Crop:
    """The bounds of a slice."""
    return 0, 0, phantom.hu.shape[0], phantom.hu.shape[1]


def padded_crop(phantom: SlicePhantom, sides: tuple[float, float, float, float]) -> Crop:
    """The liver's box with a share of its size added above, left, below and right, as far as the slice goes."""
    rows, columns = np.flatnonzero(phantom.liver.any(axis=1)), np.flatnonzero(phantom.liver.any(axis=0))
    r0, c0, r1, c1 = int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1
    high, wide = r1 - r0, c1 - c0
    return (
        max(0, r0 - round(sides[0] * high)),
        max(0, c0 - round(sides[1] * wide)),
        min(phantom.hu.shape[0], r1 + round(sides[2] * high)),
        min(phantom.hu.shape[1], c1 + round(sides[3] * wide)),
    )


def stream(rng: np.random.Generator, *, pool: int = _POOL) -> Iterator[Example]:
    """Draw examples without end.

    Anatomies cost the most, so each is used for several slices with other lesions and noise, and replaced in time;
    neighbours in the stream come from different slices.
    """
    grounds: list[SliceAnatomy] = []
    waiting: list[Example] = []
    while True:
        if len(grounds) < pool or rng.random() < 0.1:
            for ground in draw_anatomies(rng, heights=4 if len(grounds) < pool else 1):
                if len(grounds) < pool:
                    grounds.append(ground)
                else:
                    grounds[int(rng.integers(pool))] = ground
        phantom = draw_slice(grounds[int(rng.integers(len(grounds)))], draw_count(rng), rng, rng)
        waiting += [_drawn(phantom, rng) for _ in range(CROPS_A_SLICE)]
        while len(waiting) > 12 * CROPS_A_SLICE:
            yield waiting.pop(int(rng.integers(len(waiting))))


def _drawn(phantom: SlicePhantom, rng: np.random.Generator) -> Example:
    kind = float(rng.random())
    if kind < _BLANK:
        return _blank(phantom, rng)
    if kind < _BLANK + _WHOLE:
        return example_of(phantom, whole_slice(phantom), whole=True)
    if kind < _BLANK + _WHOLE + _CLOSE_UP:
        return example_of(phantom, _close_up(phantom, rng))
    # Envelopes are larger than livers, and paddings are a setting: 2 to 40 %, not the same on all sides.
    padding = rng.uniform(0.05, 0.35)
    sides = [max(0.0, float(padding + rng.normal(0.0, 0.05))) for _ in range(4)]
    return example_of(phantom, padded_crop(phantom, (sides[0], sides[1], sides[2], sides[3])))


def _close_up(phantom: SlicePhantom, rng: np.random.Generator) -> Crop:
    """A window of 60–140 mm about some place in the liver, half of them about a lesion."""
    place = phantom.liver
    if phantom.lesions and rng.random() < 0.5:
        place = phantom.lesions[int(rng.integers(len(phantom.lesions)))].mask
    r, c = (int(values[0]) for values in np.unravel_index(rng.choice(np.flatnonzero(place), 1), place.shape))
    half = rng.uniform(60.0, 140.0, 2) / 2 / np.asarray(phantom.spacing)
    rows, columns = phantom.hu.shape
    return (
        max(0, round(r - half[0])),
        max(0, round(c - half[1])),
        min(rows, round(r + half[0])),
        min(columns, round(c + half[1])),
    )


def _blank(phantom: SlicePhantom, rng: np.random.Generator) -> Example:
    """Nothing to see: one value everywhere, with or without noise."""
    shape = (int(rng.integers(120, 400)), int(rng.integers(120, 400)))
    value = -1024.0 if rng.random() < 0.4 else float(rng.uniform(-200.0, 250.0))
    noise = float(rng.uniform(0.0, 15.0)) * rng.standard_normal(shape) if rng.random() < 0.5 else np.zeros(shape)
    nothing = np.zeros(shape, dtype=bool)
    return Example(
        hu=np.clip(np.rint(value + noise), -1024, 3071).astype(np.int16),
        frame=SquareFrame.of(shape, phantom.spacing),
        whole=False,
        boxes=(),
        liver=nothing,
        lesion=nothing,
    )
