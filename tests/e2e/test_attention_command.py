"""``m3node attention`` as it is called: every file it promises, a report that a browser shows, and bad input."""

from __future__ import annotations

import csv
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from chromium import Page
from PIL import Image

from attention_cases import PATIENT, CaseSet, write_cases
from m3node.attention.output.rows import COLUMNS
from m3node.cli.main import main
from m3node.notice import ATTENTION_NOTICE, NOT_FOR_CLINICAL_USE

IMAGES, VARIANTS = 20, 3

QUICK = ("--model", "test", "--device", "cpu", "--max-new-tokens", "20", "--answer-tokens", "4")
"""The packaged model, and answers no longer than the tests need."""


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> CaseSet:
    return write_cases(tmp_path_factory.mktemp("cases"), count=IMAGES, variants=VARIANTS)


@pytest.fixture(scope="module")
def out(cases: CaseSet) -> Path:
    """What the command leaves for 20 images with 3 questions each."""
    folder = cases.images.parent / "out"
    words = [
        "attention",
        "run",
        cases.questions,
        "--images",
        cases.images,
        "--out",
        folder,
        *QUICK,
        "--heads",
        "groups",
    ]
    done = subprocess.run(
        [sys.executable, "-m", "m3node", *map(str, words)], capture_output=True, text=True, check=False, timeout=900
    )
    assert done.returncode == 0, done.stderr
    assert f"{IMAGES * VARIANTS} of {IMAGES * VARIANTS} questions answered by" in done.stdout
    assert "test model" in done.stdout
    assert ATTENTION_NOTICE in done.stdout
    assert not any(value in done.stdout + done.stderr for value in PATIENT)
    return folder


