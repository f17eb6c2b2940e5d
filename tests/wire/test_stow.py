"""STOW-RS: the bytes that were built, one object a request; what each answer means; and who is not to be trusted."""

from __future__ import annotations

import base64
import email.utils
import json
import socket
import ssl
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
import trustme
from delivering import IMPATIENT, QUICK, RUN, aside, courier_for, go, left, queue, queue_one, sent
from stow_server import Arrived, Reply, StowServer, failed, referenced, stored, stow_server

from fake_pacs import make_run
from m3node.delivery.entry import Entry
from m3node.delivery.rounds import Round
from m3node.delivery.state import DeliveryState
from m3node.delivery.store_scu import Sent, sendable
from m3node.layout import DataLayout
from m3node.results.objects import ObjectKind
from m3node.settings import Destination
from ports import free_port
from waiting import wait_for


@pytest.fixture
def layout(tmp_path: Path) -> DataLayout:
    layout = DataLayout(tmp_path / "data")
    layout.create()
    return layout


def one_left(layout: DataLayout) -> Entry:
    (entry,) = left(layout, "web").values()
    return entry


def test_a_run_arrives_as_the_bytes_of_its_files_in_order_over_one_connection(layout: DataLayout) -> None:
    with stow_server() as web:
        queue(layout, web.destination(), size=100_000)
        assert go(layout, web.destination()) == Round(stored=4)
        assert web.connections == 1
    kinds = ("segmentation.seg", "report.sr", "volumes.sr", "presentation.pr")
    assert [item.file for item in web.arrived] == [
        (layout.results / RUN / f"{kind}.dcm").read_bytes() for kind in kinds
    ]
    assert {item.path for item in web.arrived} == {"/dicom-web/studies"}
    assert {item.headers["Accept"] for item in web.arrived} == {"application/dicom+json"}
    assert {item.headers["Host"] for item in web.arrived} == {f"127.0.0.1:{web.port}"}
    assert sent(layout, "web") == set(kinds)


def answered(layout: DataLayout, reply: Reply) -> Sent:
    """What an answer means; ``UID`` in its body stands for the object's."""
    item = sendable(make_run(layout, RUN, [ObjectKind.REPORT])[0].path)
    body = reply.body.replace(b"UID", item.sop_instance_uid.encode())
    with (
        stow_server(lambda arrived: Reply(reply.status, reply.headers, body)) as web,
        courier_for(layout, web.destination()) as courier,
    ):
        return courier.send(web.destination(), item)


JSON = {"Content-Type": "application/dicom+json"}


@pytest.mark.parametrize(
    ("reply", "verdict", "words"),
    [
        (Reply(200, JSON, referenced("UID")), "stored", "HTTP 200"),
        (Reply(200, {}, referenced("UID")), "stored", "HTTP 200"),
        (Reply(200, JSON, b"[" + referenced("UID") + b"]"), "stored", "HTTP 200"),
        (Reply(202, JSON, referenced("UID", 0xB000)), "stored", "HTTP 202, warning 0xB000"),
        # Orthanc stores the good parts of a request that it answers with 400.
        (Reply(400, {}, referenced("UID")), "stored", "HTTP 400"),
        (Reply(202, JSON, failed("UID", 0xA700)), "again", "HTTP 202, failure reason 0xA700 out of resources"),
        (Reply(200, JSON, failed("UID", 0xC000)), "refused", "HTTP 200, failure reason 0xC000 cannot understand"),
        (Reply(409, {}, failed("UID", 0xA900)), "refused", "HTTP 409, failure reason 0xA900 data set does not match"),
        (Reply(409, {}, failed("UID", None)), "again", "HTTP 409, failure reason 0x0110 processing failure"),
        (Reply(202, JSON, failed("UID", 0xB000)), "again", "HTTP 202, failure reason 0xB000"),
        (Reply(202, JSON, failed("UID", 0)), "again", "HTTP 202, failure reason 0x0110"),
        (Reply(400), "refused", "HTTP 400"),
        (Reply(409), "refused", "HTTP 409"),
        (Reply(413), "refused", "HTTP 413"),
        (Reply(415), "refused", "HTTP 415"),
        (Reply(408), "again", "HTTP 408"),
        (Reply(425), "again", "HTTP 425"),
        (Reply(429), "again", "HTTP 429"),
        (Reply(500), "again", "HTTP 500"),
        (Reply(502), "again", "HTTP 502"),
        (Reply(503), "again", "HTTP 503"),
    ],
)
def test_each_answer_means_stored_again_or_refused(layout: DataLayout, reply: Reply, verdict: str, words: str) -> None:
    told = answered(layout, reply)
    assert (told.verdict.value, told.unknown) == (verdict, False)
    assert told.message.startswith(words)


