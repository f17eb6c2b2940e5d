"""What a person may have done with runs and deliveries while no worker runs, and what is refused with a reason."""

from __future__ import annotations

import errno
import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from m3node.delivery.outbox import box_of, put_off, set_aside, waiting
from m3node.delivery.recall import cancel_one
from m3node.intake.series.manifest import Manifest, make_manifest, write_manifest
from m3node.intake.series.reading import read_header
from m3node.intake.series.stacks import group_stacks
from m3node.jobs.answer import closing, starts
from m3node.jobs.answer.closing import close
from m3node.jobs.answer.rejections import record_rejection
from m3node.jobs.answer.steps import find, make_detector
from m3node.jobs.engine import names
from m3node.jobs.engine.actions import Refused
from m3node.jobs.engine.dispatch import Dispatcher, Work
from m3node.progress import silent
from m3node.rejection import Reason, Rejection
from working import Workplace, run_of, workplace

ARCHIVE = '[[destinations]]\nname = "archive"\nae_title = "ARCHIVE"\nhost = "127.0.0.1"\nport = 1\n'


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Workplace]:
    with workplace(tmp_path, toml=ARCHIVE) as place:
        yield place


def answer(place: Workplace, manifest: Manifest, rejection: Rejection | None = None) -> None:
    """End a run, with objects or with a reason."""
    folder = place.layout.results / run_of(manifest)
    folder.mkdir(exist_ok=True)
    if rejection is None:
        find(manifest, folder, place.settings, make_detector(place.settings), silent)
    close(
        manifest,
        place.layout,
        place.settings,
        worker="slot-0",
        note=place.ledger.note_entry,
        rejection=rejection,
    )


def attempts(dispatcher: Dispatcher, manifest: Manifest) -> list[str]:
    return sorted(work.state for work in dispatcher.attempts_of(names.job_prefix(manifest.key)))


def test_a_failed_run_is_requeued_as_often_as_it_fails_and_all_that_it_said_is_kept(place: Workplace) -> None:
    manifest = place.series(0)
    folder = place.layout.results / run_of(manifest)
    for number in (1, 2):
        answer(place, manifest, Rejection(Reason.FAILED, f"failed {number}", run_of(manifest)))
        assert "is queued again" in place.actions.requeue_run(run_of(manifest))
        place.dispatcher.cancel([f"{names.job_prefix(manifest.key)}{number}"])  # as if a worker had done it
    kept = [json.loads((folder / f"run.failed-{number}.json").read_text()) for number in (1, 2)]
    assert [record["rejection"]["message"] for record in kept] == ["failed 1", "failed 2"]
    assert {path.name for path in folder.iterdir()} == {
        f"{what}.failed-{number}.json" for what in ("run", "findings") for number in (1, 2)
    }


def test_a_run_that_is_requeued_begins_anew_whatever_a_kill_left_of_its_first_time(place: Workplace) -> None:
    manifest = place.series(0)
    folder = place.layout.results / run_of(manifest)
    answer(place, manifest, Rejection(Reason.FAILED, "it failed", run_of(manifest)))
    starts.ask_to_cancel(folder, "too late")
    starts.mark_begun(folder)
    place.actions.requeue_run(run_of(manifest))
    assert (starts.cancel_reason(folder), starts.begun_at(folder)) == ("", 0.0)


def test_a_run_that_gave_way_to_a_newer_one_is_refused_though_nothing_else_tells_of_that_one(place: Workplace) -> None:
    manifest = place.series(0)
    (place.layout.results / run_of(manifest)).mkdir()
    note = place.ledger.note_entry
    close(manifest, place.layout, place.settings, worker="slot-0", note=note, superseded_by="another's key")
    with pytest.raises(Refused, match=r"has taken the place of .*; requeue that one$"):
        place.actions.requeue_run(run_of(manifest))


