"""What the pages show: every state, whose study it is, what was found, what is wrong; and what their buttons do."""

from __future__ import annotations

import io
import itertools
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydicom import dcmread
from starlette.testclient import TestClient

from crowded import asked, crowd
from ledger_node import Node, manifest, opened_node, record
from ledgers import opened_ledger, put_received
from m3node.audit.events import Event, InstancesAccessed
from m3node.delivery.entry import Entry
from m3node.delivery.outbox import box_of
from m3node.delivery.state import DeliveryState
from m3node.errors import DatabaseError
from m3node.evaluation.ct_writer import axial_geometry
from m3node.intake.series.manifest import StackKey
from m3node.intake.series.part10 import OpenedFile, open_part10
from m3node.jobs.engine.dispatch import Dispatcher
from m3node.jobs.ledger import lists
from m3node.jobs.ledger.database import ledger_url
from m3node.jobs.ledger.states import RunState, SeriesState
from m3node.jobs.ledger.study_list import StudyFilter
from m3node.jobs.ledger.tables import Run
from m3node.jobs.ledger.upsert import table_of
from m3node.layout import DataLayout
from m3node.rejection import Reason, Rejection
from m3node.results.findings import Outcome
from m3node.results.objects import ObjectKind
from m3node.results.store import save_findings
from m3node.settings import Settings
from m3node.web import patients, pictures, words
from m3node.web.advice import WHAT_TO_DO
from m3node.web.site import Site
from made_findings import made_findings
from made_runs import run_entry, run_manifest, run_object
from web_site import FROM_HERE, Tree, browsing, opened_site, press, shown, token_on, tree_of, words_of, write_received

STUDY = "1.1"
PAGES = ("/", "/studies", f"/studies/{STUDY}", "/jobs", "/dead", "/destinations", "/about")
DESTINATION = {"name": "pacs", "ae_title": "PACS", "host": "127.0.0.1", "port": 104, "commitment": True}


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    with opened_node(tmp_path / "data") as node:
        yield node


@pytest.fixture
def client(node: Node) -> Iterator[TestClient]:
    with browsing(settings(node)) as client:
        yield client


def settings(node: Node) -> Settings:
    return Settings(data_dir=node.layout.root, destinations=[DESTINATION])


def answer(node: Node, series: str = "1.2") -> str:
    """A series that was received, looked at and delivered, as the roles leave it."""
    node.receive(series)
    made = run_manifest(series, study=STUDY, created_at=100.0)
    node.announce(made)
    run = f"{series}.g1"
    folder = node.layout.results / run
    folder.mkdir(parents=True)
    save_findings(made_findings(axial_geometry((10, 64, 64), (5.0, 0.8, 0.8))), folder)
    Image.new("RGB", (8, 8)).save(folder / "overlay.png")
    (folder / "report.sr.dcm").write_bytes(b"not read")
    ended = record(made, objects=(replace(run_object(run), path=folder / "report.sr.dcm"),), lesions=2)
    node.end(ended)
    return run


def letter(node: Node, run: str, **changes: object) -> Entry:
    """A dead letter, whose object is there."""
    made = run_entry(
        run, "pacs", **{"state": DeliveryState.DEAD, "last_error": "refused", "finished_at": 9.0} | changes
    )
    (node.layout.root / made.path).parent.mkdir(parents=True, exist_ok=True)
    (node.layout.root / made.path).touch()
    node.deliver(made, "aside")
    return made


def moments(tree: Tree, run: str) -> dict[str, str]:
    """A run's time line: each point, and whether it is past."""
    (section,) = tree.xpath(f"//section[@data-run='{run}']")
    return {item.get("data-moment"): item.get("data-progress") for item in section.xpath(".//li[@data-moment]")}


# A study


def test_a_study_shows_what_was_found_where_and_when(node: Node, client: TestClient) -> None:
    run = answer(node)
    node.deliver(run_entry(run, "pacs", state=DeliveryState.CONFIRMED, finished_at=60.5, stored_at=50.5), "sent")
    tree = shown(client, f"/studies/{STUDY}")
    assert moments(tree, run) == dict.fromkeys(
        ("received", "complete", "detected", "built", "delivered", "confirmed"), "done"
    )
    lesions = [words_of(row) for row in tree.xpath("//tr[@data-lesion]")]
    assert len(lesions) == 2
    assert re.fullmatch(
        r"1 [\d.]+ mm [\d.]+ mm [\d.]+ ml 61 ± 10 / 105 0.80 probability, seen in 2 of 3 views \d+", lesions[0]
    )
    (delivery,) = tree.xpath("//li[@data-delivery]")
    assert "confirmed pacs" in words_of(delivery)
    (source,) = set(tree.xpath("//img/@src"))
    picture = client.get(source)
    assert (picture.status_code, picture.headers["content-type"]) == (200, "image/png")
    assert "no-store" in picture.headers["cache-control"]
    assert "2 lesions" in words_of(shown(client, "/studies"))


