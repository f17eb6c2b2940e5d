"""A node that is told to shows a real archive where its model looked, and the archive's copies are valid."""

from __future__ import annotations

import io
import os
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pydicom
import pytest
from orthanc import ROUTE_EVERYTHING, Orthanc, start_orthanc
from pydicom.uid import CTImageStorage, MultiFrameTrueColorSecondaryCaptureImageStorage, ParametricMapStorage

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
name = "quick"
[results]
attention_map = true
[[destinations]]
name = "orthanc"
ae_title = "ORTHANC"
host = "127.0.0.1"
port = {port}
"""
PICTURES = (str(MultiFrameTrueColorSecondaryCaptureImageStorage), str(ParametricMapStorage))


@contextmanager
def started(root: Path, toml: str) -> Iterator[ServedNode]:
    """A node that can load the detector ``quick`` and meets nothing unexpected."""
    node = ServedNode(root, toml, quick_environment())
    try:
        node.start()
        yield node
        assert node.stop() == 0, node.log[-3000:]
        assert "Traceback" not in node.log
        assert "unexpected" not in node.log
    finally:
        node.clean_up()


def results_of(orthanc: Orthanc, study: str) -> list[dict[str, str]]:
    return [item for item in orthanc.instances(study) if item["SOPClassUID"] != CTImageStorage]


@pytest.mark.slow
def test_capture_and_map_come_to_orthanc_with_the_reports_valid_and_are_no_trouble_when_they_come_back(
    tmp_path: Path, program: Callable[[str], str]
) -> None:
    study = seeded_uid(31, "study")
    phantom_series(tmp_path / "series", 31)
    with (
        start_orthanc(program("Orthanc"), tmp_path / "orthanc", lua=ROUTE_EVERYTHING) as orthanc,
        started(tmp_path / "node", SETTINGS.format(port=orthanc.dicom_port)) as node,
    ):
        orthanc.add_modality("m3node", "M3NODE", node.port)
        subprocess.run(
            [program("storescu"), "-aec", "M3NODE", "+sd", "127.0.0.1", str(node.port), str(tmp_path / "series")],
            check=True,
            env={**os.environ, "TCP_NODELAY": "1"},
        )
        node.until(lambda: len(results_of(orthanc, study)) >= 6, 120)
        results = results_of(orthanc, study)
        assert Counter(item["SOPClassUID"] for item in results if item["SOPClassUID"] in PICTURES) == Counter(PICTURES)
        arrived = {}
        for item in results:
            path = tmp_path / f"{item['ID']}.dcm"
            path.write_bytes(orthanc.file(item["ID"]))
            assert dciodvfy_errors(program, path) == [], item["SOPClassUID"]
            arrived[item["SOPClassUID"]] = pydicom.dcmread(io.BytesIO(path.read_bytes()))
        for uid in PICTURES:
            named = {item.ReferencedSOPInstanceUID for item in arrived[uid].ReferencedInstanceSequence}
            assert named <= {item["MainDicomTags"]["SOPInstanceUID"] for item in results}
            # What Orthanc sent back was acknowledged, and is kept beside the series that it answers.
            came_back = f"{study}/*/{arrived[uid].SOPInstanceUID}.dcm"
            node.until(lambda came_back=came_back: list(node.layout.spool.glob(came_back)))
        assert len(list(node.layout.manifests.glob("*.json"))) == 1
