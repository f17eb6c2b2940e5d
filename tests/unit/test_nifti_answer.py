"""A NIfTI volume is answered without DICOM: findings, masks and pictures, and nothing is left of an earlier answer."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from m3node.cli import main
from m3node.detectors.protocols import Box2D, Detection, DetectorIdentity, SliceAttention
from m3node.evaluation.ct_writer import axial_geometry
from m3node.imaging.nifti import write_nifti_mask
from m3node.imaging.volume import CTVolume
from m3node.jobs.answer import steps
from m3node.jobs.inputs.nifti import process_nifti
from m3node.liver.region import LiverRegion
from m3node.progress import Progress, silent
from m3node.results.attention import picture
from m3node.results.findings import Outcome
from m3node.results.store import load_findings
from m3node.settings import Settings
from made_findings import ellipsoid, made_grid

GEOMETRY = axial_geometry((8, 40, 50), (10.0, 6.0, 6.0))
ASKED = Settings.model_validate({"results": {"attention_map": True}})
RESULTS = {"findings.json", "masks.npz", "overlay.png", "liver.nii.gz", "lesions.nii.gz"}


class Looking:
    """Finds nothing, and looked to the upper left on every slice."""

    identity = DetectorIdentity("looking", "1", "A test's detector.")
    keep_attention = False

    def find(self, volume: CTVolume, region: LiverRegion, progress: Progress) -> Detection:
        grid = made_grid(Box2D(0.0, 0.0, 40.0, 40.0))
        return Detection((), 8, 8, attention=tuple(SliceAttention(k, grid, None, 0.1) for k in range(8)))


@pytest.fixture
def volume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A NIfTI file of a body; its liver lies beside it."""
    monkeypatch.setattr(steps, "load_detector", lambda _: Looking())
    body = ellipsoid(GEOMETRY.shape, (4, 20, 25), (9, 19, 24)).full()
    write_nifti_mask(np.where(body, 60, 0).astype(np.uint8), GEOMETRY, tmp_path / "ct.nii.gz")
    liver = ellipsoid(GEOMETRY.shape, (4, 20, 15), (3, 12, 9)).full()
    write_nifti_mask(liver.astype(np.uint8), GEOMETRY, tmp_path / "liver.nii.gz")
    return tmp_path / "ct.nii.gz"


def answer(volume: Path, settings: Settings, liver: str = "liver.nii.gz") -> tuple[Outcome, set[str]]:
    (stack,) = process_nifti(volume, volume.parent / liver, volume.parent / "out", settings, silent).stacks
    return stack.outcome, {path.name for path in (volume.parent / "out" / "ct").iterdir()}


def test_where_the_model_looked_comes_as_a_picture_and_as_numbers(
    volume: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [str(volume), "--liver-mask", str(volume.parent / "liver.nii.gz"), "--out", str(volume.parent / "out")]
    assert main(["run", *given, "--attention-map"]) == 0
    folder = volume.parent / "out" / "ct"
    assert {path.name for path in folder.iterdir()} == RESULTS | {"attention.png", "attention.npz"}
    assert f"picture: {folder / 'attention.png'}\n" in capsys.readouterr().out
    (shown,) = load_findings(folder).attention
    np.testing.assert_array_equal(shown.grid.values, made_grid(Box2D(0.0, 0.0, 40.0, 40.0)).values)
    with Image.open(folder / "attention.png") as drawn:
        pixels = np.asarray(drawn).astype(int)
    assert pixels.shape[1] == 2 * picture.TILE_WIDTH + 3 * picture.GAP + picture.BAR_ROOM
    # Left the slice as it is, grey; right the same under the map's colours.
    tiles = pixels[picture.HEADER : -picture.FOOTER]
    plain, mapped = (tiles[:, left : left + picture.TILE_WIDTH] for left in (12, 24 + picture.TILE_WIDTH))
    assert (np.ptp(plain, axis=2) > 20).mean() < 0.15
    assert (np.ptp(mapped, axis=2) > 20).mean() > 0.4


def test_nothing_of_an_earlier_answer_is_left(volume: Path) -> None:
    answer(volume, ASKED)
    (volume.parent / "out" / "ct" / "notes.txt").write_text("mine")
    assert answer(volume, Settings()) == (Outcome.NO_LESION, RESULTS | {"notes.txt"})
    volume.write_bytes(b"no volume")
    corrected = "out/ct/liver.nii.gz"  # given back as an input: it is not ours to remove
    assert answer(volume, Settings(), corrected) == (Outcome.REJECTED, {"notes.txt", "liver.nii.gz"})
    assert answer(volume, Settings()) == (Outcome.REJECTED, {"notes.txt"})
    summary = json.loads((volume.parent / "out" / "findings.json").read_text())
    assert summary["stacks"][0]["reason"] == "unreadable"
