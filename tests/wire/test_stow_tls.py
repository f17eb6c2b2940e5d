"""STOW-RS over HTTPS: which service gets objects, and what an administrator is told of one that does not."""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from http.client import HTTPConnection
from pathlib import Path

import pytest
from delivering import QUICK, aside, go, left, queue, queue_one
from stow_server import stow_server
from tls_peers import Listening, hangs_up, hears, listening, refuses_pdus, says_nothing, speaking

import audited
from certified import Authority, Shown, encrypted
from m3node.delivery.rounds import Round
from m3node.delivery.state import DeliveryState
from m3node.layout import DataLayout
from m3node.settings import DeliverySettings, Destination
from m3node.tls.contexts import fingerprint
from waiting import wait_for


@pytest.fixture
def layout(tmp_path: Path) -> DataLayout:
    layout = DataLayout(tmp_path / "data")
    layout.create()
    return layout


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "authority")


@pytest.fixture
def server(authority: Authority) -> Shown:
    return authority.issue("web")


def why(layout: DataLayout, peer: Listening, delivery: DeliverySettings = QUICK, **settings: object) -> str:
    """What an administrator reads of a service that gets not a byte; nobody takes the object for sent."""
    url = f"https://127.0.0.1:{peer.port}/dicom-web"
    to = Destination(name="web", url=url, **settings)
    queue_one(layout, to)
    told = go(layout, to, delivery)
    (entry,) = left(layout, "web").values()
    assert (entry.state, entry.last_error) == (DeliveryState.RETRYING, told.unreachable)
    assert told.unreachable.startswith(f"no connection to {url}: ")
    assert peer.data == b""
    return told.unreachable.removeprefix(f"no connection to {url}: ")


@pytest.mark.parametrize("trusted", [False, True], ids=["alone", "with ca_file"])
def test_a_service_with_another_certificate_than_the_pinned_one_gets_not_a_byte(
    layout: DataLayout, authority: Authority, server: Shown, trusted: bool
) -> None:
    trust = {"ca_file": authority.file} if trusted else {}
    with listening(hears(speaking(server))) as peer:
        told = why(layout, peer, certificate_sha256=("0" * 64,), **trust)
        (alert,) = audited.named(audited.of_node(layout), "Security Alert")
        assert told in audited.words(alert)
        assert told.endswith(f"certificate_sha256 does not name: its SHA-256 is {fingerprint(server.der)}")
        assert peer.handshakes == 1
    assert peer.data == b""


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("trusted", [False, True], ids=["alone", "with ca_file"])
def test_a_pinned_certificate_counts_whatever_its_name(
    layout: DataLayout, authority: Authority, server: Shown, trusted: bool
) -> None:
    trust = {"ca_file": authority.file} if trusted else {}
    with stow_server(tls=speaking(server)) as web:
        url = web.url.replace("127.0.0.1", "127.1")  # the same address, and not in the certificate
        queue(layout, web.destination())
        bare = web.destination(url=url, ca_file=authority.file)
        assert "the name in its certificate is not 127.1, but 127.0.0.1" in go(layout, bare).unreachable
        pinned = web.destination(url=url, certificate_sha256=("0" * 64, fingerprint(server.der)), **trust)
        wait_for(lambda: go(layout, pinned) and not left(layout, "web"))
    assert len(web.arrived) == 4


def test_a_pinned_certificate_of_an_authority_that_ca_file_does_not_name_gets_nothing(
    layout: DataLayout, authority: Authority, tmp_path: Path
) -> None:
    unknown = Authority(tmp_path / "stranger").issue("web")
    with listening(hears(speaking(unknown))) as peer:
        told = why(layout, peer, certificate_sha256=(fingerprint(unknown.der),), ca_file=authority.file)
        assert told.startswith("its certificate is not signed by an authority in ca_file")


def test_a_service_whose_certificate_is_over_gets_nothing_and_then_all_when_it_is_renewed(
    layout: DataLayout, authority: Authority
) -> None:
    over = authority.issue("web", days=-2)
    day = datetime.now(UTC) - timedelta(days=2)
    context = speaking(over)
    with stow_server(tls=context) as web:
        to = web.destination(ca_file=authority.file)
        queue(layout, to)
        assert go(layout, to).unreachable.endswith(f"its certificate has expired on {day:%Y-%m-%d}")
        assert web.arrived == []
        renewed = authority.issue("renewed")
        context.load_cert_chain(str(renewed.certificate), str(renewed.key))
        wait_for(lambda: go(layout, to) and not left(layout, "web"))
    assert len(web.arrived) == 4


