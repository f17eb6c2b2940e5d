"""Grids over changed images come back into the cells of the image before."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from m3node.attention.images.image import ImageKind, InputImage
from m3node.attention.robustness.kinds import Kind
from m3node.attention.robustness.perturbation import Perturbation, Perturbed, shifted_by
from m3node.attention.robustness.undoing import Frame, over_compared, undo
from m3node.gemma.images import SquareFrame

CELLS = 8


def blank(rows: int, columns: int, spacing: tuple[float, float] = (1.0, 1.0)) -> InputImage:
    return InputImage(Path("x.png"), np.zeros((rows, columns, 3), dtype=np.uint8), ImageKind.XRAY, spacing)


def frame_of(image: InputImage) -> Frame:
    return Frame(SquareFrame.of(image.shape, image.spacing).area, image.shape)


def attention_at(
    image: InputImage, changed: Perturbed, at: tuple[float, float], sigma: float
) -> npt.NDArray[np.float64]:
    """What a model that always looks at one spot of the body would give of the changed image: a smooth bump on it."""
    r0, c0, r1, c1 = frame_of(changed.image).area
    fine = CELLS * 16
    rows = r0 + (np.arange(fine) + 0.5) * (r1 - r0) / fine
    columns = c0 + (np.arange(fine) + 0.5) * (c1 - c0) / fine
    there = np.stack(np.meshgrid(rows, columns, indexing="ij"))
    before = np.einsum("ij,jrc->irc", changed.to_original[:, :2], there) + changed.to_original[:, 2, None, None]
    mm = (before - np.array(at)[:, None, None]) * np.array(image.spacing)[:, None, None]
    bump = np.exp(-(mm**2).sum(axis=0) / (2 * sigma**2))
    grid = bump.reshape(CELLS, 16, CELLS, 16).sum(axis=(1, 3))
    return np.asarray(grid / grid.sum())


def random_grid(seed: int) -> npt.NDArray[np.float32]:
    grid = np.random.default_rng(seed).random((CELLS, CELLS), dtype=np.float32) ** 4
    return np.asarray(grid / grid.sum(), dtype=np.float32)


@given(seed=st.integers(0, 99), rows=st.integers(1, 70), columns=st.integers(1, 70))
def test_where_nothing_moved_the_grid_itself_comes_back(seed: int, rows: int, columns: int) -> None:
    grid, frame = random_grid(seed), frame_of(blank(rows, columns))
    undone = undo(grid, frame, shifted_by(0, 0), frame)
    assert np.array_equal(undone.grid, grid)
    assert undone.compared.all()
    assert undone.left_out == 0.0


@given(
    kind=st.sampled_from([Kind.ROTATION, Kind.CROP, Kind.PAD]),
    share=st.floats(0.0, 1.0),
    seed=st.integers(0, 999),
    size=st.tuples(st.integers(60, 100), st.integers(60, 100)),
    across=st.sampled_from([0.7, 1.0, 1.3]),
)
def test_a_spot_that_is_looked_at_comes_back_to_where_it_is(
    kind: Kind, share: float, seed: int, size: tuple[int, int], across: float
) -> None:
    strength = {Kind.ROTATION: 60 * share - 30, Kind.CROP: 0.3 * share, Kind.PAD: 0.25 * share}[kind]
    image = blank(*size, spacing=(1.0, across))
    at = (0.45 * size[0], 0.55 * size[1])
    changed = Perturbation(kind, strength, seed).apply(image)
    sigma = 0.12 * max(size[0], size[1] * across)
    same = Perturbed(image, shifted_by(0, 0))
    original = attention_at(image, same, at, sigma)
    frame = frame_of(image)
    undone = undo(attention_at(image, changed, at, sigma), frame_of(changed.image), changed.to_original, frame)
    before, _ = over_compared(original, undone.compared)
    after, nothing = over_compared(undone.grid, undone.compared)
    assert nothing == 0.0
    assert after.sum() == pytest.approx(1.0, abs=1e-6)
    # Half of the sum of differences is the share of attention that is not where it was.
    assert np.abs(before - after).sum() / 2 < 0.15
    # The centre of what came back, in millimetres, is the spot: far nearer than a cell.
    cell = max(size[0], size[1] * across) / CELLS
    assert np.hypot(
        *(centre(undone.grid, frame, image) - centre(np.where(undone.compared, original, 0), frame, image))
    ) < (0.25 * cell)


def centre(grid: npt.NDArray[np.floating], frame: Frame, image: InputImage) -> npt.NDArray[np.float64]:
    r0, c0, r1, c1 = frame.area
    r = r0 + (np.arange(CELLS) + 0.5) * (r1 - r0) / CELLS
    c = c0 + (np.arange(CELLS) + 0.5) * (c1 - c0) / CELLS
    where = np.array([(grid.sum(axis=1) * r).sum(), (grid.sum(axis=0) * c).sum()]) / grid.sum()
    return np.asarray(where * image.spacing)


def test_without_undoing_the_spot_would_be_elsewhere() -> None:
    """What shows that the test above can fail: the changed image's own grid, taken as it is."""
    image = blank(80, 80)
    changed = Perturbation(Kind.ROTATION, 30.0).apply(image)
    grid = attention_at(image, changed, (15.0, 65.0), 8.0)
    original = attention_at(image, Perturbed(image, shifted_by(0, 0)), (15.0, 65.0), 8.0)
    frame = frame_of(image)
    undone = undo(grid, frame_of(changed.image), changed.to_original, frame)
    assert np.unravel_index(undone.grid.argmax(), grid.shape) == np.unravel_index(original.argmax(), grid.shape)
    assert np.unravel_index(grid.argmax(), grid.shape) != np.unravel_index(original.argmax(), grid.shape)


