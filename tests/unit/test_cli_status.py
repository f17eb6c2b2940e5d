"""What the commands say of a node, running or not: to a person in words, to a program in JSON, and never a secret."""

from __future__ import annotations

import argparse
import json
import shlex
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from ledgers import opened_ledger, put_received
from m3node.cli import main
from m3node.cli.main import build_parser
from m3node.cli.showing import run_lines
from m3node.delivery.entry import Entry
from m3node.delivery.state import DeliveryState
from m3node.intake.series.manifest import Manifest
from m3node.jobs.answer.record import RunRecord
from m3node.jobs.ledger.notes import Ledger
from m3node.jobs.ledger.view_types import RunView
from m3node.jobs.locks import hold
from m3node.jobs.node.amounts import age
from m3node.layout import DataLayout
from m3node.rejection import Reason, Rejection
from m3node.results.findings import Outcome
from m3node.settings import Settings
from made_runs import run_entry, run_manifest, run_record
from postgres import PASSWORD

STUDY = "1.1"
NOW = 1_800_000_000.0


@pytest.fixture(autouse=True)
def _time_stands_still(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that what is said of ages does not depend on how long it takes to ask."""
    monkeypatch.setattr(time, "time", lambda: NOW)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def ledger(folder: Path) -> Iterator[Ledger]:
    """Of a node that runs nowhere just now."""
    with opened_ledger(Settings(data_dir=folder)) as opened:
        yield opened


def manifest(series: str, priority: str = "routine") -> Manifest:
    return run_manifest(series, study=STUDY, priority=priority, created_at=time.time() - 90)


def record(of: Manifest, *, failed: str = "") -> RunRecord:
    ended = run_record(of, started_at=time.time() - 60, finished_at=time.time() - 10, worker="slot-0")
    if not failed:
        return ended
    return replace(ended, outcome=Outcome.REJECTED, lesions=0, rejection=Rejection(Reason.FAILED, failed, "x"))


def entry(run: str, state: DeliveryState, error: str = "", destination: str = "pacs") -> Entry:
    return run_entry(
        run,
        destination,
        sop_instance_uid=f"1.6.{run[4:]}",
        study_instance_uid=STUDY,
        queued_at=time.time() - 300,
        state=state,
        last_error=error,
        attempts=3,
        failing_since=time.time() - 200 if state is DeliveryState.RETRYING else 0.0,
        finished_at=time.time() - 5 if state is DeliveryState.DEAD else 0.0,
    )


def noted(ledger: Ledger) -> None:
    """A night on which most things happened."""
    put_received(ledger, "1.2", STUDY, instances=12)
    for number, priority in enumerate(("routine", "stat", "routine", "routine"), start=2):
        ledger.note_manifest(manifest(f"1.{number}", priority))
    ledger.note_started("1.2.g1", "slot-0")
    ledger.note_stage("1.2.g1", "looking", 34, 90)
    ledger.note_record(record(manifest("1.4")), run="1.4.g1", finished_at=time.time())
    ledger.note_record(record(manifest("1.5"), failed="it broke [no]"), run="1.5.g1", finished_at=time.time())
    ledger.note_entry(entry("1.4.g1", DeliveryState.RETRYING, "no connection [refused]"))
    ledger.note_entry(entry("1.7.g1", DeliveryState.DEAD, "refused with 0xA900", "research"))
    ledger.note_entry(entry("1.8.g1", DeliveryState.DEAD, "refused with 0xA900", "research"))


def said(capsys: pytest.CaptureFixture[str], *arguments: object, status: int = 0) -> str:
    assert main([str(argument) for argument in arguments]) == status
    return capsys.readouterr().out


def test_status_says_what_is_down_done_and_stuck_and_how_to_mend_it(
    ledger: Ledger, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    noted(ledger)
    with hold(DataLayout(folder), "listen"):
        lines = said(capsys, "status", "--data-dir", folder).splitlines()
    text = "\n".join(lines)
    assert [line.split()[:2] for line in lines[2:5]] == [["listen", "runs"], ["worker-0", "DOWN"], ["deliver", "DOWN"]]
    assert "worker-0 is down: start it, or give what it had begun to others with m3node takeover 0" in text
    assert "queue      1 stat; the oldest for 1 min" in text
    assert "1 done" in text
    assert "1 failed" in text
    assert "looking, 34 of 90" in text
    assert "its worker is down: start slot 0 again, or m3node takeover 0" in text
    assert "pacs       1 retrying; the oldest for 5 min" in text
    assert "fails for 3 min: no connection [refused]" in text
    assert "research   2 dead" in text
    assert "2 objects for research: refused with 0xA900" in text
    assert "m3node requeue research/1.7.g1.report.sr" in text
    assert "ledger.sqlite" in text


def test_status_as_json_says_the_same_to_a_program(
    ledger: Ledger, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    noted(ledger)
    tree = json.loads(said(capsys, "status", "--data-dir", folder, "--json"))
    assert tree["schema"] == "m3node.status/1"
    assert tree["runs"] == {"done": 1, "failed": 1, "queued": 1, "running": 1}
    assert tree["queued"] == {"stat": 1}
    assert [(run["run"], run["stage"], run["done"], run["total"]) for run in tree["running"]] == [
        ("1.2.g1", "looking", 34, 90)
    ]
    assert {item["name"]: item["states"] for item in tree["destinations"]} == {
        "pacs": {"retrying": 1},
        "research": {"dead": 2},
    }
    assert [(item["destination"], item["count"]) for item in tree["dead"]] == [("research", 2)]
    assert [(role["name"], role["running"]) for role in tree["roles"]] == [
        ("listen", False),
        ("worker-0", False),
        ("deliver", False),
    ]
    assert set(tree["disk"]) == {"total_mb", "free_mb", "warn_free_mb", "refuse_free_mb", "state"}
    assert tree["database"]["error"] == ""


def test_a_role_that_runs_is_named_with_its_process(
    ledger: Ledger, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ledger.note_worker(7, "gpu2", 42, "contrast 1")
    with hold(DataLayout(folder), "worker-7"):
        tree = json.loads(said(capsys, "status", "--data-dir", folder, "--json"))
    role = {role["name"]: role for role in tree["roles"]}["worker-7"]
    assert (role["running"], role["detector"]) == (True, "contrast 1")
    assert role["pid"] > 0


def test_a_study_is_shown_with_its_generations_and_deliveries(
    ledger: Ledger, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    noted(ledger)
    text = said(capsys, "status", "--data-dir", folder, "--study", STUDY)
    assert "1.2\n    answered, 12 instances" in text
    assert "1.3.g1  STAT\n    queued since 1 min, 1 slices" in text
    assert "1.5.g1\n    failed in 1 min, 0 s ago" in text
    assert "failed: it broke [no]" in text
    assert "research/1.7.g1.report.sr\n    dead after 4 min, 3 attempts failed\n    refused with 0xA900" in text
    tree = json.loads(said(capsys, "status", "--data-dir", folder, "--study", STUDY, "--json"))
    assert (tree["schema"], len(tree["runs"]), len(tree["deliveries"])) == ("m3node.study/1", 4, 3)


def test_an_unknown_study_is_said_to_be_unknown(
    ledger: Ledger, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["status", "--data-dir", str(folder), "--study", "9.9"]) == 1
    assert "nothing is known of a study 9.9" in capsys.readouterr().err


def test_a_folder_on_which_no_node_ever_ran_is_no_node_and_stays_as_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for command in (["status"], ["jobs"], ["requeue", "--all-dead"], ["cancel", "1.2.g1"], ["takeover", "0"]):
        assert main([*command, "--data-dir", str(tmp_path)]) == 2
        assert f"no node has run on the data folder {tmp_path}" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_without_its_database_status_shows_what_it_can_and_no_password(
    ledger: Ledger, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "m3node.toml"
    config.write_text(f'data_dir = "{folder}"\ndatabase_url = "postgresql://m3:{PASSWORD}@127.0.0.1:1/m3node"\n')
    with hold(DataLayout(folder), "listen"):
        text = said(capsys, "status", "--config", config, status=1)
        tree = json.loads(said(capsys, "status", "--config", config, "--json", status=1))
    assert "listen" in text
    assert "cannot be used" in text
    assert "They are safe in files" in text
    assert "disk " in text
    assert tree["database"]["error"]
    assert "runs" not in tree
    assert PASSWORD not in text + json.dumps(tree)


def test_a_ledger_that_is_gone_is_not_made_by_a_question(
    ledger: Ledger, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = DataLayout(folder).database / "ledger.sqlite"
    file.unlink()
    assert "the next start of m3node serve makes it" in said(capsys, "status", "--data-dir", folder, status=1)
    assert not file.exists()


def test_jobs_lists_what_is_going_on_before_what_has_ended(
    ledger: Ledger, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    noted(ledger)
    shown = [line.split()[0] for line in said(capsys, "jobs", "--data-dir", folder).splitlines() if line[2] != " "]
    assert shown[:2] == ["1.2.g1", "1.3.g1"]
    assert sorted(shown[2:]) == ["1.4.g1", "1.5.g1"]


@pytest.mark.parametrize(
    ("flag", "runs"), [("--failed", ["1.5.g1"]), ("--running", ["1.2.g1"]), ("--queued", ["1.3.g1"])]
)
def test_jobs_can_be_chosen_by_where_they_stand(
    ledger: Ledger, folder: Path, capsys: pytest.CaptureFixture[str], flag: str, runs: list[str]
) -> None:
    noted(ledger)
    tree = json.loads(said(capsys, "jobs", flag, "--data-dir", folder, "--json"))
    assert (tree["schema"], [job["run"] for job in tree["jobs"]]) == ("m3node.jobs/1", runs)


def test_jobs_lists_dead_letters_with_the_ids_that_requeue_takes(
    ledger: Ledger, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    noted(ledger)
    text = said(capsys, "jobs", "--dead", "--data-dir", folder)
    assert [line.strip() for line in text.splitlines()[::3]] == [
        "research/1.7.g1.report.sr",
        "research/1.8.g1.report.sr",
    ]


def test_a_limit_is_said_when_it_hides_something(
    ledger: Ledger, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    noted(ledger)
    assert "--limit 4 shows twice as many" in said(capsys, "jobs", "--limit", "2", "--data-dir", folder)
    assert "--limit" not in said(capsys, "jobs", "--limit", "0", "--data-dir", folder)


def test_requeue_and_cancel_say_of_each_id_why_it_cannot_be(
    ledger: Ledger, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for command in ("requeue", "cancel"):
        assert main([command, "9.9.g1", "pacs/9.9.g1.report.sr", "--data-dir", str(folder)]) == 1
        first, second = capsys.readouterr().err.splitlines()
        assert first.startswith("m3node: 9.9.g1: there is no run 9.9.g1")
        assert second.startswith("m3node: pacs/9.9.g1.report.sr: nothing was ever queued for a destination 'pacs'")


@pytest.mark.parametrize("arguments", [[], ["1.2.g1", "--all-dead"]])
def test_requeue_takes_ids_or_all_dead_letters(
    arguments: list[str], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["requeue", *arguments, "--data-dir", str(folder)]) == 2
    assert "IDs, or --all-dead" in capsys.readouterr().err


def test_a_slot_that_is_alive_is_not_taken_over(
    ledger: Ledger, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with hold(DataLayout(folder), "worker-1"):
        assert main(["takeover", "1", "--data-dir", str(folder)]) == 1
    assert "slot 1 is alive (process" in capsys.readouterr().err
    assert said(capsys, "takeover", "1", "--data-dir", folder) == "0 jobs of slot 1 are queued for the other slots\n"


@pytest.mark.parametrize("slot", ["-1", "one", "1000"])
def test_a_slot_is_a_number(slot: str) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["takeover", "--", slot])
    assert caught.value.code == 2


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0 s"), (59, "59 s"), (60, "1 min"), (3600, "1 h"), (9000, "2 h 30 min"), (90_000, "1 d 1 h")],
)
def test_an_age_is_said_in_the_units_that_count(seconds: int, words: str) -> None:
    assert age(seconds) == words


def test_a_line_with_an_id_is_never_broken(capsys: pytest.CaptureFixture[str]) -> None:
    run = RunView(
        "2.25." + "1" * 60 + ".g1",
        *[""] * 2,
        1,
        "stat",
        90,
        "queued",
        "",
        0,
        0,
        *[""] * 2,
        0,
        *[""] * 2,
        0.0,
        None,
        None,
    )
    console = Console(width=40, soft_wrap=True)
    for line in run_lines(run, 5.0):
        console.print(line)
    assert capsys.readouterr().out.splitlines()[0] == f"  {run.run}  STAT"


def parsers(parser: argparse.ArgumentParser, name: str = "m3node") -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """Every command, the actions of commands included."""
    below = [group for group in parser._actions if isinstance(group, argparse._SubParsersAction)]
    if not below:
        yield name, parser
    for group in below:
        for word, one in group.choices.items():
            yield from parsers(one, f"{name} {word}")


def test_every_commands_help_has_examples_that_its_parser_takes() -> None:
    whole = build_parser()
    for name, parser in parsers(whole):
        examples = [line.strip() for line in (parser.epilog or "").splitlines() if f"{name} " in f"{line} "]
        assert examples, name
        for example in examples:
            words = shlex.split(example[example.index("m3node") :].partition(" | ")[0])
            assert whole.parse_args(words[1:]), example