def test_a_dead_letter_of_a_cancelled_run_outlives_its_being_requeued(place: Workplace) -> None:
    """What was taken back is queued anew; what an archive refused is a person's to decide on."""
    manifest = place.series(0)
    answer(place, manifest)
    box = box_of(place.layout, "archive")
    dead, taken_back, *_ = waiting(box)
    set_aside(box, dead, "refused with 0xA900")
    assert cancel_one(place.layout, "archive", taken_back.name, "a mistake") is not None
    record = place.layout.results / run_of(manifest) / "run.json"
    tree = json.loads(record.read_text())
    record.write_text(json.dumps(tree | {"cancelled": "a mistake", "objects": []}))
    place.actions.requeue_run(run_of(manifest))
    assert [path.stem for path in box.aside.iterdir()] == [dead.name]


def test_findings_that_only_lack_their_objects_are_built_again_and_not_looked_for(place: Workplace) -> None:
    manifest = place.series(0)
    folder = place.layout.results / run_of(manifest)
    find(manifest, folder, place.settings, make_detector(place.settings), silent)
    answer(place, manifest, Rejection(Reason.FAILED, "no objects could be built", run_of(manifest)))
    before = (folder / "findings.json").read_bytes()
    place.actions.requeue_run(run_of(manifest))
    assert (folder / "findings.json").read_bytes() == before
    place.work()
    place.until_ended(manifest)
    record = place.record(manifest)
    assert record is not None
    assert record.objects
    assert (folder / "findings.json").read_bytes() == before


def test_a_run_is_not_requeued_that_was_answered_or_waits_already(place: Workplace) -> None:
    answered, waits = place.series(0), place.series(1)
    answer(place, answered)
    with pytest.raises(Refused, match="was answered with 3 objects"):
        place.actions.requeue_run(run_of(answered))
    assert "is queued again" in place.actions.requeue_run(run_of(waits))
    assert "is queued already" in place.actions.requeue_run(run_of(waits))
    assert attempts(place.dispatcher, waits) == ["ENQUEUED"]


@pytest.mark.parametrize("name", ["1.2.3.g1", "../manifests/1.2.3.g1", ""])
def test_a_run_that_does_not_exist_is_refused(place: Workplace, name: str) -> None:
    for action in (place.actions.requeue_run, place.actions.cancel_run):
        with pytest.raises(Refused, match="there is no run"):
            action(name)


def test_a_stack_that_was_not_fit_is_refused_with_what_to_do(place: Workplace) -> None:
    manifest = place.series(0)
    folder = record_rejection(place.layout, manifest.stack, 7, "ab", Rejection(Reason.FAILED, "tilted", "x"))
    with pytest.raises(Refused, match="was not fit"):
        place.actions.requeue_run(folder.name)


def test_a_waiting_run_is_cancelled_at_once_and_requeued_when_it_was_a_mistake(place: Workplace) -> None:
    manifest = place.series(0)
    place.enqueue(manifest)
    assert "is cancelled" in place.actions.cancel_run(run_of(manifest), "sent by mistake")
    record = place.record(manifest)
    assert record is not None
    assert record.cancelled == "sent by mistake"
    assert attempts(place.dispatcher, manifest) == ["CANCELLED"]
    assert place.reconciler.all().jobs == 0
    place.actions.requeue_run(run_of(manifest))
    assert attempts(place.dispatcher, manifest) == ["CANCELLED", "ENQUEUED"]


def test_what_waits_of_a_run_that_has_ended_is_taken_back(place: Workplace) -> None:
    manifest = place.series(0)
    answer(place, manifest)
    box = box_of(place.layout, "archive")
    entries = waiting(box)
    assert "3 deliveries" in place.actions.cancel_run(run_of(manifest), "wrong patient")
    assert waiting(box) == ()
    for entry in entries:
        assert "wrong patient" in (box.aside / f"{entry.name}.json").read_text()
    with pytest.raises(Refused, match="nothing of it waits"):
        place.actions.cancel_run(run_of(manifest))