@pytest.mark.parametrize(
    "reply",
    [
        Reply(200),
        Reply(204),
        Reply(200, JSON, b"{}"),
        Reply(200, JSON, referenced("1.2.3")),
        Reply(200, JSON, b'{"00081199": 3}'),
        Reply(200, JSON, b"{nope"),
        Reply(200, JSON, b"[" * 100_000),
        Reply(200, JSON, failed("UID", 7).replace(b"7]", b"1e999]")),
        Reply(200, {"Content-Type": "text/html"}, b"<html>welcome</html>"),
    ],
    ids=lambda reply: f"{reply.status} {reply.body[:12]!r}",
)
def test_success_that_does_not_name_the_object_is_not_taken_for_stored(layout: DataLayout, reply: Reply) -> None:
    told = answered(layout, reply)
    assert (told.verdict.value, told.unknown) == ("again", True)


def test_an_object_that_is_too_large_is_set_aside_and_the_others_go_on(layout: DataLayout) -> None:
    def small_only(arrived: Arrived) -> Reply:
        return Reply(413) if len(arrived.body) > 100_000 else stored(arrived)

    with stow_server(small_only) as web:
        queue(layout, web.destination())
        queue(layout, web.destination(), run="1.2.4.g1", size=200_000)
        assert go(layout, web.destination()) == Round(stored=4, aside=4)
    assert set(aside(layout, "web").values()) == {"HTTP 413"}


@pytest.mark.parametrize("date", [False, True], ids=["seconds", "date"])
def test_a_busy_service_is_left_alone_for_as_long_as_it_asks(layout: DataLayout, date: bool) -> None:
    value = email.utils.formatdate(time.time() + 100, usegmt=True) if date else "100"
    patient = QUICK.model_copy(update={"retry_max_seconds": 600.0})
    with stow_server(lambda arrived: Reply(503, {"Retry-After": value})) as web:
        queue_one(layout, web.destination())
        before = time.time()
        assert go(layout, web.destination(), patient) == Round(put_off=1)
        assert before + 90 < one_left(layout).not_before < time.time() + 110
        assert go(layout, web.destination(), patient) == Round()


def test_a_service_that_asks_for_years_is_tried_after_the_longest_pause(layout: DataLayout) -> None:
    with stow_server(lambda arrived: Reply(503, {"Retry-After": "Fri, 31 Dec 2100 23:59:59 GMT"})) as web:
        queue_one(layout, web.destination())
        go(layout, web.destination())
        assert one_left(layout).not_before <= time.time() + QUICK.retry_max_seconds


def drip(handler: BaseHTTPRequestHandler, web: StowServer) -> None:
    """Say that it is stored, a byte at a time, each in time."""
    body = b" " * 100 + referenced(web.arrived[-1].uid)
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    for byte in body:
        handler.wfile.write(bytes([byte]))
        handler.wfile.flush()
        time.sleep(0.05)


def cut(handler: BaseHTTPRequestHandler, web: StowServer) -> None:
    """Promise more than comes."""
    handler.send_response(200)
    handler.send_header("Content-Length", "10000")
    handler.end_headers()
    handler.wfile.write(b'{"00081199"')


def flood(handler: BaseHTTPRequestHandler, web: StowServer) -> None:
    """Answer more than anybody wants to read."""
    handler.send_response(200)
    handler.send_header("Content-Length", str(1 << 40))
    handler.end_headers()
    try:
        while True:
            handler.wfile.write(b" " * 65536)
    except OSError:
        return


def hang_up(handler: BaseHTTPRequestHandler, web: StowServer) -> None:
    """Take the object and say nothing."""
    handler.connection.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize("how", [drip, cut, flood, hang_up], ids=lambda how: how.__name__)
def test_an_answer_that_never_ends_or_breaks_off_is_unknown_and_the_same_bytes_go_again(
    layout: DataLayout, how: Callable[[BaseHTTPRequestHandler, StowServer], None]
) -> None:
    with stow_server() as web:
        queue_one(layout, web.destination())
        web.raw = lambda handler: how(handler, web)
        assert go(layout, web.destination(), IMPATIENT) == Round(put_off=1)
        assert one_left(layout).state is DeliveryState.UNKNOWN
        web.raw = None
        wait_for(lambda: go(layout, web.destination()).stored == 1)
    first, second = web.arrived
    assert first.file == second.file


