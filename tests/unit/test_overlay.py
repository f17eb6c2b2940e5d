"""The picture shows the patient as a radiologist expects, whatever way the series is stored."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from m3node.drawing.lettering import AMBER
from m3node.evaluation.ct_writer import axial_geometry
from m3node.imaging.geometry import PatientGeometry
from m3node.imaging.mask import VoxelMask
from m3node.imaging.volume import CTVolume
from m3node.results.display import Display, body_extent, windowed
from m3node.results.findings import Findings, Outcome
from m3node.results.labels import Rect, place_labels
from m3node.results.overlay import draw_overlay, shown_slices
from m3node.results.segmentation import lesion_colour
from m3node.results.tile import LIVER
from made_findings import ellipsoid, made_findings, without_liver

SHAPE = (9, 60, 80)
SPACING = (3.0, 1.5, 1.5)
SUPINE = axial_geometry(SHAPE, SPACING, origin=(-60, -45, 0))


def volume_of(geometry: PatientGeometry) -> CTVolume:
    """A body with one bright spot on the patient's right, in front."""
    n, rows, columns = geometry.shape
    hu = np.full(geometry.shape, -1000, dtype=np.int16)
    hu[ellipsoid(geometry.shape, (n / 2, rows / 2, columns / 2), (n, rows * 0.45, columns * 0.45)).full()] = 60
    hu[ellipsoid(geometry.shape, (n / 2, rows * 0.3, columns * 0.2), (n, rows * 0.05, columns * 0.05)).full()] = 400
    return CTVolume(hu=hu, geometry=geometry, sources=())


