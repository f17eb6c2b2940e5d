"""A table of questions is asked image by image, goes on when something fails, and is taken up where it was left."""

from __future__ import annotations

import csv
import gc
import json
import weakref
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from m3node.attention.images.finding import ImageFolder
from m3node.attention.images.image import InputImage
from m3node.attention.images.liver import LiverOutlines
from m3node.attention.output import keeping
from m3node.attention.output.folder import open_folder
from m3node.attention.output.keeping import Shelf
from m3node.attention.output.setup import Setup
from m3node.attention.questions.question import Question
from m3node.attention.reading.looked import Looked
from m3node.attention.running import NO_QUESTION, Desk, Run, ask_one, run_questions
from m3node.errors import ConfigError, InferenceError
from m3node.progress import silent
from spot_looker import SpotLooker, spot_setup, write_spots

ASKED = "Is there a nodule?"


def question(line: int, image: str, text: str = ASKED, index: int = 0, **more: Any) -> Question:
    return Question(line, image, "s1", text, ASKED, index, truth="no", **more)


QUESTIONS = (
    question(2, "two"),
    question(3, "one"),
    question(4, "one", "Do you see a nodule?", 1, strategy="paraphrase", truth_box=(20.0, 45.0, 40.0, 65.0)),
    question(5, "two", "Are the lungs free of nodules?", 2),
    question(6, "one", "Is there a flat nodule?", 3),
)


