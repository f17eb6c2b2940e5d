"""What a run leaves of each question: rows a spreadsheet can open, records that say what they stand for, pictures."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from attention_cases import chest
from m3node.attention.images.image import ImageKind, InputImage
from m3node.attention.metrics.values import GridMetrics
from m3node.attention.output import record
from m3node.attention.output.folder import QuestionFiles, open_folder
from m3node.attention.output.lines import wrapped
from m3node.attention.output.overlay import LEAST, WIDTH, draw_overlay
from m3node.attention.output.record import read_record, write_record
from m3node.attention.output.rows import COLUMNS, METRICS, Row, guarded, table
from m3node.attention.output.scene import Scene, peak_of
from m3node.attention.output.setup import TEST_MODEL_MARK, Setup
from m3node.attention.output.visualization import Sheet, draw_visualization, metric_lines
from m3node.attention.questions.question import Question
from m3node.attention.reading.plan import Mode, ReadingPlan
from m3node.drawing.heat import SCALE
from m3node.drawing.lettering import FINE, drawable, font_of
from m3node.errors import ConfigError
from m3node.gemma.images import SquareFrame
from small_gemma import small_gemma

MEASURED = GridMetrics(1.5, 0.25, 0.125, 0.75, 0.1, 0.25, 0.75, None, None, 0.5, 0.5, 0.4, 0.6, None, True)

ROW = Row(
    key="s_i_v1_abc",
    line=7,
    study_id="s",
    dicom_id="i",
    question="Is there a nodule?",
    baseline_question="A nodule?",
    variant_index=1,
    strategy="paraphrase",
    ground_truth="yes",
    asked_mode="gated",
    model="m",
    answer="Yes.",
    correct=True,
    metrics=MEASURED,
    mode="raw",
    passed_over=("gated: zero",),
    degenerate=False,
    layers=(1, 3),
    image_share=0.2,
    log_prob=-0.5,
    ended=True,
    terms=("nodule",),
    grid_file="grids/s_i_v1_abc_grid.npy",
)


def read(rows: list[Row]) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(table(rows).decode(), newline="")))


def test_a_row_says_all_under_the_columns_names() -> None:
    (cells,) = read([ROW])
    assert tuple(cells) == COLUMNS
    assert set(METRICS) <= set(COLUMNS)
    assert cells["question"] == "Is there a nodule?"
    assert cells["ground_truth"] == "yes"
    assert cells["correct"] == "true"
    assert float(cells["inside_body"]) == 0.75
    assert cells["patient_left_fraction"] == cells["truth_inside"] == ""
    assert cells["pointing_hit"] == "true"
    assert cells["layers"] == "1; 3"
    assert cells["log_prob"] == "-0.5"
    assert cells["passed_over"] == "gated: zero"


def test_a_row_with_an_error_has_no_numbers() -> None:
    (cells,) = read([replace(ROW, metrics=None, answer="", correct=None, log_prob=None, error="no image")])
    assert cells["error"] == "no image"
    assert {cells[name] for name in METRICS} == {""}


@pytest.mark.parametrize(
    "text", ["=1+1", "+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "＝1+1", "=", "-"]
)
def test_what_a_spreadsheet_would_run_is_text(text: str) -> None:
    assert guarded(text) == f"'{text}"
    (cells,) = read([replace(ROW, answer=text, dicom_id=text)])
    assert cells["answer"] == cells["dicom_id"] == f"'{text}"


@pytest.mark.parametrize("text", ["-12", "+3.5", "-1e3", "no", "a=b", ""])
def test_numbers_and_words_stay_as_they_are(text: str) -> None:
    assert guarded(text) == text


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")), min_size=1, max_size=3))
def test_any_text_comes_back_from_the_table(texts: list[str]) -> None:
    rows = read([replace(ROW, answer=text) for text in texts])
    assert [row["answer"] for row in rows] == [guarded(text) for text in texts]
    assert all(row["question"] == ROW.question for row in rows)


def test_half_a_letter_of_utf_16_does_not_stop_the_table() -> None:
    (cells,) = read([replace(ROW, answer="a\ud800b")])
    assert cells["answer"] == "a?b"


def test_a_row_comes_back_from_its_record() -> None:
    assert Row.from_json(json.loads(json.dumps(ROW.as_json()))) == ROW
    with pytest.raises(ValueError, match="other fields"):
        Row.from_json({**ROW.as_json(), "new": 1})


def test_questions_that_look_alike_have_files_of_their_own() -> None:
    asked = Question(2, "chest-1", "s", "Is there a nodule?", "Is there a nodule?", 0)
    alike = [
        asked,
        replace(asked, dicom_id="chest_1"),
        replace(asked, dicom_id="chest/1"),
        replace(asked, dicom_id="CHEST-1"),
        replace(asked, dicom_id="chest-1", study_id="S"),
        replace(asked, study_id="s_chest-1", dicom_id=""),
        replace(asked, study_id="", dicom_id="s_chest-1"),
        replace(asked, variant_index=1),
        replace(asked, text="Is there a nodule"),
        replace(asked, baseline="A nodule?"),
        replace(asked, dicom_id="x" * 300),
        replace(asked, dicom_id="x" * 301),
        replace(asked, dicom_id="../../etc/passwd"),
    ]
    names = [name.lower() for question in alike for name in QuestionFiles(question.key).all]
    assert len(set(names)) == len(names)
    for name in names:
        assert ".." not in name
        assert name.count("/") == 1
        assert len(name.encode()) < 160


# Records.

BASIS: dict[str, Any] = {"model": {"name": "m", "weights": "1"}, "plan": {"mode": "gated"}, "image": "abc"}


@pytest.fixture
def out(tmp_path: Path) -> Path:
    (tmp_path / "images").mkdir()
    open_folder(tmp_path / "out", tmp_path / "images", resume=False)
    return tmp_path / "out"


def kept(out: Path, row: Row = ROW) -> None:
    files = QuestionFiles(row.key)
    write_record(out, row, BASIS, {"tokens": []}, {files.grid: b"grid", files.overlay: b"overlay"})


def test_what_is_whole_and_of_the_same_basis_is_kept(out: Path) -> None:
    kept(out)
    held = read_record(out, ROW.key, BASIS)
    assert (held.row, held.why_not) == (ROW, "")


def test_what_was_never_done_is_no_reason(out: Path) -> None:
    held = read_record(out, ROW.key, BASIS)
    assert (held.row, held.why_not) == (None, "")


@pytest.mark.parametrize("part", ["model", "plan", "image"])
def test_another_basis_is_done_anew_and_named(out: Path, part: str) -> None:
    kept(out)
    held = read_record(out, ROW.key, {**BASIS, part: "other"})
    assert held.row is None
    assert held.why_not == f"other {part}"


def test_a_part_that_cannot_be_told_now_is_not_compared(out: Path) -> None:
    kept(out)
    assert read_record(out, ROW.key, {**BASIS, "image": None}).row == ROW


@pytest.mark.parametrize("harm", ["gone", "cut", "other"])
def test_a_missing_or_changed_file_is_made_anew(out: Path, harm: str) -> None:
    kept(out)
    path = out / QuestionFiles(ROW.key).overlay
    if harm == "gone":
        path.unlink()
    else:
        path.write_bytes(b"over" if harm == "cut" else b"overlaY")
    assert read_record(out, ROW.key, BASIS).why_not == "a file is missing or changed"


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"null", b'{"schema": "other"}', b'{"schema": "m3node.attention/1"}', b"\xff", b"[" * 9999],
)
def test_a_damaged_record_is_no_record(out: Path, content: bytes) -> None:
    kept(out)
    (out / QuestionFiles(ROW.key).record).write_bytes(content)
    assert read_record(out, ROW.key, BASIS).why_not == "its record cannot be read"


def test_a_record_under_another_questions_name_is_not_taken(out: Path) -> None:
    kept(out)
    (out / QuestionFiles("other").record).write_bytes((out / QuestionFiles(ROW.key).record).read_bytes())
    assert read_record(out, "other", BASIS).row is None


def test_the_record_comes_last_and_an_old_one_never_stands_for_new_files(
    out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept(out)
    written: list[str] = []

    def full_disk(path: Path, content: bytes) -> None:
        if "overlay" in path.name:
            raise OSError(28, "No space left on device")
        written.append(path.name)

    monkeypatch.setattr(record, "write_over", full_disk)
    with pytest.raises(OSError, match="No space"):
        kept(out)
    assert written == [f"{ROW.key}_grid.npy"]
    held = read_record(out, ROW.key, BASIS)
    assert (held.row, held.why_not) == (None, "")


def test_an_error_leaves_nothing_of_the_result_before_it(out: Path) -> None:
    kept(out)
    failed = replace(ROW, metrics=None, error="no image", grid_file="")
    write_record(out, failed, BASIS, {}, {})
    files = QuestionFiles(ROW.key)
    assert [name for name in files.all if (out / name).exists()] == [files.record]
    assert read_record(out, ROW.key, BASIS).why_not == "it had failed"


def test_a_folder_among_the_images_is_refused_and_not_made(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="lies in the folder of images"):
        open_folder(tmp_path / "out", tmp_path, resume=True)
    assert not (tmp_path / "out").exists()


def test_a_folder_with_an_earlier_run_is_refused_unless_resumed(out: Path, tmp_path: Path) -> None:
    images = tmp_path / "images"
    open_folder(out, images, resume=False)  # nothing but empty folders: what a model that did not load leaves
    kept(out)
    with pytest.raises(ConfigError, match=r"holds an earlier run.*--resume"):
        open_folder(out, images, resume=False)
    open_folder(out, images, resume=True)


def test_a_file_in_the_place_of_the_folder_is_said(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "out").write_text("")
    with pytest.raises(ConfigError, match="cannot make the folder"):
        open_folder(tmp_path / "out", tmp_path / "images", resume=False)


def test_a_setup_tells_models_and_plans_apart_and_names_a_test_model() -> None:
    model = small_gemma()
    plan = ReadingPlan(Mode.GATED, (1, 3), (0.5, 0.5))
    usual = Setup.of(model, plan, ("nodule",), "auto")
    assert usual.label == "random weights (a test model)"
    assert usual.marks == (TEST_MODEL_MARK,)
    identity = replace(model.identity, name="google/m", revision="0123456789abcdef", is_test_model=False)
    other = Setup.of(
        replace(model, identity=identity, profile=replace(model.profile, is_test_model=False)), plan, (), ""
    )
    assert (other.label, other.marks) == ("google/m @ 0123456789ab", ())
    bases = [
        usual.basis,
        other.basis,
        Setup.of(replace(model, dtype=torch.bfloat16), plan, ("nodule",), "auto").basis,
        Setup.of(model, replace(plan, answer_tokens=2), ("nodule",), "auto").basis,
        Setup.of(model, plan, ("mass",), "auto").basis,
        Setup.of(model, plan, ("nodule",), "liver").basis,
    ]
    assert len({json.dumps(basis, sort_keys=True) for basis in bases}) == len(bases)


# Pictures.


def shown(shape: tuple[int, int] = (60, 30), *, colour: bool = False) -> InputImage:
    rgb = np.full((*shape, 3), 90, dtype=np.uint8)
    if colour:
        rgb[..., 0] = 200
    return InputImage(Path("a.png"), rgb, ImageKind.XRAY, patient_left="right")


def pixels(png: bytes) -> np.ndarray[Any, np.dtype[np.uint8]]:
    with Image.open(io.BytesIO(png)) as picture:
        return np.asarray(picture.convert("RGB"))


def one_cell(row: int, column: int, cells: int = 8) -> np.ndarray[Any, np.dtype[np.float32]]:
    grid = np.zeros((cells, cells), dtype=np.float32)
    grid[row, column] = 1.0
    return grid


@pytest.mark.parametrize("shape", [(64, 64), (60, 30), (30, 60)])
def test_the_hottest_spot_lies_where_the_cell_lies_in_the_image(shape: tuple[int, int]) -> None:
    image = shown(shape)
    area = SquareFrame.of(shape, image.spacing).area
    picture = Scene.of(image, area, WIDTH).heated(one_cell(2, 4)).astype(int)
    near = np.abs(picture - SCALE[-1].astype(int)).sum(axis=-1)
    row, column = np.unravel_index(np.argmin(near), near.shape)
    assert abs(row - 2.5 / 8 * WIDTH) < WIDTH / 16
    assert abs(column - 4.5 / 8 * WIDTH) < WIDTH / 16


def test_an_overlay_shows_the_image_without_padding_in_its_own_ratio() -> None:
    image = shown((60, 30))
    scene = Scene.of(image, SquareFrame.of(image.shape, image.spacing).area, WIDTH)
    picture = pixels(draw_overlay(scene, one_cell(0, 0), None, ()))
    # Twice as high as wide, in the middle of a picture wide enough for the words below it.
    assert picture.shape[1] == max(LEAST, WIDTH // 2)
    left = (picture.shape[1] - WIDTH // 2) // 2
    assert (picture[WIDTH - 10, left + 5] == 90).all()
    assert picture.shape[0] > WIDTH + 30
    top, first, bottom, last = scene.inside
    assert (bottom - top, last - first) == (WIDTH, WIDTH // 2)


def test_uneven_pixels_are_shown_as_wide_as_they_are() -> None:
    image = replace(shown((60, 30)), spacing=(1.0, 2.0))
    scene = Scene.of(image, SquareFrame.of(image.shape, image.spacing).area, WIDTH)
    assert scene.inside == (0, 0, WIDTH, WIDTH)


def test_colour_gives_way_to_the_maps_own() -> None:
    image = shown((64, 64), colour=True)
    scene = Scene.of(image, SquareFrame.of(image.shape, image.spacing).area, WIDTH)
    assert (scene.picture[5, 5] == (200, 90, 90)).all()
    far = scene.heated(one_cell(7, 7))[5, 5]
    assert far[0] == far[1] == far[2]


def test_what_is_flat_does_not_look_hot() -> None:
    flat = np.full((8, 8), 1 / 64, dtype=np.float32)
    assert peak_of(flat) == 4 / 64
    assert peak_of(one_cell(1, 1)) == 1.0
    image = shown((64, 64))
    picture = Scene.of(image, SquareFrame.of(image.shape, image.spacing).area, WIDTH).heated(flat)
    assert picture[280, 280].max() < 150


def test_blocks_are_the_cells_themselves() -> None:
    image = shown((64, 64))
    scene = Scene.of(image, SquareFrame.of(image.shape, image.spacing).area, 80)
    drawn = scene.blocks(one_cell(1, 2), 1.0)
    inside, beside = drawn[11:19, 21:29], drawn[11:19, 31:39]
    assert (inside == inside[0, 0]).all()
    assert (beside == 24).all()
    assert inside[0, 0].max() > 150


def test_the_body_is_bright_and_what_is_around_it_dim() -> None:
    made = chest(1)
    rgb = np.repeat(np.rint(made.shown * 255).astype(np.uint8)[..., None], 3, axis=2)
    image = InputImage(Path("a.png"), np.maximum(rgb, 60), ImageKind.XRAY, body=made.body)
    scene = Scene.of(image, SquareFrame.of(image.shape, image.spacing).area, 160)
    masked = scene.masked(made.body)
    offset = scene.inside[1]
    assert (masked[150, offset + 64] == scene.picture[150, offset + 64]).all()
    assert masked[5, offset + 5].max() < 0.5 * scene.picture[5, offset + 5].max()


def sheet(**changes: Any) -> Sheet:
    image = shown((64, 48))
    made = Sheet(
        scene=Scene.of(image, SquareFrame.of(image.shape, image.spacing).area, 340),
        grid=one_cell(1, 1),
        body_share=np.ones((8, 8)),
        body=np.ones((64, 48), dtype=np.bool_),
        truth=None,
        row=ROW,
        marks=(),
    )
    return replace(made, **changes)


def test_the_sheet_grows_with_what_it_must_say() -> None:
    usual = pixels(draw_visualization(sheet()))
    marked = pixels(draw_visualization(sheet(marks=("A test model answered.",))))
    assert marked.shape[0] == usual.shape[0] + 22
    wordy = pixels(draw_visualization(sheet(row=replace(ROW, question="long words " * 40, answer="and more " * 90))))
    assert usual.shape[0] < wordy.shape[0] < usual.shape[0] + 80, "what is too long is cut off, and says so"
    assert wordy.shape[1] == usual.shape[1]


@pytest.mark.parametrize(
    "changes",
    [
        {"body": None, "body_share": None},
        {"truth": np.eye(64, 48, dtype=np.bool_)},
        {"row": replace(ROW, metrics=None, degenerate=True, answer="", log_prob=None)},
        {"row": replace(ROW, question="胸部に結節はありますか \u202e\x1b[31m", answer="\n\n", layers=tuple(range(34)))},
        {"grid": np.full((16, 16), 1 / 256, dtype=np.float32), "body_share": np.zeros((16, 16))},
    ],
)
def test_a_sheet_is_drawn_of_whatever_there_is(changes: dict[str, Any]) -> None:
    picture = pixels(draw_visualization(sheet(**changes)))
    assert picture.shape[1] > 1000
    assert picture.std() > 5


def test_metrics_are_named_for_people_and_the_unknown_left_out() -> None:
    lines = dict(metric_lines(MEASURED))
    assert lines["inside the body"] == "75.0 %"
    assert lines["image left / right"] == "25.0 % / 75.0 %"
    assert lines["largest cell hits the truth"] == "yes"
    assert "patient left / right" not in lines
    assert "inside the truth" not in lines


@given(st.text(st.sampled_from("abcdefg iW.,-é→\n"), max_size=200), st.integers(60, 700))
def test_broken_lines_hold_every_letter_and_fit(text: str, room: int) -> None:
    font = font_of(12)
    lines = wrapped(text, font, room * FINE)
    assert "".join(lines).replace(" ", "") == "".join(drawable(text).split())
    assert all(font.getlength(line) <= room * FINE for line in lines)


def test_what_does_not_fit_ends_in_dots() -> None:
    (first, last) = wrapped("one two three four five six seven eight", font_of(12), 90 * FINE, most=2)
    assert first
    assert last.endswith("...")
