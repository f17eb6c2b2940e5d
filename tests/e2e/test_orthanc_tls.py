"""DICOM over TLS with real peers: dcmtk's storescp, and Orthanc both ways, storage commitment included."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from orthanc import Orthanc, start_orthanc

from certified import Authority, Shown
from fake_pacs import make_run
from m3node.cli.main import main
from m3node.delivery.courier import Courier
from m3node.delivery.entry import from_json
from m3node.delivery.outbox import box_of, waiting
from m3node.delivery.queueing import enqueue
from m3node.delivery.rounds import Round, deliver_due
from m3node.delivery.state import DeliveryState
from m3node.layout import DataLayout
from m3node.results.objects import ResultObject
from m3node.settings import DeliverySettings, Destination, Settings
from made_series import phantom_series
from ports import free_port
from served import serving
from waiting import wait_for

RUN = "1.2.3.g1"
SAMPLE = Path(__file__).resolve().parents[2] / "configs" / "peers" / "orthanc-tls" / "m3node.json"


@dataclass(frozen=True)
class World:
    """An authority, and what it signed."""

    authority: Authority
    peer: Shown
    ours: Shown

    @property
    def settings(self) -> dict[str, object]:
        """How a destination is called over TLS."""
        return {
            "tls": True,
            "ca_file": self.authority.file,
            "client_certificate_file": self.ours.certificate,
            "client_key_file": self.ours.key,
        }


@pytest.fixture
def world(tmp_path: Path) -> World:
    authority = Authority(tmp_path / "certificates")
    return World(authority, authority.issue("peer"), authority.issue("m3node"))


@pytest.fixture
def layout(tmp_path: Path) -> DataLayout:
    layout = DataLayout(tmp_path / "data")
    layout.create()
    return layout


def queue(layout: DataLayout, destination: Destination) -> tuple[ResultObject, ...]:
    objects = make_run(layout, RUN, size=500_000)
    enqueue(layout, RUN, objects, [destination])
    return objects


def go(layout: DataLayout, destination: Destination) -> Round:
    delivery = DeliverySettings(retry_first_seconds=0.05, retry_max_seconds=0.1)
    settings = Settings(data_dir=layout.root, destinations=(destination,), delivery=delivery)
    courier = Courier(settings)
    try:
        return deliver_due(layout, destination, settings, courier)
    finally:
        courier.close()


@contextmanager
def storescp(binary: str, folder: Path, world: World, *more: str) -> Iterator[int]:
    """Run dcmtk's storage SCP over TLS; it writes what it gets below ``folder``, as it came."""
    folder.mkdir()
    port = free_port()
    tls = ("+tls", str(world.peer.key), str(world.peer.certificate), "+cf", str(world.authority.file))
    with (folder.parent / "storescp.log").open("wb") as log:
        process = subprocess.Popen(
            [binary, "-v", *tls, *more, "+B", "-od", str(folder), str(port)], stdout=log, stderr=subprocess.STDOUT
        )
        try:
            yield port
        finally:
            process.terminate()
            process.wait(20)


@pytest.mark.parametrize("mutual", [False, True], ids=["server", "mutual"])
def test_dcmtk_gets_the_objects_over_tls_and_knows_us_where_it_wants_to(
    layout: DataLayout, tmp_path: Path, program: Callable[[str], str], world: World, mutual: bool
) -> None:
    with storescp(program("storescp"), tmp_path / "in", world, "-rc" if mutual else "-ic") as port:
        armed = Destination(name="pacs", ae_title="STORESCP", host="127.0.0.1", port=port, **world.settings)
        bare = armed.model_copy(update={"client_certificate_file": None, "client_key_file": None})
        objects = queue(layout, armed)
        if mutual:
            told: list[str] = []
            wait_for(lambda: told.append(go(layout, bare).unreachable) or "certificate of ours" in told[-1])
            assert told[-1].endswith("it wants a certificate of ours: set client_certificate_file")
        wait_for(lambda: go(layout, armed if mutual else bare) and not waiting(box_of(layout, "pacs")))
    arrived = {path.read_bytes()[-500_000:] for path in (tmp_path / "in").iterdir()}
    assert arrived == {item.path.read_bytes()[-500_000:] for item in objects}


