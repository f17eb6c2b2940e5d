"""``m3node evaluate`` on small phantoms: what it writes, that it goes on where it was, and what it marks."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from m3node.cli import main
from m3node.detectors.protocols import (
    Box2D,
    Detection,
    DetectorIdentity,
    ScoreKind,
    View,
    ViewBox,
    ViewResult,
)
from m3node.errors import ConfigError
from m3node.evaluation.ablation import running
from m3node.evaluation.ablation.conditions import Shown
from m3node.evaluation.ablation.looking import look
from m3node.evaluation.ablation.record import load_record
from m3node.evaluation.cases.phantoms import write_phantom_cases
from m3node.evaluation.phantom import SMALL, abdomen_phantom
from m3node.evaluation.report.pictures import FOUND, TRUTH
from m3node.evaluation.report.summary import PHANTOM_MARK, PUBLISHED_MARK
from m3node.imaging.volume import CTVolume
from m3node.liver.find import region_from_mask
from m3node.liver.region import LiverRegion
from m3node.notice import NOT_FOR_CLINICAL_USE
from m3node.progress import silent
from m3node.results.tile import LIVER
from m3node.settings import LiverSettings, M3Settings

FAST = ("--no-plots", "--pictures", "0", "--liver", "truth")


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two cases with lesions and a healthy one, at a fraction of the usual resolution."""
    folder = tmp_path_factory.mktemp("phantoms")
    write_phantom_cases(folder, ill=2, healthy=1, first_seed=3, progress=silent, **SMALL)
    return folder


class Corners:
    """Says that the middle of whatever it is shown is a lesion; remembers what it was shown."""

    identity = DetectorIdentity("corners", "1", "For tests.")
    score_kind = ScoreKind.PROBABILITY

    def __init__(self) -> None:
        self.views: list[View] = []
        self.looks = 0
        self.breaks_off_at = 0

    def look(self, views: Iterator[View], volume: CTVolume, region: LiverRegion) -> Iterator[ViewResult]:
        self.looks += 1
        if self.looks == self.breaks_off_at:
            raise KeyboardInterrupt
        for number, view in enumerate(views):
            self.views.append(view)
            r, c = view.hu.shape[0] / 2, view.hu.shape[1] / 2
            box = ViewBox(Box2D(r - 5, c - 5, r + 5, c + 5), 0.5)
            yield ViewResult(boxes=()) if number % 5 == 4 else ViewResult(boxes=(box,), failure="x" * (number == 0))


@pytest.fixture
def corners(monkeypatch: pytest.MonkeyPatch) -> Corners:
    """What is evaluated, whatever the settings name: it costs nothing."""
    detector = Corners()
    monkeypatch.setattr(running, "load_detector", lambda _: detector)
    return detector


def results(out: Path) -> dict[str, Any]:
    read: dict[str, Any] = json.loads((out / "results.json").read_text(encoding="utf-8"))
    return read


def rows_of(out: Path) -> list[dict[str, str]]:
    with (out / "results.csv").open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def tiles_of(path: Path) -> np.ndarray:
    """The part of a picture below its words and above its marks."""
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"), dtype=int)[100:-100]


def share_of(picture: np.ndarray, colour: tuple[int, int, int]) -> float:
    return float(np.mean(np.abs(picture - colour).max(axis=2) < 30))