def test_pictures_of_attention_come_from_the_capture(node: Node, client: TestClient) -> None:
    run = answer(node)
    frames = np.random.default_rng(1).integers(0, 256, (3, 4, 6, 3), dtype=np.uint8)
    written = write_received(node.layout.root / "made", STUDY, PatientName="Doe^Jane")
    ds = dcmread(written)
    ds.Rows, ds.Columns, ds.SamplesPerPixel, ds.NumberOfFrames = 4, 6, 3, 3
    ds.BitsAllocated, ds.PixelRepresentation, ds.PixelData = 8, 0, frames.tobytes()
    ds["PixelData"].VR = "OB"
    capture = node.layout.results / run / ObjectKind.ATTENTION_CAPTURE.file_name
    ds.save_as(capture)
    tree = shown(client, f"/studies/{STUDY}")
    sources = tree.xpath("//figure[@class='attention']//img/@src")
    assert sources == [f"/runs/{run}/attention-{number}.png" for number in (1, 2, 3)]
    assert all("not for diagnosis" in text for text in tree.xpath("//figure[@class='attention']//img/@alt"))
    for source, frame in zip(sources, frames, strict=True):
        with Image.open(io.BytesIO(client.get(source).content)) as picture:
            assert np.array_equal(np.asarray(picture), frame)
    for name in ("attention-4.png", "attention-0.png", "attention-01.png", "attention-99999.png", "attention.sc.dcm"):
        assert client.get(f"/runs/{run}/{name}").status_code == 404
    whole = capture.read_bytes()
    for damaged in (whole[:-100], whole[:300], b"", b"nonsense"):
        capture.write_bytes(damaged)
        assert client.get(f"/runs/{run}/attention-3.png").status_code == 404
        assert client.get(f"/studies/{STUDY}").status_code == 200


def test_the_time_line_says_what_is_being_done_and_what_is_to_come(node: Node, client: TestClient) -> None:
    node.receive("1.2")
    node.announce(run_manifest("1.2", study=STUDY))
    page = f"/studies/{STUDY}"
    ahead = {"delivered": "ahead"}
    assert moments(shown(client, page), "1.2.g1") == {
        **{"received": "done", "complete": "done", "detected": "now", "built": "ahead"},
        **ahead,
    }
    node.ledger.note_started("1.2.g1", "slot-0")
    node.ledger.note_stage("1.2.g1", "detect", 3, 10)
    tree = shown(client, page)
    assert moments(tree, "1.2.g1")["detected"] == "now"
    assert tree.xpath("//progress/@value") == ["3"]
    folder = node.layout.results / "1.2.g1"
    folder.mkdir()
    (folder / "findings.json").write_text("damaged")
    assert moments(shown(client, page), "1.2.g1") == {
        **{"received": "done", "complete": "done", "detected": "done", "built": "now"},
        **ahead,
    }


def test_delivery_is_told_step_by_step(node: Node, client: TestClient) -> None:
    run = answer(node)
    steps = {
        DeliveryState.WAITING: ("now", "ahead"),
        DeliveryState.RETRYING: ("now", "ahead"),
        DeliveryState.STORED: ("done", "now"),
        DeliveryState.DEAD: ("failed", "ahead"),
        DeliveryState.CONFIRMED: ("done", "done"),
    }
    for state, (delivered, confirmed) in steps.items():
        node.ledger.note_entry(run_entry(run, "pacs", state=state))
        seen = moments(shown(client, f"/studies/{STUDY}"), run)
        assert (seen["delivered"], seen["confirmed"]) == (delivered, confirmed), state


def test_every_reason_is_shown_with_what_to_do(node: Node, client: TestClient) -> None:
    node.receive("1.4")
    for number, reason in enumerate(Reason):
        node.reject(StackKey("1.4", f"{number:08x}"), 1, Rejection(reason, f"it is {reason} here", "1.4"))
    panels = {item.get("data-run"): words_of(item) for item in shown(client, f"/studies/{STUDY}").xpath("//section")}
    rows = {item.get("data-run"): words_of(item) for item in shown(client, "/jobs").xpath("//tbody/tr")}
    for number, reason in enumerate(Reason):
        run = f"1.4.{number:08x}.g1"
        for text in (reason, f"it is {reason} here", f"What to do: {WHAT_TO_DO[reason]}"):
            assert text in panels[run]
        assert f"it is {reason} here" in rows[run]


