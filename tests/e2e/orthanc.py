"""A real Orthanc on free loopback ports, with its own empty storage."""

from __future__ import annotations

import json
import os
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ports import free_port

ROUTE_EVERYTHING = """
function OnStoredInstance(instance, tags, metadata)
   SendToModality(instance, 'm3node')
end
"""
"""Lua: each stored instance goes to the modality ``m3node``, as a PACS does that routes without a rule."""


DICOMWEB_PLUGIN = "/usr/share/orthanc/plugins/libOrthancDicomWeb.so"
"""Of Debian's package orthanc-dicomweb."""


class Orthanc:
    """A running Orthanc."""

    ae_title = "ORTHANC"

    def __init__(self, http_port: int, dicom_port: int) -> None:
        self.http_port = http_port
        self.dicom_port = dicom_port
        # Whatever proxy the environment names must not see loopback traffic.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def get(self, path: str) -> Any:
        return self._ask("GET", path, None)

    def post(self, path: str, body: object) -> Any:
        return self._ask("POST", path, body)

    def add_modality(self, name: str, ae_title: str, port: int, *, commitment: bool = True, tls: bool = False) -> None:
        """Name a peer; ``commitment`` lets it ask for storage commitment, which is reported to this port."""
        entry = {"AET": ae_title, "Host": "127.0.0.1", "Port": port, "AllowStorageCommitment": commitment}
        if tls:
            entry["UseDicomTls"] = True
        self._ask("PUT", f"/modalities/{name}", entry)

    def store(self, modality: str, instances: list[str]) -> Any:
        """Let Orthanc send instances (its own identifiers) by its own C-STORE."""
        return self.post(f"/modalities/{modality}/store", {"Resources": instances, "Synchronous": True})

    def instances(self, study: str = "") -> list[dict[str, Any]]:
        """Return the instances of a Study Instance UID, or all: ID and main tags, with the SOP class."""
        query = {"StudyInstanceUID": study} if study else {}
        found = self.post("/tools/find", {"Level": "Instance", "Query": query, "Expand": True})
        for item in found:
            item["SOPClassUID"] = self.get(f"/instances/{item['ID']}/metadata/SopClassUid")
        return list(found)

    def upload(self, path: Path) -> Any:
        return self._send("POST", "/instances", path.read_bytes())

    def file(self, instance: str) -> bytes:
        """Return the DICOM file of an instance."""
        with self._open("GET", f"/instances/{instance}/file", None) as answer:
            return bytes(answer.read())

    def _ask(self, method: str, path: str, body: object) -> Any:
        return self._send(method, path, None if body is None else json.dumps(body).encode())

    def _send(self, method: str, path: str, body: bytes | None) -> Any:
        with self._open(method, path, body) as answer:
            content = answer.read().decode()
        try:
            return json.loads(content)
        except ValueError:
            return content

    def _open(self, method: str, path: str, body: bytes | None) -> Any:
        request = urllib.request.Request(f"http://127.0.0.1:{self.http_port}{path}", data=body, method=method)
        return self._opener.open(request, timeout=30)


@contextmanager
def start_orthanc(
    binary: str,
    folder: Path,
    *,
    lua: str = "",
    dicom_port: int = 0,
    dicomweb: bool = False,
    more: Mapping[str, object] | None = None,
) -> Iterator[Orthanc]:
    """Start Orthanc in ``folder`` and stop it in the end; with ``dicomweb``, its plugin answers at ``/dicom-web``.

    ``more`` are settings that win over those for tests.
    """
    folder.mkdir(parents=True, exist_ok=True)
    orthanc = Orthanc(free_port(), dicom_port or free_port())
    scripts = []
    if lua:
        (folder / "route.lua").write_text(lua)
        scripts.append(str(folder / "route.lua"))
    settings = {
        "Name": "M3TEST",
        "StorageDirectory": str(folder / "storage"),
        "IndexDirectory": str(folder / "storage"),
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "HttpPort": orthanc.http_port,
        "DicomAet": orthanc.ae_title,
        "DicomPort": orthanc.dicom_port,
        "DicomCheckCalledAet": False,
        "DicomCheckModalityHost": False,
        "DicomAlwaysAllowEcho": True,
        "DicomAlwaysAllowStore": True,
        "DicomAlwaysAllowFind": True,
        "DicomAlwaysAllowMove": True,
        "DicomModalitiesInDatabase": True,
        "UnknownSopClassAccepted": True,
        "OverwriteInstances": True,
        "LuaScripts": scripts,
        "Plugins": [DICOMWEB_PLUGIN] if dicomweb else [],
        "DicomWeb": {"Enable": dicomweb, "Root": "/dicom-web/"},
        **(more or {}),
    }
    (folder / "orthanc.json").write_text(json.dumps(settings))
    with (folder / "orthanc.log").open("wb") as log:
        process = subprocess.Popen(
            [binary, str(folder / "orthanc.json")],
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, "TCP_NODELAY": "1"},
        )
        try:
            _wait_until_up(orthanc, process, folder / "orthanc.log")
            yield orthanc
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait_until_up(orthanc: Orthanc, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            orthanc.get("/system")
            return
        except (urllib.error.URLError, ConnectionError):
            assert process.poll() is None, f"Orthanc ended: {log.read_text()[-2000:]}"
            assert time.monotonic() < deadline, f"Orthanc does not answer: {log.read_text()[-2000:]}"
            time.sleep(0.05)
