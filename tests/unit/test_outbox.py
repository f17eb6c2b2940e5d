"""What waits for a destination is files: queued once, sent in order, filed with its reason, readable by a person."""

from __future__ import annotations

import json
from dataclasses import MISSING, fields, replace
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fake_pacs import make_run
from m3node.delivery.back_off import back_off, gives_up, is_due
from m3node.delivery.entry import Entry, from_json, to_json
from m3node.delivery.outbox import (
    Box,
    as_filed,
    box_of,
    cancel,
    cancel_one,
    enqueue,
    file_sent,
    finish,
    kinds_for,
    put_off,
    read_entry,
    requeue,
    rewrite,
    set_aside,
    waiting,
)
from m3node.delivery.state import DeliveryState
from m3node.delivery.status import Verdict, judge_status
from m3node.errors import DeliveryError
from m3node.layout import DataLayout
from m3node.results.objects import ObjectKind
from m3node.settings import DeliverySettings, Destination

RUN = "1.2.3.g1"


def destination(name: str = "pacs", sr: str = "comprehensive3d") -> Destination:
    return Destination(name=name, ae_title="PACS", host="127.0.0.1", port=104, sr=sr)


@pytest.fixture
def layout(tmp_path: Path) -> DataLayout:
    layout = DataLayout(tmp_path / "data")
    layout.create()
    return layout


def kinds_waiting(box: Box) -> list[str]:
    return [entry.kind for entry in waiting(box)]


def test_the_segmentation_goes_before_the_reports_that_refer_to_it(layout: DataLayout) -> None:
    enqueue(layout, RUN, make_run(layout, RUN), [destination()])
    assert kinds_waiting(box_of(layout, "pacs")) == [
        "segmentation.seg",
        "report.sr",
        "volumes.sr",
        "presentation.pr",
    ]


def test_an_older_run_goes_before_a_newer_one(layout: DataLayout, monkeypatch: pytest.MonkeyPatch) -> None:
    for at, run in ((200.0, "1.2.1.g1"), (100.0, "1.2.9.g1")):
        monkeypatch.setattr("m3node.delivery.outbox.time.time", lambda at=at: at)
        enqueue(layout, run, make_run(layout, run), [destination()])
    assert [entry.run for entry in waiting(box_of(layout, "pacs"))] == ["1.2.9.g1"] * 4 + ["1.2.1.g1"] * 4


def test_an_entry_names_its_object_by_uid_digest_and_path_below_the_data_folder(layout: DataLayout) -> None:
    objects = make_run(layout, RUN, [ObjectKind.REPORT])
    enqueue(layout, RUN, objects, [destination()])
    tree = json.loads((layout.outbox / "pacs" / f"{RUN}.report.sr.json").read_text())
    assert tree["path"] == f"results/{RUN}/report.sr.dcm"
    assert tree["sha256"] == objects[0].sha256
    assert tree["sop_instance_uid"] == objects[0].sop_instance_uid
    assert tree["study_instance_uid"] == objects[0].study_instance_uid
    assert "Doe" not in json.dumps(tree)


def test_queueing_a_run_again_adds_nothing_that_waits_was_sent_or_was_set_aside(layout: DataLayout) -> None:
    objects = make_run(layout, RUN)
    enqueue(layout, RUN, objects, [destination()])
    box = box_of(layout, "pacs")
    first, second, *_ = waiting(box)
    file_sent(box, first)
    set_aside(box, second, "0xC000 cannot understand")
    assert enqueue(layout, RUN, objects, [destination()]) == ()
    assert kinds_waiting(box) == ["volumes.sr", "presentation.pr"]


def test_queueing_that_was_cut_off_is_completed_by_queueing_again(layout: DataLayout) -> None:
    objects = make_run(layout, RUN)
    enqueue(layout, RUN, objects[:2], [destination()])
    enqueue(layout, RUN, objects, [destination()])
    assert len(waiting(box_of(layout, "pacs"))) == 4


