"""Findings are kept on disk and come back exactly."""

from __future__ import annotations

import json
import math
from dataclasses import fields, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis.extra.numpy import array_shapes, arrays

from m3node.errors import ResultError
from m3node.evaluation.ct_writer import axial_geometry
from m3node.imaging.mask import VoxelMask
from m3node.rejection import Reason, Rejection
from m3node.results.findings import Findings, Outcome, PredecessorReport
from m3node.results.store import load_findings, missing_files, save_findings
from m3node.results.uids import run_digest
from made_findings import made_findings, with_attention, without_liver

GEOMETRY = axial_geometry((12, 40, 50), (2.5, 0.8, 0.7), origin=(-20.0, -30.0, 100.0))


def same_masks(one: Findings, other: Findings) -> bool:
    pairs = [(a.mask, b.mask) for a, b in zip(one.lesions, other.lesions, strict=True)]
    if one.region is not None and other.region is not None:
        pairs += [(one.region.parenchyma, other.region.parenchyma), (one.region.envelope, other.region.envelope)]
    return all(np.array_equal(a.full(), b.full()) for a, b in pairs)


def test_findings_come_back_equal_in_every_number_and_voxel(tmp_path: Path) -> None:
    findings = replace(
        made_findings(GEOMETRY),
        failures=("view 3: no JSON",),
        predecessors=(PredecessorReport("1.2", "1.2.3", "1.2.840.10008.5.1.4.1.1.88.34", "1.2.3.4"),),
    )
    assert save_findings(findings, tmp_path)
    read = load_findings(tmp_path)

    assert same_masks(findings, read)
    assert run_digest(read) == run_digest(findings)
    for field in fields(Findings):
        if field.name not in {"region", "lesions"}:
            assert getattr(read, field.name) == getattr(findings, field.name), field.name
    for was, now in zip(findings.lesions, read.lesions, strict=True):
        assert (was.boxes, was.key_box, was.measurements) == (now.boxes, now.key_box, now.measurements)
        assert (was.mask_origin, was.score_kind, was.votes, was.views) == (
            now.mask_origin,
            now.score_kind,
            now.votes,
            now.views,
        )


def test_attention_comes_back_cell_by_cell(tmp_path: Path) -> None:
    findings = with_attention(made_findings(GEOMETRY))
    save_findings(findings, tmp_path)
    read = load_findings(tmp_path)
    assert len(read.attention) == 2
    for was, now in zip(findings.attention, read.attention, strict=True):
        assert np.array_equal(was.grid.values, now.grid.values)
        assert now.grid.values.dtype == np.float32
        assert (was.slice_index, was.lesion, was.padding, was.box, was.grid.area) == (
            now.slice_index,
            now.lesion,
            now.padding,
            now.box,
            now.grid.area,
        )
    assert run_digest(read) == run_digest(findings)
    assert load_findings(tmp_path, masks=False).attention == ()


def test_attention_of_an_interrupted_run_is_replaced_or_goes(tmp_path: Path) -> None:
    (tmp_path / "attention.npz").write_bytes(b"half a file")
    save_findings(made_findings(GEOMETRY), tmp_path)
    assert not (tmp_path / "attention.npz").exists()
    assert load_findings(tmp_path).attention == ()


def test_findings_of_a_release_without_attention_are_read(tmp_path: Path) -> None:
    findings = made_findings(GEOMETRY)
    save_findings(findings, tmp_path)
    path = tmp_path / "findings.json"
    document = json.loads(path.read_text(encoding="utf-8"))
    del document["attention"], document["attention_sha256"]
    path.write_text(json.dumps(document), encoding="utf-8")
    read = load_findings(tmp_path)
    assert read.attention == ()
    assert run_digest(read) == run_digest(findings)


@given(arrays(np.bool_, array_shapes(min_dims=3, max_dims=3, max_side=9)))
def test_any_mask_survives(full: npt.NDArray[np.bool_]) -> None:
    geometry = axial_geometry((4, 8, 8), (1.0, 1.0, 1.0))
    findings = made_findings(geometry, lesions=())
    assert findings.region is not None
    mask = VoxelMask.from_full(full)
    with TemporaryDirectory() as name:
        save_findings(replace(findings, region=replace(findings.region, envelope=mask)), Path(name))
        read = load_findings(Path(name)).region
    assert read is not None
    assert read.envelope.shape == full.shape
    assert np.array_equal(read.envelope.full(), full)


