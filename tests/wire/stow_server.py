"""A DICOMweb service on a free port that answers as a test tells it to, with or without TLS."""

from __future__ import annotations

import json
import re
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO

import pydicom

from m3node.settings import Destination


@dataclass(frozen=True)
class Reply:
    """Status, headers and body of an answer."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


@dataclass(frozen=True)
class Arrived:
    """A request: its path, headers and body, and the DICOM file in it."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def file(self) -> bytes:
        """The only part of the multipart body (RFC 2046 5.1.1)."""
        kind = self.headers["Content-Type"]
        found = re.fullmatch(r'multipart/related; type="application/dicom"; boundary="([^"]+)"', kind)
        assert found is not None, kind
        boundary = found[1].encode()
        before, part, after = self.body.split(b"--" + boundary)
        assert before.strip() == b""
        assert after.strip() == b"--"
        head, _, content = part.partition(b"\r\n\r\n")
        assert head.strip() == b"Content-Type: application/dicom"
        return content.removesuffix(b"\r\n")

    @property
    def uid(self) -> str:
        """SOP Instance UID of the file."""
        return str(pydicom.dcmread(BytesIO(self.file), stop_before_pixels=True).SOPInstanceUID)


def referenced(uid: str, warning: int | None = None) -> bytes:
    """Store Instances Response in which an instance is stored."""
    item: dict[str, object] = {"00081155": {"vr": "UI", "Value": [uid]}}
    if warning is not None:
        item["00081196"] = {"vr": "US", "Value": [warning]}
    return json.dumps({"00081199": {"vr": "SQ", "Value": [item]}}).encode()


def failed(uid: str, reason: int | None) -> bytes:
    """Store Instances Response in which an instance failed."""
    item: dict[str, object] = {"00081155": {"vr": "UI", "Value": [uid]}}
    if reason is not None:
        item["00081197"] = {"vr": "US", "Value": [reason]}
    return json.dumps({"00081198": {"vr": "SQ", "Value": [item]}}).encode()


def stored(arrived: Arrived) -> Reply:
    """Store it."""
    return Reply(200, {"Content-Type": "application/dicom+json"}, referenced(arrived.uid))


class StowServer:
    """What arrived; ``answer`` may be changed at any time. None as an answer cuts the connection."""

    def __init__(self, answer: Callable[[Arrived], Reply | None] = stored) -> None:
        self.answer = answer
        self.raw: Callable[[BaseHTTPRequestHandler], None] | None = None
        self.arrived: list[Arrived] = []
        self.connections = 0
        self.scheme = "http"
        self.port = 0

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}/dicom-web"

    def destination(self, **settings: object) -> Destination:
        return Destination(**{"name": "web", "url": self.url, **settings})


@contextmanager
def stow_server(
    answer: Callable[[Arrived], Reply | None] = stored, *, tls: ssl.SSLContext | None = None
) -> Iterator[StowServer]:
    state = StowServer(answer)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def setup(self) -> None:
            super().setup()
            state.connections += 1

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            request = Arrived(self.path, dict(self.headers), body)
            state.arrived.append(request)
            if state.raw is not None:
                self.close_connection = True
                state.raw(self)
                return
            reply = state.answer(request)
            if reply is None:
                self.close_connection = True
                return
            self.send_response(reply.status)
            for name, value in reply.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(reply.body)))
            self.end_headers()
            self.wfile.write(reply.body)

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: object, address: object) -> None:
            pass  # a client that hangs up is what some tests are about

    server = Server(("127.0.0.1", 0), Handler)
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
        state.scheme = "https"
    state.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
