"""A whole node is watched from outside: its page says how it is, and its log files what it does."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
from collections.abc import Iterator
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from fake_pacs import FakePacs, fake_pacs
from m3node.jobs.locks import holder
from m3node.settings import load
from ports import free_port
from quick_node import archive, made
from quick_series import SLICES, quick_series, series_uid
from served import ServedNode

SAMPLE = dict[tuple[str, ...], float]


@pytest.fixture(scope="module")
def pacs() -> Iterator[FakePacs]:
    with fake_pacs() as peer:
        yield peer


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory, pacs: FakePacs) -> Iterator[ServedNode]:
    """Has received a series, answered it and delivered the results, and refused a stranger."""
    root = tmp_path_factory.mktemp("node")
    logs = f'[log]\nformat = "json"\nfolder = "{root / "logs"}"\n'
    with made(root, f"{archive(pacs)}{logs}[web]\nport = {free_port()}\n") as running:
        running.start()
        running.send(*quick_series(root / "series", "watched", PatientName="DOE^JANE"))
        assert not running.associate("STRANGER").is_established
        running.until(lambda: running.answered(f"{series_uid('watched')}.g1"))
        running.until(lambda: samples(running)["m3node_outbox_objects"][("archive", "sent")] == 4)
        yield running
        assert running.stop() == 0


def asked(node: ServedNode, path: str) -> tuple[int, str]:
    page = http.client.HTTPConnection("127.0.0.1", load(node.config).web.port, timeout=60)
    try:
        page.request("GET", path)
        answer = page.getresponse()
        return answer.status, answer.read().decode()
    finally:
        page.close()


def samples(node: ServedNode) -> dict[str, SAMPLE]:
    """Each sample's name, and its value by the values of its labels, which are sorted by their names."""
    status, text = asked(node, "/metrics")
    assert status == 200
    found: dict[str, SAMPLE] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, {})[tuple(sample.labels.values())] = sample.value
    return found


def lines(node: ServedNode, role: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (node.root / "logs" / f"{role}.log").read_text().splitlines()]


def test_a_node_that_works_lives_and_is_ready(node: ServedNode) -> None:
    node.until(lambda: asked(node, "/readyz")[0] == 200)
    assert asked(node, "/livez")[0] == 200
    tree = json.loads(asked(node, "/readyz")[1])
    assert {check["state"] for check in tree["checks"]} == {"ok"}


def test_what_came_in_and_what_became_of_it_is_counted_over_all_processes(node: ServedNode) -> None:
    # Each process says about every second what it has counted.
    node.until(lambda: samples(node)["m3node_associations_total"][("accepted",)] >= 1)
    node.until(lambda: samples(node)["m3node_associations_total"][("rejected",)] >= 1)
    node.until(lambda: samples(node)["m3node_stage_seconds_count"][("answer",)] == 1)
    node.until(lambda: samples(node)["m3node_deliveries_total"][("archive", "sent")] == 4)
    node.until(lambda: samples(node)["m3node_audit_events_total"][("security_alert",)] >= 1)
    found = samples(node)
    assert found["m3node_instances_received_total"][("new",)] == SLICES
    spooled = sum(file.stat().st_size for file in node.layout.spool.rglob("*.dcm"))
    assert 0.8 * spooled < found["m3node_received_bytes_total"][()] <= spooled  # without the files' heads
    for stage in ("assemble", "liver", "detect", "picture", "build", "close", "answer"):
        assert found["m3node_stage_seconds_count"][(stage,)] == 1, stage
    assert found["m3node_jobs"][("done",)] == 1
    assert found["m3node_role_up"] == {
        (role,): 1 for role in ("listen", "worker-0", "deliver", "web", "keeper", "clerk")
    }
    starts = {"acceptor", "keeper", "clerk", "worker-0", "deliver", "web", "node", "receiver-0"}
    assert set(found["m3node_process_starts_total"]) == {(process,) for process in starts}


def test_a_process_that_is_killed_takes_no_count_with_it(node: ServedNode) -> None:
    worker = holder(node.layout, "worker-0")
    assert worker is not None
    os.kill(worker.pid, signal.SIGKILL)
    node.until(lambda: samples(node)["m3node_process_starts_total"][("worker-0",)] == 2)
    node.until(lambda: asked(node, "/readyz")[0] == 200)
    assert samples(node)["m3node_stage_seconds_count"][("detect",)] == 1


def test_log_files_have_an_object_a_line_that_says_which_study_it_is_about(node: ServedNode) -> None:
    run, series = f"{series_uid('watched')}.g1", series_uid("watched")
    study = node.manifests[0].study_instance_uid
    of_run = [line["message"] for line in lines(node, "worker-0") if line.get("ids", {}).get("run") == run]
    assert any(re.match(rf"run {re.escape(run)} begins", message) for message in of_run)
    assert {line["ids"]["study"] for line in lines(node, "worker-0") if "ids" in line} == {study}
    assert any(line.get("ids") == {"study": study, "series": series} for line in lines(node, "keeper"))
    sent = [line["ids"] for line in lines(node, "deliver") if "stored" in line["message"]]
    assert sent == 4 * [{"run": run, "study": study, "destination": "archive"}]
    files = {file.stem for file in (node.root / "logs").iterdir()}
    assert files == {"node", "acceptor", "receiver-0", "keeper", "clerk", "worker-0", "deliver", "web"}


def test_standard_error_has_the_same_lines_of_all_processes_and_no_other(node: ServedNode) -> None:
    said = sorted(line for line in node.log.splitlines())
    files = [file for file in (node.root / "logs").iterdir() if file.stem != "node"]
    kept = {line for file in files for line in file.read_text().splitlines()}
    assert kept <= set(said)
    assert {json.loads(line)["role"] for line in said} >= {"node", "receiver 0", "worker-0", "web"}


def test_neither_metrics_nor_logs_hold_the_patient_or_a_uid_as_a_label(node: ServedNode) -> None:
    metrics = asked(node, "/metrics")[1]
    assert series_uid("watched") not in metrics
    kept = [path.read_text() for folder in (node.root / "logs", node.layout.metrics) for path in folder.iterdir()]
    assert "DOE" not in "".join([metrics, node.log, *kept])
