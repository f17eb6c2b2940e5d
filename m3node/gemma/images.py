"""From crops of any size and pixel shape to the model's square image, on the model's device, and back to the crop.

Padding, uneven pixels and antialiased resizing are one step: along each axis a few of the crop's pixels weigh on each
of the model's. The weights, and the whole numbers that they are worked in, are PIL's, so that every device gives the
same bytes: the CPU by PIL itself, which is faster there, others a whole batch at a time.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

UNITS = 1000.0
"""The model's coordinates run from 0 to this over the square, down and across."""

Edges = tuple[float, float, float, float]
"""Four edges in the order top, left, bottom, right."""


@dataclass(frozen=True, slots=True)
class SquareFrame:
    """A crop centred in a zero-padded square that is as wide as high in millimetres.

    Its side is the crop's longer one. With square pixels it is the model's published padding to a square, odd
    differences included: the smaller half comes first, so that padding before the crop is whole pixels.

    Attributes
    ----------
    rows, columns : int
        Size of the crop in pixels.
    spacing : tuple of float
        mm between rows, between columns.
    """

    rows: int
    columns: int
    spacing: tuple[float, float]

    def __post_init__(self) -> None:
        if min(self.rows, self.columns) < 1 or not all(math.isfinite(mm) and mm > 0 for mm in self.spacing):
            raise ValueError(f"no square frame for {self.rows}×{self.columns} pixels of {self.spacing} mm")

    @classmethod
    def of(cls, shape: tuple[int, ...], spacing: tuple[float, float]) -> SquareFrame:
        """Frame an array by its shape; only the first two numbers count."""
        return cls(rows=shape[0], columns=shape[1], spacing=spacing)

    @property
    def side_mm(self) -> float:
        """Side of the square in millimetres."""
        return max(self.rows * self.spacing[0], self.columns * self.spacing[1])

    @property
    def area(self) -> Edges:
        """The square in the crop's rows and columns, ``(r0, c0, r1, c1)``: pixel edges, negative where padding is."""
        r0, r1 = _span(self.rows, self.side_mm / self.spacing[0])
        c0, c1 = _span(self.columns, self.side_mm / self.spacing[1])
        return r0, c0, r1, c1

    def to_units(self, r0: float, c0: float, r1: float, c1: float) -> Edges:
        """Map pixel edges of the crop to the model's ``(y0, x0, y1, x1)``, 0…1000, not rounded."""
        top, left, bottom, right = self.area
        down, across = UNITS / (bottom - top), UNITS / (right - left)
        return (r0 - top) * down, (c0 - left) * across, (r1 - top) * down, (c1 - left) * across

    def from_units(self, y0: float, x0: float, y1: float, x1: float) -> Edges:
        """Map the model's coordinates, 0…1000, to pixel edges ``(r0, c0, r1, c1)`` of the crop; not cut off at it."""
        top, left, bottom, right = self.area
        down, across = (bottom - top) / UNITS, (right - left) / UNITS
        return top + y0 * down, left + x0 * across, top + y1 * down, left + x1 * across


def square_images(
    images: Sequence[npt.NDArray[np.uint8]],
    frames: Sequence[SquareFrame],
    side: int,
    device: torch.device | str,
) -> torch.Tensor:
    """Pad a batch of crops to their squares and resize them, as PIL's ``BILINEAR`` does, to the byte.

    Parameters
    ----------
    images : sequence of ndarray of uint8, shape (rows, columns, 3)
        Of any sizes.
    frames : sequence of SquareFrame
        One an image.
    side : int
        Side of the model's image in pixels.
    device : torch.device or str
        Where to work; crops travel there as bytes.

    Returns
    -------
    Tensor of uint8, shape (batch, 3, side, side)
    """
    _check(images, frames)
    if torch.device(device).type == "cpu":
        return _by_pil(images, frames, side)
    return _by_tensors(images, frames, side, device)


