"""The sample configuration for Orthanc, in a real Orthanc: stable CT series come to the node, and nothing else does."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from orthanc import Orthanc, start_orthanc

from m3node.evaluation.ct_writer import seeded_uid
from m3node.intake.keeper.index import series_files, spooled_series
from made_series import bare_series
from served import ServedNode
from waiting import wait_for

SAMPLE = Path(__file__).resolve().parents[2] / "configs" / "peers" / "orthanc"


def sample(folder: Path, port: int) -> dict[str, Any]:
    """The sample's settings as they are, but for where things are here and for a patience of one second."""
    folder.mkdir(parents=True, exist_ok=True)
    script = shutil.copy(SAMPLE / "m3node.lua", folder)
    settings: dict[str, Any] = json.loads((SAMPLE / "m3node.json").read_text())
    assert settings["LuaScripts"] == ["/etc/orthanc/m3node.lua"]
    settings["DicomModalities"]["m3node"] |= {"Host": "127.0.0.1", "Port": port}
    return settings | {"LuaScripts": [str(script)], "StableAge": 1}


def upload(orthanc: Orthanc, folder: Path) -> None:
    for path in sorted(folder.iterdir()):
        orthanc.upload(path)


def states(orthanc: Orthanc) -> list[str]:
    """How Orthanc's jobs ended, the oldest first."""
    jobs = sorted(orthanc.get("/jobs?expand"), key=lambda job: job["CreationTime"])
    return [job["State"] for job in jobs]


def test_the_sample_forwards_stable_ct_series_and_repeats_what_failed(
    tmp_path: Path, program: Callable[[str], str]
) -> None:
    for name in ("missed", "other"):
        bare_series(tmp_path / name, name)
    bare_series(tmp_path / "pet", "pet", Modality="PT")
    node = ServedNode(tmp_path / "node", '[listener]\nreceivers = 1\ncallers = [{ae_title = "ORTHANC"}]\n')
    folder = tmp_path / "orthanc"
    try:
        with start_orthanc(program("Orthanc"), folder, more=sample(folder, node.port)) as orthanc:
            upload(orthanc, tmp_path / "pet")
            upload(orthanc, tmp_path / "missed")
            wait_for(lambda: states(orthanc) == ["Failure"])  # the node is down
            node.start()
            upload(orthanc, tmp_path / "other")
            node.until(lambda: states(orthanc) == ["Failure", "Success", "Success"])
            received = spooled_series(node.layout.spool)
            assert {series: len(series_files(folders)) for series, folders in received.items()} == {
                seeded_uid(name, "series"): 12 for name in ("missed", "other")
            }
        assert node.stop() == 0
    finally:
        node.clean_up()
