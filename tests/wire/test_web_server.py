"""The page's process: its port, TLS and new certificates, connections that send nothing, and how it ends."""

from __future__ import annotations

import errno
import json
import logging
import os
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from http.client import BadStatusLine, HTTPConnection, HTTPSConnection
from pathlib import Path
from typing import Any

import pytest
import trustme

import audited
from ledgers import opened_ledger
from m3node.errors import ConfigError
from m3node.jobs.locks import RoleHeldError, hold
from m3node.layout import DataLayout
from m3node.settings import Settings
from m3node.tls.contexts import fingerprint
from m3node.web import server
from m3node.web.role import web
from m3node.web.server import serve_page
from waiting import wait_for


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def issue(authority: trustme.CA, folder: Path, *names: str) -> str:
    """Write a certificate and its key as an administrator renews them; return its fingerprint."""
    made = authority.issue_cert(*(names or ("localhost", "127.0.0.1")))
    for name, blob in (("key.pem", made.private_key_pem), ("cert.pem", made.cert_chain_pems[0])):
        blob.write_to_path(folder / f"{name}.new")
        os.replace(folder / f"{name}.new", folder / name)
    return fingerprint(ssl.PEM_cert_to_DER_cert(made.cert_chain_pems[0].bytes().decode()))


@contextmanager
def served(folder: Path, **settings: Any) -> Iterator[int]:
    """The page on a free port, in this process; it has to end in order."""
    tree = Settings(data_dir=folder / "data", web={"port": 0, **settings})
    stop, ports, errors = threading.Event(), list[Any](), list[BaseException]()

    def run() -> None:
        try:
            serve_page(tree, stop, ports.append)
        except BaseException as error:
            errors.append(error)
            raise

    with opened_ledger(tree):
        thread = threading.Thread(target=run)
        thread.start()
        try:
            wait_for(lambda: ports or errors)
            assert not errors
            yield ports[0]
        finally:
            stop.set()
            thread.join(60)
            assert not thread.is_alive()
    assert not errors


def get(port: int, path: str = "/livez", host: str = "127.0.0.1") -> tuple[int, bytes]:
    connection = HTTPConnection(host, port, timeout=30)
    connection.request("GET", path)
    answer = connection.getresponse()
    found = answer.status, answer.read()
    connection.close()
    return found


