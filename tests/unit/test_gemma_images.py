"""What the model sees of a crop: padded to a square, resized, and back."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from m3node.gemma.images import SquareFrame, _by_tensors, normalised, square_coverage, square_images

Pixels = npt.NDArray[np.uint8]

sizes = st.integers(1, 300)
spacings = st.floats(0.3, 3.0)


def noise(rows: int, columns: int, seed: int = 0) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, (rows, columns, 3), dtype=np.uint8)


def by_pil(image: Pixels, side: int) -> Pixels:
    """Pad to a square, the smaller half first, and resize: one image at a time, as published."""
    rows, columns, _ = image.shape
    whole = max(rows, columns)
    square = np.zeros((whole, whole, 3), dtype=np.uint8)
    top, left = (whole - rows) // 2, (whole - columns) // 2
    square[top : top + rows, left : left + columns] = image
    return np.asarray(Image.fromarray(square).resize((side, side), Image.Resampling.BILINEAR))


def on_a_device(images: list[Pixels], frames: list[SquareFrame], side: int) -> torch.Tensor:
    """What devices other than the CPU do, on the CPU."""
    return _by_tensors(images, frames, side, "cpu")


@pytest.mark.parametrize("side", [224, 896])
def test_with_square_pixels_images_are_pils_to_the_byte_also_in_one_batch_of_many_sizes(side: int) -> None:
    images = [noise(*size) for size in [(201, 260), (333, 180), (512, 512), (1, 7), (224, 224), (901, 1300)]]
    frames = [SquareFrame.of(image.shape, (0.7, 0.7)) for image in images]
    expected = np.stack([by_pil(image, side) for image in images])
    for square in (square_images(images, frames, side, "cpu"), on_a_device(images, frames, side)):
        assert square.dtype == torch.uint8
        assert np.array_equal(square.permute(0, 2, 3, 1).numpy(), expected)


@settings(max_examples=60, deadline=None)
@given(rows=sizes, columns=sizes, dr=spacings, dc=spacings, side=st.sampled_from([28, 56, 100]))
def test_every_device_gives_the_same_bytes_with_pixels_of_any_shape(
    rows: int, columns: int, dr: float, dc: float, side: int
) -> None:
    images, frames = [noise(rows, columns)], [SquareFrame(rows, columns, (dr, dc))]
    assert torch.equal(square_images(images, frames, side, "cpu"), on_a_device(images, frames, side))


@settings(deadline=None)
@given(rows=sizes, columns=sizes, dr=spacings, dc=spacings)
def test_a_frame_is_as_wide_as_high_in_millimetres_and_holds_the_crop_in_its_middle(
    rows: int, columns: int, dr: float, dc: float
) -> None:
    frame = SquareFrame(rows, columns, (dr, dc))
    r0, c0, r1, c1 = frame.area
    assert (r1 - r0) * dr == pytest.approx((c1 - c0) * dc, abs=2e-3 * max(dr, dc))
    assert (r1 - r0) * dr == pytest.approx(frame.side_mm, abs=1e-3 * dr)
    assert (r1 - r0 == rows) or (c1 - c0 == columns)
    assert r0 <= 0 <= (r1 - rows) + 1e-3
    assert c0 <= 0 <= (c1 - columns) + 1e-3
    assert abs((r0 + r1) / 2 - rows / 2) <= 1
    assert abs((c0 + c1) / 2 - columns / 2) <= 1


edges = st.floats(-50, 400)


@given(rows=sizes, columns=sizes, dr=spacings, dc=spacings, box=st.tuples(edges, edges, edges, edges))
def test_units_and_back_is_where_one_started(
    rows: int, columns: int, dr: float, dc: float, box: tuple[float, float, float, float]
) -> None:
    frame = SquareFrame(rows, columns, (dr, dc))
    assert frame.from_units(*frame.to_units(*box)) == pytest.approx(box, abs=1e-6)
    assert frame.to_units(*frame.area) == pytest.approx((0, 0, 1000, 1000))


def test_a_wide_crop_lies_between_two_bands_of_padding() -> None:
    frame = SquareFrame.of((50, 100), (1.0, 1.0))
    assert frame.area == (-25, 0, 75, 100)
    assert frame.to_units(0, 0, 50, 100) == (250, 0, 750, 1000)
    (square,) = square_images([np.full((50, 100, 3), 200, np.uint8)], [frame], 56, "cpu")
    assert (square[0, :, 0] >= 100).tolist() == [False] * 14 + [True] * 28 + [False] * 14


def test_pixels_that_are_twice_as_high_as_wide_make_a_square_of_millimetres() -> None:
    frame = SquareFrame.of((50, 100), (2.0, 1.0))
    assert frame.area == (0, 0, 50, 100)
    (square,) = square_images([np.full((50, 100, 3), 200, np.uint8)], [frame], 56, "cpu")
    assert (square == 200).all()


def test_coverage_is_the_share_of_the_models_pixel_that_the_mask_covers() -> None:
    mask = np.zeros((4, 4), dtype=np.bool_)
    mask[1, 1:3] = True
    frame = SquareFrame.of(mask.shape, (1.0, 1.0))
    (finer,) = square_coverage([mask], [frame], 8, "cpu")
    assert torch.equal(finer, torch.from_numpy(mask.repeat(2, 0).repeat(2, 1).astype(np.float32)))
    (coarser,) = square_coverage([mask], [frame], 2, "cpu")
    assert torch.equal(coarser, torch.tensor([[0.25, 0.25], [0.0, 0.0]]))


@settings(max_examples=40, deadline=None)
@given(
    shapes=st.lists(st.tuples(sizes, sizes, spacings, spacings), min_size=1, max_size=3),
    side=st.sampled_from([28, 56]),
    seed=st.integers(0, 9),
)
def test_coverage_keeps_the_masks_area_and_its_place(
    shapes: list[tuple[int, int, float, float]], side: int, seed: int
) -> None:
    random = np.random.default_rng(seed)
    masks = [random.random((rows, columns)) < 0.3 for rows, columns, _, _ in shapes]
    frames = [SquareFrame(rows, columns, (dr, dc)) for rows, columns, dr, dc in shapes]
    for cover, mask, frame in zip(square_coverage(masks, frames, side, "cpu"), masks, frames, strict=True):
        r0, c0, r1, c1 = frame.area
        model_pixel = (r1 - r0) / side * (c1 - c0) / side
        assert float(cover.sum()) * model_pixel == pytest.approx(mask.sum(), rel=1e-3, abs=1e-3)
        assert 0 <= cover.min() <= cover.max() <= 1 + 1e-5
        if mask.any():
            middle = np.argwhere(mask).mean(axis=0) + 0.5
            spread = [(np.arange(side) + 0.5) @ cover.sum(axis).numpy() / float(cover.sum()) for axis in (1, 0)]
            found = r0 + spread[0] * (r1 - r0) / side, c0 + spread[1] * (c1 - c0) / side
            # A pixel of the model is even within, so a middle may be off by half of it.
            assert abs(found[0] - middle[0]) <= (r1 - r0) / side / 2 + 0.01
            assert abs(found[1] - middle[1]) <= (c1 - c0) / side / 2 + 0.01


def test_pixel_values_are_those_of_the_models_own_image_processor() -> None:
    from transformers import Gemma3ImageProcessorPil

    processor = Gemma3ImageProcessorPil(
        size={"height": 224, "width": 224}, resample=2, image_mean=[0.5] * 3, image_std=[0.5] * 3
    )
    image = noise(300, 300)
    expected = processor(images=Image.fromarray(image), return_tensors="pt")["pixel_values"]
    squares = square_images([image], [SquareFrame.of(image.shape, (1.0, 1.0))], 224, "cpu")
    assert torch.allclose(normalised(squares, torch.float32), expected, atol=1e-6)
    assert normalised(squares, torch.bfloat16).dtype == torch.bfloat16


def test_an_image_in_another_ones_frame_is_refused() -> None:
    with pytest.raises(ValueError, match="10, 12"):
        square_images([noise(10, 12)], [SquareFrame.of((12, 10), (1.0, 1.0))], 56, "cpu")
    with pytest.raises(ValueError, match="0×5"):
        SquareFrame.of((0, 5), (1.0, 1.0))