def test_what_to_do_is_what_the_document_says() -> None:
    document = (Path(__file__).parents[2] / "docs" / "reasons.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([a-z-]+)` \| .* \| (.*?) \|$", document, re.MULTILINE)
    assert {reason for reason, _ in rows} == set(Reason)
    before = ""
    for reason, text in rows:
        said = WHAT_TO_DO[Reason(reason)]
        assert said == (before if text.startswith("As above") else text.replace("`", "")), reason
        before = said


def test_every_state_of_a_run_is_shown(node: Node, client: TestClient) -> None:
    answer(node)
    for state in RunState:
        with node.ledger.engine.begin() as connection:
            connection.execute(table_of(Run).update().values(state=state))
        badge = words.RUN[state].text
        assert badge in words_of(shown(client, f"/studies/{STUDY}").xpath("//section[@data-run]/h2")[0])
        assert badge in words_of(shown(client, f"/jobs?state={state}").xpath("//tbody")[0])
        assert badge in words_of(shown(client, "/studies").xpath("//tbody")[0])


def test_every_state_of_a_delivery_is_shown(node: Node) -> None:
    run = answer(node)
    for state in DeliveryState:
        node.ledger.note_entry(run_entry(run, "pacs", state=state, last_error="why", attempts=2, finished_at=9.0))
        with browsing(settings(node)) as client:  # which has not just looked
            (item,) = shown(client, f"/studies/{STUDY}").xpath("//li[@data-delivery]")
            assert words.DELIVERY[state].text in words_of(item)
            assert "2 attempts failed" in words_of(item)
            assert words.DELIVERY[state].text in words_of(shown(client, "/destinations"))


@pytest.mark.parametrize("outcome", Outcome)
def test_every_outcome_is_told_apart(node: Node, client: TestClient, outcome: Outcome) -> None:
    node.receive("1.2")
    made = run_manifest("1.2", study=STUDY)
    node.announce(made)
    node.end(record(made, outcome=outcome, lesions=3 if outcome is Outcome.LESIONS else 0, objects=()))
    told = {
        Outcome.LESIONS: "3 lesions",
        Outcome.NO_LESION: "no lesion found",
        Outcome.NO_LIVER: "no liver in view",
        Outcome.INCOMPLETE: "incomplete",
        Outcome.REJECTED: "not used",
    }
    for address, part in (("/studies", "//tbody/tr"), (f"/studies/{STUDY}", "//section[@data-run]/h2")):
        text = words_of(shown(client, address).xpath(part)[0])
        assert [words for words in told.values() if words in text] == [told[outcome]], address


def test_every_word_has_its_state() -> None:
    assert set(words.RUN) == set(RunState)
    assert set(words.DELIVERY) == set(DeliveryState)
    assert set(words.SERIES) == set(SeriesState)
    assert set(words.FILTER) == set(StudyFilter)
    assert set(words.OBJECT) == set(ObjectKind)
    assert words.badge(words.RUN, "of a later release").text == "of a later release"


def test_a_study_that_is_unknown_or_none_is_told(client: TestClient) -> None:
    for uid in ("9.9", "x", "1..2", "1" * 65):
        assert client.get(f"/studies/{uid}").status_code == 404


@pytest.mark.parametrize(
    "address",
    [
        "/runs/1.2.g1/findings.json",
        "/runs/1.2.g1/masks.npz",
        "/runs/1.2.g1/..%2f..%2fspool",
        "/runs/..%2f..%2fetc/overlay.png",
        "/runs/%2e%2e/overlay.png",
        "/runs/secret/overlay.png",
        "/runs/9.9.g1/overlay.png",
        "/static/..%2fapp.py",
        "/static/../../web/app.py",
    ],
)
def test_nothing_but_pictures_of_runs_is_given_away(node: Node, client: TestClient, address: str) -> None:
    answer(node)
    (node.layout.results / "secret").mkdir()
    Image.new("RGB", (8, 8)).save(node.layout.results / "secret" / "overlay.png")
    assert client.get("/runs/1.2.g1/overlay.png").status_code == 200
    assert client.get(address).status_code == 404


