"""The checks tell what keeps the node from its work from what others do, and each says what to do about it."""

from __future__ import annotations

import os
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from certified import Authority
from ledgers import opened_ledger
from m3node.audit import forwarded
from m3node.audit.events import AuditLogUsed
from m3node.audit.files import append
from m3node.audit.forwarded import Memory, write_memory
from m3node.audit.messages import Reporter, encoded
from m3node.audit.trail import AuditTrail
from m3node.delivery.state import DeliveryState
from m3node.health import checks as checks_module
from m3node.health.checks import BEHIND_SECONDS, Check, check, checks_of, ready
from m3node.health.roles import SILENT_SECONDS
from m3node.jobs.ledger.notes import Ledger
from m3node.jobs.locks import Holder, hold
from m3node.jobs.node.glance import look
from m3node.layout import DataLayout
from m3node.settings import (
    AuditSettings,
    Destination,
    JobSettings,
    ListenerSettings,
    ListenerTls,
    Settings,
    SyslogSettings,
)
from made_runs import run_entry
from ports import free_port

NAMES = ["listener", "intake", "detector", "delivery", "destinations", "disk", "database", "certificates", "audit"]
PACS = Destination(name="pacs", ae_title="PACS", host="127.0.0.1", port=104)
ROLES = ("listen", "worker-0", "deliver")


def settings_of(folder: Path, **more: Any) -> Settings:
    return Settings(data_dir=folder, **{"destinations": (PACS,)} | more)


@contextmanager
def node(settings: Settings, roles: tuple[str, ...] = ROLES) -> Iterator[Ledger]:
    """A node whose roles are this process, which listens, and whose workers have loaded their detector."""
    layout = DataLayout(settings.data_dir)
    with opened_ledger(settings) as ledger, ExitStack() as held:
        server = held.enter_context(socket.create_server(("127.0.0.1", 0)))
        for role in roles:
            tenure = held.enter_context(hold(layout, role))
            if role == "listen":
                tenure.listens_on([server.getsockname()[1]])
            if role.startswith("worker-"):
                ledger.note_worker(int(role[7:]), socket.gethostname(), os.getpid(), "contrast 1")
        for process in ("keeper", "clerk"):
            (layout.metrics / f"{process}.json").touch()
        yield ledger


def found(settings: Settings, now: float | None = None) -> dict[str, Check]:
    return {item.name: item for item in check(settings, time.time() if now is None else now)}


def test_a_node_that_is_well_is_ready_and_nothing_is_to_be_done(tmp_path: Path) -> None:
    settings = settings_of(tmp_path)
    with node(settings):
        checks = check(settings, time.time())
    assert [item.name for item in checks] == NAMES
    assert {(item.state, item.action) for item in checks} == {("ok", "")}
    assert ready(checks)


@pytest.mark.parametrize(
    ("role", "name", "words"),
    [
        ("listen", "listener", "nothing is received"),
        ("worker-0", "detector", "no worker runs"),
        ("deliver", "delivery", "results wait in the outbox"),
    ],
)
def test_a_role_that_nobody_is_has_failed_and_the_command_is_named(
    tmp_path: Path, role: str, name: str, words: str
) -> None:
    settings = settings_of(tmp_path)
    with node(settings, tuple(other for other in ROLES if other != role)):
        checks = found(settings)
    assert [item.name for item in checks.values() if item.state == "failed"] == [name]
    assert words in checks[name].message
    assert "start m3node " in checks[name].action
    assert not ready(tuple(checks.values()))


def test_a_node_without_destinations_is_ready_without_the_role_that_delivers(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, destinations=())
    with node(settings, ("listen", "worker-0")):
        checks = found(settings)
    assert checks["delivery"].state == "warning"
    assert ready(tuple(checks.values()))


def test_a_listener_one_of_whose_ports_is_not_listened_on_has_failed(tmp_path: Path) -> None:
    settings = settings_of(tmp_path)
    with (
        socket.create_server(("127.0.0.1", 0)) as other,
        hold(DataLayout(tmp_path), "listen") as tenure,
    ):
        starting = found(settings)["listener"]
        tenure.listens_on([other.getsockname()[1]])
        well = found(settings)["listener"]
        free = free_port()
        tenure.listens_on([other.getsockname()[1], free])
        closed = found(settings)["listener"]
    assert (starting.state, starting.message) == ("failed", "the listener has not said yet which ports it has")
    assert well.state == "ok"
    assert closed.state == "failed"
    assert f"does not listen on port {free}" in closed.message