def test_a_destination_with_enhanced_sr_gets_enhanced_reports_and_no_comprehensive_ones(layout: DataLayout) -> None:
    objects = make_run(layout, RUN, list(ObjectKind))
    old = destination("old", sr="enhanced")
    enqueue(layout, RUN, objects, [destination(), old])
    assert kinds_waiting(box_of(layout, "old")) == [
        "segmentation.seg",
        "report.enhanced.sr",
        "volumes.enhanced.sr",
        "presentation.pr",
        "attention.sc",
        "attention.pm",
    ]
    assert ObjectKind.REPORT not in kinds_for(old)
    assert "report.enhanced.sr" not in kinds_waiting(box_of(layout, "pacs"))


def test_a_destination_whose_enhanced_sr_was_not_built_is_an_error_and_not_a_silence(layout: DataLayout) -> None:
    with pytest.raises(DeliveryError, match="wants Enhanced SR") as caught:
        enqueue(layout, RUN, make_run(layout, RUN), [destination("old", sr="enhanced")])
    assert not caught.value.retryable


def test_an_object_outside_the_data_folder_is_not_queued(layout: DataLayout, tmp_path: Path) -> None:
    item = make_run(layout, RUN, [ObjectKind.REPORT])[0]
    with pytest.raises(DeliveryError, match="outside the data folder"):
        enqueue(layout, RUN, [replace(item, path=tmp_path / "elsewhere.dcm")], [destination()])


@pytest.mark.parametrize("run", ["", "../up", "a/b", ".hidden", "x" * 201])
def test_a_run_whose_name_is_no_file_name_is_not_queued(layout: DataLayout, run: str) -> None:
    with pytest.raises(DeliveryError, match="cannot name a run"):
        enqueue(layout, run, (), [destination()])


def test_a_sent_entry_lies_in_sent_and_waits_no_more(layout: DataLayout) -> None:
    enqueue(layout, RUN, make_run(layout, RUN, [ObjectKind.REPORT]), [destination()])
    box = box_of(layout, "pacs")
    file_sent(box, waiting(box)[0])
    assert waiting(box) == ()
    filed = from_json((box.sent / f"{RUN}.report.sr.json").read_bytes())
    assert filed.state is DeliveryState.SENT
    assert filed.finished_at >= filed.stored_at > 0


def test_an_entry_set_aside_says_why_and_waits_again_when_it_is_moved_back(layout: DataLayout) -> None:
    enqueue(layout, RUN, make_run(layout, RUN, [ObjectKind.REPORT]), [destination()])
    box = box_of(layout, "pacs")
    set_aside(box, waiting(box)[0], "0x0122 SOP class not supported")
    aside = box.aside / f"{RUN}.report.sr.json"
    assert from_json(aside.read_bytes()).last_error == "0x0122 SOP class not supported"
    assert waiting(box) == ()
    aside.rename(box.folder / aside.name)
    assert kinds_waiting(box) == ["report.sr"]


def test_an_attempt_that_failed_is_counted_and_kept_with_its_time(layout: DataLayout) -> None:
    enqueue(layout, RUN, make_run(layout, RUN, [ObjectKind.REPORT]), [destination()])
    box = box_of(layout, "pacs")
    put_off(box, waiting(box)[0], "no answer", 12345.0)
    later = waiting(box)[0]
    assert (later.attempts, later.last_error, later.not_before) == (1, "no answer", 12345.0)
    assert later.state is DeliveryState.RETRYING
    put_off(box, later, "no answer", 23456.0)
    assert waiting(box)[0].failing_since == later.failing_since > 0