@pytest.mark.parametrize(
    "damage",
    [
        lambda _: "[" * 100_000,
        lambda _: "1" * 5000,
        lambda _: "[]",
        lambda text: text[:-100],
        lambda text: text.replace('"score": ', '"score": "x", "was": '),
        lambda text: re.sub(r'"key_slice": [0-9]+', '"key_slice": null', text),
        lambda text: re.sub(r'"volume_ml": [0-9.]+', f'"volume_ml": {10**400}', text),
        lambda text: re.sub(r'"parameters": \{[^}]*\}', '"parameters": 3', text),
        lambda text: re.sub(r'"lesions": \[', '"lesions": [7, ', text),
    ],
)
def test_findings_that_are_damaged_spoil_no_page(node: Node, client: TestClient, damage: Callable[[str], str]) -> None:
    findings = node.layout.results / answer(node) / "findings.json"
    whole = findings.read_text()
    assert shown(client, f"/studies/{STUDY}").xpath("//tr[@data-lesion]")
    findings.write_text(damage(whole))
    assert findings.read_text() != whole
    tree = shown(client, f"/studies/{STUDY}")
    assert not tree.xpath("//tr[@data-lesion]")
    assert tree.xpath("//img")


def test_an_overlay_that_is_none_is_not_given_away(
    node: Node, client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    overlay = node.layout.results / answer(node) / "overlay.png"
    picture = overlay.read_bytes()
    assert client.get("/runs/1.2.g1/overlay.png").content == picture
    monkeypatch.setattr(pictures, "LARGEST", len(picture) - 1)
    assert client.get("/runs/1.2.g1/overlay.png").status_code == 404
    monkeypatch.undo()
    overlay.write_bytes(b"<html>")
    assert client.get("/runs/1.2.g1/overlay.png").status_code == 404
    overlay.unlink()
    (node.layout.root / "elsewhere.png").write_bytes(picture)
    overlay.symlink_to(node.layout.root / "elsewhere.png")
    assert client.get("/runs/1.2.g1/overlay.png").status_code == 404
    assert not shown(client, f"/studies/{STUDY}").xpath("//img")


# Whose it is


@pytest.mark.parametrize(
    ("stated", "character_set", "name"),
    [
        ("Müller^Anna", "ISO_IR 100", "Müller, Anna"),
        ("Σωκράτους^Ελένη", "ISO_IR 192", "Σωκράτους, Ελένη"),
        ("Yamada^Tarou=山田^太郎=やまだ^たろう", "\\ISO 2022 IR 87", "Yamada, Tarou (山田, 太郎)"),
        ("Люкceмбypг", "ISO_IR 144", "Люкceмбypг"),
        ("", "ISO_IR 192", "(no name)"),
        ("Doe\u202eenaJ^A\u200bB\u2066\x07", "ISO_IR 192", "Doe enaJ, A B"),  # nothing turns the line around
    ],
)
def test_a_name_is_read_as_it_was_written(
    node: Node, client: TestClient, stated: str, character_set: str, name: str
) -> None:
    node.receive("1.2")
    write_received(node.layout.spool, STUDY, PatientName=stated, PatientID="7", SpecificCharacterSet=character_set)
    assert words_of(shown(client, f"/studies/{STUDY}").xpath("//h1")[0]) == name
    assert name in words_of(shown(client, "/studies"))


def test_of_pixels_that_are_gone_the_name_comes_from_a_result(node: Node, client: TestClient) -> None:
    run = answer(node)
    assert "pixels removed by retention" in words_of(shown(client, "/studies"))
    written = write_received(node.layout.root / "elsewhere", STUDY, PatientName="Doe^Jane", PatientID="7")
    written.replace(node.layout.results / run / "report.sr.dcm")
    for address in ("/", "/studies", f"/studies/{STUDY}"):
        assert "Doe, Jane" in words_of(shown(client, address))


def test_an_object_that_cannot_be_read_spoils_nothing(node: Node, client: TestClient) -> None:
    node.receive("1.2")
    path = write_received(node.layout.spool, STUDY, PatientName="Doe^Jane")
    for content in (b"", b"nonsense", path.read_bytes()[:200]):
        path.write_bytes(content)
        assert "cannot be read" in words_of(shown(client, f"/studies/{STUDY}").xpath("//h1")[0])


def test_of_a_value_without_end_the_beginning_is_shown(node: Node, client: TestClient) -> None:
    node.receive("1.2")
    path = write_received(node.layout.spool, STUDY, StudyDescription="x")
    meta = path.read_bytes()[: path.read_bytes().index(b"\x08\x00\x05\x00")].replace(
        b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2\0\0\0"
    )
    name, many = b"a^" * 1_000_000, b"9" * 1_000_000
    path.write_bytes(
        meta
        + b"\x10\0\x10\0"
        + len(name).to_bytes(4, "little")
        + name
        + b"\x10\0\x20\0"
        + len(many).to_bytes(4, "little")
        + many
    )
    heading = words_of(shown(client, f"/studies/{STUDY}").xpath("//h1")[0])
    assert heading.startswith("a, a a a")
    assert len(heading) <= 128
    assert len(client.get("/studies").content) < 10_000


def test_names_are_forgotten_after_a_minute_and_there_are_never_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patients, "KEPT", 3)
    now = 0.0
    known = patients.Patients(DataLayout(tmp_path), clock=lambda: now)
    for number in range(5):
        write_received(DataLayout(tmp_path).spool, f"1.{number}", PatientName="Doe^Jane")
        assert known.of([f"1.{number}"], lambda _: {})[f"1.{number}"].name == "Doe, Jane"
    assert len(known._known) == 3
    write_received(DataLayout(tmp_path).spool, "1.4", PatientName="Roe^Jane")
    assert known.of(["1.4"], lambda _: {})["1.4"].name == "Doe, Jane"
    now = 60.0
    assert known.of(["1.4"], lambda _: {})["1.4"].name == "Roe, Jane"