def test_on_a_full_disk_processes_that_cannot_say_so_are_not_taken_for_dead(tmp_path: Path) -> None:
    settings = settings_of(tmp_path)
    with node(settings):
        glance = look(settings, time.time() + SILENT_SECONDS + 5)
    full = replace(glance, disk=replace(glance.disk, free_mb=0.5))
    states = [{item.name: item.state for item in checks_of(settings, seen)}["intake"] for seen in (glance, full)]
    assert states == ["failed", "ok"]


def test_a_port_from_which_somebody_only_calls_is_not_listened_on(tmp_path: Path) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as elsewhere,
        socket.create_connection(elsewhere.getsockname()) as calling,
        hold(DataLayout(tmp_path), "listen") as tenure,
    ):
        tenure.listens_on([calling.getsockname()[1]])
        assert found(settings_of(tmp_path))["listener"].state == "failed"


def test_ports_of_another_machine_are_not_judged(tmp_path: Path) -> None:
    settings = settings_of(tmp_path)
    with node(settings):
        glance = look(settings, time.time())
    elsewhere = Holder("another-machine", 1, time.time(), (free_port(),))
    roles = tuple(replace(role, holder=elsewhere) if role.name == "listen" else role for role in glance.roles)
    assert checks_of(settings, replace(glance, roles=roles))[0].state == "ok"


def test_a_keeper_that_is_silent_has_failed_unless_the_node_has_only_just_started(tmp_path: Path) -> None:
    settings = settings_of(tmp_path)
    with node(settings):
        keeper = DataLayout(tmp_path).metrics / "keeper.json"
        later = time.time() + SILENT_SECONDS + 5
        os.utime(DataLayout(tmp_path).metrics / "clerk.json", (later, later))
        before, after = found(settings)["intake"], found(settings, later)["intake"]
        keeper.unlink()
        gone = found(settings, later)["intake"]
    assert before.state == "ok"
    assert (after.state, gone.state) == ("failed", "failed")
    assert after.message.startswith("not alive: keeper;")


def test_a_worker_counts_when_it_has_loaded_its_detector(tmp_path: Path) -> None:
    settings = settings_of(tmp_path)
    with node(settings) as ledger:
        ledger.note_worker(0, socket.gethostname(), os.getpid() + 1, "contrast 1")  # the one before it
        loading = found(settings)["detector"]
        ledger.note_worker(0, socket.gethostname(), os.getpid(), "contrast 2")
        loaded = found(settings)["detector"]
    assert (loading.state, loading.message) == ("failed", "no worker has loaded its detector yet")
    assert (loaded.state, loaded.message) == ("ok", "loaded: contrast 2")


def test_one_of_two_workers_that_is_down_wants_a_look(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, jobs=JobSettings(slots=2))
    with node(settings):
        item = found(settings)["detector"]
    assert (item.state, item.message) == ("warning", "down: worker-1")
    assert "m3node takeover 1" in item.action


def test_an_archive_that_is_down_and_dead_letters_leave_the_node_ready(tmp_path: Path) -> None:
    settings = settings_of(tmp_path)
    now = time.time()
    with node(settings) as ledger:
        ledger.note_entry(run_entry("1.2.g1", state=DeliveryState.RETRYING, attempts=3, failing_since=now - 7200))
        failing = found(settings, now)
        ledger.note_entry(run_entry("1.3.g1", state=DeliveryState.DEAD, finished_at=now))
        dead = found(settings, now)
    assert ready(tuple(dead.values()))
    assert failing["destinations"].state == "warning"
    assert failing["destinations"].message == "pacs fails for 2 h"
    assert "requeue" not in failing["destinations"].action
    assert dead["destinations"].message == "pacs fails for 2 h, 1 dead letter for pacs"
    assert "m3node requeue --all-dead" in dead["destinations"].action


@pytest.mark.parametrize(("free", "state"), [(3000, "ok"), (1500, "warning"), (100, "failed")])
def test_the_disk_has_failed_when_nothing_is_taken_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, state: str
) -> None:
    settings = settings_of(tmp_path)
    with node(settings):
        monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(total=8_000_000_000, free=free * 1_000_000))
        assert found(settings)["disk"].state == state


def test_a_database_that_is_away_has_failed_and_shows_no_password(tmp_path: Path) -> None:
    url = f"postgresql://m3node:geheim@127.0.0.1:{free_port()}/m3node"
    settings = settings_of(tmp_path)
    with node(settings):
        item = found(settings_of(tmp_path, database_url=url))["database"]
    assert item.state == "failed"
    assert "cannot be used" in item.message
    assert "geheim" not in repr(item)


