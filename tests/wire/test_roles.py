"""The node's roles, together and apart: each does its part, and is nobody's twice."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fake_pacs import fake_pacs
from m3node.jobs.locks import holder
from postgres import PASSWORD
from quick_node import alive, archive, ended, made
from quick_series import quick_series, series_uid
from waiting import wait_for


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_roles_that_run_apart_do_what_serve_does(tmp_path: Path, database: str, request: pytest.FixtureRequest) -> None:
    url = request.getfixturevalue("postgres_url") if database == "postgresql" else ""
    with fake_pacs() as pacs, made(tmp_path, archive(pacs), "listen") as node:
        if url:
            node.config.write_text(f'database_url = "{url}"\n{node.config.read_text()}')
        # In no order in particular: each waits for what it needs.
        apart = [node.begin("deliver"), node.begin("worker", "--slot", "3")]
        node.start()
        run = f"{series_uid('apart')}.g1"
        node.send(*quick_series(tmp_path / "sent", "apart"))
        node.until(lambda: node.answered(run))
        objects = json.loads((node.layout.results / run / "run.json").read_text())["objects"]
        node.until(lambda: len(list((node.layout.outbox / "archive" / "sent").glob("*.json"))) == len(objects))
        assert {item["sop_instance_uid"] for item in objects} == set(pacs.kept)
        status = json.loads(node.says("status", "--json").stdout)
        assert {role["name"]: role["running"] for role in status["roles"]} == {
            "listen": True,
            "worker-0": False,
            "worker-3": True,
            "deliver": True,
        }
        assert status["runs"] == {"done": 1}
        assert [item["states"] for item in status["destinations"]] == [{"sent": len(objects)}]
        assert [ended(process) for process in apart] == [0, 0]
        assert node.stop() == 0
        assert PASSWORD not in node.log


def test_a_role_that_somebody_is_already_is_refused_with_who(tmp_path: Path) -> None:
    with made(tmp_path, command="listen") as node:
        node.start()
        worker = node.begin("worker", "--slot", "0")
        deliver = node.begin("deliver")
        node.until(lambda: alive(node, "listen", "worker-0", "deliver"))
        for words, process in (
            (("listen", "--port", "0"), node.pid),
            (("serve", "--port", "0"), node.pid),
            (("worker", "--slot", "0"), worker.pid),
            (("deliver",), deliver.pid),
        ):
            second = node.says(*words)
            assert second.returncode == 2, words
            assert f"runs already (process {process} on " in second.stderr
        assert node.stop() == 0
        # Without a listener the slot is still somebody's, whom serve names instead of starting it in vain.
        second = node.says("serve", "--port", "0")
        assert second.returncode == 2
        assert f"worker-0 of the data folder {node.layout.root} runs already (process {worker.pid} on" in second.stderr
        assert [ended(worker), ended(deliver)] == [0, 0]


def test_serve_runs_a_worker_for_each_slot(tmp_path: Path) -> None:
    with made(tmp_path, "[jobs]\nslots = 2\n") as node:
        node.start()
        node.until(lambda: alive(node, "listen", "worker-0", "worker-1", "deliver"))
        assert node.stop() == 0
        assert not any(holder(node.layout, role) for role in ("listen", "worker-0", "worker-1", "deliver"))


def test_a_watched_folder_is_served_apart(tmp_path: Path) -> None:
    watch = f'[watch]\nfolder = "{tmp_path / "in"}"\nout = "{tmp_path / "out"}"\nsettle_seconds = 0.5\n'
    with made(tmp_path, watch, "watch") as node:
        watching = node.begin("watch")
        wait_for((tmp_path / "in").is_dir)
        quick_series(tmp_path / "made", "watched")
        (tmp_path / "made").rename(tmp_path / "in" / "made")
        wait_for(lambda: list((tmp_path / "out").rglob("findings.json")), 120)
        assert node.says("watch").returncode == 2
        assert ended(watching) == 0