def square_coverage(
    masks: Sequence[npt.NDArray[np.bool_]],
    frames: Sequence[SquareFrame],
    side: int,
    device: torch.device | str,
) -> torch.Tensor:
    """Say how much of each of the model's pixels a mask covers, in the geometry of `square_images`.

    A mask's edge stays where it is: shares are of area, and nothing spreads to pixels that the mask does not reach.

    Parameters
    ----------
    masks : sequence of ndarray of bool, shape (rows, columns)
        One a crop.
    frames, side, device
        As for `square_images`.

    Returns
    -------
    Tensor of float32, shape (batch, side, side)
        0…1; 0 in the padding.
    """
    _check(masks, frames)
    pixels = _stacked([mask[:, :, None] for mask in masks], frames, device)
    for axis in (1, 0):
        index, weights = _overlap(frames, axis, side)
        pixels = _weighed(pixels, index, torch.from_numpy(weights.astype(np.float32))).transpose(1, 3)
    return pixels[:, :, 0].transpose(1, 2).contiguous()


def normalised(images: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Bring bytes to −1…1, as the model's own image processor does.

    Parameters
    ----------
    images : Tensor of uint8
        Of any shape.
    dtype : torch.dtype
        The model's.
    """
    return images.to(torch.float32).div_(255).sub_(0.5).div_(0.5).to(dtype)


_BILINEAR = Image.Resampling.BILINEAR
_WEIGHT_BITS = 22
"""PIL's: 8 bits of a byte and 22 of a weight stay within 32."""

_Taps = tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]
"""Which of the crop's pixels weigh on each of the model's, and how much: both of shape (batch, side, few)."""


def _span(count: int, length: float) -> tuple[float, float]:
    """Where a square of ``length`` pixels begins and ends around ``count`` of them."""
    length = round(length * 1024) / 1024  # PIL takes single floats, which hold that exactly
    start = -float(math.floor((length - count) / 2))
    return start, start + length


def _check(images: Sequence[npt.NDArray[np.generic]], frames: Sequence[SquareFrame]) -> None:
    for image, frame in zip(images, frames, strict=True):
        if image.shape[:2] != (frame.rows, frame.columns):
            raise ValueError(f"an image of {image.shape[:2]} pixels in a frame for {(frame.rows, frame.columns)}")


def _by_pil(images: Sequence[npt.NDArray[np.uint8]], frames: Sequence[SquareFrame], side: int) -> torch.Tensor:
    squares = np.empty((len(images), 3, side, side), dtype=np.uint8)
    for place, image, frame in zip(squares, images, frames, strict=True):
        r0, c0, r1, c1 = frame.area
        down, across, height = r1 - r0, c1 - c0, math.ceil(r1 - r0)
        canvas = np.zeros((height, math.ceil(across), 3), dtype=np.uint8)
        canvas[int(-r0) : int(-r0) + frame.rows, int(-c0) : int(-c0) + frame.columns] = image
        # One axis after the other: which comes first in one call is PIL's choice, by sizes and version.
        wide = Image.fromarray(canvas).resize((side, height), _BILINEAR, box=(0.0, 0.0, across, float(height)))
        square = wide.resize((side, side), _BILINEAR, box=(0.0, 0.0, float(side), down))
        place[:] = np.asarray(square).transpose(2, 0, 1)
    return torch.from_numpy(squares)


def _by_tensors(
    images: Sequence[npt.NDArray[np.uint8]],
    frames: Sequence[SquareFrame],
    side: int,
    device: torch.device | str,
) -> torch.Tensor:
    pixels = _stacked(images, frames, device)
    half = 1 << (_WEIGHT_BITS - 1)
    for axis in (1, 0):  # columns first, as in `_by_pil`
        index, weights = _bilinear(frames, axis, side)
        whole = torch.from_numpy(np.rint(weights * (1 << _WEIGHT_BITS)).astype(np.int32))
        pixels = ((_weighed(pixels, index, whole) + half) >> _WEIGHT_BITS).to(torch.uint8).transpose(1, 3)
    return pixels.permute(0, 2, 3, 1).contiguous()