def test_cancelling_a_run_sets_aside_what_waits_of_it_for_every_destination_and_nothing_else(
    layout: DataLayout,
) -> None:
    both = [destination("a"), destination("b")]
    enqueue(layout, "1.2.3.g1", make_run(layout, "1.2.3.g1"), both)
    enqueue(layout, "1.2.3.g2", make_run(layout, "1.2.3.g2"), both)
    sent = waiting(box_of(layout, "a"))[0]
    file_sent(box_of(layout, "a"), sent)
    cancelled = cancel(layout, "1.2.3.g1", "superseded by 1.2.3.g2")
    assert {(entry.run, entry.state) for entry in cancelled} == {("1.2.3.g1", DeliveryState.CANCELLED)}
    assert len(cancelled) == 7
    for name in ("a", "b"):
        assert {entry.run for entry in waiting(box_of(layout, name))} == {"1.2.3.g2"}
    assert (box_of(layout, "a").sent / f"{sent.name}.json").exists()
    assert len(list(box_of(layout, "a").aside.iterdir())) == 3


def test_what_waits_of_a_run_is_not_what_waits_of_one_whose_name_begins_alike(layout: DataLayout) -> None:
    for run in ("1.2.3.g1", "1.2.3.g10", "1.2.3.g1.4.g1"):
        enqueue(layout, run, make_run(layout, run), [destination()])
    assert {entry.run for entry in waiting(box_of(layout, "pacs"), "1.2.3.g1")} == {"1.2.3.g1"}


def test_an_urgent_run_goes_before_an_older_one(layout: DataLayout) -> None:
    enqueue(layout, "1.2.1.g1", make_run(layout, "1.2.1.g1"), [destination()])
    enqueue(layout, "1.2.2.g1", make_run(layout, "1.2.2.g1"), [destination()], priority="stat")
    assert [entry.run for entry in waiting(box_of(layout, "pacs"))] == ["1.2.2.g1"] * 4 + ["1.2.1.g1"] * 4


def test_queueing_tells_what_waits_for_the_first_time(layout: DataLayout) -> None:
    objects = make_run(layout, RUN)
    assert [entry.kind for entry in enqueue(layout, RUN, objects[2:], [destination()])] == [
        "segmentation.seg",
        "presentation.pr",
    ]
    assert [entry.kind for entry in enqueue(layout, RUN, objects, [destination()])] == ["report.sr", "volumes.sr"]


def one_waiting(layout: DataLayout) -> tuple[Box, Entry]:
    enqueue(layout, RUN, make_run(layout, RUN, [ObjectKind.REPORT]), [destination()])
    box = box_of(layout, "pacs")
    return box, waiting(box)[0]


def test_an_object_that_the_destination_has_and_whose_commitment_is_awaited_is_not_cancelled(
    layout: DataLayout,
) -> None:
    box, entry = one_waiting(layout)
    stored = replace(entry, state=DeliveryState.STORED, stored_at=5.0)
    assert rewrite(box, entry, stored)
    assert cancel(layout, RUN, "superseded") == ()
    assert cancel_one(layout, "pacs", entry.name, "not wanted") is None
    assert waiting(box) == (stored,)


def test_one_delivery_is_cancelled_with_its_reason(layout: DataLayout) -> None:
    box, entry = one_waiting(layout)
    cancelled = cancel_one(layout, "pacs", entry.name, "not wanted")
    assert cancelled is not None
    assert (cancelled.state, cancelled.last_error) == (DeliveryState.CANCELLED, "not wanted")
    assert waiting(box) == ()
    assert cancel_one(layout, "pacs", entry.name, "not wanted") is None


def test_a_change_by_who_has_not_seen_the_last_one_is_not_written(layout: DataLayout) -> None:
    box, entry = one_waiting(layout)
    later = put_off(box, entry, "no answer", 12345.0)
    assert not rewrite(box, entry, replace(entry, last_error="stale"))
    assert not finish(box, entry, replace(entry, state=DeliveryState.CONFIRMED))
    assert waiting(box) == (later,)


