"""A node that is told to stop, killed in part, or left by its database: nothing is lost, and it goes on."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path

import pytest

from fake_pacs import fake_pacs
from m3node.jobs.locks import slot_lock
from postgres import PASSWORD
from quick_node import alive, archive, made
from quick_series import SLICES, quick_series, series_uid
from waiting import wait_for


def test_an_open_association_may_end_after_the_node_was_told_to(tmp_path: Path) -> None:
    with made(tmp_path) as node:
        node.start()
        files = quick_series(tmp_path / "sent", "open")
        association = node.associate()
        assert association.send_c_store(files[0]).Status == 0x0000
        assert node._process is not None
        node._process.send_signal(signal.SIGTERM)
        wait_for(lambda: not node.listens)
        for file in files[1:]:
            assert association.send_c_store(file).Status == 0x0000
        association.release()
        assert node._process.wait(60) == 0
        node.start()
        node.until(lambda: node.answered(f"{series_uid('open')}.g1"))
        (manifest,) = node.manifests
        assert len(manifest.slices) == SLICES
        assert node.stop() == 0


def test_an_association_that_does_not_end_is_aborted_when_the_time_is_over(tmp_path: Path) -> None:
    with made(tmp_path, "[jobs]\ndrain_seconds = 0.5\n") as node:
        node.start()
        association = node.associate()
        assert association.is_established
        assert node.stop() == 0
        wait_for(lambda: association.is_aborted)


@pytest.mark.parametrize(("drain", "seconds"), [(60.0, 8.0), (0.5, 600.0)])
def test_a_step_ends_in_its_time_or_is_run_again(tmp_path: Path, drain: float, seconds: float) -> None:
    run = f"{series_uid('step')}.g1"
    steps = tmp_path / "steps"
    timing = {"M3NODE_TEST_DETECT_SECONDS": seconds, "M3NODE_TEST_STEPS": steps}
    with made(tmp_path, f"[jobs]\ndrain_seconds = {drain}\n", **timing) as node:
        node.start()
        node.send(*quick_series(tmp_path / "sent", "step"))
        node.until(lambda: steps.exists() and '"detect"' in steps.read_text())
        assert node.stop() == 0
        assert (node.layout.results / run / "findings.json").exists() == (drain > seconds)
        assert not node.answered(run)
        node.environment["M3NODE_TEST_DETECT_SECONDS"] = "0"
        node.start()
        node.until(lambda: node.answered(run))
        assert node.stop() == 0
        begun = [json.loads(line)["step"] for line in steps.read_text().splitlines()]
        assert begun.count("detect") == (1 if drain > seconds else 2)
        assert begun[-2:] == ["build", "close"]
        assert "was killed" not in node.log


def test_every_role_that_is_killed_comes_back_and_the_series_is_answered(tmp_path: Path) -> None:
    with fake_pacs() as pacs, made(tmp_path, archive(pacs), M3NODE_TEST_DETECT_SECONDS=1) as node:
        node.start()
        run = f"{series_uid('killed')}.g1"
        node.send(*quick_series(tmp_path / "sent", "killed"))
        roles = ("keeper", "clerk", "worker-0", "deliver", "acceptor")
        for role in roles:
            node.until(lambda role=role: f"started {role} (process" in node.log)
            pid = int(node.log.rpartition(f"started {role} (process ")[2].partition(")")[0])
            subprocess.run(["kill", "-9", str(pid)], check=True)
            node.until(lambda role=role: node.log.count(f"started {role} (process") == 2)
            assert f"the {role} was killed by signal 9; it is started again in" in node.log
        node.until(lambda: node.answered(run))
        node.until(lambda: alive(node, "listen", slot_lock(0), "deliver"))
        node.until(lambda: not list((node.layout.outbox / "archive").glob("*.json")))
        objects = json.loads((node.layout.results / run / "run.json").read_text())["objects"]
        assert {item["sop_instance_uid"] for item in objects} == set(pacs.kept)
        assert node.stop() == 0


def test_without_its_database_the_node_receives_and_answers_when_it_is_there(tmp_path: Path) -> None:
    with made(tmp_path) as node:
        settings = node.config.read_text()
        node.config.write_text(f'database_url = "postgresql://m3:{PASSWORD}@127.0.0.1:1/m3node"\n{settings}')
        node.start()
        node.send(*quick_series(tmp_path / "sent", "away"))
        node.until(lambda: node.manifests)
        assert node.says("status").returncode == 1
        assert node.stop() == 0
        assert "series are received, and processed when it is there" in node.log
        assert PASSWORD not in node.log
        node.config.write_text(settings)
        node.start()
        node.until(lambda: node.answered(f"{series_uid('away')}.g1"))
        assert node.stop() == 0
