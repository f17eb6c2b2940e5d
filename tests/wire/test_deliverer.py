"""The deliverer as it runs in the node: restarts, destinations that are down, a stop in the middle."""

from __future__ import annotations

import errno
import logging
import signal
import threading
from pathlib import Path

import pytest
from delivering import QUICK, RUN, deliverer, go, left, queue, queue_one, sent
from pynetdicom.dul import DULServiceProvider
from pynetdicom.events import Event

from fake_pacs import fake_pacs, make_run
from m3node.delivery.address import Peer, Timeouts
from m3node.delivery.entry import Entry
from m3node.delivery.outbox import Box, file_sent
from m3node.delivery.rounds import Round
from m3node.delivery.store_scu import StoreAssociation, sendable
from m3node.layout import DataLayout
from m3node.results.objects import ObjectKind
from waiting import wait_for


@pytest.fixture
def layout(tmp_path: Path) -> DataLayout:
    layout = DataLayout(tmp_path / "data")
    layout.create()
    return layout


def test_a_clock_that_is_set_back_holds_no_result_up(layout: DataLayout, monkeypatch: pytest.MonkeyPatch) -> None:
    with fake_pacs(0xA700) as pacs:
        queue(layout, pacs.destination())
        with monkeypatch.context() as wrong:
            wrong.setattr("m3node.delivery.attempt.time.time", lambda: 4_000_000_000.0)
            assert go(layout, pacs.destination()) == Round(put_off=4)
        pacs.answer = 0x0000
        with deliverer(layout, pacs.destination()):
            wait_for(lambda: not left(layout))
        assert len(pacs.kept) == 4


def test_results_queued_before_a_restart_go_after_it(layout: DataLayout) -> None:
    with fake_pacs(0xA700) as pacs:
        queue(layout, pacs.destination())
        with deliverer(layout, pacs.destination()):
            wait_for(lambda: len(pacs.offered) >= 4)
        assert len(left(layout)) == 4
        pacs.answer = 0x0000
        with deliverer(layout, pacs.destination()):
            wait_for(lambda: not left(layout))
    assert len(pacs.kept) == 4


def test_results_wait_for_an_archive_that_is_down_and_go_when_it_comes_up(
    layout: DataLayout, caplog: pytest.LogCaptureFixture
) -> None:
    with fake_pacs() as pacs:
        destination = pacs.destination()
    queue(layout, destination)
    with deliverer(layout, destination):
        wait_for(lambda: caplog.text.count("Connection refused; tried again") >= 3)
        assert sorted(entry.attempts > 0 for entry in left(layout).values()) == [False, False, False, True]
        with fake_pacs(port=destination.port) as revived:
            wait_for(lambda: not left(layout))
            assert len(revived.kept) == 4


def test_a_dead_and_a_hanging_destination_delay_no_other(layout: DataLayout) -> None:
    release = threading.Event()
    with fake_pacs() as gone:
        dead = gone.destination("dead")
    with fake_pacs(lambda event: release.wait(60) and 0x0000) as hanging, fake_pacs() as good:
        three = (dead, hanging.destination("hanging"), good.destination("good"))
        queue(layout, *three)
        with deliverer(layout, *three):
            wait_for(lambda: len(sent(layout, "good")) == 4 and hanging.offered)
            assert sent(layout, "hanging") == set()
            assert len(left(layout, "dead")) == 4
            release.set()


