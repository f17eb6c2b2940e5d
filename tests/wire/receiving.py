"""A running receiver for wire tests, and a sender that can say things no decent sender says."""

from __future__ import annotations

import socket
import ssl
import struct
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

from pynetdicom import AE
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import C_STORE

from m3node.audit.trail import AuditTrail
from m3node.intake.receive.acceptor import serve_associations
from m3node.intake.receive.association import LeaseReader
from m3node.intake.receive.connections import Grant
from m3node.intake.receive.identity import Identity
from m3node.intake.receive.ports import Ports
from m3node.intake.receive.rates import Turn
from m3node.intake.receive.receiver import Receiver
from m3node.layout import DataLayout
from m3node.settings import Caller, Destination, DiskSettings, JobSettings, ListenerSettings, Settings

CT = "1.2.840.10008.5.1.4.1.1.2"
EXPLICIT = "1.2.840.10008.1.2.1"


@dataclass
class Node:
    """A listening receiver."""

    settings: Settings
    port: int
    stop: threading.Event
    thread: threading.Thread
    tls_port: int = 0

    @property
    def layout(self) -> DataLayout:
        return DataLayout(self.settings.data_dir)

    def leases(self) -> LeaseReader:
        reader = LeaseReader(self.layout.associations)
        reader.poll()
        return reader

    def stored(self) -> set[str]:
        spool = self.layout.spool
        return {str(path.relative_to(spool)) for path in spool.rglob("*") if path.is_file()}


ANY_DISK = DiskSettings(warn_free_mb=0.0, refuse_free_mb=0.0)
"""A test does with the disk that it has."""


def settings_for(
    folder: Path, *, destinations: Sequence[Destination] = (), disk: DiskSettings = ANY_DISK, **listener: Any
) -> Settings:
    values = {"port": 0, "receivers": 1, "callers": (Caller(ae_title="TESTER"),), **listener}
    return Settings(
        data_dir=folder / "data",
        listener=ListenerSettings(**values),
        destinations=tuple(destinations),
        disk=disk,
        jobs=JobSettings(drain_seconds=5.0),
    )


@contextmanager
def running(
    folder: Path, *, destinations: Sequence[Destination] = (), disk: DiskSettings = ANY_DISK, **listener: Any
) -> Iterator[Node]:
    """Run acceptor and receivers as the supervisor does, but for the process around the acceptor."""
    settings = settings_for(folder, destinations=destinations, disk=disk, **listener)
    stop, started, ports = threading.Event(), threading.Event(), []

    def ready(bound: Ports) -> None:
        ports.append(bound)
        started.set()

    thread = threading.Thread(target=serve_associations, args=(settings,), kwargs={"ready": ready, "stop": stop})
    thread.start()
    try:
        assert started.wait(60)
        yield Node(settings, ports[0].plain or 0, stop, thread, ports[0].tls or 0)
    finally:
        stop.set()
        thread.join(60)
        assert not thread.is_alive()


class OpenDesk:
    """Stands for an acceptor that counts nothing."""

    def admit(self, title: str) -> Grant:
        return "granted"

    def turn(self) -> Turn:
        return Turn(0.0)


@dataclass
class Here:
    """A receiver in this process, where a test can break its disk."""

    port: int
    folder: Path
    receiver: Receiver


@contextmanager
def in_this_process(
    folder: Path, *, destinations: Sequence[Destination] = (), disk: DiskSettings = ANY_DISK, **listener: Any
) -> Iterator[Here]:
    """Serve one association in a thread; it must be over when the test is."""
    chosen = settings_for(folder, destinations=destinations, disk=disk, **listener)
    DataLayout(chosen.data_dir).create()
    receiver = Receiver(chosen, AuditTrail(chosen, process="receiver 0"))
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            connection, _ = listening.accept()
            receiver.serve(connection, OpenDesk(), over_tls=chosen.listener.tls.certificate_file is not None)

        # A daemon, so that one that nobody has called does not keep the tests from ending where one of them fails.
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield Here(listening.getsockname()[1], chosen.data_dir, receiver)
        thread.join(60)
        assert not thread.is_alive()