def test_a_dead_letter_can_be_dismissed_and_asked_back(layout: DataLayout) -> None:
    box, entry = one_waiting(layout)
    set_aside(box, entry, "refused with 0xA900")
    dismissed = cancel_one(layout, "pacs", entry.name, "not wanted")
    assert dismissed is not None
    assert (dismissed.state, dismissed.last_error) == (
        DeliveryState.CANCELLED,
        "not wanted; it was dead: refused with 0xA900",
    )
    assert from_json((box.aside / f"{entry.name}.json").read_bytes()) == dismissed
    assert cancel_one(layout, "pacs", entry.name, "not wanted") is None
    assert requeue(layout, "pacs", entry.name) is not None


def test_a_dead_letter_that_is_requeued_waits_to_be_sent_at_once_with_its_attempts_kept(layout: DataLayout) -> None:
    box, entry = one_waiting(layout)
    dead = set_aside(box, put_off(box, entry, "no answer", 12345.0), "no answer for 72 h")
    assert (dead.state, dead.attempts) == (DeliveryState.DEAD, 1)
    assert dead.failing_since > 0
    again = requeue(layout, "pacs", entry.name)
    assert again is not None
    assert waiting(box) == (again,)
    assert (again.state, again.attempts, again.failing_since, again.not_before) == (DeliveryState.WAITING, 1, 0.0, 0.0)
    assert list(box.aside.iterdir()) == []
    assert requeue(layout, "pacs", entry.name) is None


def test_a_dead_letter_that_is_requeued_is_sent_and_asked_for_as_if_it_had_never_been(layout: DataLayout) -> None:
    box, entry = one_waiting(layout)
    stored = replace(
        entry, state=DeliveryState.STORED, stored_at=5.0, transaction_uid="1.2.3", requested_at=6.0, failing_since=4.0
    )
    assert rewrite(box, entry, stored)
    set_aside(box, stored, "no report of its commitment within 3600 s")
    assert requeue(layout, "pacs", entry.name) == replace(entry, last_error="no report of its commitment within 3600 s")


def test_an_entry_that_is_confirmed_lies_with_what_was_sent(layout: DataLayout) -> None:
    box, entry = one_waiting(layout)
    confirmed = replace(entry, state=DeliveryState.CONFIRMED, finished_at=9.0)
    assert finish(box, entry, confirmed)
    assert from_json((box.sent / f"{entry.name}.json").read_bytes()) == confirmed
    assert (waiting(box), list(box.aside.iterdir())) == ((), [])


def test_failures_in_a_row_begin_with_the_first_of_them_and_end_with_a_success(layout: DataLayout) -> None:
    box, entry = one_waiting(layout)
    first = put_off(box, entry, "no answer", 12345.0, since=7.0)
    assert first.failing_since == 7.0
    again = put_off(box, first, "no answer", 23456.0, since=9.0)
    assert again.failing_since == 7.0
    assert file_sent(box, again).failing_since == 0.0


def test_an_attempt_on_a_cancelled_entry_does_not_bring_it_back(layout: DataLayout) -> None:
    enqueue(layout, RUN, make_run(layout, RUN, [ObjectKind.REPORT]), [destination()])
    box = box_of(layout, "pacs")
    on_the_wire = waiting(box)[0]
    cancel(layout, RUN, "superseded")
    put_off(box, on_the_wire, "no answer", 0.0)
    assert waiting(box) == ()


def test_what_an_attempt_made_of_an_entry_that_was_cancelled_meanwhile_is_told_as_its_file_says_it(
    layout: DataLayout,
) -> None:
    box, entry = one_waiting(layout)
    cancelled = cancel_one(layout, "pacs", entry.name, "not wanted")
    assert put_off(box, entry, "no answer", 0.0) == cancelled
    assert set_aside(box, entry, "refused with 0xA900") == cancelled
    assert as_filed(box, entry) == cancelled


