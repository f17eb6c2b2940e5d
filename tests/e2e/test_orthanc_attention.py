"""A node that is told to shows a real archive where its model looked, and the archive's copies are valid."""

from __future__ import annotations

import io
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pydicom
import pytest
from orthanc import ROUTE_EVERYTHING, Orthanc, start_orthanc
from pydicom.dataset import Dataset
from pydicom.uid import CTImageStorage, MultiFrameTrueColorSecondaryCaptureImageStorage, ParametricMapStorage

from content_tree import children, groups
from fake_pacs import COMPREHENSIVE_3D_SR
from m3node.evaluation.ct_writer import seeded_uid
from made_series import phantom_series
from quick_series import quick_environment
from served import ServedNode
from validators import dciodvfy_errors

SETTINGS = """
[listener]
receivers = 1
callers = [{{ae_title = "STORESCU"}}, {{ae_title = "ORTHANC"}}]
[completeness]
quiet_seconds = 1
[detector]
name = "{detector}"
medgemma = {{ model = "test" }}
[results]
attention_map = true
[[destinations]]
name = "orthanc"
ae_title = "ORTHANC"
host = "127.0.0.1"
port = {port}
"""
PICTURES = (str(MultiFrameTrueColorSecondaryCaptureImageStorage), str(ParametricMapStorage))

Program = Callable[[str], str]


@contextmanager
def archive_and_node(
    folder: Path, program: Program, detector: str, lua: str = ""
) -> Iterator[tuple[Orthanc, ServedNode]]:
    """An Orthanc, and a node that shows it where its detector looked; the node meets nothing unexpected."""
    with start_orthanc(program("Orthanc"), folder / "orthanc", lua=lua) as orthanc:
        toml = SETTINGS.format(port=orthanc.dicom_port, detector=detector)
        # Where many tests share the cores, threads that wait by spinning take minutes instead of seconds.
        node = ServedNode(folder / "node", toml, quick_environment(OMP_NUM_THREADS=1))
        try:
            node.start()
            orthanc.add_modality("m3node", "M3NODE", node.port)
            yield orthanc, node
            assert node.stop() == 0, node.log[-3000:]
            assert "Traceback" not in node.log
            assert "unexpected" not in node.log
        finally:
            node.clean_up()


def send(program: Program, node: ServedNode, series: Path, *options: str) -> None:
    to = ["-aec", "M3NODE", "+sd", "127.0.0.1", str(node.port), str(series)]
    subprocess.run([program("storescu"), *options, *to], check=True, env={**os.environ, "TCP_NODELAY": "1"})


def valid_results(program: Program, orthanc: Orthanc, study: str, folder: Path) -> dict[str, list[Dataset]]:
    """The archive's copies of the results by SOP class, in which a validator finds no error."""
    found: dict[str, list[Dataset]] = {}
    for item in orthanc.instances(study):
        if item["SOPClassUID"] != CTImageStorage:
            path = folder / f"{item['ID']}.dcm"
            path.write_bytes(orthanc.file(item["ID"]))
            assert dciodvfy_errors(program, path) == [], item["SOPClassUID"]
            found.setdefault(item["SOPClassUID"], []).append(pydicom.dcmread(io.BytesIO(path.read_bytes())))
    return found


def results(orthanc: Orthanc, study: str) -> int:
    return sum(item["SOPClassUID"] != CTImageStorage for item in orthanc.instances(study))


def assert_they_refer_to_each_other(found: dict[str, list[Dataset]]) -> None:
    reports = found[COMPREHENSIVE_3D_SR]
    for uid in PICTURES:
        (picture,) = found[uid]
        named = {item.ReferencedSOPInstanceUID for item in picture.ReferencedInstanceSequence}
        assert named == {report.SOPInstanceUID for report in reports}
        for report in reports:
            shown = [
                item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID
                for group in groups(report)
                for item in children(group, "130401")
            ]
            assert picture.SOPInstanceUID in shown


@pytest.mark.slow
def test_capture_and_map_come_with_the_reports_and_are_no_trouble_when_they_come_back(
    tmp_path: Path, program: Program
) -> None:
    study = seeded_uid(31, "study")
    phantom_series(tmp_path / "series", 31)
    with archive_and_node(tmp_path, program, "quick", ROUTE_EVERYTHING) as (orthanc, node):
        send(program, node, tmp_path / "series")
        node.until(lambda: results(orthanc, study) >= 6)
        found = valid_results(program, orthanc, study, tmp_path)
        assert_they_refer_to_each_other(found)
        for uid in PICTURES:
            # What Orthanc sent back was acknowledged, and is kept beside the series that it answers.
            came_back = f"{study}/*/{found[uid][0].SOPInstanceUID}.dcm"
            node.until(lambda came_back=came_back: list(node.layout.spool.glob(came_back)))
        assert len(list(node.layout.manifests.glob("*.json"))) == 1


@pytest.mark.slow
def test_a_model_shows_where_it_looked_on_a_real_ct(test_data: Path, tmp_path: Path, program: Program) -> None:
    pytest.importorskip("torch", reason="the extra medgemma is not installed")
    series = test_data / "ct_liver_j2k"
    source = pydicom.dcmread(series / "000.dcm", stop_before_pixels=True)
    with archive_and_node(tmp_path, program, "medgemma") as (orthanc, node):
        send(program, node, series, "-xv")
        node.until(lambda: results(orthanc, source.StudyInstanceUID) >= 6, 240)
        found = valid_results(program, orthanc, source.StudyInstanceUID, tmp_path)
        assert_they_refer_to_each_other(found)
        (values,) = found[PICTURES[1]]
        share = values.pixel_array
        assert share.min() >= 0.0
        assert 0.0 < share.max() < 1.0
        assert (values.Rows, values.Columns) == (source.Rows, source.Columns)
        (capture,) = found[PICTURES[0]]
        assert capture.NumberOfFrames == values.NumberOfFrames
        makers = [str(maker.ManufacturerModelName) for maker in capture.ContributingEquipmentSequence]
        assert any("test model" in maker for maker in makers)