def trusting(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


def certificate(port: int, context: ssl.SSLContext, host: str) -> str:
    """The fingerprint of the certificate that is shown; with an address as ``host`` no name is sent."""
    with (
        socket.create_connection(("127.0.0.1", port), timeout=30) as plain,
        context.wrap_socket(plain, server_hostname=host) as secured,
    ):
        der = secured.getpeercert(binary_form=True)
    assert der is not None
    return fingerprint(der)


def test_it_answers_and_says_nothing_of_what_it_is_made_with(tmp_path: Path) -> None:
    with served(tmp_path) as port:
        connection = HTTPConnection("127.0.0.1", port, timeout=30)
        connection.request("GET", "/")
        answer = connection.getresponse()
        assert answer.status == 200
        assert answer.getheader("server") is None
        assert b"Overview" in answer.read()
        connection.close()
        assert get(port, "/livez") == (200, b"ok\n")


def test_it_is_reached_by_ipv6(tmp_path: Path) -> None:
    with served(tmp_path, host="::1") as port:
        assert get(port, "/studies", host="::1")[0] == 200


def test_over_tls_a_new_certificate_is_shown_without_a_restart(tmp_path: Path, authority: trustme.CA) -> None:
    first = issue(authority, tmp_path)
    files = {"certificate_file": tmp_path / "cert.pem", "key_file": tmp_path / "key.pem"}
    with served(tmp_path, **files) as port:
        context = trusting(authority)
        assert {certificate(port, context, host) for host in ("127.0.0.1", "localhost")} == {first}
        connection = HTTPSConnection("localhost", port, context=context, timeout=30)
        connection.request("GET", "/studies")
        answer = connection.getresponse()
        assert answer.status == 200
        assert answer.getheader("strict-transport-security")
        answer.read()
        second = issue(authority, tmp_path)
        assert second != first
        # With a name and without, in TLS 1.3 and 1.2.
        older = trusting(authority)
        older.maximum_version = ssl.TLSVersion.TLSv1_2
        assert {certificate(port, each, host) for each in (context, older) for host in ("127.0.0.1", "localhost")} == {
            second
        }
        # A connection that was there stays, and a file that is none changes nothing.
        connection.request("GET", "/livez")
        assert connection.getresponse().read() == b"ok\n"
        connection.close()
        (tmp_path / "cert.pem").write_text("nonsense")
        assert certificate(port, context, "localhost") == second


def test_what_is_older_than_tls_1_2_or_no_tls_at_all_is_not_answered(tmp_path: Path, authority: trustme.CA) -> None:
    issue(authority, tmp_path)
    files = {"certificate_file": tmp_path / "cert.pem", "key_file": tmp_path / "key.pem", "minimum": "1.3"}
    with served(tmp_path, **files) as port:
        context = trusting(authority)
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        with pytest.raises(ssl.SSLError):
            certificate(port, context, "localhost")
        with pytest.raises((ConnectionError, BadStatusLine)):
            get(port)
        assert certificate(port, trusting(authority), "localhost")


def test_a_port_that_is_taken_is_told_once_and_waited_for(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(server, "LONGEST_PAUSE", 0.02)
    with ExitStack() as until_tried:
        taken = until_tried.enter_context(socket.create_server(("127.0.0.1", 0)))
        port = taken.getsockname()[1]
        tries = []
        bound = server._bound

        def counting(*where: Any) -> socket.socket:
            tries.append(where)
            if len(tries) == 5:
                until_tried.close()
            return bound(*where)

        monkeypatch.setattr(server, "_bound", counting)
        with served(tmp_path, port=port) as found:
            assert found == port
            assert get(port)[0] == 200
    assert len(tries) == 5
    (told,) = [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]
    assert f"port {port}" in told
    assert "set web.port" in told


@pytest.mark.parametrize(
    ("code", "advice"),
    [
        (errno.EADDRINUSE, "set web.port, or end what has it"),
        (errno.EACCES, "set web.port to one from 1024 on"),
        (errno.EADDRNOTAVAIL, "set web.host to an address of this machine"),
        (errno.ENOBUFS, "set web.host and web.port"),
    ],
)
def test_who_cannot_have_its_port_is_told_what_helps(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, code: int, advice: str
) -> None:
    stop = threading.Event()

    def refused(*_: object) -> socket.socket:
        stop.set()
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(server, "_bound", refused)
    serve_page(Settings(data_dir=tmp_path), stop, lambda port: pytest.fail("it cannot have it"))
    (told,) = [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]
    assert f"{os.strerror(code)}; {advice}" in told


def test_it_ends_while_it_waits_for_a_port(tmp_path: Path) -> None:
    stop = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        tree = Settings(data_dir=tmp_path, web={"port": taken.getsockname()[1]})
        threading.Timer(0.2, stop.set).start()
        serve_page(tree, stop, lambda port: pytest.fail("it cannot have it"))


def test_connections_that_send_nothing_or_too_slowly_are_closed_and_delay_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "REQUEST_SECONDS", 0.5)
    with served(tmp_path) as port:
        silent = [socket.create_connection(("127.0.0.1", port)) for _ in range(50)]
        slow = socket.create_connection(("127.0.0.1", port))
        slow.sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n")
        begun = threading.Event()
        ended = threading.Event()

        def drip() -> None:
            # A byte now and then keeps no connection open.
            with slow:
                begun.set()
                while not ended.is_set():
                    try:
                        slow.sendall(b"X")
                    except OSError:
                        return
                    time.sleep(0.05)

        thread = threading.Thread(target=drip)
        thread.start()
        begun.wait()
        assert get(port)[0] == 200
        for connection in silent:
            connection.settimeout(60)
            assert connection.recv(1) == b""
            connection.close()
        thread.join(60)
        ended.set()
        assert not thread.is_alive()


def test_over_tls_nobody_waits_for_a_handshake_that_does_not_come(
    tmp_path: Path, authority: trustme.CA, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(server, "REQUEST_SECONDS", 0.5)
    issue(authority, tmp_path)
    files = {"certificate_file": tmp_path / "cert.pem", "key_file": tmp_path / "key.pem"}
    with served(tmp_path, **files) as port:
        silent = [socket.create_connection(("127.0.0.1", port)) for _ in range(50)]
        assert certificate(port, trusting(authority), "localhost")
        for connection in silent:
            connection.settimeout(30)  # asyncio's own patience is a minute
            assert connection.recv(1) == b""
            connection.close()
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_nonsense_is_refused_and_does_not_fill_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with served(tmp_path) as port:
        for nonsense in (b"\0" * 100, b"GET\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00", b"G" * 100_000):
            with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
                connection.sendall(nonsense)
                connection.shutdown(socket.SHUT_WR)
                try:
                    answer = connection.recv(100)
                except ConnectionResetError:
                    answer = b""
                assert not answer.startswith(b"HTTP/1.1 2")
        assert get(port)[0] == 200
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_a_certificate_that_cannot_be_used_is_told_by_its_setting(tmp_path: Path) -> None:
    (tmp_path / "cert.pem").write_text("nonsense")
    tree = Settings(data_dir=tmp_path, web={"port": 0, "certificate_file": tmp_path / "cert.pem"})
    with pytest.raises(ConfigError, match=r"web\.certificate_file"):
        serve_page(tree, threading.Event(), print)


def test_a_second_page_on_one_data_folder_is_refused(tmp_path: Path) -> None:
    with hold(DataLayout(tmp_path), "web"), pytest.raises(RoleHeldError, match="web of the data folder"):
        web(Settings(data_dir=tmp_path), threading.Event(), print)


@pytest.mark.parametrize("given", [{}, {"certificate_file": Path("c")}])
def test_by_name_it_is_no_more_open_than_as_part_of_the_node(tmp_path: Path, given: dict[str, Any]) -> None:
    tree = Settings(data_dir=tmp_path, web={"enabled": False, "host": "0.0.0.0", **given})
    with pytest.raises(ConfigError, match="not of this machine alone"):
        web(tree, threading.Event(), print)


def hung_up(connection: socket.socket) -> bool:
    """Whether the other side has gone, so far as one knows by now."""
    connection.setblocking(False)
    try:
        return connection.recv(1) == b""
    except BlockingIOError:
        return False
    except ConnectionError:
        return True


@pytest.mark.parametrize("tls", [False, True])
def test_a_crowd_from_one_address_is_in_nobodys_way_but_its_own(
    tmp_path: Path, authority: trustme.CA, monkeypatch: pytest.MonkeyPatch, tls: bool
) -> None:
    monkeypatch.setattr(server, "CONNECTIONS", 40)
    issue(authority, tmp_path)
    files = {"certificate_file": tmp_path / "cert.pem", "key_file": tmp_path / "key.pem"} if tls else {}
    with served(tmp_path, **files) as port, ExitStack() as opened:

        def coming_from(host: str, count: int) -> list[socket.socket]:
            made = [socket.create_connection(("127.0.0.1", port), 30, (host, 0)) for _ in range(count)]
            for one in made:
                opened.enter_context(one)
            return made

        others = coming_from("127.0.0.2", 3)
        crowd = coming_from("127.0.0.3", 300)
        for _ in range(3):
            if tls:
                assert certificate(port, trusting(authority), "localhost")
            else:
                assert get(port) == (200, b"ok\n")
        wait_for(lambda: sum(not hung_up(one) for one in crowd) <= 37)
        assert all(hung_up(one) for one in crowd[:100])
        assert not any(hung_up(one) for one in (crowd[-1], *others))


def test_an_answer_that_nobody_reads_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "UNREAD_SECONDS", 0.2)
    monkeypatch.setattr(server, "REQUEST_SECONDS", 0.2)
    gone: list[object] = []
    lost = server._Impatient.connection_lost

    def noted(self: Any, exc: Exception | None) -> None:
        lost(self, exc)
        gone.append(self)

    monkeypatch.setattr(server._Impatient, "connection_lost", noted)
    with served(tmp_path) as port, socket.socket() as greedy:
        greedy.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        greedy.connect(("127.0.0.1", port))
        greedy.settimeout(0.2)
        with suppress(OSError):  # the other side reads no more, or has hung up
            while True:
                greedy.sendall(b"GET /static/style.css HTTP/1.1\r\nHost: localhost\r\n\r\n" * 100)
        wait_for(lambda: gone)
        assert get(port)[0] == 200


def test_as_a_process_of_its_own_it_says_where_it_is_and_its_start_and_end_are_in_the_trail(tmp_path: Path) -> None:
    (tmp_path / "node.toml").write_text(f'data_dir = "{tmp_path / "data"}"\n[web]\nport = 0\n')
    ready = tmp_path / "ready.json"
    command = [sys.executable, "-m", "m3node", "web", "--config", tmp_path / "node.toml", "--ready-file", ready]
    with subprocess.Popen(command) as process:
        try:
            wait_for(ready.exists)
            said = json.loads(ready.read_text())
            assert said["pid"] == process.pid
            assert get(said["web_port"]) == (200, b"ok\n")
        finally:
            process.terminate()
        assert process.wait(60) == 0
    assert not ready.exists()
    messages = audited.valid(tmp_path / "data" / "audit")
    assert [(audited.code(message, "EventTypeCode"), audited.outcome(message)) for message in messages] == [
        ("Application Start", "0"),
        ("Application Stop", "0"),
    ]


def test_what_somebody_says_of_a_proxy_is_not_believed(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("right\n")
    with served(tmp_path, token_file=tmp_path / "token") as port:
        for number in range(3):
            connection = HTTPConnection("127.0.0.1", port, timeout=30)
            said = {"X-Forwarded-For": f"10.0.0.{number}", "X-Forwarded-Proto": "https", "Forwarded": "for=10.9.9.9"}
            connection.request("GET", "/metrics", headers={**said, "Authorization": "Bearer wrong"})
            answer = connection.getresponse()
            assert answer.getheader("strict-transport-security") is None
            assert answer.status == 401
            connection.close()
    trail = b"".join(audited.lines(tmp_path / "data" / "audit"))
    assert b"127.0.0.1" in trail
    assert b"10.0.0." not in trail
