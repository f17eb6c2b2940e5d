"""The chain as a hospital has it: an Orthanc that forwards CT, the node, and an Orthanc that is the archive.

Each speaks DICOM over TLS, and shows the others a certificate. Meanwhile somebody holds connections to the node's port
open and says nothing.
"""

from __future__ import annotations

import json
import shutil
import socket
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orthanc import Orthanc, start_orthanc

from certified import Authority
from ports import free_port
from served import ServedNode, serving

SAMPLE = Path(__file__).resolve().parents[2] / "configs" / "peers" / "orthanc"
SOURCE, ARCHIVE = "SOURCE", "ARCHIVE"
SILENT = 3
"""Connections to the TLS port that never say anything."""
NODE = """
[listener]
receivers = 1
request_seconds = 600
callers = [{{ae_title = "{source}", tls = true}}]
[listener.tls]
port = {tls_port}
certificate_file = "{certificate}"
key_file = "{key}"
ca_file = "{ca}"
handshake_seconds = 600
[completeness]
quiet_seconds = 2
[[destinations]]
name = "archive"
ae_title = "{archive}"
host = "127.0.0.1"
port = {port}
tls = true
ca_file = "{ca}"
client_certificate_file = "{certificate}"
client_key_file = "{key}"
[web]
port = {web_port}
"""


@dataclass(frozen=True)
class Chain:
    """What it is made of."""

    source: Orthanc
    node: ServedNode
    archive: Orthanc
    page: str
    silent: tuple[socket.socket, ...]

    def send(self, series: Path) -> None:
        """Store a series in the source, as a scanner does; the archive gets it at once, the node by the sample."""
        stored = [self.source.upload(path)["ID"] for path in sorted(series.iterdir())]
        self.source.store("archive", stored)

    def wait_for_results(self, study: str, objects: int) -> None:
        """Wait until the archive has so many series of a study that are no CT; each result object is a series."""
        self.node.until(lambda: len(self._results(study)) >= objects, seconds=600)

    def still_silent(self) -> int:
        """Return how many of the connections that say nothing the node has held until now."""
        held = 0
        for connection in self.silent:
            try:
                connection.recv(1, socket.MSG_DONTWAIT)
            except BlockingIOError:
                held += 1
        return held

    def _results(self, study: str) -> list[str]:
        query = {"Level": "Series", "Query": {"StudyInstanceUID": study}, "Expand": True}
        series = self.archive.post("/tools/find", query)
        return [one["ID"] for one in series if one["MainDicomTags"]["Modality"] != "CT"]


@contextmanager
def chain(programs: Mapping[str, str], root: Path, more: str = "") -> Iterator[Chain]:
    """Start it on free ports, with the sample configuration of configs/peers/orthanc; ``more`` is of the node."""
    authority, tls_port, web_port = Authority(root / "certificates"), free_port(), free_port()
    binary = programs["Orthanc"]
    with ExitStack() as running:
        archive_settings = _tls(authority, ARCHIVE) | {"DicomTlsEnabled": True, "DicomAet": ARCHIVE}
        archive = running.enter_context(
            start_orthanc(binary, root / "archive", dicomweb=True, more=archive_settings),
        )
        shown = authority.issue("M3NODE")
        toml = NODE.format(
            **{"source": SOURCE, "archive": ARCHIVE, "tls_port": tls_port, "port": archive.dicom_port},
            web_port=web_port,
            **{"certificate": shown.certificate, "key": shown.key, "ca": authority.file},
        )
        node = running.enter_context(serving(root / "node", toml + more))
        silent = tuple(running.enter_context(socket.create_connection(("127.0.0.1", tls_port))) for _ in range(SILENT))
        source_settings = _tls(authority, SOURCE) | _forwarding(root, tls_port, archive.dicom_port)
        source = running.enter_context(start_orthanc(binary, root / "source", more=source_settings))
        yield Chain(source, node, archive, f"http://127.0.0.1:{web_port}", silent)


def _tls(authority: Authority, ae_title: str) -> dict[str, object]:
    """An Orthanc's certificate, and whom it trusts, for what it sends; for its own port with ``DicomTlsEnabled``."""
    shown = authority.issue(ae_title)
    return {
        "DicomTlsCertificate": str(shown.certificate),
        "DicomTlsPrivateKey": str(shown.key),
        "DicomTlsTrustedCertificates": str(authority.file),
        "DicomTlsRemoteCertificateRequired": True,
    }


def _forwarding(root: Path, node_port: int, archive_port: int) -> dict[str, object]:
    """The sample's settings, with where the peers are here, and the archive as one more of them."""
    settings: dict[str, Any] = json.loads((SAMPLE / "m3node.json").read_text())
    modalities = settings["DicomModalities"]
    modalities["m3node"] |= {"Host": "127.0.0.1", "Port": node_port, "UseDicomTls": True}
    modalities["archive"] = {"AET": ARCHIVE, "Host": "127.0.0.1", "Port": archive_port, "UseDicomTls": True}
    script = shutil.copy(SAMPLE / "m3node.lua", root)
    return settings | {"DicomAet": SOURCE, "LuaScripts": [str(script)], "StableAge": 2}
