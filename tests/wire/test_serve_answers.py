"""What the running node answers, end to end: received SEGs, selection, each destination's kind of report."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.uid import EnhancedSRStorage

from fake_pacs import COMPREHENSIVE_3D_SR, FakePacs, fake_pacs
from m3node.evaluation.ct_writer import axial_geometry, seeded_uid, write_ct_series
from served import ServedNode, wait_for

SETTINGS = """
[listener]
receivers = 1
callers = [
  {{ae_title = "PACS"}},
  {{ae_title = "CONTOURS", wait_for_seg_seconds = 3600}},
  {{ae_title = "RESEARCH"}},
]
[completeness]
quiet_seconds = 1
late_seg_makes_generation = {late_seg}
[eligibility]
min_slices = 3
[selection]
rules = [
  {{action = "refuse", sender = "^RESEARCH$"}},
  {{action = "refuse", kernel = "^BONE"}},
  {{action = "refuse", max_thickness_mm = 1.0}},
]
[[destinations]]
name = "modern"
ae_title = "PACS"
host = "127.0.0.1"
port = {modern}
[[destinations]]
name = "older"
ae_title = "PACS"
host = "127.0.0.1"
port = {older}
sr = "enhanced"
"""


class Answering:
    """A node with an archive for each kind of report."""

    def __init__(self, node: ServedNode, modern: FakePacs, older: FakePacs) -> None:
        self.node, self.modern, self.older = node, modern, older

    def findings(self, run: str) -> dict[str, object]:
        return json.loads((self.node.layout.results / run / "findings.json").read_text())

    def done(self, run: str) -> bool:
        return (self.node.layout.results / run / "run.json").exists()


def answering(root: Path, *, late_seg: bool) -> Iterator[Answering]:
    with fake_pacs() as modern, fake_pacs() as older:
        toml = SETTINGS.format(late_seg=str(late_seg).lower(), modern=modern.port, older=older.port)
        node = ServedNode(root, toml)
        try:
            node.start()
            yield Answering(node, modern, older)
            assert node.stop() == 0
            assert "Traceback" not in node.log
            assert "unexpected" not in node.log
        finally:
            node.clean_up()


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Answering]:
    """A node that only records a SEG that comes late."""
    yield from answering(tmp_path_factory.mktemp("recording"), late_seg=False)


@pytest.fixture(scope="module")
def renewing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Answering]:
    """A node that answers anew when a SEG comes late."""
    yield from answering(tmp_path_factory.mktemp("renewing"), late_seg=True)


@pytest.fixture(scope="module")
def ct(test_data: Path) -> tuple[Path, ...]:
    return tuple(sorted((test_data / "ct_liver_3slice").iterdir()))


@pytest.fixture(scope="module")
def ct_uid(ct: tuple[Path, ...]) -> str:
    return str(pydicom.dcmread(ct[0], stop_before_pixels=True).SeriesInstanceUID)


@pytest.fixture(scope="module")
def seg(test_data: Path) -> Path:
    return test_data / "ct_liver_3slice_seg" / "liver.dcm"


def source(findings: dict[str, object]) -> tuple[object, object]:
    region = findings["liver"]
    assert isinstance(region, dict), findings
    return region["source"], region["reference"]


def test_a_real_series_waits_for_its_seg_which_then_is_its_liver(
    recording: Answering, ct: tuple[Path, ...], ct_uid: str, seg: Path
) -> None:
    node = recording.node
    node.send(*ct, calling="CONTOURS")
    node.send(seg, calling="CONTOURS")
    wait_for(lambda: recording.done(f"{ct_uid}.g1"))
    found = recording.findings(f"{ct_uid}.g1")
    assert source(found) == ("received-seg", str(pydicom.dcmread(seg, stop_before_pixels=True).SOPInstanceUID))


def test_each_archive_gets_its_own_kind_of_reports(recording: Answering, ct: tuple[Path, ...], ct_uid: str) -> None:
    recording.node.send(*ct, calling="CONTOURS")  # a repetition, should this test run alone
    wait_for(lambda: len(recording.modern.kept) == 4 and len(recording.older.kept) == 4)
    record = json.loads((recording.node.layout.results / f"{ct_uid}.g1" / "run.json").read_text())
    classes = {item["sop_instance_uid"]: item["sop_class_uid"] for item in record["objects"]}
    modern = sorted(classes[uid] for uid in recording.modern.kept)
    older = sorted(classes[uid] for uid in recording.older.kept)
    assert modern.count(COMPREHENSIVE_3D_SR) == 2
    assert older.count(str(EnhancedSRStorage)) == 2
    assert sorted({*modern} - {COMPREHENSIVE_3D_SR}) == sorted({*older} - {str(EnhancedSRStorage)})


@pytest.mark.parametrize("late", ["recording", "renewing"])
def test_a_seg_that_comes_late_is_used_only_where_configured(
    late: str, ct: tuple[Path, ...], seg: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    at = request.getfixturevalue(late)
    series, files, contour = renamed(ct, seg, tmp_path, late)
    at.node.send(*files)
    wait_for(lambda: at.done(f"{series}.g1"))
    assert source(at.findings(f"{series}.g1"))[0] == "embedded"
    at.node.send(contour)
    if late == "renewing":
        wait_for(lambda: at.done(f"{series}.g2"))
        first, second = at.node.manifests_of(series)
        assert second.supersedes == first.key
        assert source(at.findings(f"{series}.g2"))[0] == "received-seg"
    else:
        wait_for(lambda: "the SEG is recorded only" in at.node.log)
        assert len(at.node.manifests_of(series)) == 1
        assert at.node.settled(series, 3)


def renamed(ct: tuple[Path, ...], seg: Path, folder: Path, seed: str) -> tuple[str, tuple[Path, ...], Path]:
    """Give the series and its SEG other UIDs."""
    new: dict[str, str] = {}
    data_sets = [pydicom.dcmread(path) for path in (*ct, seg)]
    for ds in data_sets:
        for value in (ds.SeriesInstanceUID, ds.SOPInstanceUID):
            new[str(value)] = seeded_uid(seed, value)
    for ds in data_sets:
        ds.walk(lambda _, element: rename(element, new))
        ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
        ds.save_as(folder / f"{ds.SOPInstanceUID}.dcm")
    files = [folder / f"{ds.SOPInstanceUID}.dcm" for ds in data_sets]
    return str(data_sets[0].SeriesInstanceUID), tuple(files[:-1]), files[-1]


def rename(element: pydicom.DataElement, new: dict[str, str]) -> None:
    if element.VR == "UI" and isinstance(element.value, str):
        element.value = new.get(element.value, element.value)


@pytest.mark.parametrize(
    ("attributes", "calling"),
    [
        pytest.param({}, "RESEARCH", id="sender"),
        pytest.param({"ConvolutionKernel": "BONEPLUS"}, "PACS", id="kernel"),
        pytest.param({"SliceThickness": 0.6}, "PACS", id="thickness"),
    ],
)
def test_a_rule_of_selection_refuses_with_a_reason_and_nothing_is_sent(
    recording: Answering,
    tmp_path: Path,
    attributes: dict[str, object],
    calling: str,
    request: pytest.FixtureRequest,
) -> None:
    shape, seed = (12, 32, 32), request.node.name
    hu = np.zeros(shape, np.int16)
    files = write_ct_series(
        tmp_path / "sent", hu, axial_geometry(shape, (2.0, 1.0, 1.0)), seed=seed, attributes=attributes
    )
    series = seeded_uid(seed, "series")
    recording.node.send(*files, calling=calling)
    wait_for(lambda: recording.node.settled(series, 12))
    assert recording.findings(f"{series}.g1")["rejection"]["reason"] == "not-selected"  # type: ignore[index]
    assert recording.node.manifests_of(series) == []
