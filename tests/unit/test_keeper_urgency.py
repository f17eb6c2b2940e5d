"""What is urgent is marked so in its manifest, and comes first."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keeping import QUIET, Node
from m3node.evaluation.ct_writer import seeded_uid
from m3node.intake.keeper import answering
from m3node.intake.keeper.keeper import TURN_SECONDS
from m3node.intake.keeper.urgency import is_urgent
from m3node.intake.series.manifest import Manifest, write_manifest
from m3node.settings import PriorityRule, Settings
from made_headers import HEADER

RULES = (PriorityRule(description="trauma"), PriorityRule(protocol="^shock", sender="^CT[12]$"))


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path, priority=RULES)


def priorities(node: Node) -> list[str]:
    return [manifest.priority for manifest in node.manifests]


def test_a_series_is_routine_until_something_makes_it_urgent(node: Node) -> None:
    node.store(*node.series())
    node.wait(QUIET)
    assert priorities(node) == ["routine"]


def test_one_instance_of_high_priority_makes_its_series_urgent(node: Node) -> None:
    files = node.series()
    node.store(*files, urgent=files[5:6])
    node.wait(QUIET)
    assert priorities(node) == ["stat"]


def test_everything_of_an_urgent_sender_is_urgent(node: Node) -> None:
    node.store(*node.series(), sender="EMERGENCY")
    node.wait(QUIET)
    assert priorities(node) == ["stat"]


@pytest.mark.parametrize(
    ("attributes", "sender", "priority"),
    [
        ({"SeriesDescription": "Abdomen TRAUMA portal"}, "PACS", "stat"),
        ({"ProtocolName": "Shock room"}, "CT2", "stat"),
        ({"ProtocolName": "Shock room"}, "PACS", "routine"),
        ({"ProtocolName": "No shock"}, "CT2", "routine"),
    ],
)
def test_a_rule_of_the_site_makes_a_series_urgent(
    node: Node, attributes: dict[str, str], sender: str, priority: str
) -> None:
    node.store(*node.series(**attributes), sender=sender)
    node.wait(QUIET)
    assert priorities(node) == [priority]


@given(description=st.text(max_size=10), sender=st.text(max_size=10))
def test_a_rule_without_patterns_finds_everything_and_no_rule_nothing(description: str, sender: str) -> None:
    headers = [replace(HEADER, series_description=description, sender=sender)]
    assert is_urgent(headers, Settings(priority=(PriorityRule(),)), asked=False)
    assert not is_urgent(headers, Settings(), asked=False)
    assert is_urgent(headers, Settings(), asked=True)


def test_the_keeper_remembers_what_was_urgent_when_it_is_killed_before_the_answer(node: Node) -> None:
    files = node.series()
    node.store(*files, urgent=files[:1])
    node.wait(1)
    node.restart()
    node.wait(QUIET)
    assert priorities(node) == ["stat"]


def test_killed_before_it_could_note_it_the_keeper_reads_the_urgency_from_the_lease_again(node: Node) -> None:
    files = node.series()
    node.store(*files, urgent=files[:1])
    node.restart()  # reads the files from the spool, before the lease
    node.wait(QUIET)
    assert priorities(node) == ["stat"]


def test_a_generation_keeps_its_urgency_and_an_urgent_series_stays_so(node: Node) -> None:
    files = node.series(1, slices=13)
    node.store(*files[:12])
    node.wait(QUIET)
    node.store(*files, urgent=files[12:])
    node.wait(QUIET)
    assert priorities(node) == ["routine", "stat"]


def test_duplicates_of_what_is_answered_make_nothing_urgent(node: Node) -> None:
    files = node.series()
    node.store(*files)
    node.wait(QUIET)
    node.store(*files, urgent=files)
    node.wait(QUIET)
    assert priorities(node) == ["routine"]


class Written:
    """The series whose manifests were written, in that order.

    Attributes
    ----------
    then : callable
        Called after each.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.series: list[str] = []
        self.then: Callable[[], object] = lambda: None
        monkeypatch.setattr(answering, "write_manifest", self._write)

    def _write(self, manifest: Manifest, folder: Path) -> Path:
        path = write_manifest(manifest, folder)
        self.series.append(manifest.stack.series_instance_uid)
        self.then()
        return path


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> Written:
    return Written(monkeypatch)


def test_the_urgent_of_the_complete_series_is_answered_first(node: Node, written: Written) -> None:
    for seed in (1, 2, 3):
        files = node.series(seed)
        node.store(*files, urgent=files if seed == 2 else ())
    node.wait(QUIET)
    assert written.series == [seeded_uid(seed, "series") for seed in (2, 1, 3)]


def test_an_urgent_series_does_not_wait_until_all_others_are_answered(node: Node, written: Written) -> None:
    for seed in (1, 2, 3, 4):
        node.store(*node.series(seed))
    node.wait(QUIET - 1)
    urgent = node.series(5)
    node.store(*urgent, urgent=urgent)
    node.keeper.step()
    node.now += 1

    def slowly() -> None:
        node.now += TURN_SECONDS

    written.then = slowly
    while len(written.series) < 2:
        node.keeper.step()
    node.now += QUIET
    node.keeper.step()
    assert written.series.index(seeded_uid(5, "series")) == 2


def test_a_manifest_found_after_a_restart_is_not_written_again(node: Node, written: Written) -> None:
    node.store(*node.series())
    node.wait(QUIET)
    (node.layout.index / f"{seeded_uid(1, 'series')}.jsonl").unlink()
    node.restart()
    node.wait(QUIET)
    assert (len(node.manifests), len(written.series)) == (1, 1)