@pytest.mark.parametrize("how", ["run", "one"])
def test_an_attempt_that_is_written_down_meanwhile_keeps_nothing_from_being_cancelled(
    layout: DataLayout, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    box, entry = one_waiting(layout)
    meanwhile = [12345.0, 23456.0]

    def finish_too_late(its: Box, was: Entry, done: Entry) -> bool:
        if meanwhile:
            put_off(its, was, "no answer", meanwhile.pop())
        return finish(its, was, done)

    monkeypatch.setattr("m3node.delivery.outbox.finish", finish_too_late)
    if how == "run":
        (cancelled,) = cancel(layout, RUN, "superseded")
    else:
        cancelled = cancel_one(layout, "pacs", entry.name, "superseded")
        assert cancelled is not None
    assert (cancelled.state, cancelled.attempts, cancelled.last_error) == (DeliveryState.CANCELLED, 2, "superseded")
    assert waiting(box) == ()
    assert as_filed(box, entry) == cancelled


def test_one_that_is_stored_while_it_is_cancelled_is_not_said_to_be_cancelled(
    layout: DataLayout, monkeypatch: pytest.MonkeyPatch
) -> None:
    box, entry = one_waiting(layout)

    def stored_before(its: Box, was: Entry, done: Entry) -> bool:
        file_sent(its, was)
        return finish(its, was, done)

    monkeypatch.setattr("m3node.delivery.outbox.finish", stored_before)
    assert cancel(layout, RUN, "superseded") == ()
    assert cancel_one(layout, "pacs", entry.name, "superseded") is None
    assert as_filed(box, entry).state is DeliveryState.SENT


def test_an_entry_that_is_requeued_while_somebody_looks_for_it_is_not_lost(
    layout: DataLayout, monkeypatch: pytest.MonkeyPatch
) -> None:
    box, entry = one_waiting(layout)
    set_aside(box, entry, "refused with 0xA900")
    aside = box.aside / f"{entry.name}.json"
    exists = Path.exists

    def seen_and_gone(path: Path) -> bool:
        found = exists(path)
        if path == aside and found:
            monkeypatch.undo()
            assert requeue(layout, "pacs", entry.name) is not None
        return found

    monkeypatch.setattr(Path, "exists", seen_and_gone)
    read_entry(box, entry.name)
    assert not exists(aside)
    assert [again.name for again in waiting(box)] == [entry.name]


def test_an_entry_cancelled_while_it_was_stored_counts_as_sent(layout: DataLayout) -> None:
    enqueue(layout, RUN, make_run(layout, RUN, [ObjectKind.REPORT]), [destination()])
    box = box_of(layout, "pacs")
    on_the_wire = waiting(box)[0]
    cancel(layout, RUN, "superseded")
    file_sent(box, on_the_wire)
    assert [path.name for path in box.sent.iterdir()] == [f"{RUN}.report.sr.json"]
    assert list(box.aside.iterdir()) == []


def test_a_kill_between_filing_and_removing_does_not_send_twice(layout: DataLayout) -> None:
    enqueue(layout, RUN, make_run(layout, RUN, [ObjectKind.REPORT]), [destination()])
    box = box_of(layout, "pacs")
    entry = waiting(box)[0]
    before = box.file(entry.name).read_bytes()
    file_sent(box, entry)
    box.file(entry.name).write_bytes(before)
    assert waiting(box) == ()
    assert not box.file(entry.name).exists()


def test_a_file_that_is_no_entry_is_set_aside_and_stops_nothing(layout: DataLayout) -> None:
    enqueue(layout, RUN, make_run(layout, RUN, [ObjectKind.REPORT]), [destination()])
    box = box_of(layout, "pacs")
    (box.folder / "torn.json").write_bytes(b'{"schema": "m3node')
    (box.folder / "copied.json").write_bytes(box.file(f"{RUN}.report.sr").read_bytes())
    assert kinds_waiting(box) == ["report.sr"]
    assert sorted(path.name for path in box.aside.iterdir()) == ["copied.json", "torn.json"]


VALUES = {
    "str": st.text(max_size=20),
    "int": st.integers(0, 9),
    "float": st.floats(0, 1e10),
    "DeliveryState": st.sampled_from(DeliveryState),
}
entries = st.builds(Entry, **{field.name: VALUES[str(field.type)] for field in fields(Entry)})


@given(entries)
def test_an_entry_survives_its_file(entry: Entry) -> None:
    assert from_json(to_json(entry)) == entry


trees = st.recursive(
    st.none() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
)


@example(b"[" * 100_000)  # deeper than the parser goes
@given(st.binary(max_size=200) | trees.map(lambda tree: json.dumps(tree).encode()))
def test_what_is_no_entry_is_a_delivery_error(content: bytes) -> None:
    with pytest.raises(DeliveryError):
        from_json(content)


@given(entry=entries, data=st.data())
def test_an_entry_with_a_field_too_many_too_few_or_of_another_type_is_a_delivery_error(
    entry: Entry, data: st.DataObject
) -> None:
    tree = json.loads(to_json(entry))
    name = data.draw(st.sampled_from(sorted(tree)))
    required = {"schema", *(field.name for field in fields(Entry) if field.default is MISSING)}
    change = data.draw(st.sampled_from(["wrong", "more", *(["less"] if name in required else [])]))
    if change == "less":
        del tree[name]
    elif change == "more":
        tree[f"{name}x"] = tree[name]
    else:
        tree[name] = data.draw(st.sampled_from([None, [], {}, 1 if isinstance(tree[name], str) else "1"]))
    with pytest.raises(DeliveryError):
        from_json(json.dumps(tree).encode())


def test_back_off_doubles_and_is_capped() -> None:
    settings = DeliverySettings(retry_first_seconds=2.0, retry_max_seconds=60.0)
    assert [back_off(n, settings) for n in range(7)] == [2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0]
    assert back_off(10**6, settings) == 60.0


def test_an_entry_is_due_in_its_time_and_when_only_a_clock_that_was_set_back_says_that_it_is_not() -> None:
    settings = DeliverySettings(retry_first_seconds=2.0, retry_max_seconds=60.0)
    times = (999.0, 1000.0, 1001.0, 1060.0, 1061.0)
    assert [is_due(not_before, 1000.0, settings) for not_before in times] == [True, True, False, False, True]


def test_failures_in_a_row_are_given_up_after_the_time_that_is_set_and_never_without_one() -> None:
    settings = DeliverySettings(give_up_hours=1.0)
    assert [gives_up(1000.0, now, settings) for now in (1000.0, 4599.0, 4600.0)] == [False, False, True]
    assert not gives_up(0.0, 1e9, settings)
    assert not gives_up(1000.0, 1e9, DeliverySettings(give_up_hours=0.0))


@pytest.mark.parametrize(
    ("first", "last", "verdict"),
    [
        (0x0000, 0x0000, Verdict.STORED),
        (0x0111, 0x0111, Verdict.STORED),
        (0xB000, 0xBFFF, Verdict.STORED),
        (0xA700, 0xA7FF, Verdict.AGAIN),
        (0xA900, 0xA9FF, Verdict.REFUSED),
        (0xC000, 0xCFFF, Verdict.REFUSED),
        (0x0122, 0x0122, Verdict.REFUSED),
    ],
)
def test_each_status_of_a_class_means_the_same(first: int, last: int, verdict: Verdict) -> None:
    assert {judge_status(status)[0] for status in range(first, last + 1)} == {verdict}


@given(st.integers(0, 0xFFFF))
def test_every_status_is_judged_and_named_by_its_code(status: int) -> None:
    verdict, words = judge_status(status)
    assert isinstance(verdict, Verdict)
    assert words.startswith(f"0x{status:04X} ")


def test_a_status_that_the_standard_does_not_know_is_never_taken_for_stored() -> None:
    known = {0x0000, 0x0001, 0x0107, 0x0111, 0x0116, *range(0xB000, 0xC000)}
    assert {s for s in range(0x10000) if judge_status(s)[0] is Verdict.STORED} == known