def test_a_disk_that_is_full_for_a_moment_stops_delivery_for_a_moment(
    layout: DataLayout, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    fail = [True]

    def file_or_fail(box: Box, entry: Entry) -> Entry:
        if fail:
            fail.clear()
            raise OSError(errno.ENOSPC, "No space left on device")
        return file_sent(box, entry)

    monkeypatch.setattr("m3node.delivery.attempt.file_sent", file_or_fail)
    with fake_pacs() as pacs:
        queue(layout, pacs.destination())
        with deliverer(layout, pacs.destination()):
            wait_for(lambda: len(sent(layout)) == 4)
    assert "delivery waits: No space left on device" in caplog.text
    assert len(pacs.offered) == 5
    assert len(pacs.kept) == 4


def test_a_disk_that_stays_full_is_said_once_and_leaves_no_row_for_each_try(
    layout: DataLayout, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    full = [True]

    def file_or_fail(box: Box, entry: Entry) -> Entry:
        if full:
            raise OSError(errno.ENOSPC, "No space left on device")
        return file_sent(box, entry)

    def refuse(layout: DataLayout, *_: object) -> list[Entry]:
        if full:
            raise OSError(errno.ENOSPC, "No space left on device")
        return []

    monkeypatch.setattr("m3node.delivery.attempt.file_sent", file_or_fail)
    monkeypatch.setattr("m3node.jobs.node.deliver.act_on_reports", refuse)
    monkeypatch.setattr("m3node.jobs.node.deliver.SWEEP_SECONDS", 0.05)
    with fake_pacs() as pacs, caplog.at_level(logging.INFO):
        queue_one(layout, pacs.destination())
        with deliverer(layout, pacs.destination()) as role:
            # The first attempt, the one that waits or is made, and the one before it.
            wait_for(lambda: max(role.attempts) >= 6)
            assert len(role.attempts) <= 4
            assert 1 in role.attempts
            full.clear()
            wait_for(lambda: len(sent(layout)) == 1)
            wait_for(lambda: "reports of commitment wait: works again" in caplog.messages)
    waits = [message for message in caplog.messages if "No space" in message]
    assert sorted(waits) == [
        "pacs: delivery waits: No space left on device; trying again",
        "reports of commitment wait: No space left on device; trying again",
    ]
    assert "pacs: delivery waits: works again" in caplog.messages


def starts(layout: DataLayout) -> list[Path]:
    return list(layout.outbox.glob("*/*.starts"))


def ours_alive() -> list[threading.Thread]:
    return [t for t in threading.enumerate() if isinstance(t, DULServiceProvider) and t.assoc.is_requestor]


def test_a_stop_does_not_wait_for_a_peer_that_hangs_and_does_not_count_as_a_kill(layout: DataLayout) -> None:
    release = threading.Event()
    # The node ends under the thread that waits; the tests' process waits for it.
    slow = QUICK.model_copy(update={"response_seconds": 30.0})
    with fake_pacs(lambda event: release.wait(60) and 0x0000) as pacs:
        queue(layout, pacs.destination())
        with deliverer(layout, pacs.destination(), delivery=slow, drain=1.0) as role:
            wait_for(lambda: pacs.offered)
            assert len(starts(layout)) == 1
        assert role.ended is False
        assert starts(layout) == []
        wait_for(lambda: not ours_alive())
        assert len(left(layout)) == 4
        release.set()


def test_an_interrupt_in_the_middle_of_an_object_leaves_no_thread_behind(layout: DataLayout) -> None:
    release = threading.Event()
    main = threading.get_ident()

    def interrupt(event: Event) -> int:
        signal.pthread_kill(main, signal.SIGINT)  # wakes what blocks, as Ctrl-C does
        release.wait(60)
        return 0x0000

    item = sendable(make_run(layout, RUN, [ObjectKind.REPORT])[0].path)
    with fake_pacs(interrupt) as pacs:
        peer = Peer("PACS", "127.0.0.1", pacs.port)
        association = StoreAssociation(peer, "M3NODE", [item.syntax], Timeouts(response=600.0))
        with pytest.raises(KeyboardInterrupt), association:
            association.send(item)
        wait_for(lambda: not ours_alive())
        release.set()


def test_a_second_run_goes_while_the_deliverer_is_running(layout: DataLayout) -> None:
    with fake_pacs() as pacs, deliverer(layout, pacs.destination()) as role:
        queue(layout, pacs.destination())
        role.hand_over()
        wait_for(lambda: len(pacs.kept) == 4)
        queue(layout, pacs.destination(), run="1.2.4.g1")
        role.hand_over()
        wait_for(lambda: len(pacs.kept) == 8)


def test_results_for_a_destination_that_was_removed_are_named_at_the_start(
    layout: DataLayout, caplog: pytest.LogCaptureFixture
) -> None:
    with fake_pacs() as pacs, caplog.at_level(logging.WARNING):
        queue(layout, pacs.destination("former"))
        with deliverer(layout):
            wait_for(lambda: "4 objects wait for former, which is no destination any more" in caplog.text)


def test_one_workflow_sends_what_else_is_due_round_by_round(
    layout: DataLayout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("m3node.delivery.rounds.ROUND_OBJECTS", 5)
    with fake_pacs() as pacs, deliverer(layout, pacs.destination()) as role:
        for run in ("1.2.3.g1", "1.2.4.g1", "1.2.5.g1"):
            queue(layout, pacs.destination(), run=run)
        role.hand_over(1)
        wait_for(lambda: len(pacs.kept) == 12)
        assert pacs.associations == 1


def test_a_new_run_does_not_wait_for_the_workflows_of_a_backlog_that_is_sent(layout: DataLayout) -> None:
    with fake_pacs() as pacs:
        for number in range(25):
            queue(layout, pacs.destination(), run=f"1.2.{number}.g1")
        with deliverer(layout, pacs.destination()) as role:
            wait_for(lambda: len(pacs.kept) == 100)
            queue(layout, pacs.destination(), run="1.3.g1")
            role.hand_over()
            wait_for(lambda: len(pacs.kept) == 104)
            assert len(role.live) > 20
        assert len(pacs.offered) == 104