def _stacked(
    images: Sequence[npt.NDArray[np.uint8] | npt.NDArray[np.bool_]],
    frames: Sequence[SquareFrame],
    device: torch.device | str,
) -> torch.Tensor:
    """One tensor of bytes, shape (batch, columns, channels, rows) of the largest, zeros around the others."""
    rows, columns = max(frame.rows for frame in frames), max(frame.columns for frame in frames)
    stacked = np.zeros((len(images), columns, images[0].shape[2], rows), dtype=np.uint8)
    for place, image in zip(stacked, images, strict=True):
        place[: image.shape[1], :, : image.shape[0]] = image.transpose(1, 2, 0)
    return torch.from_numpy(stacked).to(device)


def _weighed(pixels: torch.Tensor, index: npt.NDArray[np.int64], weights: torch.Tensor) -> torch.Tensor:
    """Sum the pixels that weigh on each of the model's, along the first axis after the batch."""
    batch, count, *rest = pixels.shape
    _, side, few = index.shape
    lines = pixels.reshape(batch * count, -1)
    places = torch.from_numpy(index + np.arange(batch)[:, None, None] * count).to(pixels.device).view(-1, few)
    weights = weights.to(pixels.device).view(-1, few, 1)
    total = lines.index_select(0, places[:, 0]) * weights[:, 0]
    for number in range(1, few):
        total += lines.index_select(0, places[:, number]) * weights[:, number]
    return total.view(batch, side, *rest)


def _grid(frames: Sequence[SquareFrame], axis: int, side: int, part: float) -> tuple[npt.NDArray[np.float64], ...]:
    """Where each of the model's pixels lies on the crop, 0 its edge and 1 the next; their size; the square's ends."""
    starts = np.array([frame.area[axis] for frame in frames])[:, None, None]
    ends = np.array([frame.area[axis + 2] for frame in frames])[:, None, None]
    scales = (ends - starts) / side
    return starts + (np.arange(side) + part)[None, :, None] * scales, scales, starts, ends


def _bilinear(frames: Sequence[SquareFrame], axis: int, side: int) -> _Taps:
    """A triangle around each of the model's pixels, as wide as the coarser of the two grids."""
    centres, scales, starts, ends = _grid(frames, axis, side, 0.5)
    support = np.maximum(scales, 1.0)
    places = np.floor(centres - support + 0.5).astype(np.int64) + np.arange(math.ceil(2 * support.max()))
    weights = np.maximum(0.0, 1.0 - np.abs(places + 0.5 - centres) / support)
    weights[(places < starts) | (places >= ends)] = 0.0  # padding counts, and is zero; beyond the square is nothing
    return _on_crop(places, weights / weights.sum(axis=2, keepdims=True), frames, axis)


def _overlap(frames: Sequence[SquareFrame], axis: int, side: int) -> _Taps:
    """The share of each of the model's pixels that lies in a pixel of the crop."""
    edges, scales, _, _ = _grid(frames, axis, side, 0.0)
    places = np.floor(edges).astype(np.int64) + np.arange(math.ceil(scales.max()) + 1)
    weights = np.maximum(0.0, np.minimum(edges + scales, places + 1) - np.maximum(edges, places)) / scales
    return _on_crop(places, weights, frames, axis)


def _on_crop(
    places: npt.NDArray[np.int64], weights: npt.NDArray[np.float64], frames: Sequence[SquareFrame], axis: int
) -> _Taps:
    counts = np.array([(frame.rows, frame.columns)[axis] for frame in frames])[:, None, None]
    inside = (places >= 0) & (places < counts)
    return np.where(inside, places, 0), np.where(inside, weights, 0.0)
