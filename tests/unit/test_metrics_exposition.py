"""What ``/metrics`` shows: every metric that is documented, and as a label nothing that anybody sent."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from certified import Authority
from ledgers import opened_ledger
from m3node import __version__
from m3node.audit.events import AuditLogUsed
from m3node.audit.trail import AuditTrail
from m3node.delivery.state import DeliveryState
from m3node.health.exposition import CONTENT_TYPE, exposition
from m3node.intake.receive.association import OpenLease
from m3node.jobs.ledger.notes import Ledger
from m3node.jobs.ledger.states import RunState
from m3node.jobs.locks import hold
from m3node.layout import DataLayout
from m3node.metrics import families
from m3node.metrics.snapshot import Counts, write_counts
from m3node.settings import AuditSettings, Destination, ListenerSettings, ListenerTls, Settings, SyslogSettings
from made_runs import run_entry, run_manifest

PACS = Destination(name="pacs", ae_title="PACS", host="127.0.0.1", port=104)
SPARE = Destination(name="spare", ae_title="SPARE", host="127.0.0.1", port=105)
Sample = dict[tuple[str, ...], float]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data_dir=tmp_path, destinations=(PACS, SPARE))


@pytest.fixture
def ledger(settings: Settings) -> Iterator[Ledger]:
    with opened_ledger(settings) as opened:
        yield opened


def shown(settings: Settings, now: float | None = None) -> dict[str, Sample]:
    """Each sample's name, and its value by the values of its labels, which are sorted by their names."""
    found: dict[str, Sample] = {}
    text = exposition(settings, time.time() if now is None else now).decode()
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            values = found.setdefault(sample.name, {})
            key = tuple(sample.labels.values())
            assert key not in values, f"{sample.name}{key} is there twice"
            values[key] = sample.value
    return found


def families_of(settings: Settings) -> dict[str, str]:
    text = exposition(settings, time.time()).decode()
    return {family.name: family.type for family in text_string_to_metric_families(text)}


def test_every_metric_is_there_before_anything_has_happened(settings: Settings, ledger: Ledger) -> None:
    # Of certificates, and of a repository of audit messages, a node has to have some.
    missing = {
        "m3node_certificate_expiry_seconds",
        "m3node_audit_syslog_behind",
        "m3node_audit_syslog_oldest_seconds",
    }
    wanted = {f"{families.PREFIX}{family.name}": family.kind for family in families.FAMILIES}
    assert families_of(settings) == {name: kind for name, kind in wanted.items() if name not in missing}
    assert CONTENT_TYPE == "text/plain; version=0.0.4; charset=utf-8"


def test_a_fixed_label_has_all_its_values_from_the_start(settings: Settings, ledger: Ledger) -> None:
    found = shown(settings)
    for family in families.COUNTED:
        if family.words and family.kind == "counter" and len(family.labels) == 1:
            assert found[family.shown] == {(word,): 0 for word in family.words}
    assert found["m3node_deliveries_total"] == {
        (name, word): 0 for name in ("pacs", "spare") for word in families.OUTCOMES
    }
    assert set(found["m3node_stage_seconds_count"]) == {(stage,) for stage in families.STAGES}
    assert found["m3node_build_info"] == {(__version__,): 1}


def test_what_processes_counted_is_added_up(settings: Settings, ledger: Ledger) -> None:
    folder = DataLayout(settings.data_dir).metrics
    buckets = tuple(int(bound in {0.5, 5.0}) for bound in families.SECONDS)
    for process, more in (("receiver-1", 1), ("receiver-2", 2)):
        totals = {("associations", "accepted"): more, ("received_bytes",): 10 * more, ("deliveries", "pacs", "sent"): 3}
        write_counts(folder / f"{process}.json", Counts(dict(totals), {("detect",): ((*buckets, more), 100.5)}))
    found = shown(settings)
    assert found["m3node_associations_total"][("accepted",)] == 3
    assert found["m3node_received_bytes_total"] == {(): 30}
    assert found["m3node_deliveries_total"][("pacs", "sent")] == 6
    assert found["m3node_stage_seconds_sum"][("detect",)] == 201
    assert found["m3node_stage_seconds_count"][("detect",)] == 7
    by_bound = {
        bound: found["m3node_stage_seconds_bucket"][(bound, "detect")] for bound in ("0.25", "0.5", "5.0", "+Inf")
    }
    assert by_bound == {"0.25": 0, "0.5": 2, "5.0": 4, "+Inf": 7}


