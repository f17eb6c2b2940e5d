"""The chain as a hospital has it: an Orthanc that forwards CT, the node, and an Orthanc that is the archive."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orthanc import Orthanc, start_orthanc

from served import ServedNode, serving

SAMPLE = Path(__file__).resolve().parents[3] / "configs" / "peers" / "orthanc"
SOURCE, ARCHIVE = "SOURCE", "ARCHIVE"
NODE = """
[listener]
receivers = 1
callers = [{{ae_title = "{source}"}}]
[completeness]
quiet_seconds = 2
[[destinations]]
name = "archive"
ae_title = "{archive}"
host = "127.0.0.1"
port = {port}
"""


@dataclass(frozen=True)
class Chain:
    """What it is made of."""

    source: Orthanc
    node: ServedNode
    archive: Orthanc

    def send(self, series: Path) -> None:
        """Store a series in the source, as a scanner does; the archive gets it at once, the node by the sample."""
        stored = [self.source.upload(path)["ID"] for path in sorted(series.iterdir())]
        self.source.store("archive", stored)

    def wait_for_results(self, objects: int) -> None:
        """Wait until the archive has so many series that are no CT; each result object is a series."""
        self.node.until(lambda: len(self._results()) >= objects, seconds=600)

    def _results(self) -> list[str]:
        described = [series["MainDicomTags"] for series in self.archive.get("/series?expand")]
        return [tags["SeriesDescription"] for tags in described if tags["Modality"] != "CT"]


@contextmanager
def chain(program: Callable[[str], str], root: Path) -> Iterator[Chain]:
    """Start it on free ports, with the sample configuration of configs/peers/orthanc."""
    binary = program("Orthanc")
    with (
        start_orthanc(binary, root / "archive", dicomweb=True, more={"DicomAet": ARCHIVE}) as archive,
        serving(root / "node", NODE.format(source=SOURCE, archive=ARCHIVE, port=archive.dicom_port)) as node,
        start_orthanc(binary, root / "source", more=_forwarding(root, node.port, archive.dicom_port)) as source,
    ):
        yield Chain(source, node, archive)


def _forwarding(root: Path, node_port: int, archive_port: int) -> dict[str, Any]:
    """The sample's settings, with where the peers are here, and the archive as one more of them."""
    root.mkdir(parents=True, exist_ok=True)
    settings: dict[str, Any] = json.loads((SAMPLE / "m3node.json").read_text())
    modalities = settings["DicomModalities"]
    modalities["m3node"] |= {"Host": "127.0.0.1", "Port": node_port}
    modalities["archive"] = {"AET": ARCHIVE, "Host": "127.0.0.1", "Port": archive_port}
    script = shutil.copy(SAMPLE / "m3node.lua", root)
    return settings | {"DicomAet": SOURCE, "LuaScripts": [str(script)], "StableAge": 2}