def rows_of(out: Path) -> list[dict[str, str]]:
    with (out / "evaluation_results.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_every_question_has_its_row_in_the_tables_order(out: Path, cases: CaseSet) -> None:
    rows = rows_of(out)
    assert tuple(rows[0]) == COLUMNS
    with cases.questions.open(newline="", encoding="utf-8") as file:
        asked = [
            (one["dicom_id"], one["study_id"], one["question_variant"] or one["question"], one["answer"])
            for one in csv.DictReader(file)
        ]
    assert [(row["dicom_id"], row["study_id"], row["question"], row["ground_truth"]) for row in rows] == asked
    assert len({row["key"] for row in rows}) == IMAGES * VARIANTS
    for row in rows:
        assert row["answer"]
        assert row["error"] == ""
        assert row["correct"] in {"true", "false"}
        assert row["mode"] in {"gated", "raw", "gradcam", "rollout"}
        assert row["asked_mode"] == "gated"
        assert row["layers"] == "1; 3"
        assert "test model" in row["model"]
        for name in ("entropy", "focus", "border_fraction", "centre_row", "truth_inside", "image_share", "log_prob"):
            assert np.isfinite(float(row[name]))
        assert float(row["left_fraction"]) + float(row["right_fraction"]) == pytest.approx(1.0)
        # Of a picture nobody knows where the patient's left is; of the radiographs the header says it.
        assert bool(row["patient_left_fraction"]) is not row["image_file"].endswith((".png", ".jpg"))


def test_every_file_of_the_tree_is_there_and_no_other(out: Path) -> None:
    keys = [row["key"] for row in rows_of(out)]
    expected = {"evaluation_results.csv", "report.html"}
    for key in keys:
        expected |= {f"grids/{key}_grid.npy", f"grids/{key}_meta.json", f"grids/{key}_heads.npz"}
        expected |= {f"overlays/{key}_overlay.png", f"visualizations/{key}_full.png"}
    assert {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()} == expected


def test_no_file_is_named_after_the_patient_or_holds_name_id_or_birth_date(out: Path, cases: CaseSet) -> None:
    radiograph = next(case for case in cases.cases if case.form == "linear").path.read_bytes()
    assert all(value.encode() in radiograph for value in PATIENT)
    for path in out.rglob("*"):
        content = path.read_bytes() if path.is_file() else b""
        assert not any(value in path.name or value.encode() in content for value in PATIENT), path


def test_grids_heads_and_records_are_what_the_table_says(out: Path) -> None:
    for row in rows_of(out):
        grid = np.load(out / row["grid_file"])
        assert (grid.dtype, grid.shape) == (np.float32, (8, 8))
        assert float(grid.sum()) == pytest.approx(1.0, abs=1e-5)
        assert float(row["focus"]) == pytest.approx(float(grid.max()), rel=1e-5)
        with np.load(out / row["heads_file"]) as heads:
            assert heads["by_head"].shape[0] == len(heads["layers"]) == 2
            assert heads["by_head"].shape[2:] == (8, 8)
        record = json.loads((out / row["meta_file"]).read_text(encoding="utf-8"))
        assert record["schema"] == "m3node.attention/1"
        assert record["basis"]["model"]["is_test_model"] is True
        assert record["row"]["answer"] == row["answer"]
        assert NOT_FOR_CLINICAL_USE in record["notice"]
        for name in ("overlay_file", "visualization_file"):
            with Image.open(out / row[name]) as picture:
                picture.load()
                assert picture.format == "PNG"


def test_the_report_opens_with_its_pictures_and_without_a_complaint(
    out: Path, program: Callable[[str], str], tmp_path: Path
) -> None:
    (tmp_path / "profile").mkdir()
    with Page(program("chromium"), tmp_path / "profile") as page:
        page.open((out / "report.html").as_uri())
        pictures = page.pictures()
        assert len(pictures) >= 12
        assert all(width >= 300 for width in pictures.values()), pictures
        assert page.complaints() == []
        assert all(url.startswith((out.as_uri(), "data:")) for url in page.requests())

        text = page.value("document.body.innerText")
        for words in (ATTENTION_NOTICE, NOT_FOR_CLINICAL_USE, "test model", "paraphrase", "negation", "60"):
            assert words in text
        # Every link leads somewhere: into the page, or to a file that is there.
        for link in page.value("[...document.querySelectorAll('a')].map(a => a.getAttribute('href'))"):
            if link.startswith("#"):
                assert page.value(f"document.getElementById({json.dumps(link[1:])}) !== null"), link
            else:
                assert (out / link).is_file(), link
        # Histograms are drawn, and styled by the page's own style alone.
        assert page.value("document.querySelectorAll('svg rect.wrong, svg rect.right').length") > 10
        light = page.value("getComputedStyle(document.body).backgroundColor")

        page.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark"}])
        assert page.value("getComputedStyle(document.body).backgroundColor") != light
        page.call("Emulation.setDeviceMetricsOverride", width=360, height=740, deviceScaleFactor=2, mobile=True)
        assert page.value("document.documentElement.scrollWidth") <= 360, "a phone would have to scroll sideways"
        page.value("document.querySelectorAll('details').forEach(each => { each.open = true }), 0")
        narrowest = page.value("Math.min(...[...document.querySelectorAll('td:not(.number)')].map(e => e.clientWidth))")
        assert narrowest >= 80, "letters would stand below one another"

        # The same page with one picture gone: what is asserted above can fail.
        html = (out / "report.html").read_text(encoding="utf-8")
        broken = tmp_path / "report.html"
        broken.write_text(re.sub(r'src="overlays/[^"]+"', 'src="overlays/gone.png"', html, count=1), encoding="utf-8")
        page.open(broken.as_uri())
        assert page.pictures()["overlays/gone.png"] == 0
        assert page.complaints() != []


def test_bad_input_is_a_row_with_an_error_and_the_run_goes_on(
    cases: CaseSet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.set_num_threads(1)
    images = tmp_path / "images"
    images.mkdir()
    rng = np.random.default_rng(0)
    (images / "garbage.dcm").write_bytes(b"\0" * 128 + b"DICM" + rng.bytes(500))
    Image.new("L", (1, 1)).save(images / "dot.png")
    radiograph = next(case for case in cases.cases if case.form == "linear")
    (images / "cut.dcm").write_bytes(radiograph.path.read_bytes()[:9000])
    deep = np.rint(radiograph.chest.shown * 65535).astype(np.uint16)
    Image.fromarray(deep).save(images / "deep.png")
    Image.fromarray(np.stack([deep // 256, deep // 300, deep // 500], axis=-1).astype(np.uint8)).save(
        images / "rgb.png"
    )
    Image.fromarray(rng.integers(0, 256, (7100, 7100), dtype=np.uint8)).save(images / "large.png", compress_level=0)
    assert (images / "large.png").stat().st_size > 50_000_000
    (images / "page.png").write_bytes(b"<html><script>alert(1)</script></html>")

    asked = "Is there a nodule?"
    wrong = ("nowhere", "garbage", "cut", "dot", "page")
    fit = ("deep", "rgb", "large")
    rows = [(name, asked) for name in wrong[:3] + fit[:1] + wrong[3:] + fit[1:]]
    rows += [("deep", ""), ("rgb", "What is <image>?"), ("deep", "=HYPERLINK(1)<script>alert(1)</script>?")]
    table = tmp_path / "table.csv"
    with table.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(
            [("image", "study_id", "question", "answer"), *((i, "s/1", q, "no") for i, q in rows)]
        )
    out = tmp_path / "out"
    words = ["attention", "run", str(table), "--images", str(images), "--out", str(out), *QUICK, "--mode", "raw"]
    words += ["--column", "dicom_id=image"]

    assert main(words) == 1
    told = capsys.readouterr()
    assert "Traceback" not in told.err
    assert "4 of 11 questions answered" in told.out
    results = {(row["dicom_id"], row["question"]): row for row in rows_of(out)}
    assert len(results) == len(rows)
    failed = {key: row["error"] for key, row in results.items() if row["error"]}
    assert set(failed) == {*((name, asked) for name in wrong), ("deep", ""), ("rgb", "What is <image>?")}
    for (name, question), error in failed.items():
        assert not results[name, question]["grid_file"]
        assert len(error) > 20
    assert "nowhere" in failed["nowhere", asked]
    assert "1×1" in failed["dot", asked]
    assert not any(value in told.out + told.err + "".join(failed.values()) for value in PATIENT)
    assert "no question" in failed["deep", ""]
    assert "<image>" in failed["rgb", "What is <image>?"]
    for name in fit:
        assert (out / results[name, asked]["overlay_file"]).is_file()
    # A table and a page from strangers' words.
    assert "'=HYPERLINK(1)" in {row["question"][:14] for row in rows_of(out)}
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)" in page

    # The failures are tried again, what is done is not; and nothing is mixed unasked.
    assert main(words) == 2
    assert "--resume" in capsys.readouterr().err
    Image.fromarray(deep).save(images / "nowhere.png")
    before = {path: path.stat().st_mtime_ns for path in (out / "visualizations").iterdir()}
    assert main([*words, "--resume", "--json"]) == 1
    summary: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert (summary["questions"], summary["failed"], summary["kept"]) == (11, 6, 4)
    assert summary["done_anew"] == {"it had failed": 7}
    assert all(path.stat().st_mtime_ns == time for path, time in before.items())


def test_one_question_comes_with_its_numbers_and_its_picture(
    cases: CaseSet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.set_num_threads(1)
    image = cases.cases[0].path
    words = ["attention", "ask", str(image), "Is there a nodule?", "--out", str(tmp_path), *QUICK]
    assert main(words) == 0
    shown = capsys.readouterr().out
    assert "inside the body" in shown
    assert ATTENTION_NOTICE in shown
    (picture,) = (tmp_path / "visualizations").iterdir()
    assert str(picture) in shown.replace("\n", "")
    assert main([*words, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["schema"] == "m3node.attention-ask/1"
    assert (tmp_path / told["grid_file"]).is_file()
    assert main([*words[:3], "  ", *words[4:]]) == 2
    assert main([*words[:2], str(tmp_path / "none.png"), *words[3:]]) == 2