def test_a_service_that_never_answers_is_left_after_the_response_timeout(layout: DataLayout) -> None:
    release = threading.Event()
    with stow_server() as web:
        web.raw = lambda handler: release.wait(60)
        queue_one(layout, web.destination())
        assert go(layout, web.destination(), IMPATIENT) == Round(put_off=1)
        assert one_left(layout).state is DeliveryState.UNKNOWN
        release.set()


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_takes_no_object_to_another_host(layout: DataLayout, status: int) -> None:
    with stow_server() as other, stow_server() as web:
        web.answer = lambda arrived: Reply(status, {"Location": f"{other.url}/studies"})
        queue_one(layout, web.destination())
        why = go(layout, web.destination()).unreachable
        assert why.endswith(f"HTTP {status}: its address or our credentials are wrong")
        assert (len(web.arrived), other.arrived) == (1, [])


@pytest.mark.parametrize("status", [401, 403, 404, 405, 407])
def test_a_service_that_lets_nobody_in_is_down_and_refuses_no_object(layout: DataLayout, status: int) -> None:
    with stow_server(lambda arrived: Reply(status)) as web:
        queue(layout, web.destination())
        assert f"HTTP {status}" in go(layout, web.destination()).unreachable
        assert len(web.arrived) == 1
    assert len(left(layout, "web")) == 4


@pytest.mark.parametrize(
    ("page", "words"),
    [
        ("<center><h1>400 Bad Request</h1></center><center>The SSL certificate error</center>", "our certificate"),
        ("<center>No required SSL certificate was sent</center><hr><center>nginx</center>", "our certificate"),
        ("<center>The plain HTTP request was sent to HTTPS port</center>", "it wants https"),
        ("Client sent an HTTP request to an HTTPS server.\n", "it wants https"),
        ("Reason: You're speaking plain HTTP to an SSL-enabled server port.<br />", "it wants https"),
        ("Bad Request\nThis combination of host and port requires TLS.\n", "it wants https"),
    ],
)
def test_a_400_about_tls_refuses_no_object(layout: DataLayout, page: str, words: str) -> None:
    with stow_server(lambda arrived: Reply(400, {"Content-Type": "text/html"}, page.encode())) as web:
        queue(layout, web.destination())
        why = go(layout, web.destination()).unreachable
        assert "HTTP 400: " in why
        assert words in why
        assert len(web.arrived) == 1
    assert len(left(layout, "web")) == 4


def test_nobody_listening_and_a_name_that_is_not_known_are_a_destination_that_is_down(layout: DataLayout) -> None:
    for url, why in (
        (f"http://127.0.0.1:{free_port()}/dicom-web", "connection refused"),
        ("http://no-such-host.invalid/dicom-web", "the host's name is not known"),
        ("http://127.0.0.1:99999/dicom-web", "its url cannot be used"),
    ):
        web = Destination(name="web", url=url)
        queue_one(layout, web)
        assert go(layout, web).unreachable == f"no connection to {url}: {why}"
        wait_for(lambda: one_left(layout).not_before < time.time())


