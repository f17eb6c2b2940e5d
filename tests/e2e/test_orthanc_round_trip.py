"""A series travels between real peers: dcmtk's storescu, a real Orthanc and the real node."""

from __future__ import annotations

import io
import os
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pydicom
from orthanc import ROUTE_EVERYTHING, Orthanc, start_orthanc
from pydicom.uid import CTImageStorage, GrayscaleSoftcopyPresentationStateStorage, SegmentationStorage
from serving import ServingNode, serving, small_series

from fake_pacs import COMPREHENSIVE_3D_SR
from m3node.delivery.address import Peer

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


def wait_for_results(node: ServingNode, orthanc: Orthanc, study: str) -> None:
    node.until(lambda: results_in(orthanc, study).total() >= RESULTS.total(), "results in Orthanc")
    assert results_in(orthanc, study) == RESULTS


def upload(orthanc: Orthanc, folder: Path) -> list[str]:
    return [orthanc.upload(path)["ID"] for path in sorted(folder.iterdir())]


def archive(orthanc: Orthanc) -> list[tuple[str, Peer]]:
    return [("orthanc", Peer("ORTHANC", "127.0.0.1", orthanc.dicom_port))]


def test_storescu_sends_a_series_and_orthanc_holds_its_results_in_the_same_study(
    tmp_path: Path, program: Callable[[str], str]
) -> None:
    study, _ = small_series(tmp_path / "series", seed=11)
    with (
        start_orthanc(program("Orthanc"), tmp_path / "orthanc") as orthanc,
        serving(tmp_path / "node", ["STORESCU"], archive(orthanc)) as node,
    ):
        subprocess.run(
            [program("storescu"), "-aec", "M3NODE", "+sd", "127.0.0.1", str(node.peer.port), str(tmp_path / "series")],
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
    study, slices = small_series(tmp_path / "series", seed=12)
    with (
        start_orthanc(program("Orthanc"), tmp_path / "orthanc") as orthanc,
        serving(tmp_path / "node", ["ORTHANC"], archive(orthanc)) as node,
    ):
        orthanc.add_modality("m3node", "M3NODE", node.peer.port)
        report = orthanc.store("m3node", upload(orthanc, tmp_path / "series"))
        assert report["FailedInstancesCount"] == 0
        wait_for_results(node, orthanc, study)
        assert len(orthanc.instances(study)) == len(slices) + RESULTS.total()
        assert len(orthanc.get("/studies")) == 1


def test_c_move_from_orthanc_brings_a_series(tmp_path: Path, program: Callable[[str], str]) -> None:
    study, slices = small_series(tmp_path / "series", seed=13)
    with (
        start_orthanc(program("Orthanc"), tmp_path / "orthanc") as orthanc,
        serving(tmp_path / "node", ["ORTHANC"], archive(orthanc)) as node,
    ):
        orthanc.add_modality("m3node", "M3NODE", node.peer.port)
        upload(orthanc, tmp_path / "series")
        what = ["-k", "QueryRetrieveLevel=STUDY", "-k", f"StudyInstanceUID={study}"]
        where = ["-aec", "ORTHANC", "-aem", "M3NODE", "127.0.0.1", str(orthanc.dicom_port)]
        subprocess.run(
            [program("movescu"), "-S", *what, *where],
            check=True,
            env={**os.environ, "TCP_NODELAY": "1"},
        )
        wait_for_results(node, orthanc, study)
        assert slices <= node.spooled()


def test_an_orthanc_that_routes_everything_back_starts_no_loop(tmp_path: Path, program: Callable[[str], str]) -> None:
    study, slices = small_series(tmp_path / "series", seed=14)
    with (
        start_orthanc(program("Orthanc"), tmp_path / "orthanc", lua=ROUTE_EVERYTHING) as orthanc,
        serving(tmp_path / "node", ["ORTHANC"], archive(orthanc)) as node,
    ):
        orthanc.add_modality("m3node", "M3NODE", node.peer.port)
        upload(orthanc, tmp_path / "series")
        wait_for_results(node, orthanc, study)
        ours = {
            item["MainDicomTags"]["SOPInstanceUID"]
            for item in orthanc.instances(study)
            if item["SOPClassUID"] != CTImageStorage
        }
        node.until(lambda: ours <= node.spooled(), "our own objects coming back")
        # A loop would begin within the quiet period of a second; three of them go by.
        time.sleep(3.0)
        assert node.manifests() == node.runs()
        assert len(node.runs()) == 1
        assert node.runs()[0].endswith(".g1")
        assert results_in(orthanc, study) == RESULTS
        assert len(orthanc.instances(study)) == len(slices) + RESULTS.total()
