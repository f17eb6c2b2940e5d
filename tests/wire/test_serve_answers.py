"""What the running node answers, end to end: received SEGs, selection, each destination's kind of report."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pydicom
import pytest
from pydicom.uid import EnhancedSRStorage, GrayscaleSoftcopyPresentationStateStorage, SegmentationStorage

from fake_pacs import COMPREHENSIVE_3D_SR, FakePacs, fake_pacs
from m3node.evaluation.ct_writer import seeded_uid
from made_series import bare_series
from served import ServedNode, serving

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

    def sent(self, run: str, pacs: FakePacs) -> list[str]:
        """SOP classes of a run's objects that an archive has."""
        record = json.loads((self.node.layout.results / run / "run.json").read_text())
        return sorted(item["sop_class_uid"] for item in record["objects"] if item["sop_instance_uid"] in pacs.kept)


def answering(root: Path, *, late_seg: bool) -> Iterator[Answering]:
    with fake_pacs() as modern, fake_pacs() as older:
        toml = SETTINGS.format(late_seg=str(late_seg).lower(), modern=modern.port, older=older.port)
        with serving(root, toml) as node:
            yield Answering(node, modern, older)


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
    node.until(lambda: node.answered(f"{ct_uid}.g1"))
    found = node.findings(f"{ct_uid}.g1")
    assert source(found) == ("received-seg", str(pydicom.dcmread(seg, stop_before_pixels=True).SOPInstanceUID))


def test_each_archive_gets_its_own_kind_of_reports(
    recording: Answering, ct: tuple[Path, ...], ct_uid: str, seg: Path
) -> None:
    run = f"{ct_uid}.g1"
    recording.node.send(*ct, seg, calling="CONTOURS")  # a repetition, unless this test runs alone
    recording.node.until(lambda: recording.node.answered(run))
    recording.node.until(lambda: len(recording.sent(run, recording.modern)) == 4)
    recording.node.until(lambda: len(recording.sent(run, recording.older)) == 4)
    common = [str(SegmentationStorage), str(GrayscaleSoftcopyPresentationStateStorage)]
    assert recording.sent(run, recording.modern) == sorted([*common, *[COMPREHENSIVE_3D_SR] * 2])
    assert recording.sent(run, recording.older) == sorted([*common, *[str(EnhancedSRStorage)] * 2])


@pytest.mark.parametrize("late", ["recording", "renewing"])
def test_a_seg_that_comes_late_is_used_only_where_configured(
    late: str, ct: tuple[Path, ...], seg: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    at = request.getfixturevalue(late).node
    series, files, contour = renamed(ct, seg, tmp_path, late)
    at.send(*files)
    at.until(lambda: at.answered(f"{series}.g1"))
    assert source(at.findings(f"{series}.g1"))[0] == "embedded"
    at.send(contour)
    if late == "renewing":
        at.until(lambda: at.answered(f"{series}.g2"))
        first, second = at.manifests_of(series)
        assert second.supersedes == first.key
        assert source(at.findings(f"{series}.g2"))[0] == "received-seg"
    else:
        at.until(lambda: f"series {series} is answered already: the SEG is recorded only" in at.log)
        at.until(lambda: at.settled(series, 3))
        assert len(at.manifests_of(series)) == 1


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
    node, seed = recording.node, request.node.name
    series = seeded_uid(seed, "series")
    node.send(*bare_series(tmp_path / "sent", seed, **attributes), calling=calling)
    node.until(lambda: node.settled(series, 12))
    assert node.findings(f"{series}.g1")["rejection"]["reason"] == "not-selected"
    assert node.manifests_of(series) == []
    assert not list(node.layout.outbox.rglob(f"{series}*"))
