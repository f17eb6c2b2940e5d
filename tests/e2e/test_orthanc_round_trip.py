"""A series travels between real peers: dcmtk's storescu, a real Orthanc and the real node."""

from __future__ import annotations

import io
import os
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pydicom
from orthanc import ROUTE_EVERYTHING, Orthanc, start_orthanc
from pydicom.uid import CTImageStorage, GrayscaleSoftcopyPresentationStateStorage, SegmentationStorage

from fake_pacs import COMPREHENSIVE_3D_SR
from m3node.evaluation.ct_writer import seeded_uid
from made_series import phantom_series
from served import ServedNode, delivering, serving

RESULTS = Counter(
    {
        COMPREHENSIVE_3D_SR: 2,
        str(SegmentationStorage): 1,
        str(GrayscaleSoftcopyPresentationStateStorage): 1,
    }
)


def results_in(orthanc: Orthanc, study: str) -> Counter[str]:
    classes = Counter(item["SOPClassUID"] for item in orthanc.instances(study))
    classes.pop(str(CTImageStorage), None)
    return classes


def wait_for_results(node: ServedNode, orthanc: Orthanc, study: str) -> None:
    node.until(lambda: results_in(orthanc, study).total() >= RESULTS.total())
    assert results_in(orthanc, study) == RESULTS


def upload(orthanc: Orthanc, folder: Path) -> list[str]:
    return [orthanc.upload(path)["ID"] for path in sorted(folder.iterdir())]


@contextmanager
def orthanc_and_node(
    folder: Path, program: Callable[[str], str], lua: str = ""
) -> Iterator[tuple[Orthanc, ServedNode]]:
    """An Orthanc that knows the node as a modality, and a node that knows the Orthanc as sender and archive."""
    with (
        start_orthanc(program("Orthanc"), folder / "orthanc", lua=lua) as orthanc,
        serving(
            folder / "node", delivering("orthanc", "ORTHANC", orthanc.dicom_port, callers=("STORESCU", "ORTHANC"))
        ) as node,
    ):
        orthanc.add_modality("m3node", "M3NODE", node.port)
        yield orthanc, node


def test_storescu_sends_a_series_and_orthanc_holds_its_results_in_the_same_study(
    tmp_path: Path, program: Callable[[str], str]
) -> None:
    study = seeded_uid(11, "study")
    phantom_series(tmp_path / "series", 11)
    with orthanc_and_node(tmp_path, program) as (orthanc, node):
        subprocess.run(
            [program("storescu"), "-aec", "M3NODE", "+sd", "127.0.0.1", str(node.port), str(tmp_path / "series")],
            check=True,
            env={**os.environ, "TCP_NODELAY": "1"},
        )
        wait_for_results(node, orthanc, study)
        patients = set()
        for item in orthanc.instances(study):
            arrived = pydicom.dcmread(io.BytesIO(orthanc.file(item["ID"])))
            patients.add((str(arrived.PatientID), str(arrived.PatientName)))
        assert patients == {("PHANTOM", "Phantom^Abdomen")}
        assert len(orthanc.get("/studies")) == 1


def test_orthancs_own_c_store_brings_a_series_and_the_results_join_it(
    tmp_path: Path, program: Callable[[str], str]
) -> None:
    study, slices = seeded_uid(12, "study"), phantom_series(tmp_path / "series", 12)
    with orthanc_and_node(tmp_path, program) as (orthanc, node):
        report = orthanc.store("m3node", upload(orthanc, tmp_path / "series"))
        assert report["FailedInstancesCount"] == 0
        wait_for_results(node, orthanc, study)
        assert len(orthanc.instances(study)) == len(slices) + RESULTS.total()
        assert len(orthanc.get("/studies")) == 1


def test_c_move_from_orthanc_brings_a_series(tmp_path: Path, program: Callable[[str], str]) -> None:
    study, slices = seeded_uid(13, "study"), phantom_series(tmp_path / "series", 13)
    with orthanc_and_node(tmp_path, program) as (orthanc, node):
        upload(orthanc, tmp_path / "series")
        what = ["-k", "QueryRetrieveLevel=STUDY", "-k", f"StudyInstanceUID={study}"]
        where = ["-aec", "ORTHANC", "-aem", "M3NODE", "127.0.0.1", str(orthanc.dicom_port)]
        subprocess.run(
            [program("movescu"), "-S", *what, *where],
            check=True,
            env={**os.environ, "TCP_NODELAY": "1"},
        )
        wait_for_results(node, orthanc, study)
        spooled = {path.stem for path in node.layout.spool.glob(f"{study}/*/*.dcm")}
        assert {seeded_uid(13, "instance", k) for k in range(len(slices))} <= spooled


def test_an_orthanc_that_routes_everything_back_starts_no_loop(tmp_path: Path, program: Callable[[str], str]) -> None:
    study, slices = seeded_uid(14, "study"), phantom_series(tmp_path / "series", 14)
    with orthanc_and_node(tmp_path, program, lua=ROUTE_EVERYTHING) as (orthanc, node):
        upload(orthanc, tmp_path / "series")
        wait_for_results(node, orthanc, study)
        run = f"{seeded_uid(14, 'series')}.g1"
        ours = {str(pydicom.dcmread(path).SeriesInstanceUID) for path in (node.layout.results / run).glob("*.dcm")}
        assert len(ours) == RESULTS.total()
        # Each comes back, and the node is done with it.
        node.until(lambda: all(node.settled(series, 1) for series in ours))
        assert [path.stem for path in node.layout.manifests.iterdir()] == [run]
        assert [path.name for path in node.layout.results.iterdir()] == [run]
        assert results_in(orthanc, study) == RESULTS
        assert len(orthanc.instances(study)) == len(slices) + RESULTS.total()