@contextmanager
def associated(
    port: int,
    *contexts: tuple[str, str],
    calling: str = "TESTER",
    called: str = "M3NODE",
    tls: ssl.SSLContext | None = None,
) -> Iterator[Association]:
    """Open an association; without contexts it proposes CT in Explicit VR Little Endian."""
    ae = AE(ae_title=calling)
    for abstract, transfer in contexts or ((CT, EXPLICIT),):
        ae.add_requested_context(abstract, transfer)
    association = ae.associate("127.0.0.1", port, ae_title=called, tls_args=(tls, "127.0.0.1") if tls else None)
    try:
        yield association
    finally:
        if association.is_established:
            association.release()


def rejection(
    port: int,
    *,
    calling: str = "TESTER",
    called: str = "M3NODE",
    sop_class: str = CT,
    tls: ssl.SSLContext | None = None,
) -> tuple[int, int, int] | None:
    """Ask for an association byte by byte; return result, source and reason of a rejection, None when accepted.

    pynetdicom as the sender sometimes calls a rejection an abort: when the connection is closed before it has looked
    whether it was open.
    """

    def item(kind: int, value: bytes) -> bytes:
        return struct.pack(">BBH", kind, 0, len(value)) + value

    context = item(0x20, b"\1\0\0\0" + item(0x30, sop_class.encode()) + item(0x40, EXPLICIT.encode()))
    user = item(0x50, item(0x51, struct.pack(">L", 16384)) + item(0x52, b"1.2.3"))
    titles = called.ljust(16).encode() + calling.ljust(16).encode()
    body = b"\0\1\0\0" + titles + bytes(32) + item(0x10, b"1.2.840.10008.3.1.1.1") + context + user
    with ExitStack() as stack:
        peer = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=30))
        if tls is not None:
            peer = stack.enter_context(tls.wrap_socket(peer, server_hostname="127.0.0.1"))
        peer.sendall(struct.pack(">BBL", 1, 0, len(body)) + body)
        answer = stack.enter_context(peer.makefile("rb")).read(10)
        if answer[0] == 0x02:
            peer.sendall(b"\x07\0\0\0\0\4\0\0\0\0")
            return None
    assert answer[0] == 0x03
    return answer[7], answer[8], answer[9]


def store_request(data: bytes, *, sop_class: str = CT, sop_instance: str, priority: int = 2) -> C_STORE:
    """A C-STORE request for any bytes under any names."""
    request = C_STORE()
    request.MessageID = 1
    request.AffectedSOPClassUID = sop_class
    request.AffectedSOPInstanceUID = sop_instance
    request.Priority = priority
    request.DataSet = BytesIO(data)
    return request


def raw_store(
    association: Association,
    data: bytes,
    *,
    sop_class: str = CT,
    sop_instance: str,
    context_id: int | None = None,
    priority: int = 2,
) -> C_STORE | None:
    """Send any bytes under any names; return the response, None when the association ended instead."""
    request = store_request(data, sop_class=sop_class, sop_instance=sop_instance, priority=priority)
    association._reactor_checkpoint.clear()
    while not association._is_paused:
        time.sleep(0.001)
    association.dimse.send_msg(request, context_id or association.accepted_contexts[0].context_id)
    _, response = association.dimse.get_msg(block=True)
    association._reactor_checkpoint.set()
    return response


def element(tag: int, value: str) -> bytes:
    raw = value.encode()
    raw += b"\0" * (len(raw) % 2)
    return (tag >> 16).to_bytes(2, "little") + (tag & 0xFFFF).to_bytes(2, "little") + b"UI" + len(raw).to_bytes(
        2, "little"
    ) + raw  # fmt: skip


def tiny(identity: Identity, tail: bytes = b"") -> bytes:
    """The smallest data set that can be stored, Explicit VR Little Endian."""
    return b"".join(
        (
            element(0x00080016, identity.sop_class_uid),
            element(0x00080018, identity.sop_instance_uid),
            element(0x0020000D, identity.study_instance_uid),
            element(0x0020000E, identity.series_instance_uid),
            tail,
        )
    )


def named(number: int, sop_class: str = CT) -> Identity:
    return Identity(sop_class, f"2.25.3.{number}", "2.25.1", "2.25.2")