def test_a_quarter_turn_of_a_square_is_undone_exactly() -> None:
    image, grid = blank(64, 64), random_grid(4)
    changed = Perturbation(Kind.ROTATION, 90.0).apply(image)
    undone = undo(np.rot90(grid), frame_of(changed.image), changed.to_original, frame_of(image))
    assert undone.compared.all()
    assert undone.left_out == pytest.approx(0.0, abs=1e-6)
    assert undone.grid == pytest.approx(grid, abs=1e-7)


def test_a_crop_of_whole_cells_by_hand() -> None:
    """The right lower quarter of a square image, seen as 8 × 8 cells: two by two they are one cell of the whole."""
    grid = random_grid(9)
    whole, quarter = Frame((0.0, 0.0, 64.0, 64.0), (64, 64)), Frame((0.0, 0.0, 32.0, 32.0), (32, 32))
    undone = undo(grid, quarter, shifted_by(32, 32), whole)
    expected = np.zeros((CELLS, CELLS))
    expected[4:, 4:] = grid.reshape(4, 2, 4, 2).sum(axis=(1, 3))
    assert np.array_equal(undone.compared, expected > 0)
    assert undone.grid == pytest.approx(expected, abs=1e-7)
    assert undone.left_out == pytest.approx(0.0, abs=1e-6)


def test_what_was_added_around_the_image_is_left_out_and_said() -> None:
    """The image in the middle of a canvas twice as large: 4 × 4 of its cells lie on the image, one on 2 × 2 before."""
    grid = np.zeros((CELLS, CELLS))
    grid[0, 0], grid[2, 2], grid[5, 5] = 0.4, 0.3, 0.3
    frame, padded = Frame((0.0, 0.0, 64.0, 64.0), (64, 64)), Frame((0.0, 0.0, 128.0, 128.0), (128, 128))
    undone = undo(grid, padded, shifted_by(-32, -32), frame)
    expected = np.zeros((CELLS, CELLS))
    expected[:2, :2] = expected[6:, 6:] = 0.125
    assert undone.left_out == pytest.approx(0.4)
    assert undone.compared.all()
    assert undone.grid == pytest.approx(expected)


def test_padding_of_the_models_square_is_no_part_of_what_both_saw() -> None:
    image = blank(32, 64)
    changed = Perturbation(Kind.ROTATION, 1.0).apply(image)
    grid = np.full((CELLS, CELLS), 1 / CELLS**2)
    undone = undo(grid, frame_of(changed.image), changed.to_original, frame_of(image))
    assert not undone.compared[:2].any()
    assert not undone.compared[6:].any()
    assert undone.compared[2:6].all()
    assert undone.left_out == pytest.approx(0.5, abs=0.02)


def test_a_cell_of_which_only_a_part_was_seen_gets_that_parts_density() -> None:
    """A crop that takes the first quarter of the first column of cells: even attention stays even."""
    frame, cropped = Frame((0.0, 0.0, 64.0, 64.0), (64, 64)), Frame((-1.0, 0.0, 61.0, 62.0), (60, 62))
    undone = undo(np.full((CELLS, CELLS), 1 / 64), cropped, shifted_by(2, 2), frame)
    assert undone.compared.all()
    assert undone.grid == pytest.approx(1 / 64, rel=1e-6)


def test_attention_that_is_wholly_outside_leaves_nothing_to_compare_and_no_error() -> None:
    grid = np.zeros((CELLS, CELLS))
    grid[0, 0] = 1.0
    frame, padded = Frame((0.0, 0.0, 64.0, 64.0), (64, 64)), Frame((0.0, 0.0, 128.0, 128.0), (128, 128))
    undone = undo(grid, padded, shifted_by(-32, -32), frame)
    assert undone.left_out == 1.0
    assert np.isfinite(undone.grid).all()
    assert undone.grid.sum() == 0.0


def test_shares_over_the_compared_cells() -> None:
    values, left_out = over_compared(np.array([[0.5, 0.25], [0.25, 0.0]]), np.array([[False, True], [True, True]]))
    assert values.tolist() == [0.5, 0.5, 0.0]
    assert left_out == pytest.approx(0.5)
    values, left_out = over_compared(np.zeros((2, 2)), np.ones((2, 2), dtype=np.bool_))
    assert values.tolist() == [0.0] * 4
    assert left_out == 1.0
