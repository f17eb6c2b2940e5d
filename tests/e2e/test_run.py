"""``m3node run``, the real command on real data."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest

from m3node.cli.main import main
from validators import dciodvfy_errors

OBJECTS = {"report.sr.dcm", "volumes.sr.dcm", "segmentation.seg.dcm", "presentation.pr.dcm"}


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run the command; a traceback is a failure whatever the exit status."""
    command = [sys.executable, "-m", "m3node", "run", *map(str, arguments)]
    # Where many tests share the cores, threads that wait for each other by spinning take minutes instead of seconds.
    quiet = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False, env=quiet)
    assert "Traceback" not in done.stderr + done.stdout, done.stderr
    return done


def summary(out: Path) -> dict[str, object]:
    return dict(json.loads((out / "findings.json").read_text()))


def test_a_real_liver_ct_is_answered_with_a_complete_set(test_data: Path, tmp_path: Path) -> None:
    done = run(test_data / "ct_liver_j2k", "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    (stack,) = [path for path in tmp_path.iterdir() if path.is_dir()]
    source = pydicom.dcmread(test_data / "ct_liver_j2k" / "000.dcm", stop_before_pixels=True)
    assert stack.name == source.SeriesInstanceUID
    assert {path.name for path in stack.iterdir()} >= OBJECTS | {"findings.json", "overlay.png"}
    for name in OBJECTS:
        built = pydicom.dcmread(stack / name, stop_before_pixels=True)
        assert built.StudyInstanceUID == source.StudyInstanceUID
        assert built.PatientID == source.PatientID
    assert "overlay.png" in done.stdout


@pytest.mark.slow
def test_a_model_answers_a_real_liver_ct_and_shows_where_it_looked(
    test_data: Path, tmp_path: Path, program: Callable[[str], str]
) -> None:
    pytest.importorskip("torch", reason="the extra medgemma is not installed")
    asked = ["--detector", "medgemma", "--model", "test", "--attention-map"]
    done = run(test_data / "ct_liver_j2k", *asked, "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    (stack,) = [path for path in tmp_path.iterdir() if path.is_dir()]
    objects = {path.name: path for path in stack.glob("*.dcm")}
    assert set(objects) == OBJECTS | {"attention.sc.dcm", "attention.pm.dcm"}
    assert {name: dciodvfy_errors(program, path) for name, path in objects.items()} == {name: [] for name in objects}
    findings = json.loads((stack / "findings.json").read_text())
    shown = [item["lesion"] for item in findings["attention"]]
    assert sorted(shown) == [lesion["number"] for lesion in findings["lesions"]] or shown == [None]
    assert "test model" in findings["detector"]["name"]
    assert pydicom.dcmread(objects["attention.pm.dcm"]).NumberOfFrames == len(shown)


def test_json_goes_to_standard_output_alone(test_data: Path, tmp_path: Path) -> None:
    done = run(test_data / "ct_liver_3slice", "--out", tmp_path, "--json", "--min-slices", "3")
    assert done.returncode == 0
    report = json.loads(done.stdout)
    assert report == summary(tmp_path)
    assert done.stderr == ""


def test_three_slices_are_too_few_by_default_and_the_reason_says_so(test_data: Path, tmp_path: Path) -> None:
    done = run(test_data / "ct_liver_3slice", "--out", tmp_path)
    assert done.returncode == 3
    (stack,) = summary(tmp_path)["stacks"]  # type: ignore[misc]
    assert stack["reason"] == "too-few-slices"
    assert "3" in stack["message"]
    assert stack["message"] in done.stdout


def test_a_tilted_head_is_refused_for_its_tilt(test_data: Path, tmp_path: Path) -> None:
    done = run(test_data / "ct_head_tilted", "--out", tmp_path)
    assert done.returncode == 3
    (stack,) = summary(tmp_path)["stacks"]  # type: ignore[misc]
    assert (stack["outcome"], stack["reason"]) == ("rejected", "tilted")


@pytest.mark.parametrize("folder", ["odd_dicom", "ct_enhanced"])
def test_odd_input_gets_a_reason_for_each_object(folder: str, test_data: Path, tmp_path: Path) -> None:
    done = run(test_data / folder, "--out", tmp_path)
    assert done.returncode == 3, done.stdout
    stacks = summary(tmp_path)["stacks"]
    # None of these files belongs together with another.
    assert len(stacks) == len([path for path in (test_data / folder).rglob("*") if path.is_file()])  # type: ignore[arg-type]
    for stack in stacks:  # type: ignore[attr-defined]
        assert stack["outcome"] == "rejected"
        assert stack["reason"]
        assert len(stack["message"]) > 20, stack


def test_every_odd_file_alone_gets_a_reason(test_data: Path, tmp_path: Path) -> None:
    files = [path for path in sorted((test_data / "odd_dicom").rglob("*")) if path.is_file()]
    assert len(files) > 15
    for number, path in enumerate(files):
        out = tmp_path / str(number)
        assert main(["run", str(path), "--out", str(out)]) == 3, path
        (stack,) = summary(out)["stacks"]  # type: ignore[misc]
        assert stack["reason"], path


def test_a_zip_is_answered_like_its_folder(test_data: Path, tmp_path: Path) -> None:
    archive = tmp_path / "series.zip"
    with zipfile.ZipFile(archive, "w") as target:
        for path in sorted((test_data / "ct_liver_j2k").iterdir()):
            target.write(path, f"a/b/{path.name}")
    assert run(archive, "--out", tmp_path / "out").returncode == 0
    (stack,) = [path for path in (tmp_path / "out").iterdir() if path.is_dir()]
    assert {path.name for path in stack.iterdir()} >= OBJECTS


def test_a_nifti_volume_with_a_liver_mask_gives_masks_and_a_picture(test_data: Path, tmp_path: Path) -> None:
    volume = test_data / "nifti" / "example_ct_sm.nii.gz"
    labels = nib.load(test_data / "nifti" / "example_seg.nii.gz")
    liver = tmp_path / "liver.nii.gz"
    truth = np.asarray(labels.dataobj) == 5
    nib.save(nib.Nifti1Image(truth.astype(np.uint8), labels.affine), liver)
    done = run(volume, "--liver-mask", liver, "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "out" / "example_ct_sm"
    written = nib.load(folder / "liver.nii.gz")
    # The mask comes back in patient space, whatever the order of the axes on disk.
    np.testing.assert_allclose(written.affine @ [0, 0, 0, 1], written.affine[:, 3])
    assert int(np.asarray(written.dataobj).sum()) == int(truth.sum())
    world = nib.affines.apply_affine(labels.affine, np.argwhere(truth)).mean(axis=0)
    again = nib.affines.apply_affine(written.affine, np.argwhere(np.asarray(written.dataobj) == 1)).mean(axis=0)
    np.testing.assert_allclose(again, world, atol=1e-3)
    assert (folder / "overlay.png").stat().st_size > 10_000
    assert (folder / "findings.json").exists()


def test_running_again_replaces_the_results_and_leaves_other_files_alone(test_data: Path, tmp_path: Path) -> None:
    run(test_data / "ct_liver_3slice", "--out", tmp_path, "--min-slices", "3")
    (stack,) = [path for path in tmp_path.iterdir() if path.is_dir()]
    assert (stack / "report.sr.dcm").exists()
    (stack / "notes.txt").write_text("mine")
    run(test_data / "ct_liver_3slice", "--out", tmp_path)
    assert (stack / "notes.txt").read_text() == "mine"
    assert json.loads((stack / "findings.json").read_text())["outcome"] == "rejected"
    assert not (stack / "report.sr.dcm").exists()


def test_the_input_is_left_as_it_was(test_data: Path, tmp_path: Path) -> None:
    source = tmp_path / "in"
    shutil.copytree(test_data / "ct_liver_3slice", source)
    before = {path.name: path.read_bytes() for path in source.iterdir()}
    assert run(source, "--out", tmp_path / "out", "--min-slices", "3").returncode == 0
    assert {path.name: path.read_bytes() for path in source.iterdir()} == before


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["missing-folder", "--out", "{out}"], "missing-folder"),
        (["{data}/ct_liver_3slice"], "--out"),
        (["{data}/ct_liver_3slice", "--out", "{out}", "--detector", "nobody"], "nobody"),
        (["{data}/ct_liver_3slice", "--out", "{out}", "--liver-mask", "x.nii.gz"], "--liver-mask"),
    ],
)
def test_wrong_usage_exits_with_two_and_names_what_is_wrong(
    arguments: list[str], says: str, test_data: Path, tmp_path: Path
) -> None:
    done = run(*(item.format(data=test_data, out=tmp_path) for item in arguments))
    assert done.returncode == 2
    assert says in done.stderr
