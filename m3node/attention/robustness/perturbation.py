"""An image changed a little: what is done, how strongly, and by which seed; the same bytes each time.

Changes act on the picture as the model is shown it, and carry the body mask and where each pixel was. What comes in
from outside is 0, as in the model's own padding.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from m3node.attention.images.image import InputImage
from m3node.attention.robustness.draws import Draws
from m3node.attention.robustness.kinds import KINDS, Kind
from m3node.errors import ConfigError

UInt8Array = npt.NDArray[np.uint8]
Affine = npt.NDArray[np.float64]
"""Shape (2, 3): row and column from row, column and 1, in pixel *edges*: the middle of the first pixel is 0.5."""

_DOTS = 512
"""Dots along the longer side: single pixels of a radiograph would not outlive the model's own resizing."""

_ROWS_AT_ONCE = 256
"""Of noise, which takes many times the memory of the picture."""

_TURNED = 45.0
"""Degrees from which the patient's sides are no longer the image's."""


@dataclass(frozen=True, slots=True, eq=False)
class Perturbed:
    """An image after a change.

    Attributes
    ----------
    image : InputImage
        Without Hounsfield units, which are not changed with it.
    to_original : ndarray of float64, shape (2, 3)
        Where what is seen at an edge coordinate of it was in the image before.
    """

    image: InputImage
    to_original: Affine


@dataclass(frozen=True, slots=True)
class Perturbation:
    """One change.

    Attributes
    ----------
    kind : Kind
        What is done.
    strength : float
        How strongly; `KINDS` says in which unit.
    seed : int
        At least 0. Decides the noise, which pixels are set, and where a crop or the image in its padding lies.
    """

    kind: Kind
    strength: float
    seed: int = 0

    def __post_init__(self) -> None:
        facts = KINDS[self.kind]
        if not facts.lowest <= self.strength <= facts.highest:
            raise ValueError(f"the strength of {self.kind} is from {facts.lowest:g} to {facts.highest:g}")
        if facts.whole and self.strength != int(self.strength):
            raise ValueError(f"the strength of {self.kind} is a whole number")
        if self.seed < 0:
            raise ValueError("a seed is a whole number from 0")

    @classmethod
    def parse(cls, text: str, seed: int = 0) -> Perturbation:
        """Read ``rotation:5``; ``rotation`` alone has its default strength.

        Raises
        ------
        ConfigError
            There is no such kind, or not of that strength.
        """
        name, colon, number = (part.strip() for part in text.partition(":"))
        if name not in set(Kind):
            raise ConfigError(f"there is no change {name!r} of an image; there are {', '.join(Kind)}")
        kind = Kind(name)
        try:
            return cls(kind, float(number) if colon else KINDS[kind].default, seed)
        except ValueError as error:
            raise ConfigError(
                f"{text!r} is no change of an image such as {kind}:{KINDS[kind].default:g}: {error}"
            ) from error

    @property
    def name(self) -> str:
        """Kind and strength, as `parse` reads them."""
        return f"{self.kind}:{self.strength:.10g}"

    @property
    def moves(self) -> bool:
        """Whether pixels are elsewhere afterwards."""
        return KINDS[self.kind].moves and self.strength != KINDS[self.kind].nothing

    def apply(self, image: InputImage) -> Perturbed:
        """Change an image; the one that is given stays as it is."""
        if self.strength == KINDS[self.kind].nothing:
            return Perturbed(image, shifted_by(0, 0))
        return _WORK[self.kind](image, self.strength, Draws(self.seed))


def parse_list(text: str) -> tuple[Perturbation, ...]:
    """Read a list such as ``noise,rotation:5,rotation:-5``, with seed 0; ``all`` and ``none`` are lists, too.

    Raises
    ------
    ConfigError
        One of them is none, or is there twice.
    """
    if text.strip() == "none":
        return ()
    words = tuple(Kind) if text.strip() == "all" else [word for word in text.split(",") if word.strip()]
    if not words:
        raise ConfigError("no change of the image is named; 'none' asks for none, 'all' for one of each kind")
    found = tuple(Perturbation.parse(word) for word in words)
    for number, one in enumerate(found):
        if one in found[:number]:
            raise ConfigError(f"the change {one.name} is named twice")
    return found


def shifted_by(rows: float, columns: float) -> Affine:
    """Return the affine of an image whose first pixel was at that row and column."""
    return np.array([[1.0, 0.0, rows], [0.0, 1.0, columns]])


def _noise(image: InputImage, strength: float, draws: Draws) -> Perturbed:
    """The same for all channels: a grey image stays grey."""
    rgb = np.empty_like(image.rgb)
    for first in range(0, image.shape[0], _ROWS_AT_ONCE):
        part = image.rgb[first : first + _ROWS_AT_ONCE]
        noise = draws.normal(part.shape[0] * part.shape[1]).reshape(*part.shape[:2], 1) * strength
        rgb[first : first + _ROWS_AT_ONCE] = _to_bytes(part + noise)
    return _still(image, rgb)


def _contrast(image: InputImage, strength: float, _: Draws) -> Perturbed:
    mean = float(image.rgb.mean(dtype=np.float64))
    return _looked_up(image, mean + (np.arange(256) - mean) * strength)