def test_neither_proxy_nor_netrc_of_the_environment_counts(
    layout: DataLayout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{free_port()}")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login somebody password else\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    (tmp_path / "token").write_text("s3cret\n")
    with stow_server() as web:
        destination = web.destination(bearer_token_file=tmp_path / "token")
        queue_one(layout, destination)
        assert go(layout, destination) == Round(stored=1)
    assert web.arrived[0].headers["Authorization"] == "Bearer s3cret"


def test_a_password_that_is_no_latin_1_is_sent_as_utf_8(layout: DataLayout, tmp_path: Path) -> None:
    (tmp_path / "password").write_text("пароль\n", encoding="utf-8")
    with stow_server() as web:
        destination = web.destination(user="m3node", password_file=tmp_path / "password")
        queue_one(layout, destination)
        assert go(layout, destination) == Round(stored=1)
    scheme, _, value = web.arrived[0].headers["Authorization"].partition(" ")
    assert (scheme, base64.b64decode(value).decode()) == ("Basic", "m3node:пароль")


def test_a_new_token_is_taken_without_a_restart(layout: DataLayout, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("old")

    def guarded(arrived: Arrived) -> Reply:
        return stored(arrived) if arrived.headers["Authorization"] == "Bearer new" else Reply(401)

    with stow_server(guarded) as web:
        destination = web.destination(bearer_token_file=token)
        queue_one(layout, destination)
        with courier_for(layout, destination) as courier:
            assert "HTTP 401" in go(layout, destination, courier=courier).unreachable
            token.write_text("new")
            wait_for(lambda: go(layout, destination, courier=courier).stored == 1)


@pytest.mark.parametrize("content", ["", "two words", "line\nline", "tök"])
def test_a_file_without_a_token_is_said_and_nothing_is_sent(layout: DataLayout, tmp_path: Path, content: str) -> None:
    (tmp_path / "token").write_text(content, encoding="utf-8")
    with stow_server() as web:
        destination = web.destination(bearer_token_file=tmp_path / "token")
        queue_one(layout, destination)
        assert go(layout, destination).unreachable.endswith("holds no bearer token (RFC 6750)")
        assert web.arrived == []


class Authority:
    """A certificate authority of a test's own, as files."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._ca = trustme.CA()
        self.file = folder / "ca.pem"
        self._ca.cert_pem.write_to_path(str(self.file))
        ours = self._ca.issue_cert("m3node.example")
        self.client, self.key = folder / "client.pem", folder / "client.key"
        ours.cert_chain_pems[0].write_to_path(str(self.client))
        ours.private_key_pem.write_to_path(str(self.key))

    def server(self, name: str = "127.0.0.1", *, mutual: bool = False) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._ca.issue_cert(name).configure_cert(context)
        if mutual:
            self._ca.configure_trust(context)
            context.verify_mode = ssl.CERT_REQUIRED
        return context


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "authority")


def test_a_service_with_a_certificate_of_the_named_authority_is_trusted(
    layout: DataLayout, authority: Authority
) -> None:
    with stow_server(tls=authority.server()) as web:
        destination = web.destination(ca_file=authority.file)
        queue(layout, destination)
        assert go(layout, destination) == Round(stored=4)


def test_a_service_that_is_not_who_it_should_be_gets_nothing(
    layout: DataLayout, authority: Authority, tmp_path: Path
) -> None:
    stranger = Authority(tmp_path / "stranger")
    for context, file, why in (
        (stranger.server(), authority.file, f"is not signed by an authority in ca_file ({authority.file})"),
        (authority.server("elsewhere.example"), authority.file, "is not 127.0.0.1, but elsewhere.example"),
        (authority.server(), None, "is not signed by an authority of this system: set ca_file"),
    ):
        with stow_server(tls=context) as web:
            destination = web.destination(ca_file=file)
            queue_one(layout, destination)
            assert why in go(layout, destination).unreachable
            assert web.arrived == []
        wait_for(lambda: one_left(layout).not_before < time.time())


def test_a_service_that_wants_our_certificate_gets_it(layout: DataLayout, authority: Authority) -> None:
    with stow_server(tls=authority.server(mutual=True)) as web:
        bare = web.destination(ca_file=authority.file)
        queue_one(layout, bare)
        assert go(layout, bare).unreachable.endswith("it wants a certificate of ours: set client_certificate_file")
        wait_for(lambda: one_left(layout).not_before < time.time())
        armed = web.destination(
            ca_file=authority.file, client_certificate_file=authority.client, client_key_file=authority.key
        )
        assert go(layout, armed) == Round(stored=1)


def test_a_certificate_file_that_is_gone_is_said_and_not_raised(layout: DataLayout, tmp_path: Path) -> None:
    web = Destination(name="web", url=f"https://127.0.0.1:{free_port()}/x", ca_file=tmp_path / "gone.pem")
    queue_one(layout, web)
    why = f"cannot read {tmp_path}/gone.pem: No such file or directory (ca_file of destination web)"
    assert go(layout, web).unreachable.endswith(why)


def test_no_word_of_the_answer_comes_into_the_outbox(layout: DataLayout) -> None:
    body = json.dumps({"message": "Doe^Jane is unknown"}).encode()
    with stow_server(lambda arrived: Reply(409, JSON, body)) as web:
        queue_one(layout, web.destination())
        go(layout, web.destination())
    assert set(aside(layout, "web").values()) == {"HTTP 409"}