def test_jobs_deliveries_and_the_queue_are_as_the_ledger_has_them(settings: Settings, ledger: Ledger) -> None:
    ledger.note_manifest(run_manifest("1.2", priority="stat", created_at=1000.0))
    ledger.note_manifest(run_manifest("1.3", created_at=1100.0))
    ledger.note_manifest(run_manifest("1.4", created_at=900.0))
    ledger.note_started("1.4.g1", "slot-0")
    ledger.note_entry(
        run_entry("1.2.g1", "pacs", queued_at=500.0, state=DeliveryState.RETRYING, failing_since=700.0, attempts=1)
    )
    ledger.note_entry(run_entry("1.3.g1", "pacs", queued_at=400.0, state=DeliveryState.DEAD, finished_at=600.0))
    found = shown(settings, now=1300.0)
    assert found["m3node_jobs"] == {(state.value,): 0 for state in RunState} | {("queued",): 2, ("running",): 1}
    assert found["m3node_jobs_queued"] == {("stat",): 1, ("routine",): 1}
    assert found["m3node_queue_oldest_seconds"] == {(): 300}
    assert found["m3node_outbox_objects"][("pacs", "retrying")] == 1
    assert found["m3node_outbox_objects"][("spare", "retrying")] == 0
    assert found["m3node_delivery_oldest_seconds"] == {("pacs",): 800, ("spare",): 0}
    assert found["m3node_delivery_failing_seconds"] == {("pacs",): 600, ("spare",): 0}
    assert found["m3node_dead_letters"] == {("pacs",): 1, ("spare",): 0}
    assert found["m3node_database_up"] == {(): 1}


def test_who_is_up_and_how_the_checks_stand(settings: Settings, ledger: Ledger) -> None:
    with hold(DataLayout(settings.data_dir), "deliver"):
        found = shown(settings)
    assert found["m3node_role_up"] == {
        ("listen",): 0,
        ("worker-0",): 0,
        ("deliver",): 1,
        ("keeper",): 0,
        ("clerk",): 0,
    }
    assert found["m3node_check_state"][("listener",)] == 2
    assert found["m3node_check_state"][("delivery",)] == 0
    disk = found["m3node_data_total_bytes"][()], found["m3node_data_free_bytes"][()]
    assert disk[0] >= disk[1] > 0


def test_open_associations_are_those_whose_receiver_says_so(settings: Settings, ledger: Ledger) -> None:
    folder = DataLayout(settings.data_dir).associations
    leases = [OpenLease(folder, calling="PACS", called="M3NODE", peer="127.0.0.1") for _ in range(3)]
    leases[0].close()
    try:
        assert shown(settings)["m3node_associations_open"] == {(): 2}
    finally:
        for lease in leases[1:]:
            lease.close()


def test_certificates_and_messages_for_the_audit_repository_are_told_of_where_there_are_any(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "ca")
    node = authority.issue("node", days=20)
    settings = Settings(
        data_dir=tmp_path / "data",
        listener=ListenerSettings(tls=ListenerTls(certificate_file=node.certificate, client_certificates="none")),
        audit=AuditSettings(syslog=SyslogSettings(host="127.0.0.1", ca_file=authority.file)),
    )
    trail = AuditTrail(settings, process="test")
    trail.record(AuditLogUsed("somebody"))
    trail.close()
    found = shown(settings, time.time() + 100)
    expiry = found["m3node_certificate_expiry_seconds"]
    assert set(expiry) == {("listener.tls.certificate_file",), ("audit.syslog.ca_file",)}
    assert 18 * 86_400 < expiry[("listener.tls.certificate_file",)] < 21 * 86_400
    assert found["m3node_audit_syslog_behind"] == {(): 1}
    assert 100 <= found["m3node_audit_syslog_oldest_seconds"][()] < 600


def test_labels_are_words_of_ours_whatever_a_file_says(settings: Settings, ledger: Ledger) -> None:
    hostile = 'DOE^JANE"} 1\nm3node_evil 1'
    totals: dict[tuple[str, ...], float] = {
        ("associations", hostile): 1,
        ("associations", "accepted", hostile): 1,
        ("associations",): 1,
        ("deliveries", hostile, "sent"): 1,
        ("deliveries", "pacs", hostile): 1,
        ("process_starts", hostile): 1,
        ("process_starts", "worker-0"): 4,
        ("received_bytes", hostile): 1,
        (hostile,): 1,
    }
    times = {(hostile,): ((1,) * (len(families.SECONDS) + 1), 1.0)}
    write_counts(DataLayout(settings.data_dir).metrics / "x.json", Counts(totals, times))
    ledger.note_entry(run_entry("1.2.g1", "no-destination-any-more"))
    text = exposition(settings, time.time()).decode()
    assert "DOE" not in text
    assert "evil" not in text
    assert "any-more" not in text
    found = shown(settings)
    assert found["m3node_process_starts_total"] == {("worker-0",): 4}
    words = {
        *("pacs", "spare", "listen", "worker-0", "deliver", "keeper", "clerk", "routine", "stat", __version__),
        *("listener", "intake", "detector", "delivery", "destinations", "disk", "database", "certificates", "audit"),
        *(word for family in families.FAMILIES for word in family.words),
        *(state.value for state in (*RunState, *DeliveryState)),
        *(str(bound) for bound in families.SECONDS),
        "+Inf",
    }
    assert {value for samples in found.values() for labels in samples for value in labels} <= words


def test_without_its_database_the_rest_is_shown(settings: Settings) -> None:
    DataLayout(settings.data_dir).create()
    found = shown(settings)
    assert found["m3node_database_up"] == {(): 0}
    assert found["m3node_check_state"][("database",)] == 2
    assert "m3node_jobs" not in found
    assert found["m3node_data_free_bytes"][()] > 0


def test_where_no_node_has_run_that_is_shown(tmp_path: Path) -> None:
    found = shown(Settings(data_dir=tmp_path / "nothing"))
    assert found["m3node_check_state"][("node",)] == 2
    assert found["m3node_associations_open"] == {(): 0}