def _brightness(image: InputImage, strength: float, _: Draws) -> Perturbed:
    return _looked_up(image, np.arange(256) + strength)


def _looked_up(image: InputImage, levels: npt.NDArray[np.floating]) -> Perturbed:
    return _still(image, _to_bytes(levels)[image.rgb])


def _blur(image: InputImage, strength: float, _: Draws) -> Perturbed:
    """Round in millimetres, also where pixels are not square."""
    sigma_mm = strength * max(size * mm for size, mm in zip(image.shape, image.spacing, strict=True))
    sigma = tuple(sigma_mm / mm for mm in image.spacing)

    def blurred(channel: UInt8Array) -> UInt8Array:
        return _to_bytes(ndimage.gaussian_filter(channel.astype(np.float32), sigma, mode="nearest"))

    return _still(image, _by_channel(image.rgb, blurred))


def _pixels(image: InputImage, strength: float, draws: Draws) -> Perturbed:
    """Dots, black or white, whose first pixel lies in the body; anywhere when no body was found."""
    side = max(1, max(image.shape) // _DOTS)
    allowed = np.ones(image.shape, dtype=np.bool_) if image.body is None or not image.body.any() else image.body
    places = np.flatnonzero(allowed)
    chosen = places[draws.some_of(len(places), int(strength))]
    white = draws.uniform(len(chosen)) < 0.5
    rgb = image.rgb.copy()
    for place, is_white in zip(chosen, white, strict=True):
        row, column = divmod(int(place), image.shape[1])
        rgb[row : row + side, column : column + side] = 255 if is_white else 0
    return _still(image, rgb)


def _rotation(image: InputImage, strength: float, _: Draws) -> Perturbed:
    """About the middle, in millimetres; the canvas stays, so that corners go and black ones come."""
    # Rounded so that a quarter turn moves pixels to pixels.
    cos, sin = round(math.cos(math.radians(strength)), 15), round(math.sin(math.radians(strength)), 15)
    down, across = image.spacing
    turn = np.array([[cos, sin * across / down], [-sin * down / across, cos]])
    middle = np.array(image.shape) / 2.0
    to_original = np.column_stack([turn, middle - turn @ middle])
    offset = turn @ np.full(2, 0.5) + to_original[:, 2] - 0.5  # between middles of pixels

    def turned(channel: UInt8Array) -> UInt8Array:
        return np.asarray(
            ndimage.affine_transform(channel, turn, offset, order=1, mode="grid-constant", cval=0), dtype=np.uint8
        )

    body = image.body
    if body is not None:
        nearest = ndimage.affine_transform(body.astype(np.uint8), turn, offset, order=0, mode="constant", cval=0)
        body = nearest.astype(np.bool_)
    changed = replace(image, rgb=_by_channel(image.rgb, turned), body=body, hu=None)
    if abs(strength) >= _TURNED:
        changed = replace(changed, patient_left=None, patient_head=None)
    return Perturbed(changed, to_original)


def _crop(image: InputImage, strength: float, draws: Draws) -> Perturbed:
    rows, columns = (max(1, round(size * (1.0 - strength))) for size in image.shape)
    r, c = draws.below(image.shape[0] - rows + 1), draws.below(image.shape[1] - columns + 1)
    body = None if image.body is None else image.body[r : r + rows, c : c + columns].copy()
    rgb = np.ascontiguousarray(image.rgb[r : r + rows, c : c + columns])
    return Perturbed(replace(image, rgb=rgb, body=body, hu=None), shifted_by(r, c))


def _pad(image: InputImage, strength: float, draws: Draws) -> Perturbed:
    more = [round(size * strength) for size in image.shape]
    r, c = (draws.below(added + 1) for added in more)
    around = ((r, more[0] - r), (c, more[1] - c))
    body = None if image.body is None else np.pad(image.body, around)
    return Perturbed(replace(image, rgb=np.pad(image.rgb, (*around, (0, 0))), body=body, hu=None), shifted_by(-r, -c))


def _still(image: InputImage, rgb: UInt8Array) -> Perturbed:
    return Perturbed(replace(image, rgb=rgb, hu=None), shifted_by(0, 0))


def _by_channel(rgb: UInt8Array, work: Callable[[UInt8Array], UInt8Array]) -> UInt8Array:
    """Change each channel; a grey image's but once."""
    changed = np.empty_like(rgb)
    changed[..., 0] = work(rgb[..., 0])
    for channel in (1, 2):
        same = np.array_equal(rgb[..., channel], rgb[..., 0])
        changed[..., channel] = changed[..., 0] if same else work(rgb[..., channel])
    return changed


def _to_bytes(values: npt.NDArray[np.floating]) -> UInt8Array:
    return np.asarray(np.clip(np.rint(values), 0, 255), dtype=np.uint8)


_WORK: dict[Kind, Callable[[InputImage, float, Draws], Perturbed]] = {
    Kind.NOISE: _noise,
    Kind.CONTRAST: _contrast,
    Kind.BRIGHTNESS: _brightness,
    Kind.BLUR: _blur,
    Kind.PIXELS: _pixels,
    Kind.ROTATION: _rotation,
    Kind.CROP: _crop,
    Kind.PAD: _pad,
}