def test_certificates_are_told_of_thirty_days_before_they_expire(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "ca")
    soon, over = authority.issue("soon", days=20), authority.issue("over", days=-1)

    def certificates(listener: Path, destination: Path) -> Check:
        tls = ListenerTls(certificate_file=listener, key_file=listener.with_suffix(".key"), client_certificates="none")
        shown = {"client_certificate_file": destination, "client_key_file": destination.with_suffix(".key")}
        to = PACS.model_copy(update={"tls": True, "ca_file": authority.file, **shown})
        settings = settings_of(tmp_path / "data", listener=ListenerSettings(tls=tls), destinations=(to,))
        return found(settings)["certificates"]

    good = authority.issue("good", days=31).certificate
    assert certificates(good, good).state == "ok"
    told = certificates(soon.certificate, good)
    assert told.state == "warning"
    assert told.message.startswith("listener.tls.certificate_file expires on ")
    assert certificates(over.certificate, good).state == "failed"
    assert certificates(tmp_path / "none.pem", good).state == "failed"
    # It keeps results from one archive, where they wait: the node is as ready as it can be.
    others = certificates(good, over.certificate)
    assert others.state == "warning"
    assert others.message.startswith("destinations.pacs.client_certificate_file has expired on ")
    # Renewed without its key: who has read the old one goes on with it, until it is started again.
    shutil.copy(soon.key, good.with_suffix(".key"))
    unfit = certificates(good, soon.certificate)
    assert unfit.state == "warning"
    assert unfit.message.startswith("listener.tls.certificate_file cannot be used: the key in ")


def test_an_audit_trail_that_cannot_be_written_has_failed(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    settings = settings_of(tmp_path / "data", audit=AuditSettings(folder=tmp_path / "file" / "audit"))
    with node(settings):
        item = found(settings)["audit"]
    assert item.state == "failed"
    assert str(tmp_path) in item.message


def test_messages_that_wait_for_the_audit_repository_are_told_of_when_they_are_late_or_when_it_is_known_why(
    tmp_path: Path,
) -> None:
    settings = settings_of(tmp_path, audit=AuditSettings(syslog=SyslogSettings(host="127.0.0.1")))
    trail = AuditTrail(settings, process="test")
    for number in range(3):
        trail.record(AuditLogUsed(f"user {number}"))
    trail.close()
    now = time.time()
    with node(settings):
        soon, late = found(settings, now)["audit"], found(settings, now + BEHIND_SECONDS + 5)["audit"]
        folder = DataLayout(tmp_path).audit
        write_memory(folder, Memory(error="connection refused"))
        known = found(settings, now)["audit"]
        write_memory(folder, Memory({path.name: path.stat().st_size for path in folder.glob("*.xml")}))
        there = found(settings, now + BEHIND_SECONDS + 5)["audit"]
    assert [item.state for item in (soon, late, known, there)] == ["ok", "warning", "warning", "ok"]
    assert late.message == "3 messages not at the audit repository"
    assert known.message == "3 messages not at the audit repository: connection refused"
    assert ready((late, known))


def test_of_what_a_repository_has_missed_for_months_no_more_is_read_than_has_to_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_of(tmp_path, audit=AuditSettings(syslog=SyslogSettings(host="127.0.0.1")))
    folder = DataLayout(tmp_path).audit
    for month in (1, 2):
        for number in range(3):
            moment = 86_400.0 * (31 * month + number)
            append(folder, encoded(AuditLogUsed("somebody"), Reporter("M3NODE", "host", "", "test", 1), moment), moment)
    write_memory(folder, Memory(error="connection refused"))
    for module in (forwarded, checks_module):
        monkeypatch.setattr(module, "MOST_COUNTED", 2)
    opened: list[str] = []
    read = forwarded.read_batch
    monkeypatch.setattr(forwarded, "read_batch", lambda path, place: opened.append(path.name) or read(path, place))
    with node(settings):
        shown = found(settings)["audit"]
    assert shown.message == "2 messages or more not at the audit repository: connection refused"
    assert set(opened) == {"1970-02.xml"}


def test_where_no_node_has_run_that_is_what_is_said(tmp_path: Path) -> None:
    checks = check(settings_of(tmp_path / "none"), time.time())
    assert [item.name for item in checks] == ["node", "certificates"]
    assert "no node has run on the data folder" in checks[0].message
    assert not ready(checks)