def test_a_dead_letter_is_sent_again_and_another_one_taken_back(place: Workplace) -> None:
    manifest = place.series(0)
    answer(place, manifest)
    box = box_of(place.layout, "archive")
    entry, *others = waiting(box)
    with pytest.raises(Refused, match="is set aside"):
        place.actions.requeue_delivery("archive", entry.name)
    set_aside(box, entry, "refused")
    assert "is queued for archive" in place.actions.requeue_delivery("archive", entry.name)
    assert {again.name for again in waiting(box)} == {entry.name, *(other.name for other in others)}
    assert set(place.dispatcher.live(names.DELIVERIES)) == {names.delivery_prefix("archive", entry.name)}
    assert "is not sent to archive" in place.actions.cancel_delivery("archive", entry.name)
    assert entry.name not in {other.name for other in waiting(box)}
    with pytest.raises(Refused, match="no delivery"):
        place.actions.cancel_delivery("archive", entry.name)


def test_a_delivery_that_nobody_cares_for_is_handed_over(place: Workplace) -> None:
    manifest = place.series(0)
    answer(place, manifest)
    assert place.reconciler.all().deliveries == 1
    assert place.reconciler.all().deliveries == 0


def test_what_another_release_left_is_begun_anew(place: Workplace, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = place.series(0)
    with monkeypatch.context() as release:
        release.setattr(names, "APPLICATION_VERSION", "0")
        place.enqueue(manifest)
    done = place.reconciler.all()
    assert (done.stranded, done.jobs) == (1, 1)
    (work,) = place.dispatcher.attempts_of(names.job_prefix(manifest.key))
    assert (work.state, work.version) == ("ENQUEUED", names.APPLICATION_VERSION)


def test_rows_of_what_has_ended_are_forgotten_and_others_kept(place: Workplace) -> None:
    ended, waits = place.series(0), place.series(1)
    for manifest in (ended, waits):
        place.enqueue(manifest)
    place.dispatcher.cancel([names.job_prefix(ended.key) + "1"])
    assert place.dispatcher.forget(before=0.0) == 0
    assert place.dispatcher.forget(before=4e9) == 1
    assert set(place.dispatcher.live(names.JOBS)) == {names.job_prefix(waits.key)}
    assert attempts(place.dispatcher, ended) == []


def test_the_first_attempt_is_remembered_while_a_later_one_waits(place: Workplace) -> None:
    manifest = place.series(0)
    place.enqueue(manifest)
    for number in (1, 2):
        place.dispatcher.cancel([f"{names.job_prefix(manifest.key)}{number}"])
        place.enqueue(manifest)
    assert place.dispatcher.forget(before=4e9) == 1
    assert attempts(place.dispatcher, manifest) == ["CANCELLED", "ENQUEUED"]
    assert not place.enqueue(manifest)
    assert place.dispatcher.forget(before=-1e18) == 0


def test_a_run_that_was_cancelled_while_it_was_closed_is_sent_when_it_is_requeued(
    place: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = place.series(0)
    box = box_of(place.layout, "archive")

    def killed(point: str) -> None:
        raise KeyboardInterrupt(point)

    with monkeypatch.context() as killing:
        killing.setattr(closing, "fault_point", killed)
        with pytest.raises(KeyboardInterrupt):
            answer(place, manifest)
    assert len(waiting(box)) == 3
    assert "is cancelled" in place.actions.cancel_run(run_of(manifest))
    assert waiting(box) == ()
    place.actions.requeue_run(run_of(manifest))
    answer(place, manifest)
    assert len(waiting(box)) == 3
    assert list(box.aside.iterdir()) == []


def test_a_run_that_ends_while_it_is_being_cancelled_leaves_no_wish_and_nothing_to_send(
    place: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = place.series(0)
    ask = starts.ask_to_cancel

    def just_ended(folder: Path, reason: str) -> None:
        answer(place, manifest)
        ask(folder, reason)

    monkeypatch.setattr(starts, "ask_to_cancel", just_ended)
    assert "3 deliveries" in place.actions.cancel_run(run_of(manifest))
    assert waiting(box_of(place.layout, "archive")) == ()
    assert not (place.layout.results / run_of(manifest) / "cancel").exists()


def test_a_run_that_ends_just_before_it_is_closed_as_cancelled_is_not_said_to_be_cancelled(
    place: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = place.series(0)
    attempts_of = place.dispatcher.attempts_of

    def just_ended(prefix: str) -> tuple[Work, ...]:
        if place.record(manifest) is None:
            answer(place, manifest)
        return attempts_of(prefix)

    monkeypatch.setattr(place.dispatcher, "attempts_of", just_ended)
    assert "had just ended" in place.actions.cancel_run(run_of(manifest))
    record = place.record(manifest)
    assert record is not None
    assert len(record.objects) == 3
    assert waiting(box_of(place.layout, "archive")) == ()  # the wish was heard in the end


def test_what_is_due_does_not_wait_for_an_attempt_that_was_put_off(place: Workplace) -> None:
    manifest = place.series(0)
    answer(place, manifest)
    box = box_of(place.layout, "archive")
    for entry in waiting(box):
        place.dispatcher.enqueue_delivery(entry, delay=1e8)
    assert place.reconciler.all().deliveries == 1
    put_off(box, waiting(box)[0], "no answer", time.time() + 200)
    last = waiting(box)[-1]
    place.actions.cancel_delivery("archive", last.name)
    place.actions.requeue_delivery("archive", last.name)
    (work,) = place.dispatcher.attempts_of(names.delivery_prefix("archive", last.name))
    assert work.delayed_until < time.time() + 5


def test_a_job_that_a_clock_put_off_for_years_goes_on(place: Workplace) -> None:
    put_off_by_years, put_off_by_seconds = place.series(0), place.series(1)
    for manifest, delay in ((put_off_by_years, 1e8), (put_off_by_seconds, 50.0)):
        place.dispatcher.enqueue_job(manifest.key, run_of(manifest), manifest.priority, delay=delay)
    place.reconciler.all()
    live = place.dispatcher.live(names.JOBS)
    assert live[names.job_prefix(put_off_by_years.key)].delayed_until < time.time() + 5
    assert live[names.job_prefix(put_off_by_seconds.key)].delayed_until > time.time() + 20


def test_a_manifest_that_the_disk_refuses_once_is_handed_over_later(
    place: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.series(0)

    def refuse(path: Path) -> bytes:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as refusing:
        refusing.setattr(Path, "read_bytes", refuse)
        assert place.reconciler.all().jobs == 0
    assert place.reconciler.all().jobs == 1


def supersede(place: Workplace, older: Manifest) -> None:
    """Let a newer generation come, of a slice less."""
    spool = place.layout.spool
    (stack,) = group_stacks([read_header(spool / item.path, spool) for item in older.instances[:-1]])
    newer = make_manifest(stack, root=spool, generation=2, supersedes=older.key, created_at=1.0)
    write_manifest(newer, place.layout.manifests)


def test_a_failed_run_is_not_requeued_after_a_newer_generation_came(place: Workplace) -> None:
    older = place.series(0)
    answer(place, older, Rejection(Reason.FAILED, "failed", run_of(older)))
    supersede(place, older)
    with pytest.raises(Refused, match=f"a newer generation has taken the place of {run_of(older)}"):
        place.actions.requeue_run(run_of(older))
    assert place.record(older) is not None


def test_a_dead_letter_does_not_come_alive_after_a_newer_generation_came(place: Workplace) -> None:
    older = place.series(0)
    answer(place, older)
    box = box_of(place.layout, "archive")
    dead, *_ = waiting(box)
    set_aside(box, dead, "refused")
    supersede(place, older)
    with pytest.raises(Refused, match="requeue that one, or cancel what is left"):
        place.actions.requeue_delivery("archive", dead.name)
    assert dead.name not in {entry.name for entry in waiting(box)}
    assert "is not sent" in place.actions.cancel_delivery("archive", dead.name)