def stored_as(volume: CTVolume, findings: Findings, how: str) -> tuple[CTVolume, Findings]:
    """The same patient in another storage: axes reversed or exchanged, patient coordinates unchanged."""
    axes = {"columns": (2,), "rows": (1,), "both": (1, 2), "slices": (0,)}.get(how, ())
    transpose = how == "transposed"

    def turn(array: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
        return np.ascontiguousarray(np.flip(array, axes) if axes else array.transpose(0, 2, 1))

    affine = volume.geometry.affine.copy()
    for axis in axes:
        affine[:3, 3] += affine[:3, axis] * (volume.geometry.shape[axis] - 1)
        affine[:3, axis] *= -1
    if transpose:
        affine[:, [1, 2]] = affine[:, [2, 1]]
    hu = turn(volume.hu)
    positions = affine[:3, 3] + np.arange(hu.shape[0])[:, None] * affine[:3, 0]
    geometry = PatientGeometry(affine=affine, positions=positions, shape=hu.shape)
    assert findings.region is not None
    masks = [VoxelMask.from_full(turn(lesion.mask.full())) for lesion in findings.lesions]
    moved = made_findings(geometry, lesions=masks)
    moved = replace(
        moved, region=replace(findings.region, parenchyma=VoxelMask.from_full(turn(findings.region.parenchyma.full())))
    )
    return CTVolume(hu=hu, geometry=geometry, sources=()), moved


def picture(volume: CTVolume, findings: Findings, folder: Path, name: str = "overlay.png") -> npt.NDArray[np.int16]:
    assert draw_overlay(volume, findings, folder / name)
    return np.asarray(Image.open(folder / name)).astype(np.int16)


def near(image: npt.NDArray[np.int16], colour: tuple[int, int, int]) -> npt.NDArray[np.bool_]:
    return np.abs(image - np.array(colour)).max(axis=2) < 25


@pytest.mark.parametrize("how", ["columns", "rows", "both", "transposed"])
def test_every_storage_of_one_patient_gives_the_same_slices(tmp_path: Path, how: str) -> None:
    volume = volume_of(SUPINE)
    findings = made_findings(SUPINE)
    again, moved = stored_as(volume, findings, how)
    first = picture(volume, findings, tmp_path, "a.png")
    second = picture(again, moved, tmp_path, "b.png")
    assert first.shape == second.shape
    # Diameters are listed as the made-up lesions have them, along rows and columns: compare above the list.
    slices = slice(84, -200)
    differing = np.abs(first[slices] - second[slices]).max(axis=2) > 90
    assert differing.mean() < 0.002


def test_the_patients_right_is_on_the_left() -> None:
    volume = volume_of(SUPINE)
    right_front = SUPINE.to_voxel([-30.0, -20.0, 12.0]).round().astype(int)
    for how in ("columns", "rows", "both", "transposed"):
        again, _ = stored_as(volume, made_findings(SUPINE), how)
        _, r, c = again.geometry.to_voxel([-30.0, -20.0, 12.0]).round().astype(int)
        plane = np.zeros(again.geometry.shape[1:], dtype=bool)
        plane[r, c] = True
        display = Display.of(again.geometry)
        row, column = np.argwhere(display.turn(plane))[0]
        assert (row, column) == tuple(right_front[1:])
        assert display.letters == ("R", "L", "A", "P")
        np.testing.assert_allclose(display.turn_points([(r + 0.5, c + 0.5)])[0], (row + 0.5, column + 0.5))


def test_sides_follow_the_patient_when_the_table_is_rotated() -> None:
    turned = axial_geometry(SHAPE, SPACING, row=(0.966, 0.259, 0.0), column=(-0.259, 0.966, 0.0))
    assert Display.of(turned).letters == ("R", "L", "A", "P")


def test_head_is_shown_first_whichever_way_slices_are_stored() -> None:
    volume, findings = volume_of(SUPINE), made_findings(SUPINE)
    for shown, found in [(volume, findings), stored_as(volume, findings, "slices")]:
        heights = [shown.geometry.positions[k][2] for k in shown_slices(shown, found)]
        assert len(heights) == 2
        assert heights == sorted(heights, reverse=True)


def test_liver_lesions_and_notice_are_drawn(tmp_path: Path) -> None:
    image = picture(volume_of(SUPINE), made_findings(SUPINE), tmp_path)
    assert near(image, LIVER).sum() > 100
    assert near(image, lesion_colour(1)).sum() > 100
    assert near(image[-40:], AMBER).sum() > 50
    assert near(image[:50], AMBER).sum() == 0  # an outcome that is whole does not warn


@pytest.mark.parametrize("count", [1, 2, 4, 9, 14])
def test_at_most_six_slices_are_shown_and_every_count_fits(tmp_path: Path, count: int) -> None:
    geometry = axial_geometry((60, 60, 80), SPACING, origin=(-60, -45, 0))
    masks = [ellipsoid(geometry.shape, (4 * i + 1, 20 + i, 20 + 2 * i), (1, 4, 4)) for i in range(count)]
    findings = made_findings(geometry, lesions=masks)
    volume = volume_of(geometry)
    assert len(shown_slices(volume, findings)) == min(count, 6)
    image = picture(volume, findings, tmp_path)
    assert image.shape[1] > 700
    # Below the slices, whose air is black: a head, a line for each lesion up to 12, how many more, the notice.
    below = image[np.flatnonzero((image == 0).all(axis=2).sum(axis=1) > 50)[-1] + 1 :]
    written = (below.max(axis=2) > 100).any(axis=1)
    assert np.count_nonzero(np.diff(written.astype(int), prepend=0) == 1) == 1 + min(count, 12) + (count > 12) + 1


def test_without_a_lesion_the_largest_liver_is_shown(tmp_path: Path) -> None:
    volume, findings = volume_of(SUPINE), made_findings(SUPINE, lesions=())
    assert findings.region is not None
    (k,) = shown_slices(volume, findings)
    areas = [findings.region.parenchyma.on_slice(i).sum() for i in range(SHAPE[0])]
    assert areas[k] == max(areas)
    assert near(picture(volume, findings, tmp_path), LIVER).sum() > 100


def test_without_a_liver_nothing_is_outlined_and_the_outcome_warns(tmp_path: Path) -> None:
    volume, findings = volume_of(SUPINE), without_liver(made_findings(SUPINE))
    image = picture(volume, findings, tmp_path)
    assert near(image, LIVER).sum() == 0
    assert near(image[:50], AMBER).sum() > 50


class Drawn:
    """What was drawn on the slices, in order, as Pillow was asked for it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.texts: dict[str, tuple[float, float]] = {}
        self.frames: list[tuple[float, float, float, float]] = []
        self.lines: list[list[tuple[float, float]]] = []
        text, rectangle, line = ImageDraw.ImageDraw.text, ImageDraw.ImageDraw.rectangle, ImageDraw.ImageDraw.line

        def noted_text(draw: ImageDraw.ImageDraw, at: tuple[float, float], words: str, **how: Any) -> None:
            self.texts.setdefault(words, at)
            text(draw, at, words, **how)

        def noted_rectangle(draw: ImageDraw.ImageDraw, corners: tuple[float, ...], **how: Any) -> None:
            if "outline" in how:
                self.frames.append((corners[0], corners[1], corners[2], corners[3]))
            rectangle(draw, corners, **how)

        def noted_line(draw: ImageDraw.ImageDraw, points: list[tuple[float, float]], **how: Any) -> None:
            self.lines.append(points)
            line(draw, points, **how)

        monkeypatch.setattr(ImageDraw.ImageDraw, "text", noted_text)
        monkeypatch.setattr(ImageDraw.ImageDraw, "rectangle", noted_rectangle)
        monkeypatch.setattr(ImageDraw.ImageDraw, "line", noted_line)


@pytest.mark.parametrize("how", ["as it is", "columns", "rows", "both", "slices"])
def test_a_slice_says_its_sides_number_height_and_window(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    volume, findings = volume_of(SUPINE), made_findings(SUPINE, lesions=())
    if how != "as it is":
        volume, findings = stored_as(volume, findings, how)
    (k,) = shown_slices(volume, findings)
    drawn = Drawn(monkeypatch)
    draw_overlay(volume, findings, tmp_path / "overlay.png")
    (left, top), (right, bottom) = np.min(list(sides(drawn)), axis=0), np.max(list(sides(drawn)), axis=0)
    assert (drawn.texts["R"][0], drawn.texts["L"][0]) == (left, right)
    assert (drawn.texts["A"][1], drawn.texts["P"][1]) == (top, bottom)
    assert right - left > 1000
    assert bottom - top > 700
    height = volume.geometry.positions[k][2]
    assert {f"Slice {k + 1} of 9", f"z {height:+.1f} mm", "C 60  W 400"} <= set(drawn.texts)


def sides(drawn: Drawn) -> list[tuple[float, float]]:
    return [drawn.texts[letter] for letter in "RLAP"]


def test_boxes_are_as_large_and_as_far_apart_as_the_scale_bar_says_where_pixels_are_not_square(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    geometry = axial_geometry(SHAPE, (3.0, 1.5, 1.0), origin=(-40, -45, 0))
    masks = [ellipsoid(geometry.shape, (4, 20, 25), (1, 4, 6)), ellipsoid(geometry.shape, (4, 40, 50), (1, 3, 3))]
    findings = made_findings(geometry, lesions=masks)
    drawn = Drawn(monkeypatch)
    draw_overlay(volume_of(geometry), findings, tmp_path / "overlay.png")
    (millimetres,) = [int(words.split()[0]) for words in drawn.texts if re.fullmatch(r"\d+ mm", words)]
    # The bar is the one level line that ends where its two ticks stand.
    (bar,) = [abs(b[0] - a[0]) for a, b, *more in drawn.lines if not more and a[1] == b[1] and ticked(drawn, a, b)]
    per_mm = bar / millimetres
    boxes = [lesion.key_box.box for lesion in findings.lesions]
    first, second = drawn.frames
    for frame, box in zip((first, second), boxes, strict=True):
        # Each frame keeps the same distance from its lesion on every side.
        away = (frame[2] - frame[0] - (box.c1 - box.c0) * 1.0 * per_mm) / 2
        assert 0 < away < 10
        assert frame[3] - frame[1] - (box.r1 - box.r0) * 1.5 * per_mm == pytest.approx(2 * away, abs=0.1)
    assert second[0] - first[0] == pytest.approx((boxes[1].c0 - boxes[0].c0) * 1.0 * per_mm, abs=0.1)
    assert second[1] - first[1] == pytest.approx((boxes[1].r0 - boxes[0].r0) * 1.5 * per_mm, abs=0.1)


def ticked(drawn: Drawn, a: tuple[float, float], b: tuple[float, float]) -> bool:
    """Whether an upright line ends at each end of this one."""
    ends = {tuple(line[1]) for line in drawn.lines if len(line) == 2 and line[0][0] == line[1][0] != line[0][1]}
    return tuple(a) in ends and tuple(b) in ends


def test_incomplete_is_said_in_colour(tmp_path: Path) -> None:
    findings = replace(made_findings(SUPINE, lesions=()), outcome=Outcome.INCOMPLETE, views_read=3)
    assert near(picture(volume_of(SUPINE), findings, tmp_path)[:50], AMBER).sum() > 50


def test_a_picture_that_is_there_stays(tmp_path: Path) -> None:
    volume, findings = volume_of(SUPINE), made_findings(SUPINE)
    draw_overlay(volume, findings, tmp_path / "overlay.png")
    before = (tmp_path / "overlay.png").read_bytes()
    assert not draw_overlay(volume, made_findings(SUPINE, lesions=()), tmp_path / "overlay.png")
    assert (tmp_path / "overlay.png").read_bytes() == before


def test_a_key_slice_beside_another_that_shows_its_lesion_is_left_out() -> None:
    geometry = axial_geometry((30, 60, 80), SPACING, origin=(-60, -45, 0))
    beside = [ellipsoid(geometry.shape, (10, 20, 20), (3, 4, 4)), ellipsoid(geometry.shape, (11, 40, 40), (3, 4, 4))]
    apart = [*beside, ellipsoid(geometry.shape, (20, 30, 60), (3, 4, 4))]
    volume = volume_of(geometry)
    assert len(shown_slices(volume, made_findings(geometry, lesions=beside))) == 1
    assert len(shown_slices(volume, made_findings(geometry, lesions=apart))) == 2


def test_table_and_arms_are_cut_off() -> None:
    plane = np.full((100, 140), -1000, dtype=np.int16)
    plane[20:70, 40:100] = 50
    plane[30:50, 5:20] = 50
    plane[85:87, 10:130] = 200
    assert body_extent(plane, 3) == (17, 73, 37, 103)


@given(st.lists(st.tuples(st.integers(60, 900), st.integers(60, 700), st.integers(5, 60)), min_size=1, max_size=6))
@example([(60, 132, 5), (60, 129, 5), (60, 132, 5)])  # the third label's best place touches the first
def test_labels_stay_inside_and_cover_no_other(lesions: list[tuple[int, int, int]]) -> None:
    boxes = [Rect(x, y, x + side, y + side) for x, y, side in lesions]
    labels = place_labels(boxes, [(70.0, 22.0)] * len(boxes), (1000.0, 800.0))
    for index, label in enumerate(labels):
        assert (label.x0 >= 0, label.y0 >= 0, label.x1 <= 1000, label.y1 <= 800) == (True,) * 4
        for other in labels[:index]:
            apart = (other.x0 - label.x1, label.x0 - other.x1, other.y0 - label.y1, label.y0 - other.y1)
            assert max(apart) > -1e-6  # touching is no covering


@pytest.mark.parametrize(
    ("box", "label"),
    [
        (Rect(40, 50, 60, 70), Rect(40, 26.7, 110, 46.7)),
        (Rect(40, 5, 60, 25), Rect(40, 28.3, 110, 48.3)),
        (Rect(190, 50, 198, 70), Rect(130, 26.7, 200, 46.7)),
        (Rect(50, 10, 100, 95), Rect(103.3, 42.5, 173.3, 62.5)),
    ],
    ids=["above its box", "below where the picture ends above", "pushed in from the right edge", "beside a high box"],
)
def test_a_lone_label_stands_next_to_its_box(box: Rect, label: Rect) -> None:
    (placed,) = place_labels([box], [(70.0, 20.0)], (200.0, 100.0))
    found = (placed.x0, placed.y0, placed.x1, placed.y1)
    assert found == pytest.approx((label.x0, label.y0, label.x1, label.y1), abs=0.5)


def test_a_label_in_the_corner_is_pushed_inside() -> None:
    (label,) = place_labels([Rect(0, 0, 5, 5)], [(70.0, 22.0)], (100.0, 60.0))
    assert label.y0 >= 5
    assert label.x0 == 0


def test_the_window_maps_its_lower_end_to_black_its_centre_to_grey_and_its_upper_end_to_white() -> None:
    plane = np.repeat(np.array([[-500, -140, 60, 260, 900]], dtype=np.int16), 3, axis=0)
    assert windowed(plane, (5, 3), (60.0, 400.0))[1].tolist() == [0, 0, 128, 255, 255]


def test_an_empty_slice_is_shown_whole() -> None:
    assert body_extent(np.full((20, 30), -1000, dtype=np.int16), 2) == (0, 20, 0, 30)
