"""Whatever somebody writes, the page shows as text: names, descriptions, titles and errors are hostile here."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from ledger_node import Node, manifest, opened_node, record
from m3node.delivery.entry import Entry
from m3node.delivery.state import DeliveryState
from m3node.intake.series.manifest import StackKey
from m3node.jobs.ledger.writes import put_series
from m3node.rejection import Reason, Rejection
from m3node.results.findings import Outcome
from m3node.settings import Settings
from made_runs import run_entry
from web_site import Tree, browsing, shown, words_of, write_received

STUDY = "1.1"
SCRIPT = "<script>alert(1)</script>"
BREAKS_OUT = "\"'><img src=x onerror=alert(2)>"
OF_NAME = "\"'><b onclick>x</b>"
TEMPLATE = "{{ 7654*4321 }}{% raw %}"
HOSTILE = f"{SCRIPT}{BREAKS_OUT}{TEMPLATE}"

PAGES = (
    *("/", "/studies", f"/studies/{STUDY}", "/jobs", "/jobs?state=failed", "/dead", "/destinations", "/about"),
    f"/studies?q={SCRIPT}",
    f"/studies?q={BREAKS_OUT}&state={BREAKS_OUT}",
    f"/jobs?state={SCRIPT}",
    f"/{SCRIPT}",
    f"/studies/{SCRIPT}",
    f"/runs/{SCRIPT}/overlay.png",
)


def entry(name: str, state: DeliveryState, **changes: object) -> Entry:
    made = run_entry("1.2.g1", name, **{"state": state, "last_error": HOSTILE, "attempts": 1} | changes)
    return replace(made, study_instance_uid=STUDY)


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    data = tmp_path_factory.mktemp("hostile") / "data"
    with opened_node(data) as node:
        fill(node, data)
        destination = {"name": "web", "url": "https://pacs/<b>x</b>"}
        settings = Settings(data_dir=data, destinations=[destination], listener={"callers": [{"ae_title": "<b>X</b>"}]})
        with browsing(settings) as client:
            yield client


def fill(node: Node, data: Path) -> None:
    """Hostile values wherever a sender, a peer or a person could have put some."""
    node.receive("1.2")
    write_received(
        data / "spool",
        STUDY,
        PatientName=f"{SCRIPT}^{OF_NAME}",
        PatientID=BREAKS_OUT[:64],
        StudyDescription=SCRIPT,
        AccessionNumber=SCRIPT[:16],
        PatientBirthDate="<b>",
        PatientSex="<i>",
        StudyDate="<u>",
    )
    node.announce(manifest("1.2"))
    failed = Rejection(Reason.FAILED, HOSTILE, "1.2.g1")
    ended = record(manifest("1.2"), outcome=Outcome.REJECTED, rejection=failed, failure=HOSTILE, worker=SCRIPT)
    node.end(ended)
    node.announce(manifest("1.3"))
    node.ledger.note_started("1.3.g1", SCRIPT)
    node.ledger.note_stage("1.3.g1", HOSTILE, 1, 10)
    node.announce(manifest("1.4"))
    node.ledger.note_waiting("1.4.g1", HOSTILE)
    node.reject(StackKey("1.5", ""), 1, Rejection(Reason.TILTED, HOSTILE, HOSTILE))
    node.ledger.note_entry(entry("pacs", DeliveryState.DEAD, finished_at=9.0))
    node.ledger.note_entry(entry("web", DeliveryState.RETRYING, failing_since=9.0))
    node.ledger.note_entry(entry(SCRIPT, DeliveryState.DEAD, finished_at=9.0, kind=SCRIPT, sop_instance_uid=HOSTILE))
    node.ledger.note_worker(0, SCRIPT, 1, HOSTILE)
    with node.ledger.engine.begin() as connection:
        for uid in (SCRIPT, BREAKS_OUT):  # no UIDs: the listener takes none of these
            row = {
                "series_instance_uid": uid,
                "study_instance_uid": uid,
                "state": SCRIPT,
                "instances": 1,
                "first_received_at": 1.0,
                "last_received_at": 2.0,
                "purged_at": None,
            }
            put_series(connection, [row, {**row, "series_instance_uid": f"{uid}2", "study_instance_uid": STUDY}])


def foreign(tree: Tree) -> list[str]:
    """What is on a page and not of our making."""
    scripts = [item for item in tree.iter("script") if item.get("src") != "/static/live.js" or item.text]
    pictures = [item for item in tree.iter("img") if not item.get("src", "").startswith("/runs/")]
    others = list(tree.iter("b", "i", "u", "iframe", "object", "embed", "style", "svg", "base"))
    handlers = [f"{item.tag} {name}" for item in tree.iter() for name in item.attrib if name.startswith("on")]
    styled = [item for item in tree.iter() if item.get("style")]
    elsewhere = [
        value
        for item in tree.iter()
        for name in ("href", "src", "action")
        if (value := item.get(name)) and not re.match(r"/(?!/)|#", value)
    ]
    return [*(item.tag for item in (*scripts, *pictures, *others, *styled)), *handlers, *elsewhere]


@pytest.mark.parametrize("address", PAGES)
def test_nothing_that_somebody_wrote_becomes_part_of_a_page(client: TestClient, address: str) -> None:
    answer = client.get(address)
    assert answer.status_code in {200, 404}, answer.text[:500]
    assert foreign(shown(client, address, answer.status_code)) == []
    assert str(7654 * 4321) not in answer.text


@pytest.mark.parametrize(
    ("address", "text"),
    [
        ("/studies", f"{SCRIPT}, {OF_NAME}"),
        (f"/studies/{STUDY}", f"{SCRIPT}, {OF_NAME}"),
        (f"/studies/{STUDY}", HOSTILE),
        ("/", f"{SCRIPT}, {OF_NAME}"),
        ("/", HOSTILE),
        ("/jobs", HOSTILE),
        ("/dead", HOSTILE),
        ("/destinations", HOSTILE),
        ("/about", "<b>X</b>"),
    ],
)
def test_it_is_shown_as_it_was_written(client: TestClient, address: str, text: str) -> None:
    assert text in words_of(shown(client, address))


def test_a_hostile_value_comes_back_in_a_form_as_it_was(client: TestClient) -> None:
    values = set(shown(client, "/dead").xpath("//input[@name='destination']/@value"))
    assert values == {"pacs", SCRIPT}
    (asked,) = shown(client, f"/studies?q={BREAKS_OUT}").xpath("//input[@name='q']/@value")
    assert asked == BREAKS_OUT