@contextmanager
def orthanc_over_tls(binary: str, folder: Path, world: World) -> Iterator[Orthanc]:
    """Orthanc that speaks DICOM over TLS only, and wants to know who calls: the sample's settings, with our files."""
    sample = json.loads(SAMPLE.read_text(encoding="utf-8"))
    files = {
        "DicomTlsCertificate": str(world.peer.certificate),
        "DicomTlsPrivateKey": str(world.peer.key),
        "DicomTlsTrustedCertificates": str(world.authority.file),
    }
    assert set(files) < set(sample)
    tls = {key: files.get(key, value) for key, value in sample.items() if key.startswith("DicomTls")}
    with start_orthanc(binary, folder, more=tls) as running:
        yield running


def test_orthanc_is_called_by_hand_over_tls(
    tmp_path: Path, program: Callable[[str], str], world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    series = phantom_series(tmp_path / "series", 1)
    with orthanc_over_tls(program("Orthanc"), tmp_path / "orthanc", world) as orthanc:
        peer = f"ORTHANC@127.0.0.1:{orthanc.dicom_port}"
        trust = ["--tls", "--ca-file", str(world.authority.file)]
        ours = ["--certificate", str(world.ours.certificate), "--key", str(world.ours.key)]
        assert main(["echo", peer]) == 1
        assert "does it want TLS?" in capsys.readouterr().err
        assert main(["echo", peer, *trust]) == 1
        assert "it wants a certificate of ours" in capsys.readouterr().err
        assert main(["echo", peer, *trust, *ours]) == 0
        assert main(["send", "--json", str(series[0].parent), peer, *trust, *ours]) == 0
        assert (
            len(orthanc.instances()) == len(series) == json.loads(capsys.readouterr().out.partition("\n")[2])["stored"]
        )


def test_orthanc_sends_over_tls_gets_results_over_tls_and_commits_to_them_over_tls(
    tmp_path: Path, program: Callable[[str], str], world: World
) -> None:
    series = phantom_series(tmp_path / "series", 1)
    port = free_port()
    with (
        orthanc_over_tls(program("Orthanc"), tmp_path / "orthanc", world) as orthanc,
        serving(tmp_path / "node", node_over_tls(world, port, orthanc.dicom_port)) as node,
    ):
        orthanc.add_modality("m3node", "M3NODE", port, tls=True)
        sent = [orthanc.upload(path)["ID"] for path in series]
        orthanc.store("m3node", sent)
        box = box_of(node.layout, "orthanc")
        node.until(lambda: len(list(box.sent.glob("*.json"))) == 4)
        held = {item["MainDicomTags"]["SOPInstanceUID"] for item in orthanc.instances() if item["ID"] not in sent}
    entries = [from_json(path.read_bytes()) for path in box.sent.glob("*.json")]
    assert {entry.state for entry in entries} == {DeliveryState.CONFIRMED}
    assert {entry.sop_instance_uid for entry in entries} == held


def node_over_tls(world: World, port: int, to: int) -> str:
    """The settings of a node that hears and speaks TLS only."""
    return f"""
[listener]
receivers = 1
callers = [{{ae_title = "ORTHANC", tls = true}}]
[listener.tls]
port = {port}
certificate_file = "{world.ours.certificate}"
key_file = "{world.ours.key}"
ca_file = "{world.authority.file}"
[completeness]
quiet_seconds = 1
[[destinations]]
name = "orthanc"
ae_title = "ORTHANC"
host = "127.0.0.1"
port = {to}
tls = true
ca_file = "{world.authority.file}"
client_certificate_file = "{world.ours.certificate}"
client_key_file = "{world.ours.key}"
commitment = true
"""