def test_an_evaluation_writes_tables_plots_and_pictures_that_say_what_they_are(
    phantoms: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", str(phantoms), "--out", str(tmp_path / "out"), "--liver", "truth", "--pictures", "2"]) == 0
    out = tmp_path / "out"
    shown = capsys.readouterr().out
    assert NOT_FOR_CLINICAL_USE in shown
    assert PHANTOM_MARK in shown
    found = results(out)
    assert found["cases"] == {"lesions": 2, "healthy": 1, "unknown": 0, "patients": 3, "true_lesions": 10}
    assert [condition["key"] for condition in found["conditions"]] == ["full", "crop", "method"]
    assert found["conditions"][0]["metrics"]["recall_3d_0.1"]["value"] >= 0.5
    assert found["conditions"][0]["metrics"]["recall_3d_0.1"]["low"] is None  # two patients
    rows = rows_of(out)
    assert len(rows) == 9
    assert all(NOT_FOR_CLINICAL_USE in row["note"] and PHANTOM_MARK in row["note"] for row in rows)
    text = (out / "results.md").read_text(encoding="utf-8")
    assert PHANTOM_MARK in text
    assert "| whole method |" in text
    pictures = sorted(path.name for path in (out / "pictures").iterdir())
    assert pictures == ["healthy-5.png", "lesions-3.png"]
    for name in ("froc.png", "iou_by_size.png"):
        with Image.open(out / name) as image:
            assert image.width > 600
    ill, healthy = (tiles_of(out / "pictures" / name) for name in ("lesions-3.png", "healthy-5.png"))
    # Outlines are thin, so their pixels are few; what is not drawn has none.
    assert [share_of(ill, colour) > 1e-4 for colour in (LIVER, TRUTH, FOUND)] == [True, True, True]
    assert share_of(healthy, LIVER) > 1e-4
    assert share_of(healthy, TRUTH) == 0


def test_what_is_done_is_not_done_again_and_an_interrupted_evaluation_goes_on(
    phantoms: Path, tmp_path: Path, corners: Corners
) -> None:
    corners.breaks_off_at = 4
    command = ["evaluate", str(phantoms), "--out", str(tmp_path), "--conditions", "full,crop", *FAST]
    assert main(command) == 130
    assert len(list((tmp_path / "records").rglob("*.json"))) == 3
    assert main(command) == 0
    assert results(tmp_path)["records_reused"] == 3
    assert corners.looks == 4 + 3
    found = results(tmp_path)
    assert main(command) == 0
    assert results(tmp_path) == found | {"records_reused": 6}
    assert corners.looks == 4 + 3


@pytest.mark.usefixtures("corners")
def test_other_settings_or_another_truth_are_run_anew(phantoms: Path, tmp_path: Path) -> None:
    shutil.copytree(phantoms, tmp_path / "cases")
    command = ["evaluate", str(tmp_path / "cases"), "--out", str(tmp_path / "out"), "--conditions", "crop", *FAST]
    assert main(command) == 0
    (tmp_path / "m3node.toml").write_text("[m3]\nmin_diameter_mm = 8.0\n")
    assert main([*command, "--config", str(tmp_path / "m3node.toml")]) == 0
    assert results(tmp_path / "out")["records_reused"] == 0
    shutil.copy(tmp_path / "cases" / "lesions-3" / "liver.nii.gz", tmp_path / "cases" / "lesions-4" / "liver.nii.gz")
    assert main(command) == 0
    assert results(tmp_path / "out")["records_reused"] == 2


def test_a_record_cut_short_is_made_anew(tmp_path: Path) -> None:
    (tmp_path / "record.json").write_text('{"case": "one"')
    assert load_record(tmp_path / "record.json") is None


def test_the_published_protocol_is_marked_in_every_file_and_leaves_out_who_has_no_lesion(
    phantoms: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["evaluate", str(phantoms), "--out", str(tmp_path), "--protocol", "published", "--no-plots"]
    assert main([*command, "--pictures", "0"]) == 0
    assert "not used: healthy-5: the published protocol takes its slice from the truth" in capsys.readouterr().out
    found = results(tmp_path)
    assert PUBLISHED_MARK in found["marks"]
    assert found["liver"] == "truth"
    assert PUBLISHED_MARK in (tmp_path / "results.md").read_text(encoding="utf-8")
    rows = rows_of(tmp_path)
    assert {(row["kind"], row["slices"]) for row in rows} == {("lesions", "1"), ("", "")}  # the last is not used
    assert all(PUBLISHED_MARK in row["note"] and row["protocol"] == "published" for row in rows)
    assert "recall_3d_0.3" not in rows[0]


@pytest.mark.usefixtures("corners")
def test_a_case_without_truth_gets_a_picture_and_no_figure(phantoms: Path, tmp_path: Path) -> None:
    folder = tmp_path / "cases" / "someone"
    folder.mkdir(parents=True)
    for name in ("ct.nii.gz", "liver.nii.gz"):
        shutil.copy(phantoms / "lesions-3" / name, folder / name)
    command = ["evaluate", str(tmp_path / "cases"), "--out", str(tmp_path / "out"), "--no-plots", "--liver", "truth"]
    assert main([*command, "--conditions", "crop", "--pictures", "1"]) == 0
    assert (tmp_path / "out" / "pictures" / "someone.png").exists()
    found = results(tmp_path / "out")
    assert found["cases"]["unknown"] == 1
    metrics = found["conditions"][0]["metrics"]
    assert {key: value["value"] for key, value in metrics.items()} == dict.fromkeys(metrics)
    (row,) = rows_of(tmp_path / "out")
    assert row["kind"] == "unknown"
    assert {row[key] for key in metrics} == {""}


@pytest.mark.usefixtures("corners")
def test_a_case_that_cannot_be_used_is_named_and_costs_the_others_nothing(phantoms: Path, tmp_path: Path) -> None:
    shutil.copytree(phantoms, tmp_path / "cases")
    (tmp_path / "cases" / "lesions-3" / "lesions.nii.gz").write_bytes(b"no NIfTI")
    (tmp_path / "cases" / "lesions-4" / "liver.nii.gz").unlink()
    command = ["evaluate", str(tmp_path / "cases"), "--out", str(tmp_path / "out"), "--conditions", "crop", *FAST]
    assert main(command) == 0
    found = results(tmp_path / "out")
    assert [item["case"] for item in found["unusable"]] == ["lesions-3", "lesions-4"]
    assert "lesions.nii.gz is not a readable NIfTI file" in found["unusable"][0]["reason"]
    assert "its liver is not known" in found["unusable"][1]["reason"]
    assert found["cases"]["healthy"] == 1
    rows = rows_of(tmp_path / "out")
    assert [(row["case"], row["condition"], row["unusable"]) for row in rows] == [
        ("healthy-5", "crop", ""),
        *((item["case"], "", item["reason"]) for item in found["unusable"]),
    ]
    assert all(NOT_FOR_CLINICAL_USE in row["note"] for row in rows)
    text = (tmp_path / "out" / "results.md").read_text(encoding="utf-8")
    assert f"- lesions-4: {found['unusable'][1]['reason']}" in text


def test_without_any_usable_case_the_status_says_so_and_every_file_why(
    phantoms: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(phantoms / "healthy-5", tmp_path / "cases" / "healthy")
    command = ["evaluate", str(tmp_path / "cases"), "--out", str(tmp_path / "out"), "--protocol", "published"]
    assert main([*command, "--json"]) == 3
    printed = json.loads(capsys.readouterr().out)
    assert printed == results(tmp_path / "out")
    assert printed["conditions"] == []
    assert printed["cases"] == {"lesions": 0, "healthy": 0, "unknown": 0, "patients": 0, "true_lesions": 0}
    ((case, reason),) = [(item["case"], item["reason"]) for item in printed["unusable"]]
    assert case == "healthy"
    assert reason.startswith("the published protocol takes its slice from the truth")
    assert f"- healthy: {reason}" in (tmp_path / "out" / "results.md").read_text(encoding="utf-8")
    assert [row["unusable"] for row in rows_of(tmp_path / "out")] == [reason]
    assert main([*command, "--no-plots"]) == 3
    assert "No case could be used." in capsys.readouterr().out


def test_a_missing_extra_is_said_before_anything_is_run(
    phantoms: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", None)
    assert main(["evaluate", str(phantoms), "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert "pip install 'm3node[evaluate]', or leave the plots out with --no-plots" in said
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("inside", [".", "results", "lesions-3/results", "../{}/results"])
def test_results_do_not_go_among_the_cases_where_they_would_be_one(
    phantoms: Path, capsys: pytest.CaptureFixture[str], inside: str
) -> None:
    before = sorted(phantoms.rglob("*"))
    out = phantoms / inside.format(phantoms.name)
    assert main(["evaluate", str(phantoms), "--out", str(out), *FAST]) == 2
    assert "lies in the folder of cases and would be one; name one outside it" in capsys.readouterr().err
    assert sorted(phantoms.rglob("*")) == before


def test_layers_that_the_model_lacks_are_said_before_the_first_case(
    phantoms: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["evaluate", str(phantoms), "--out", str(tmp_path), "--model", "test", "--sweep", *FAST]
    assert main([*command, "--conditions", "crop,crop-steered", "--sweep-layers", "0-3,2-4"]) == 2
    assert "steering.layers" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_the_test_model_is_called_so_in_every_file_and_runs_steered_and_not(phantoms: Path, tmp_path: Path) -> None:
    shutil.copytree(phantoms / "lesions-3", tmp_path / "cases" / "one")
    command = ["evaluate", str(tmp_path / "cases"), "--out", str(tmp_path / "out"), "--model", "test", "--no-plots"]
    assert main([*command, "--liver", "truth", "--conditions", "crop,crop-steered", "--pictures", "1"]) == 0
    found = results(tmp_path / "out")
    assert [condition["key"] for condition in found["conditions"]] == ["crop", "crop-steered"]
    for condition in found["conditions"]:
        assert condition["metrics"]["unread"]["value"] == 0.0
        assert "test model" in condition["detector"]["name"]
    unsteered, steered = (dict(condition["detector"]["parameters"]) for condition in found["conditions"])
    assert unsteered != steered
    for name in ("results.csv", "results.json", "results.md"):
        assert "test model" in (tmp_path / "out" / name).read_text(encoding="utf-8"), name


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--sweep"], "has no steering to sweep over"),
        (["--sweep-alpha", "2"], "go with --sweep"),
        (["--model", "test", "--detector", "contrast"], "--model goes with the detector medgemma"),
        (["--conditions", "corp"], "there is no condition 'corp'"),
        (["--model", "test", "--sweep", "--sweep-alpha", "2,little"], "'little' is neither"),
    ],
)
def test_flags_that_do_not_go_together_are_wrong_usage(
    phantoms: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    assert main(["evaluate", str(phantoms), "--out", str(tmp_path), "--no-plots", *words]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        ["--conditions", ","],
        ["--sweep", "--sweep-alpha", " "],
        ["--sweep", "--sweep-layers", ""],
        ["--sweep", "--sweep-layers", "3-2"],
        ["--sweep", "--sweep-layers", "0-3,4"],
        ["--pictures", "-1"],
    ],
)
def test_flags_that_say_nothing_are_wrong_usage(phantoms: Path, tmp_path: Path, words: list[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["evaluate", str(phantoms), "--out", str(tmp_path / "out"), *FAST, *words])
    assert stopped.value.code == 2


def small() -> tuple[CTVolume, LiverRegion]:
    phantom = abdomen_phantom(seed=3, **SMALL)
    region = region_from_mask(phantom.liver, phantom.geometry, LiverSettings())
    assert region is not None
    return CTVolume(hu=phantom.hu, geometry=phantom.geometry, sources=()), region


def test_a_full_slice_is_shown_whole_and_once_and_a_crop_with_the_middle_padding() -> None:
    volume, region = small()
    full, crop = Corners(), Corners()
    look(full, Shown.SLICE, volume, region, M3Settings())
    look(crop, Shown.CROP, volume, region, M3Settings())
    assert {view.hu.shape for view in full.views} == {volume.hu.shape[1:]}
    assert all(view.whole for view in full.views)
    assert {view.padding for view in crop.views} == {0.15}
    assert not any(view.whole for view in crop.views)
    # The slices are the liver's, the same in both, and none is shown twice.
    slices = [view.slice_index for view in full.views]
    assert slices == [view.slice_index for view in crop.views] == sorted(set(slices))
    liver = np.flatnonzero(region.envelope.full().any(axis=(1, 2)))
    assert set(slices) <= set(liver.tolist())


def test_the_boxes_of_a_single_view_stay_as_the_detector_gave_them_and_failures_are_counted() -> None:
    volume, region = small()
    detector = Corners()
    detection: Detection = look(detector, Shown.SLICE, volume, region, M3Settings(min_envelope_overlap=1.0))
    views = len(detector.views)
    assert (detection.views_total, detection.views_read) == (views, views - 1)
    boxes = [box for candidate in detection.candidates for box in candidate.boxes]
    assert len(boxes) == views - 1 - len(range(4, views, 5))
    assert {(box.box.r0, box.box.c0) for box in boxes} == {(59.0, 59.0)}  # far from the liver, and kept


class Whole:
    identity = DetectorIdentity("whole", "1", "For tests.")

    def find(self, *_: object) -> Detection:
        return Detection(candidates=(), views_total=0, views_read=0)


def test_a_detector_of_whole_volumes_has_the_method_alone(
    phantoms: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    volume, region = small()
    assert look(Whole(), Shown.METHOD, volume, region, M3Settings()).candidates == ()
    with pytest.raises(ConfigError, match="only the condition method fits it"):
        look(Whole(), Shown.CROP, volume, region, M3Settings())
    monkeypatch.setattr(running, "load_detector", lambda _: Whole())
    assert main(["evaluate", str(phantoms), "--out", str(tmp_path), "--conditions", "method,crop", *FAST]) == 2
    assert "only the condition method fits it" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