@pytest.fixture(autouse=True)
def _no_pictures(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes most of the time, and has tests of its own; ``real_pictures`` asks for it."""
    if "real_pictures" not in request.fixturenames:
        monkeypatch.setattr(keeping, "draw_overlay", lambda scene, grid, truth, marks: grid.tobytes())
        monkeypatch.setattr(keeping, "draw_visualization", lambda sheet: repr(sheet.row).encode())


@pytest.fixture
def real_pictures() -> None: ...


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "images").mkdir()
    write_spots(tmp_path / "images")
    return tmp_path


def run(
    root: Path, questions: Sequence[Question], looker: Any = None, *, resume: bool = False, setup: Setup | None = None
) -> Run:
    return run_questions(desk(root, looker, resume=resume, setup=setup), questions, silent, resume=resume)


def desk(root: Path, looker: Any = None, *, resume: bool = False, setup: Setup | None = None) -> Desk:
    images = ImageFolder(root / "images")
    open_folder(root / "out", root / "images", resume=resume)
    return Desk(looker or SpotLooker(), images, LiverOutlines(images), Shelf(root / "out", setup or spot_setup()))


def table(root: Path) -> list[dict[str, str]]:
    with (root / "out" / "evaluation_results.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def files(root: Path) -> dict[str, tuple[int, bytes]]:
    """All files of the questions, with when they were written and what they hold."""
    found = [path for path in (root / "out").rglob("*") if path.is_file() and path.parent != root / "out"]
    return {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in found}


def test_each_image_is_encoded_once_for_all_its_questions(root: Path) -> None:
    looker = SpotLooker()
    run(root, QUESTIONS, looker)
    assert len(looker.encoded) == 2
    assert [len(texts) for texts in looker.asked] == [2, 3]


def test_rows_come_in_the_tables_order_whatever_was_asked_first(root: Path) -> None:
    done = run(root, QUESTIONS)
    assert [row.line for row in done.rows] == [2, 3, 4, 5, 6]
    assert [row["line"] for row in table(root)] == ["2", "3", "4", "5", "6"]
    assert done.failed == done.kept == 0


def test_a_row_says_what_was_found(root: Path) -> None:
    rows = {row["line"]: row for row in table_after(root, QUESTIONS)}
    dark, bright, flat = rows["3"], rows["2"], rows["6"]
    assert (dark["answer"], dark["correct"]) == ("No.", "true")
    assert (bright["answer"], bright["correct"]) == ("Yes, there is.", "false")
    # The spot of "one" is in the upper right part, and the box of its second question around it.
    assert float(dark["apical_fraction"]) > 0.5
    assert float(dark["right_fraction"]) > 0.5
    assert rows["4"]["pointing_hit"] == "true"
    assert rows["4"]["strategy"] == "paraphrase"
    assert rows["3"]["pointing_hit"] == ""
    assert (flat["degenerate"], dark["degenerate"]) == ("true", "false")
    assert (dark["mode"], dark["asked_mode"]) == ("raw", "gated")
    assert dark["passed_over"] == "gated: no medical term in the question"
    assert dark["image_file"] == "one.png"
    assert dark["model"] == "spots (a test model)"


def table_after(root: Path, questions: Sequence[Question]) -> list[dict[str, str]]:
    run(root, questions)
    return table(root)


@pytest.mark.usefixtures("real_pictures")
def test_the_same_run_writes_the_same_bytes(root: Path) -> None:
    run(root, QUESTIONS)
    first = {name: content for name, (_, content) in files(root).items()}
    (root / "out").rename(root / "before")
    run(root, QUESTIONS)
    assert {name: content for name, (_, content) in files(root).items()} == first
    assert (root / "out" / "evaluation_results.csv").read_bytes() == (
        root / "before" / "evaluation_results.csv"
    ).read_bytes()


BAD = (
    question(7, "gone"),
    question(8, "one", "", 4),
    question(9, "two", "What is <image>?", 5),
    question(10, "two", "Where?", 6, truth_box=(900.0, 900.0, 950.0, 950.0)),
    question(11, "two", "And where?", 7, truth_mask="gone.png"),
    question(12, "text", ASKED),
)


def test_what_fails_fails_alone_and_says_why(root: Path) -> None:
    (root / "images" / "text.png").write_text("no picture")
    looker = SpotLooker()
    done = run(root, (*BAD, *QUESTIONS), looker)
    errors = {row.line: row.error for row in done.rows if row.error}
    assert set(errors) == {one.line for one in BAD}
    assert "gone" in errors[7]
    assert errors[8] == NO_QUESTION
    assert "<image>" in errors[9]
    assert "beside the image" in errors[10]
    assert "gone.png" in errors[11]
    assert "text.png" in errors[12]
    assert done.failed == len(BAD)
    for row in done.rows:
        assert (root / "out" / row.meta_file).is_file()
        assert bool(row.grid_file) is not bool(row.error)
    # Nothing was asked of the model whose result could not have been kept.
    assert "Where?" not in [text for texts in looker.asked for text in texts]


def test_a_model_that_breaks_off_on_one_image_goes_on_with_the_next(root: Path) -> None:
    class Breaks(SpotLooker):
        def features(self, image: InputImage) -> torch.Tensor:
            if image.path.stem == "two":
                raise InferenceError("the model broke off")
            return super().features(image)

    done = run(root, QUESTIONS, Breaks())
    assert [row.line for row in done.rows if row.error == "the model broke off"] == [2, 5]
    assert done.failed == 2


def test_what_is_whole_is_not_done_again(root: Path) -> None:
    run(root, QUESTIONS)
    before, csv_before = files(root), table(root)
    (root / "out" / "report.html").write_text("of an earlier run")
    looker = SpotLooker()
    done = run(root, QUESTIONS, looker, resume=True)
    assert (done.kept, len(done.anew)) == (5, 0)
    assert looker.encoded == []
    assert files(root) == before
    assert table(root) == csv_before
    assert not (root / "out" / "report.html").exists(), "it told of another table"


def test_only_what_is_missing_is_done(root: Path) -> None:
    run(root, QUESTIONS[:2])
    before = files(root)
    looker = SpotLooker()
    done = run(root, QUESTIONS, looker, resume=True)
    assert done.kept == 2
    assert [len(texts) for texts in looker.asked] == [1, 2]
    assert len(table(root)) == 5
    assert before.items() <= files(root).items()


def test_a_lost_picture_is_made_again_and_the_others_stay(root: Path) -> None:
    run(root, QUESTIONS)
    before = files(root)
    lost = root / "out" / table(root)[1]["overlay_file"]
    lost.unlink()
    done = run(root, QUESTIONS, resume=True)
    assert (done.kept, done.anew) == (4, {"a file is missing or changed": 1})
    after = files(root)
    assert {name: content for name, (_, content) in after.items()} == {name: c for name, (_, c) in before.items()}
    assert sum(after[name][0] != before[name][0] for name in after) == 4  # grid, overlay, sheet, record


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"model": {**spot_setup().model, "weights": "sha256:1"}}, "other model"),
        ({"plan": replace(spot_setup().plan, layers=(2,))}, "other plan"),
        ({"terms": "others"}, "other terms"),
        ({"body": "none"}, "other body"),
    ],
)
def test_results_of_another_model_or_plan_are_never_mixed_in(root: Path, changes: dict[str, Any], why: str) -> None:
    run(root, QUESTIONS)
    looker = SpotLooker()
    done = run(root, QUESTIONS, looker, resume=True, setup=replace(spot_setup(), **changes))
    assert (done.kept, done.anew) == (0, {why: 5})
    assert len(looker.encoded) == 2


def test_another_truth_or_image_is_another_result(root: Path) -> None:
    mask = root / "images" / "mask.png"
    Image.fromarray(np.full((96, 80), 255, dtype=np.uint8)).save(mask)
    asked = (replace(QUESTIONS[1], truth_mask="mask.png"), QUESTIONS[0])
    first = run(root, asked)
    done = run(root, (replace(asked[0], truth="yes"), asked[1]), resume=True)
    assert (done.kept, done.anew) == (1, {"other question": 1})
    assert [first.rows[0].correct, done.rows[0].correct] == [True, False]
    Image.fromarray(np.eye(96, 80, dtype=np.uint8)).save(mask)
    done = run(root, (replace(asked[0], truth="yes"), asked[1]), resume=True)
    assert done.anew == {"other mask": 1}
    Image.fromarray(np.full((64, 64), 9, dtype=np.uint8)).save(root / "images" / "two.png")
    done = run(root, (replace(asked[0], truth="yes"), asked[1]), resume=True)
    assert (done.kept, done.anew) == (1, {"other image": 1})


def test_a_table_whose_lines_moved_keeps_its_results(root: Path) -> None:
    run(root, QUESTIONS)
    moved = [replace(one, line=one.line + 10) for one in reversed(QUESTIONS)]
    done = run(root, moved, resume=True)
    assert done.kept == 5
    assert [row["line"] for row in table(root)] == ["16", "15", "14", "13", "12"]


def test_failures_are_tried_again_and_a_result_outlives_its_image(root: Path) -> None:
    run(root, (*QUESTIONS, question(7, "gone")))
    (root / "images" / "one.png").rename(root / "images" / "gone.png")
    done = run(root, (*QUESTIONS, question(7, "gone")), resume=True)
    assert done.anew == {"it had failed": 1}
    assert (done.failed, done.kept) == (0, 5)


class Stops(SpotLooker):
    """Is stopped by hand at its second image."""

    def features(self, image: InputImage) -> torch.Tensor:
        if self.encoded:
            raise KeyboardInterrupt
        return super().features(image)


def test_an_interrupted_run_leaves_a_table_of_what_is_done_and_goes_on(root: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(root, QUESTIONS, Stops())
    assert [row["line"] for row in table(root)] == ["2", "5"]
    done = run(root, QUESTIONS, resume=True)
    assert (done.kept, len(done.rows)) == (2, 5)
    assert len(table(root)) == 5


def test_a_result_kept_names_its_image_where_it_lies_now(root: Path) -> None:
    run(root, QUESTIONS)
    (root / "images" / "moved").mkdir()
    (root / "images" / "one.png").rename(root / "images" / "moved" / "one.png")
    assert run(root, QUESTIONS, resume=True).kept == len(QUESTIONS)
    assert {(row["dicom_id"], row["image_file"]) for row in table(root)} == {
        ("one", "moved/one.png"),
        ("two", "two.png"),
    }


def test_what_a_killed_run_left_half_written_goes_with_the_next(root: Path) -> None:
    run(root, QUESTIONS)
    parts = [root / "out" / name / ".0f.part" for name in ("", "grids", "overlays", "visualizations")]
    for part in parts:
        part.write_bytes(b"half")
    assert run(root, QUESTIONS, resume=True).kept == len(QUESTIONS)
    assert not any(part.exists() for part in parts)


def test_what_died_between_two_files_is_not_taken_for_whole(root: Path) -> None:
    run(root, QUESTIONS)
    row = table(root)[0]
    (root / "out" / row["meta_file"]).unlink()  # what is written last
    done = run(root, QUESTIONS, resume=True)
    assert (done.kept, done.failed) == (4, 0)


def test_two_questions_never_share_files(root: Path) -> None:
    with pytest.raises(ConfigError, match="two questions have the key"):
        run(root, (QUESTIONS[0], replace(QUESTIONS[0], line=9, strategy="other")))
    assert not (root / "out" / "evaluation_results.csv").exists()


def test_variants_about_one_image_each_have_their_own_grid(root: Path) -> None:
    class Differs(SpotLooker):
        def ask(self, features: torch.Tensor, image: InputImage, texts: Sequence[str]) -> list[Looked]:
            found = []
            for number, looked in enumerate(super().ask(features, image, texts)):
                grid = np.zeros((8, 8), dtype=np.float32)
                grid[number, len(texts)] = 1.0
                found.append(replace(looked, grid=grid))
            return found

    done = run(root, QUESTIONS, Differs())
    grids = [np.load(root / "out" / row.grid_file) for row in done.rows]
    assert [tuple(int(at) for at in np.argwhere(grid)[0]) for grid in grids] == [(0, 2), (0, 3), (1, 3), (1, 2), (2, 3)]


def test_few_images_are_in_memory_however_many_there_are(root: Path) -> None:
    spots = (root / "images" / "one.png").read_bytes()
    asked = []
    for number in range(12):
        (root / "images" / f"n{number}.png").write_bytes(spots)
        asked.append(question(number, f"n{number}"))
    held: list[weakref.ref[Any]] = []
    most = 0

    class Counts(SpotLooker):
        def features(self, image: InputImage) -> torch.Tensor:
            nonlocal most
            held.append(weakref.ref(image.rgb))
            gc.collect()
            most = max(most, sum(one() is not None for one in held))
            return super().features(image)

    run(root, asked, Counts())
    assert len(held) == 12
    assert most <= 2  # this one, and the last, whose results were just written


def test_one_question_leaves_its_files_and_no_table(root: Path) -> None:
    row = ask_one(desk(root), QUESTIONS[1], root / "images" / "one.png")
    assert row.answer == "No."
    assert row.image_file == "one.png"
    names = {path.relative_to(root / "out").as_posix() for path in (root / "out").rglob("*") if path.is_file()}
    assert names == {row.grid_file, row.meta_file, row.overlay_file, row.visualization_file}
    record = json.loads((root / "out" / row.meta_file).read_text())
    assert record["basis"]["model"]["name"] == "spots"
    assert record["looked"]["area"] == [0.0, -8.0, 96.0, 88.0]