def test_what_is_kept_first_stays(tmp_path: Path) -> None:
    first = made_findings(GEOMETRY)
    save_findings(first, tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    assert not save_findings(made_findings(GEOMETRY, lesions=()), tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_masks_of_an_interrupted_run_are_replaced(tmp_path: Path) -> None:
    (tmp_path / "masks.npz").write_bytes(b"half a file")
    findings = made_findings(GEOMETRY)
    save_findings(findings, tmp_path)
    assert same_masks(load_findings(tmp_path), findings)


def test_a_rejected_stack_leaves_its_reason_and_no_masks(tmp_path: Path) -> None:
    rejected = replace(
        without_liver(made_findings(GEOMETRY)),
        outcome=Outcome.REJECTED,
        rejection=Rejection(Reason.TILTED, "series 1.2.3: the gantry is tilted by 18.5°; send it untilted", "1.2.3"),
    )
    save_findings(rejected, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["findings.json"]
    assert load_findings(tmp_path).rejection == rejected.rejection


def test_the_file_is_plain_json_that_a_person_can_read(tmp_path: Path) -> None:
    findings = made_findings(GEOMETRY)
    lesion = findings.lesions[0]
    unmeasured = replace(lesion, measurements=replace(lesion.measurements, hu_liver_mean=math.nan))
    save_findings(replace(findings, lesions=(unmeasured, *findings.lesions[1:])), tmp_path)

    text = (tmp_path / "findings.json").read_text(encoding="utf-8")
    document = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert document["schema"] == "m3node.findings/1"
    assert "Not for clinical use" in document["notice"]
    assert document["outcome"] == "lesions"
    assert document["detector"]["parameters"] == {"alpha": "1", "threshold": "0.5"}
    assert [item["number"] for item in document["lesions"]] == [1, 2]
    assert document["lesions"][0]["measurements"]["hu_liver_mean"] is None
    assert math.isnan(load_findings(tmp_path).lesions[0].measurements.hu_liver_mean)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("findings.json", b'{"schema": "m3node.findings/99"}', "m3node.findings/99"),
        ("findings.json", b'{"schema": "m3node.findings/1"}', "incomplete"),
        ("findings.json", b"{", "damaged"),
        ("findings.json", b"[]", "damaged"),
        ("masks.npz", b"other bytes", "SHA-256"),
        ("attention.npz", b"other bytes", "SHA-256"),
    ],
)
def test_a_damaged_file_is_refused_with_its_name(tmp_path: Path, name: str, content: bytes, says: str) -> None:
    save_findings(with_attention(made_findings(GEOMETRY)), tmp_path)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ResultError, match=says) as caught:
        load_findings(tmp_path)
    assert name in str(caught.value)


def test_a_folder_without_findings_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ResultError, match=r"findings\.json"):
        load_findings(tmp_path)


def test_a_disk_that_refuses_is_a_clear_error_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("a file where a folder should be")
    with pytest.raises(ResultError, match=r"cannot (write|remove)"):
        save_findings(made_findings(GEOMETRY), tmp_path / "run")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_findings_whose_masks_are_gone_are_refused(tmp_path: Path) -> None:
    save_findings(made_findings(GEOMETRY), tmp_path)
    (tmp_path / "masks.npz").unlink()
    with pytest.raises(ResultError, match=r"cannot read .*masks\.npz"):
        load_findings(tmp_path)


def test_the_files_that_findings_name_and_that_are_gone_are_told(tmp_path: Path) -> None:
    folders = {name: tmp_path / name for name in ("no liver", "no map", "all", "damaged")}
    made = made_findings(GEOMETRY)
    for name, findings in zip(folders, (without_liver(made), made, with_attention(made), made), strict=True):
        save_findings(findings, folders[name])
    assert {name: missing_files(folder) for name, folder in folders.items()} == dict.fromkeys(folders, ())
    for folder in folders.values():
        for name in ("masks.npz", "attention.npz"):
            (folder / name).unlink(missing_ok=True)
    for content in ("[]", "{", ""):
        (folders["damaged"] / "findings.json").write_text(content)
        assert missing_files(folders["damaged"]) == ()
    assert missing_files(folders["no liver"]) == missing_files(tmp_path / "none") == ()
    assert missing_files(folders["no map"]) == ("masks.npz",)
    assert missing_files(folders["all"]) == ("masks.npz", "attention.npz")