def test_no_more_of_an_object_is_read_than_says_whose_it_is(node: Node, client: TestClient) -> None:
    node.receive("1.2")
    path = write_received(node.layout.spool, STUDY, PatientName="Doe^Jane", PatientSex="F", ProtocolName="x" * 60)
    path.write_bytes(path.read_bytes()[:-90])
    assert words_of(shown(client, f"/studies/{STUDY}").xpath("//h1")[0]) == "Doe, Jane"


def test_a_name_stands_in_no_address_and_no_log(
    node: Node, client: TestClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    answer(node)
    write_received(node.layout.spool, STUDY, PatientName="Doe^Jane", PatientID="Z-7788")
    for address in PAGES:
        tree = shown(client, address)
        values = [value for item in tree.iter() for value in item.attrib.values()]
        assert not [value for value in values if "Doe" in value or "Z-7788" in value]
        assert "Doe" not in words_of(tree.xpath("//title")[0])
    letter(node, "1.2.g1")
    press(client, "/dead", "Send again")
    assert "Doe" not in caplog.text
    assert "Z-7788" not in caplog.text


def test_who_looks_at_a_study_is_audited_once_in_a_while(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    answer(node)
    write_received(node.layout.spool, STUDY, PatientName="Doe^Jane", PatientID="Z-7788")
    with opened_site(settings(node)) as (site, client):
        events = recorded(site, monkeypatch)
        for _ in range(3):
            shown(client, f"/studies/{STUDY}")
        client.cookies.clear()
        shown(client, f"/studies/{STUDY}")
        shown(client, "/studies")
    assert events == [InstancesAccessed("anybody", "testclient", STUDY, "Z-7788")] * 2


def recorded(site: Site, monkeypatch: pytest.MonkeyPatch) -> list[Event]:
    events: list[Event] = []
    monkeypatch.setattr(site.trail, "record", events.append)
    return events


# Lists


def test_a_list_goes_on_page_by_page(node: Node, client: TestClient) -> None:
    for number in range(120):
        put_received(node.ledger, f"1.{number}.1", f"1.{number}", last=float(number))
        node.ledger.note_manifest(
            run_manifest(f"1.{number}.1", key=str(number), study=f"1.{number}", created_at=number)
        )
    for address, marked in (("/studies", "data-study"), ("/jobs", "data-run"), ("/jobs?state=queued", "data-run")):
        seen: list[str] = []
        there = address
        while there:
            tree = shown(client, there)
            seen += tree.xpath(f"//tr/@{marked}")
            there = next(iter(tree.xpath("//a[@rel='next']/@href")), "")
        assert len(seen) == len(set(seen)) == 120, address
        assert shown(client, tree.xpath("//a[@rel='prev']/@href")[0]).xpath(f"//tr/@{marked}") == seen[50:100]


def test_a_search_and_a_filter_go_along_to_the_next_page(node: Node, client: TestClient) -> None:
    for number in range(60):
        put_received(node.ledger, f"1.{number}.1", f"1.{number}", state=SeriesState.RECEIVING, last=float(number))
    tree = shown(client, "/studies?state=receiving&q=1.")
    (link,) = tree.xpath("//a[@rel='next']/@href")
    assert "state=receiving" in link
    assert "q=1." in link
    assert tree.xpath("//option[@selected]/@value") == ["receiving"]
    assert len(shown(client, link).xpath("//tr/@data-study")) == 10
    assert "This is no UID" in words_of(shown(client, "/studies?q=Doe"))
    assert "There is no such study" in words_of(shown(client, "/studies?q=9.9"))
    assert len(shown(client, "/studies?after=nonsense&before=~").xpath("//tr/@data-study")) == 50


def test_a_page_of_ten_thousand_studies_asks_and_reads_as_little_as_one_of_fifty(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[Path] = []

    def counting(path: Path, **more: Any) -> OpenedFile:
        opened.append(path)
        return open_part10(path, **more)

    monkeypatch.setattr(patients, "open_part10", counting)
    with opened_ledger(Settings(data_dir=tmp_path)) as ledger:
        crowd(ledger, 10_000)
        for number in range(9_900, 10_000):
            write_received(tmp_path / "spool", f"1.{number}", PatientName=f"Name{number}")
        with opened_site(Settings(data_dir=tmp_path)) as (site, client), asked(site.engine()) as questions:
            for address in ("/studies", "/studies?after=9950.5~1.9950", "/studies?state=lesions", "/studies?q=1.99"):
                questions.clear()
                opened.clear()
                begun = time.perf_counter()
                tree = shown(client, address)
                print(f"{address}: {1000 * (time.perf_counter() - begun):.0f} ms")
                assert len(tree.xpath("//tr[@data-study]")) == 50
                assert "Name99" in words_of(tree)
                assert len(questions) <= 8
                assert len(opened) <= 50
            shown(client, "/studies")
            assert opened == []  # they are remembered for a moment


# Buttons


def test_a_dead_letter_is_sent_again_by_a_button(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    run = answer(node)
    letter(node, run)
    with opened_site(settings(node)) as (site, client):
        events = recorded(site, monkeypatch)
        tree = press(client, "/dead", "Send again", f"//tr[@data-dead='pacs/{run}.report.sr']")
        assert f"{run}.report.sr is queued for pacs again" in words_of(tree.xpath("//*[@role='status']")[0])
        assert "There are none" in words_of(tree)
        # It is said once.
        assert "is queued" not in words_of(shown(client, "/dead"))
    assert (box_of(node.layout, "pacs").folder / f"{run}.report.sr.json").exists()
    assert [(event.action, event.study_instance_uid) for event in events if isinstance(event, InstancesAccessed)] == [
        ("execute", STUDY)
    ]


def test_dead_letters_that_ended_alike_are_sent_again_by_one_button(node: Node, client: TestClient) -> None:
    runs = [answer(node, f"1.{number}") for number in (2, 3, 4)]
    for run, error in zip(runs, ("refused", "refused", "given up"), strict=True):
        letter(node, run, last_error=error)
    tree = press(client, "/dead", "Send all 2 again")
    assert "2 objects queued for pacs again" in words_of(tree)
    assert tree.xpath("//tr/@data-dead") == [f"pacs/{runs[2]}.report.sr"]
    fields = {"destination": "pacs\nforged", "error": "refused", "token": token_on(client, "/dead"), "back": "/dead"}
    answered = client.post("/requeue", data=fields, headers=FROM_HERE)
    assert "no such dead letters" in words_of(tree_of(answered.text))


def test_dead_letters_that_are_not_shown_are_told_of(node: Node, client: TestClient) -> None:
    for number in range(51):
        node.ledger.note_entry(run_entry(f"1.{number}.g1", "pacs", state=DeliveryState.DEAD, last_error=f"{number}"))
        if number == 49:
            assert "m3node jobs --dead" not in words_of(shown(client, "/dead"))
    tree = shown(client, "/dead")
    assert len(tree.xpath("//tr[@data-dead]")) == 50
    assert "There are more" in words_of(tree)


def test_a_dead_letter_is_dismissed_after_a_second_thought(node: Node, client: TestClient) -> None:
    letter(node, answer(node))
    (asked,) = shown(client, "/dead").xpath("//details[@class='ask']")
    assert asked.get("open") is None
    assert "It counts as done then" in words_of(asked)
    assert "is not sent to pacs any more" in words_of(press(client, "/dead", "Yes, dismiss"))


def test_a_failed_job_is_done_again_and_a_queued_one_cancelled(node: Node, client: TestClient) -> None:
    write_received(node.layout.spool, "1.1", PatientName="x")
    node.receive("1.2")
    received = next(node.layout.spool.rglob("*.dcm"))
    header = replace(run_manifest("1.2").instances[0], path=str(received.relative_to(node.layout.spool)))
    made = run_manifest("1.2", study=STUDY, root=str(node.layout.spool), instances=(header,))
    node.announce(made)
    failed = Rejection(Reason.FAILED, "the detector failed", "1.2.g1")
    node.end(record(made, outcome=Outcome.REJECTED, rejection=failed, objects=()))
    tree = press(client, f"/studies/{STUDY}", "Analyse again")
    assert "1.2.g1 is queued again" in words_of(tree)
    assert tree.xpath("//section[@data-run]/@data-state") == ["queued"]
    tree = press(client, f"/studies/{STUDY}", "Yes, cancel")
    assert "1.2.g1 is cancelled" in words_of(tree)
    assert tree.xpath("//section[@data-run]/@data-state") == ["cancelled"]


def test_why_something_cannot_be_done_is_told(node: Node, client: TestClient) -> None:
    run = answer(node)
    made = letter(node, run)
    (node.layout.root / made.path).unlink()
    tree = press(client, "/dead", "Send again")
    assert "was removed (retention.results_days)" in words_of(
        tree.xpath("//p[@class='message bad'][@role='status']")[0]
    )


@pytest.mark.parametrize("name", ["x" * 5000, "x\0y", "../../x", "/etc/passwd", "é" * 200, ""])
def test_a_name_that_can_be_none_is_refused_like_any_other(node: Node, client: TestClient, name: str) -> None:
    letter(node, answer(node))
    token = token_on(client, "/dead")
    for fields in ({"run": name or " "}, {"destination": "pacs", "name": name}, {"destination": name, "name": "x"}):
        for address in ("/requeue", "/cancel"):
            answered = client.post(address, data={**fields, "token": token, "back": "/dead"}, headers=FROM_HERE)
            assert answered.status_code == 200
            assert tree_of(answered.text).xpath("//p[@class='message bad'][@role='status']")


def away(*_: object, **_more: object) -> None:
    raise DatabaseError("the database is away")


def test_what_is_done_while_the_database_is_away_takes_effect_later_and_is_audited_now(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = answer(node)
    letter(node, run)
    monkeypatch.setattr(Dispatcher, "send_at_once", away)
    with opened_site(settings(node)) as (site, client):
        events = recorded(site, monkeypatch)
        tree = press(client, "/dead", "Send again")
    assert [event.study_instance_uid for event in events if isinstance(event, InstancesAccessed)] == [STUDY]
    assert "takes effect when it is there again" in words_of(tree.xpath("//p[@class='message care']")[0])
    assert (box_of(node.layout, "pacs").folder / f"{run}.report.sr.json").exists()


def test_what_could_not_be_done_without_a_database_is_not_said_to_be_done(
    node: Node, client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    for series in ("1.2", "1.3"):
        letter(node, answer(node, series))
    (form,) = [form for form in shown(client, "/dead").xpath("//form") if "Send all 2 again" in words_of(form)]
    fields = {item.get("name"): item.get("value") for item in form.xpath(".//input")}
    with monkeypatch.context() as now:
        now.setattr(lists, "dead_letters", away)
        assert client.post("/requeue", data=fields, headers=FROM_HERE, follow_redirects=False).status_code == 303
    tree = shown(client, "/dead")
    assert "Nothing was done: the database is away" in words_of(tree.xpath("//p[@class='message bad'][@role]")[0])
    assert len(tree.xpath("//tr/@data-dead")) == 2


# What is not there


@contextmanager
def without_database(folder: Path) -> Iterator[TestClient]:
    with opened_ledger(Settings(data_dir=folder)):
        pass
    for file in (folder / "database").iterdir():
        file.unlink()
    with browsing(Settings(data_dir=folder)) as client:
        yield client


def test_without_a_database_the_page_says_so(tmp_path: Path) -> None:
    with without_database(tmp_path / "data") as client:
        tree = shown(client, "/")
        assert "The database cannot be used" in words_of(tree)
        assert tree.xpath("//li[@data-check='database']/@data-state") == ["failed"]
        for address in ("/studies", "/studies/1.1", "/jobs", "/dead", "/destinations"):
            tree = shown(client, address, 503)
            assert "safe in files" in words_of(tree)
        assert client.get("/about").status_code == 200
        assert client.get("/livez").status_code == 200
        assert client.get("/readyz").status_code == 503


def test_a_database_that_was_made_anew_is_used(node: Node, client: TestClient) -> None:
    answer(node)
    assert shown(client, "/studies").xpath("//tr/@data-study") == [STUDY]
    node.ledger.engine.dispose()
    for file in (node.layout.root / "database").glob("ledger.*"):
        file.unlink()
    with opened_ledger(Settings(data_dir=node.layout.root)) as ledger:
        put_received(ledger, "1.7.1", "1.7")
        assert shown(client, "/studies").xpath("//tr/@data-study") == ["1.7"]


def test_a_database_that_is_away_is_named_without_its_password(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    DataLayout(folder).create()
    url = "postgresql://m3node:secret@127.0.0.1:1/m3node"
    away = Settings(data_dir=folder, database_url=url)
    assert ledger_url(away).port == 1
    with browsing(away) as client:
        for address, status in (("/", 200), ("/studies", 503), ("/about", 200)):
            text = client.get(address).text
            assert "secret" not in text
            assert shown(client, address, status) is not None


def test_a_node_to_which_nothing_has_come_says_so(tmp_path: Path) -> None:
    with opened_ledger(Settings(data_dir=tmp_path)), browsing(Settings(data_dir=tmp_path)) as client:
        for address in ("/", "/studies", "/jobs", "/dead", "/destinations"):
            assert shown(client, address).xpath("//p[@class='empty']"), address


def test_a_folder_in_which_no_node_ever_ran_is_told(tmp_path: Path) -> None:
    with browsing(Settings(data_dir=tmp_path / "data")) as client:
        assert "no node has run" in words_of(shown(client, "/"))
        assert shown(client, "/studies", 503) is not None


# For everybody


def everything(node: Node) -> None:
    run = answer(node)
    write_received(node.layout.spool, STUDY, PatientName="Doe^Jane", StudyDescription="CT Abdomen")
    letter(node, run)
    node.announce(manifest("1.7"))
    node.ledger.note_started("1.7.g1", "slot-0")
    node.ledger.note_stage("1.7.g1", "detect", 3, 10)
    node.receive("1.4")
    node.reject(StackKey("1.4", ""), 1, Rejection(Reason.TILTED, "tilted by 12 degrees", "1.4"))


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    with opened_node(tmp_path_factory.mktemp("full") / "data") as node:
        everything(node)
        with browsing(settings(node)) as client:
            yield client


@pytest.mark.parametrize("address", PAGES)
def test_a_page_has_what_keyboards_and_screen_readers_go_by(full: TestClient, address: str) -> None:
    tree = shown(full, address)
    assert tree.get("lang") == "en"
    assert len(tree.xpath("//h1")) == len(tree.xpath("//main")) == len(tree.xpath("//header")) == 1
    assert tree.xpath("//body/*[1][self::a]/@href") == ["#content"]
    assert tree.xpath("//main/@id") == ["content"]
    assert len(tree.xpath("//nav[@aria-label='Main']//a[@aria-current='page']")) == 1
    assert tree.xpath("//title")[0].text.endswith(" · m3node")
    assert "Not for clinical use" in words_of(tree)
    for field in tree.xpath("//input[not(@type='hidden')] | //select"):
        assert tree.xpath(f"//label[@for='{field.get('id')}']"), field.get("id")
    assert all(words_of(button) for button in tree.xpath("//button"))
    assert all(picture.get("alt") for picture in tree.xpath("//img"))
    assert all(cell.get("scope") for cell in tree.xpath("//th"))
    for named in tree.xpath("//@aria-labelledby | //@aria-describedby"):
        assert len(tree.xpath(f"//*[@id='{named}']")) == 1, named
    ids = tree.xpath("//@id")
    assert len(ids) == len(set(ids))
    assert not [name for name in ids if " " in name]
    levels = [int(item.tag[1]) for item in tree.xpath("//h1 | //h2 | //h3")]
    assert levels[0] == 1
    assert all(later - before <= 1 for before, later in itertools.pairwise(levels))


@pytest.mark.parametrize("address", PAGES)
def test_everything_on_a_page_is_our_own(full: TestClient, address: str) -> None:
    text = full.get(address).text
    assert not re.findall(r"""(?:src|href|action)=["']?(?:https?:)?//""", text)
    for name in set(re.findall(r"/static/[\w.]+", text)):
        assert full.get(name).status_code == 200
