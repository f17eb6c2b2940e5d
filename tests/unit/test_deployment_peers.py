"""The samples for peers: what they say is what the node and the peer understand."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from m3node.settings import Settings, load
from m3node.settings.intake import ListenerSettings

ROOT = Path(__file__).resolve().parents[2]
PEERS = ROOT / "configs" / "peers"

# What dcm4chee-arc-light's own sample-export.ldif uses; more was not looked up, so more is not used.
DCM4CHEE = {
    "dcmExporter": {"dcmExporterID", "dcmURI", "dicomAETitle", "dcmQueueName"},
    "dcmExportRule": {"cn", "dcmEntity", "dcmDuration", "dcmExporterID", "dcmProperty"},
}


def entries(text: str) -> list[dict[str, str]]:
    """The entries of an LDIF file."""
    blocks = re.split(r"\n\s*\n", re.sub(r"^(#.*|version: 1)$", "", text, flags=re.MULTILINE).strip())
    return [dict(line.split(": ", 1) for line in block.strip().splitlines()) for block in blocks]


def test_the_entries_for_dcm4chee_use_only_attributes_of_its_own_sample() -> None:
    exporter, rule = entries((PEERS / "dcm4chee" / "forward-to-m3node.ldif").read_text())
    for entry in (exporter, rule):
        assert set(entry) - {"dn", "objectClass"} == DCM4CHEE[entry["objectClass"]]
        named, _, device = entry["dn"].partition(",")
        attribute, value = named.split("=")
        assert entry[attribute] == value
        assert device == "dicomDeviceName=dcm4chee-arc,cn=Devices,cn=DICOM Configuration,dc=dcm4che,dc=org"
    assert rule["dcmExporterID"] == exporter["dcmExporterID"]
    assert rule["dcmProperty"] == "Modality=CT"
    assert exporter["dcmURI"] == f"dicom:{ListenerSettings().ae_title}"


def test_the_sample_for_orthanc_names_the_node_as_it_is_by_default() -> None:
    settings: dict[str, Any] = json.loads((PEERS / "orthanc" / "m3node.json").read_text())
    (name,) = settings["DicomModalities"]
    assert f"local NODE = '{name}'" in (PEERS / "orthanc" / "m3node.lua").read_text()
    peer = settings["DicomModalities"][name]
    assert (peer["AET"], peer["Port"]) == (ListenerSettings().ae_title, ListenerSettings().port)
    # Its report of storage commitment comes to us, and it takes what we send; it gets nothing by query.
    assert peer["AllowStorageCommitment"]
    assert peer["AllowStore"]
    assert not any(peer[key] for key in ("AllowFind", "AllowMove", "AllowGet"))


def test_the_sample_for_orthanc_over_tls_is_the_other_one_and_tls() -> None:
    plain, tls = (json.loads((PEERS / name / "m3node.json").read_text()) for name in ("orthanc", "orthanc-tls"))
    only = {key: tls.pop(key) for key in list(tls) if key.startswith("DicomTls")}
    # Without the last one it would talk to whoever calls, and not only to whom the authority vouches for.
    assert only.pop("DicomTlsEnabled")
    assert only.pop("DicomTlsRemoteCertificateRequired")
    assert {Path(file).parent for file in only.values()} == {Path("/etc/orthanc")}
    peer = tls["DicomModalities"]["m3node"]
    assert peer.pop("UseDicomTls")
    assert peer["Port"] == ListenerSettings().tls.port
    assert tls == plain | {"DicomModalities": {"m3node": plain["DicomModalities"]["m3node"] | {"Port": peer["Port"]}}}
    named = (ROOT / "docs" / "tls.md").read_text(encoding="utf-8")
    assert [key for key in only if f"`{key}`" not in named] == []


@pytest.mark.parametrize(
    "document", [ROOT / "docs" / "deployment.md", PEERS / "dcm4chee" / "README.md"], ids=lambda path: path.parent.name
)
def test_the_settings_that_a_sample_shows_are_settings(tmp_path: Path, document: Path) -> None:
    shown = re.findall(r"```toml\n(.*?)```", document.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert shown
    for number, text in enumerate(shown):
        path = tmp_path / f"{number}.toml"
        path.write_text(re.sub(r"^ +", "", text, flags=re.MULTILINE), encoding="utf-8")
        settings = load(path)
        assert settings.listener.callers
        assert settings.destinations


def test_every_setting_that_the_check_list_names_exists() -> None:
    text = (PEERS / "generic.md").read_text(encoding="utf-8")
    tree = Settings().model_dump()
    dotted = re.findall(r"`([a-z_]+)\.([a-z_]+)`", text)
    assert len(dotted) >= 5
    assert [f"{section}.{key}" for section, key in dotted if key not in tree[section]] == []
    assert [name for name in re.findall(r"`\[+([a-z]+)(?:\.[a-z]+)?\]+`", text) if name not in tree] == []
