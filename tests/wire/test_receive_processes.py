"""Processes come and go; what was acknowledged stays, and nobody waits for the dead."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from multiprocessing import get_context
from pathlib import Path

import pytest
from receiving import Node, associated, named, raw_store, running, settings_for, tiny

from m3node.errors import ConfigError
from m3node.intake.receive.acceptor import serve_associations
from m3node.intake.receive.association import ClosedEvent, Lease, LeaseReader, read_leases
from m3node.intake.receive.channel import LARGEST, Message, Word, decoded
from m3node.intake.receive.receiver_process import receive
from m3node.intake.receive.spool import INCOMING
from m3node.layout import DataLayout
from m3node.process import process_started
from waiting import wait_for


def open_leases(node: Node) -> list[Lease]:
    return node.leases().live(time.time())


def test_four_associations_at_once_have_a_process_each(tmp_path: Path) -> None:
    with running(tmp_path, receivers=4) as node, associated(node.port) as a, associated(node.port) as b:
        with associated(node.port) as c, associated(node.port) as d:
            for number, association in enumerate((a, b, c, d)):
                response = raw_store(association, tiny(named(number)), sop_instance=f"2.25.3.{number}")
                assert response is not None
                assert response.Status == 0x0000
            assert len({lease.pid for lease in open_leases(node)}) == 4
        wait_for(lambda: len(open_leases(node)) == 2)
        assert len([name for name in node.stored() if name.endswith(".dcm")]) == 4


def test_a_killed_receiver_is_replaced_and_holds_no_lease(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with running(tmp_path) as node:
        with associated(node.port) as association:
            response = raw_store(association, tiny(named(1)), sop_instance="2.25.3.1")
            assert response is not None
            assert response.Status == 0x0000
            (lease,) = open_leases(node)
            half_written = node.layout.spool / INCOMING / f"{lease.pid}.{lease.started}.99.part"
            half_written.write_bytes(b"half")
            os.kill(lease.pid, signal.SIGKILL)
            wait_for(lambda: not association.is_established)
        assert open_leases(node) == []
        assert "2.25.1/2.25.2/2.25.3.1.dcm" in node.stored()

        def served() -> bool:
            with associated(node.port) as association:
                if not association.is_established:
                    return False
                response = raw_store(association, tiny(named(1)), sop_instance="2.25.3.1")
                return response is not None and response.Status == 0x0000

        wait_for(served)
        assert node.stored() == {"2.25.1/2.25.2/2.25.3.1.dcm"}
        reader = LeaseReader(node.layout.associations)
        ended = {event.association for event in reader.poll() if isinstance(event, ClosedEvent)}
        assert lease.id not in ended
        assert lease.id in {dead.id for dead in reader.finished(time.time())}
    assert "receiver 0 died (exit code -9) with 1 associations open; a new one is started" in caplog.text


def test_receivers_die_with_the_acceptor(tmp_path: Path) -> None:
    program = tmp_path / "acceptor.py"
    program.write_text(
        "import sys, threading\n"
        "from pathlib import Path\n"
        "from receiving import settings_for\n"
        "from m3node.intake.receive.acceptor import serve_associations\n"
        "if __name__ == '__main__':\n"
        "    serve_associations(settings_for(Path(sys.argv[1])), ready=lambda ports: print(ports.plain, flush=True),\n"
        "                       stop=threading.Event())\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    acceptor = subprocess.Popen(
        [sys.executable, str(program), str(tmp_path)], stdout=subprocess.PIPE, text=True, env=environment
    )
    assert acceptor.stdout is not None
    with associated(int(acceptor.stdout.readline())) as association:
        assert association.is_established
        (lease,) = read_leases(tmp_path / "data" / "associations")
        acceptor.kill()
        acceptor.wait()
        wait_for(lambda: process_started(lease.pid) != lease.started)
    acceptor.stdout.close()


def test_a_receiver_ends_in_order_when_the_acceptor_died_before_it_had_read_all(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    settings = settings_for(tmp_path)
    DataLayout(settings.data_dir).create()
    (DataLayout(settings.data_dir).spool / INCOMING).mkdir()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    receiver = get_context("spawn").Process(target=receive, args=(settings, theirs, 0))
    receiver.start()
    theirs.close()
    select.select([ours], [], [], 60)
    ours.close()  # what it said is unread: its end is reset, and not merely closed
    receiver.join(60)
    assert receiver.exitcode == 1
    said = capfd.readouterr().err
    assert "the acceptor is gone" in said
    assert "Traceback" not in said


def test_a_connection_whose_handle_got_lost_is_given_back_to_be_counted(tmp_path: Path) -> None:
    settings = settings_for(tmp_path)
    DataLayout(settings.data_dir).create()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    receiver = get_context("spawn").Process(target=receive, args=(settings, theirs, 0))
    receiver.start()
    theirs.close()
    ours.settimeout(60)
    assert decoded(ours.recv(LARGEST)) == Message(Word.READY)
    ours.send(Message(Word.SERVE, 7).encoded())  # the kernel drops a handle that a process has no room for
    assert decoded(ours.recv(LARGEST)) == Message(Word.ENDED, 7)
    ours.send(Message(Word.CLOSE, 7).encoded())  # one that is not there any more
    ours.send(Message(Word.STOP).encoded())
    receiver.join(60)
    assert receiver.exitcode == 0
    ours.close()


def test_an_idle_association_is_kept_alive_by_touches(tmp_path: Path) -> None:
    with running(tmp_path) as node, associated(node.port) as association:
        (lease,) = read_leases(node.layout.associations)
        os.utime(lease.path, (0, 0))
        wait_for(lambda: open_leases(node))  # touched again without any traffic
        assert association.is_established


def test_an_idle_association_is_aborted_after_its_time_and_holds_no_lease(tmp_path: Path) -> None:
    with running(tmp_path, idle_seconds=1.0) as node, associated(node.port) as association:
        wait_for(lambda: association.is_aborted)
        wait_for(lambda: open_leases(node) == [])
    (lease,) = read_leases(node.layout.associations)
    assert lease.closed_at is not None


def test_an_open_association_may_finish_when_the_node_stops_and_no_new_one_is_taken(tmp_path: Path) -> None:
    with running(tmp_path) as node, associated(node.port) as association:
        node.stop.set()

        def refused() -> bool:
            with associated(node.port) as late:
                return not late.is_established

        wait_for(refused)
        response = raw_store(association, tiny(named(1)), sop_instance="2.25.3.1")
        assert response is not None
        assert response.Status == 0x0000
        association.release()
        node.thread.join(20)
        assert not node.thread.is_alive()
        assert node.stored() == {"2.25.1/2.25.2/2.25.3.1.dcm"}


def test_a_port_in_use_is_an_error_of_the_settings(tmp_path: Path) -> None:
    with running(tmp_path) as node, pytest.raises(ConfigError, match=r"listener\.port"):
        serve_associations(settings_for(tmp_path / "second", port=node.port), stop=threading.Event())