def test_our_key_has_a_password_and_our_renewed_certificate_is_taken_from_disk(
    layout: DataLayout, authority: Authority, server: Shown, tmp_path: Path
) -> None:
    (tmp_path / "password").write_text("s3cret")
    ours, renewed = authority.issue("m3node", days=-1), authority.issue("renewed")
    key = encrypted(ours.key, "s3cret")
    with stow_server(tls=speaking(server, callers=authority)) as web:
        to = web.destination(
            ca_file=authority.file,
            client_certificate_file=ours.certificate,
            client_key_file=key,
            client_key_password_file=tmp_path / "password",
        )
        queue(layout, to)
        assert go(layout, to).unreachable.endswith("our certificate has expired, it says")
        os.replace(encrypted(renewed.key, "s3cret"), key)
        os.replace(renewed.certificate, ours.certificate)
        wait_for(lambda: go(layout, to) and not left(layout, "web"))
    assert len(web.arrived) == 4


@pytest.mark.parametrize(
    ("only", "minimum"),
    [("1.1", "1.2"), ("1.2", "1.3")],
)
def test_a_service_that_speaks_an_older_tls_gets_nothing(
    layout: DataLayout, authority: Authority, server: Shown, only: str, minimum: str
) -> None:
    delivery = QUICK.model_copy(update={"tls_minimum": minimum})
    with listening(hears(speaking(server, only=only))) as peer:
        told = why(layout, peer, delivery, ca_file=authority.file)
    assert told == {"1.2": "it does not speak TLS 1.2 or later", "1.3": "it does not speak TLS 1.3"}[minimum]


@pytest.mark.parametrize(
    ("how", "words"),
    [
        (says_nothing, "it does not answer the TLS handshake: is {port} its TLS port?"),
        (refuses_pdus, "it answers, but not in TLS: is {port} its TLS port?"),
        (hangs_up, "it hangs up in the TLS handshake: is {port} its TLS port, and does it want a certificate of ours?"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_what_speaks_no_tls_gets_nothing_and_the_object_is_not_taken_for_perhaps_sent(
    layout: DataLayout, authority: Authority, how: Callable[..., None], words: str
) -> None:
    delivery = QUICK.model_copy(update={"connect_seconds": 0.5})
    with listening(how) as peer:
        assert why(layout, peer, delivery, ca_file=authority.file) == words.format(port=peer.port)


def test_an_answer_that_comes_before_the_object_has_left_counts(
    layout: DataLayout, authority: Authority, server: Shown, monkeypatch: pytest.MonkeyPatch
) -> None:
    send = HTTPConnection.send

    def too_large(connection: socket.socket, state: Listening) -> None:
        with speaking(server).wrap_socket(connection, server_side=True) as shaken:
            shaken.recv(1)
            shaken.sendall(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            shaken.recv(1 << 20)

    def hung_up(connection: HTTPConnection, data: bytes) -> None:
        """As OpenSSL finds it when the other side has gone."""
        if len(data) > 1_000_000:
            raise ssl.SSLEOFError(8, "EOF occurred in violation of protocol")
        send(connection, data)

    with listening(too_large) as peer:
        to = Destination(name="web", url=f"https://127.0.0.1:{peer.port}/dicom-web", ca_file=authority.file)
        queue_one(layout, to, size=2_000_000)
        monkeypatch.setattr(HTTPConnection, "send", hung_up)
        assert go(layout, to) == Round(aside=1)
    assert list(aside(layout, "web").values()) == ["HTTP 413"]


def test_with_ca_file_its_authorities_count_and_no_others(
    layout: DataLayout, authority: Authority, server: Shown, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
    monkeypatch.setattr("requests.adapters.DEFAULT_CA_BUNDLE_PATH", str(authority.file))
    with listening(hears(speaking(server))) as peer:
        told = why(layout, peer, ca_file=Authority(tmp_path / "other").file)
    assert told.startswith("its certificate is not signed by an authority in ca_file")


def test_without_ca_file_the_systems_authorities_count_and_no_others(
    layout: DataLayout, authority: Authority, server: Shown, monkeypatch: pytest.MonkeyPatch
) -> None:
    with stow_server(tls=speaking(server)) as web:
        queue_one(layout, web.destination())
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(authority.file))
        assert "is not signed by an authority of this system" in go(layout, web.destination()).unreachable
        # Where OpenSSL looks for the system's.
        monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
        wait_for(lambda: go(layout, web.destination()).stored == 1)
