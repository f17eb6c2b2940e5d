"""A frame of the capture shows its slice, what was found there, and where the model looked, in words and colours."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageDraw
from pydicom.dataset import Dataset
from pydicom.tag import Tag
from pydicom.uid import (
    MultiFrameTrueColorSecondaryCaptureImageStorage,
)

from attended import PICTURES, SHAPE, built, findings_of, series
from m3node.drawing.heat import SCALE
from m3node.imaging.assemble import assemble
from m3node.intake.series.manifest import Manifest
from m3node.notice import ATTENTION_NOTICE, NOT_FOR_CLINICAL_USE
from m3node.results.attention import picture
from m3node.results.attention.choice import largest_slice
from m3node.results.attention.sheet import draw_sheet
from m3node.results.build import build_objects
from m3node.results.findings import Findings, Outcome
from m3node.results.objects import ObjectKind
from m3node.settings import Settings

Pixels = npt.NDArray[Any]


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return series(tmp_path_factory.mktemp("series"))


@pytest.fixture(scope="module")
def findings(manifest: Manifest) -> Findings:
    return findings_of(manifest)


@pytest.fixture(scope="module")
def objects(
    findings: Findings, manifest: Manifest, tmp_path_factory: pytest.TempPathFactory
) -> dict[ObjectKind, Dataset]:
    return built(findings, manifest, tmp_path_factory.mktemp("objects"))


def tiles(pixels: Pixels) -> tuple[Pixels, Pixels]:
    """The slice as it is, and the one under the map."""
    rows = pixels[picture.HEADER : -picture.FOOTER].astype(int)
    left, width = picture.GAP, picture.TILE_WIDTH
    return rows[:, left : left + width], rows[:, 2 * left + width : 2 * (left + width)]


def test_the_capture_says_what_it_is(findings: Findings, objects: dict[ObjectKind, Dataset]) -> None:
    ds = objects[ObjectKind.ATTENTION_CAPTURE]
    expected = {
        "SOPClassUID": MultiFrameTrueColorSecondaryCaptureImageStorage,
        "Modality": "OT",
        "ImageType": ["DERIVED", "SECONDARY", "OTHER"],
        "ConversionType": "SYN",
        "BurnedInAnnotation": "NO",
        "RecognizableVisualFeatures": "NO",
        "PatientOrientation": "",
        "BodyPartExamined": "LIVER",
        "DateOfSecondaryCapture": "20260304",
        "PhotometricInterpretation": "RGB",
        "NumberOfFrames": 2,
        "FrameIncrementPointer": Tag("PageNumberVector"),
        "PageNumberVector": [1, 2],
    }
    assert {keyword: ds[keyword].value or "" for keyword in expected} == expected
    for words in (ATTENTION_NOTICE, NOT_FOR_CLINICAL_USE):
        assert words in ds.ImageComments
    for number, item in enumerate(findings.attention, start=1):
        assert f"{number}: Lesion {item.lesion}, its key slice" in ds.ImageComments


def test_a_frame_shows_its_slice_plain_and_under_the_map(
    findings: Findings, objects: dict[ObjectKind, Dataset]
) -> None:
    ds = objects[ObjectKind.ATTENTION_CAPTURE]
    pixels = ds.pixel_array
    assert pixels.shape == (2, ds.Rows, ds.Columns, 3)
    for item, frame in zip(findings.attention, pixels, strict=True):
        plain, mapped = tiles(frame)
        # 10 HU a slice, and 400 of them from black to white.
        assert np.median(plain) == pytest.approx((10 * item.slice_index + 140) / 400 * 255, abs=2)
        changed = np.abs(plain - mapped).max(axis=2) > 8
        assert 0.2 < changed.mean() < 0.95
        # The plain one is grey but for the lines; the mapped one has the scale's colours.
        assert (np.ptp(plain, axis=2) > 20).mean() < 0.15
        assert (np.ptp(mapped, axis=2) > 20).mean() > 0.2


def test_both_have_the_livers_outline_and_the_box_of_their_own_lesion_and_of_no_other(
    findings: Findings, objects: dict[ObjectKind, Dataset]
) -> None:
    pixels = objects[ObjectKind.ATTENTION_CAPTURE].pixel_array
    assert findings.region is not None
    boxes = {lesion.number: lesion.key_box.box for lesion in findings.lesions}
    for item, frame in zip(findings.attention, pixels, strict=True):
        envelope = findings.region.envelope.on_slice(item.slice_index)
        for tile in tiles(frame):
            down, across = tile.shape[0] / SHAPE[1], tile.shape[1] / SHAPE[2]
            for number, box in boxes.items():
                middle = round((box.r0 + box.r1) / 2 * down)
                sides = [round(side * across) for side in (box.c0, box.c1)]
                white = [tile[middle, side - 3 : side + 4].min(axis=1).max() > 200 for side in sides]
                assert white == [number == item.lesion] * 2
            # Half way down, where the map's own greens are not: the outermost voxels of the envelope.
            row = round(float(np.argwhere(envelope)[:, 0].mean()))
            columns = np.flatnonzero(envelope[row])
            line = tile[round((row + 0.5) * down)]
            for edge in (columns[0], columns[-1] + 1):
                at = round(edge * across)
                near = line[at - 4 : at + 5]
                assert (near[:, 1] - near[:, 0]).max() > 40, "no green line"


def test_the_words_and_the_bar_of_a_frame_say_what_was_measured(
    findings: Findings, manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[str] = []
    write = picture.write

    def noted(draw: ImageDraw.ImageDraw, at: tuple[float, float], text: str, *rest: Any, **named: Any) -> None:
        written.append(text)
        write(draw, at, text, *rest, **named)

    monkeypatch.setattr(picture, "write", noted)
    key = findings.attention[0]
    values = np.full((8, 8), 0.001, dtype=np.float32)
    values[5, 2] = 0.02
    shown = replace(key, grid=replace(key.grid, values=values))
    build_objects(replace(findings, attention=(shown,)), manifest, tmp_path, Settings(), kinds=PICTURES[:1])
    assert [words for words in written if words.endswith(" %")] == ["2.00 %", "1.50 %", "1.00 %", "0.50 %", "0.00 %"]
    assert {ATTENTION_NOTICE, NOT_FOR_CLINICAL_USE} <= set(written)
    assert "Model attention. Lesion 1, its key slice." in written
    (what,) = [words for words in written if words.startswith("Attention of the language model")]
    assert "one box's coordinates; all 64 image tokens together 8.3 %; view padded by 10 %" in what


def test_a_slice_that_is_not_the_largest_livers_is_not_called_that(findings: Findings) -> None:
    region = findings.region
    assert region is not None
    largest = largest_slice(region)
    assert largest is not None
    none = replace(findings, lesions=(), tracking_uids=(), outcome=Outcome.NO_LESION)
    for k, words in ((largest, "largest liver"), (largest - 1, "largest liver of those read")):
        item = replace(findings.attention[0], lesion=None, slice_index=k)
        assert picture.title(item, none) == f"No lesion found: slice with the {words}"


def test_the_hottest_place_of_the_picture_is_where_the_grid_is_hottest(
    findings: Findings, manifest: Manifest, tmp_path: Path
) -> None:
    hot = np.zeros((8, 8), dtype=np.float32)
    hot[5, 2] = 0.02
    key = findings.attention[0]
    findings = replace(findings, attention=(replace(key, grid=replace(key.grid, values=hot)),))
    _, tile = tiles(built(findings, manifest, tmp_path)[ObjectKind.ATTENTION_CAPTURE].pixel_array)
    # Yellow is what neither grey nor lines are.
    yellow = tile[..., :2].min(axis=2) - tile[..., 2]
    assert SCALE[-1, :2].min() - int(SCALE[-1, 2]) > 100
    r, c = np.unravel_index(np.argmax(yellow), yellow.shape)
    area = key.grid.area
    row, column = area.r0 + 5.5 / 8 * (area.r1 - area.r0), area.c0 + 2.5 / 8 * (area.c1 - area.c0)
    # All 60 × 70 voxels are shown: the body reaches to every edge of this series.
    assert r / tile.shape[0] == pytest.approx(row / SHAPE[1], abs=0.03)
    assert c / tile.shape[1] == pytest.approx(column / SHAPE[2], abs=0.03)


def test_a_sheet_has_the_captures_frames_one_below_the_other(
    findings: Findings, manifest: Manifest, objects: dict[ObjectKind, Dataset], tmp_path: Path
) -> None:
    assert draw_sheet(assemble(manifest), findings, tmp_path / "attention.png")
    with Image.open(tmp_path / "attention.png") as drawn:
        sheet = np.asarray(drawn)
    assert np.array_equal(sheet, np.concatenate(list(objects[ObjectKind.ATTENTION_CAPTURE].pixel_array)))
