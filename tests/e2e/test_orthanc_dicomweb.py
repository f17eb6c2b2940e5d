"""STOW-RS to a real DICOMweb service: Orthanc's, by HTTP, and by TLS with a token through nginx."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trustme
from orthanc import DICOMWEB_PLUGIN, Orthanc, start_orthanc

from certified import Authority
from conftest import missing
from fake_pacs import make_run
from m3node.delivery.courier import Courier
from m3node.delivery.outbox import box_of, waiting
from m3node.delivery.queueing import enqueue
from m3node.delivery.rounds import Round, deliver_due
from m3node.layout import DataLayout
from m3node.results.objects import ObjectKind, ResultObject
from m3node.settings import DeliverySettings, Destination, Settings
from ports import free_port
from waiting import wait_for

RUN = "1.2.3.g1"
NGINX = """
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/nginx.log;
events {{}}
http {{
  access_log off;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  map $http_authorization $known {{ default 0; "Bearer s3cret" 1; }}
  server {{
    listen 127.0.0.1:{port} ssl;
    ssl_certificate {folder}/server.pem;
    ssl_certificate_key {folder}/server.pem;
    {more}
    client_max_body_size 50m;
    client_body_buffer_size 50m;  # its workers may be of a user who cannot write below the test's folder
    location /dicom-web/ {{
      if ($known = 0) {{ return 401; }}
      proxy_pass http://127.0.0.1:{upstream};
      proxy_set_header Host $host:$server_port;
    }}
    location /small/ {{
      client_max_body_size 1k;
      proxy_pass http://127.0.0.1:{upstream};
    }}
  }}
}}
"""


@pytest.fixture
def layout(tmp_path: Path) -> DataLayout:
    layout = DataLayout(tmp_path / "data")
    layout.create()
    return layout


@pytest.fixture
def orthanc(tmp_path: Path, program: Callable[[str], str]) -> Iterator[Orthanc]:
    binary = program("Orthanc")
    if not Path(DICOMWEB_PLUGIN).exists():
        missing("Orthanc's DICOMweb plugin (orthanc-dicomweb)")
    with start_orthanc(binary, tmp_path / "orthanc", dicomweb=True) as running:
        yield running


def queue(layout: DataLayout, destination: Destination) -> tuple[ResultObject, ...]:
    kinds = (ObjectKind.SEGMENTATION, ObjectKind.REPORT, ObjectKind.VOLUMES, ObjectKind.PRESENTATION)
    objects = make_run(layout, RUN, kinds, size=500_000)
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


def held(orthanc: Orthanc) -> dict[str, bytes]:
    return {item["MainDicomTags"]["SOPInstanceUID"]: orthanc.file(item["ID"]) for item in orthanc.instances()}


def files(objects: tuple[ResultObject, ...]) -> dict[str, bytes]:
    return {item.sop_instance_uid: item.path.read_bytes() for item in objects}


def test_orthanc_holds_the_very_bytes_that_were_built_also_after_they_came_twice(
    layout: DataLayout, orthanc: Orthanc
) -> None:
    web = Destination(name="web", url=f"http://127.0.0.1:{orthanc.http_port}/dicom-web")
    objects = queue(layout, web)
    assert go(layout, web) == Round(stored=4)
    assert held(orthanc) == files(objects)
    box = box_of(layout, "web")
    for path in box.sent.iterdir():  # as after a lost answer
        path.rename(box.folder / path.name)
    assert go(layout, web) == Round(stored=4)
    assert held(orthanc) == files(objects)


@contextmanager
def nginx(binary: str, folder: Path, upstream: int, more: str = "") -> Iterator[tuple[str, Path]]:
    """TLS and a token before a service; its URL, and the authority that vouches for it."""
    folder.mkdir()
    authority, port = trustme.CA(), free_port()
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(str(folder / "server.pem"))
    (folder / "nginx.conf").write_text(NGINX.format(folder=folder, port=port, upstream=upstream, more=more))
    process = subprocess.Popen([binary, "-c", str(folder / "nginx.conf"), "-p", str(folder)])
    try:
        wait_for((folder / "nginx.pid").exists)
        yield f"https://127.0.0.1:{port}", folder / "ca.pem"
    finally:
        process.terminate()
        process.wait(20)


def test_a_service_behind_tls_and_a_token_gets_what_it_lets_in(
    layout: DataLayout, orthanc: Orthanc, tmp_path: Path, program: Callable[[str], str]
) -> None:
    token = tmp_path / "token"
    token.write_text("wrong\n")
    with nginx(program("nginx"), tmp_path / "nginx", orthanc.http_port) as (url, authority):
        web = Destination(name="web", url=f"{url}/dicom-web", ca_file=authority, bearer_token_file=token)
        objects = queue(layout, web)
        assert "HTTP 401" in go(layout, web).unreachable
        assert orthanc.instances() == []
        token.write_text("s3cret\n")
        wait_for(lambda: go(layout, web) and not waiting(box_of(layout, "web")))
        assert held(orthanc) == files(objects)
        small = Destination(name="small", url=f"{url}/small", ca_file=authority)
        queue(layout, small)
        assert go(layout, small) == Round(aside=4)


def test_a_service_behind_a_proxy_that_wants_our_certificate_gets_all_when_it_is_the_right_one(
    layout: DataLayout, orthanc: Orthanc, tmp_path: Path, program: Callable[[str], str]
) -> None:
    (tmp_path / "token").write_text("s3cret")
    callers = Authority(tmp_path / "callers")
    ours, renewed = callers.issue("m3node", days=-1), callers.issue("renewed")
    wants = f"ssl_client_certificate {callers.file}; ssl_verify_client on;"
    with nginx(program("nginx"), tmp_path / "nginx", orthanc.http_port, wants) as (url, authority):
        bare = {"url": f"{url}/dicom-web", "ca_file": authority, "bearer_token_file": tmp_path / "token"}
        queue(layout, Destination(name="web", **bare))
        # nginx says so by HTTP, as of a request that is wrong; it is no object's fault.
        assert (
            "it does not accept our certificate, or wants one"
            in go(layout, Destination(name="web", **bare)).unreachable
        )
        armed = bare | {"client_certificate_file": ours.certificate, "client_key_file": ours.key}
        told: list[str] = []
        wait_for(lambda: told.append(go(layout, Destination(name="web", **armed)).unreachable) or told[-1])
        assert "it does not accept our certificate, or wants one" in told[-1]
        renewed.key.replace(ours.key)
        renewed.certificate.replace(ours.certificate)
        web = Destination(name="web", **armed)
        wait_for(lambda: go(layout, web) and not waiting(box_of(layout, "web")))
    assert len(orthanc.instances()) == 4


def test_a_proxy_whose_service_is_down_is_tried_again(
    layout: DataLayout, tmp_path: Path, program: Callable[[str], str]
) -> None:
    (tmp_path / "token").write_text("s3cret")
    with nginx(program("nginx"), tmp_path / "nginx", free_port()) as (url, authority):
        web = Destination(name="web", url=f"{url}/dicom-web", ca_file=authority, bearer_token_file=tmp_path / "token")
        queue(layout, web)
        assert go(layout, web) == Round(put_off=4)
    assert {entry.last_error for entry in waiting(box_of(layout, "web"))} == {"HTTP 502"}
