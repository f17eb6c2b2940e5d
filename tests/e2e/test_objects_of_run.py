"""What ``m3node run`` answers to the two real livers is valid, and its SEG holds the voxels that were found."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import highdicom as hd
import numpy as np
import pytest

from liver_data import unenhanced
from m3node.evaluation.ct_writer import write_ct_series
from m3node.intake.folder.inputs import survey
from m3node.results.store import load_findings
from m3node.settings import Settings
from validators import dciodvfy_errors, dcmpschk_says, pixelmed_errors

pytestmark = pytest.mark.slow

Program = Callable[[str], str]


@pytest.fixture(scope="module", params=["enhanced", "unenhanced, written as DICOM"])
def run(request: pytest.FixtureRequest, test_data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The series, and the folder of its results."""
    series, out = test_data / "ct_liver_j2k", tmp_path_factory.mktemp("run")
    if request.param != "enhanced":
        volume, _ = unenhanced(test_data)
        series = tmp_path_factory.mktemp("series")
        write_ct_series(series, volume.hu, volume.geometry, seed="unenhanced")
    command = [sys.executable, "-m", "m3node", "run", str(series), "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    (stack,) = [path for path in out.iterdir() if path.is_dir()]
    return series, stack


def test_no_validator_finds_an_error(run: tuple[Path, Path], program: Program) -> None:
    _, folder = run
    seg, state = folder / "segmentation.seg.dcm", folder / "presentation.pr.dcm"
    reports = [folder / "report.sr.dcm", folder / "volumes.sr.dcm"]
    for path in (seg, state, *reports):
        assert dciodvfy_errors(program, path) == [], path.name
    assert "Test passed." in dcmpschk_says(program, state)
    assert pixelmed_errors(program, "iod", [seg]) == {seg: []}
    assert pixelmed_errors(program, "sr", reports) == {path: [] for path in reports}


def test_the_seg_holds_the_voxels_that_were_found(run: tuple[Path, Path]) -> None:
    series, folder = run
    (manifest,) = survey(series, Settings()).manifests
    findings = load_findings(folder)
    assert findings.region is not None
    lesions = [lesion.mask.full() for lesion in findings.lesions]
    liver = findings.region.parenchyma.full()
    for mask in lesions:
        liver &= ~mask
    uids = [manifest.instances[ref.instance].sop_instance_uid for ref in manifest.slices]
    seg = hd.seg.segread(folder / "segmentation.seg.dcm")
    assert seg.number_of_segments == 1 + len(lesions)
    for number, mask in enumerate([liver, *lesions], start=1):
        stored = seg.get_pixels_by_source_instance(uids, segment_numbers=[number], assert_missing_frames_are_empty=True)
        np.testing.assert_array_equal(stored[..., 0].astype(bool), mask)
