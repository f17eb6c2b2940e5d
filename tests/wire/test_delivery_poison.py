"""An object whose sending takes the process down is set aside after a few times, and the others go."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from delivering import QUICK, RUN, SEG, aside, courier_for, go, left, queue, queue_one, sent, settings_for

from fake_pacs import FakePacs, fake_pacs
from m3node.delivery.attempt import attempt
from m3node.delivery.outbox import box_of, file_sent, rewrite
from m3node.delivery.recall import requeue
from m3node.delivery.rounds import Round, deliver_due
from m3node.delivery.starts import starts_left
from m3node.delivery.store_scu import StoreAssociation
from m3node.faults import VARIABLE
from m3node.jobs.engine.dispatch import Dispatcher
from m3node.jobs.engine.setup import prepare
from m3node.layout import DataLayout
from m3node.settings import load
from waiting import wait_for

LIMIT = 2
NAME = f"{RUN}.{SEG}"


@pytest.fixture
def layout(tmp_path: Path) -> DataLayout:
    layout = DataLayout(tmp_path / "data")
    layout.create()
    return layout


def started(layout: DataLayout, pacs: FakePacs) -> Path:
    """The settings of a node with what waits for one archive, handed to its engine."""
    config = layout.root.parent / "m3node.toml"
    config.write_text(
        f'data_dir = "{layout.root}"\n[jobs]\npoison_limit = {LIMIT}\n[[destinations]]\nname = "pacs"\n'
        f'ae_title = "PACS"\nhost = "127.0.0.1"\nport = {pacs.port}\n'
    )
    settings = load(config)
    prepare(settings)
    dispatcher = Dispatcher(settings)
    for entry in left(layout).values():
        dispatcher.enqueue_delivery(entry)
    dispatcher.close()
    return config


@contextmanager
def delivering(config: Path, *faults: str) -> Iterator[subprocess.Popen[bytes]]:
    """``m3node deliver``, to be killed at the points that are named."""
    folder = config.parent / "faults"
    folder.mkdir(exist_ok=True)
    for point in faults:
        (folder / point).touch()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("M3NODE_")}
    command = [sys.executable, "-m", "m3node", "deliver", "--config", str(config)]
    process = subprocess.Popen(command, env={**environment, VARIABLE: str(folder)}, stderr=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def says(config: Path, *words: str) -> str:
    command = [sys.executable, "-m", "m3node", *words, "--config", str(config)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_an_object_that_kills_its_sender_each_time_becomes_a_dead_letter_and_can_be_requeued(
    layout: DataLayout,
) -> None:
    with fake_pacs() as pacs:
        queue(layout, pacs.destination())
        config = started(layout, pacs)
        for number in range(1, LIMIT + 1):
            with delivering(config, "store.inside") as process:
                assert process.wait(90) == -signal.SIGKILL
            assert starts_left(box_of(layout, "pacs"), NAME) == number
        assert len(pacs.offered) == LIMIT
        with delivering(config):
            wait_for(lambda: len(sent(layout)) == 3 and aside(layout))
            (dead,) = json.loads(says(config, "status", "--json"))["dead"]
            assert (dead["count"], dead["oldest"]) == (1, f"pacs/{NAME}")
            assert "died 2 times while sending it" in dead["last_error"]
            assert "queued for pacs again" in says(config, "requeue", f"pacs/{NAME}")
            wait_for(lambda: len(sent(layout)) == 4)
    assert list(box_of(layout, "pacs").folder.glob("*.starts")) == []


def test_an_attempt_that_ends_in_order_leaves_no_start_whatever_it_came_to(layout: DataLayout) -> None:
    with fake_pacs(0xA700) as pacs:
        queue(layout, pacs.destination())
        for _ in range(5):
            go(layout, pacs.destination(), QUICK.model_copy(update={"retry_max_seconds": 1e-9}))
        assert {entry.attempts for entry in left(layout).values()} == {5}
        pacs.answer = 0x0000
        assert go(layout, pacs.destination(), QUICK.model_copy(update={"retry_max_seconds": 1e-9})) == Round(stored=4)
    assert list(box_of(layout, "pacs").folder.glob("*.starts")) == []


def test_what_has_waited_long_is_not_given_up_with_an_object_that_is_set_aside_by_itself(layout: DataLayout) -> None:
    with fake_pacs() as pacs:
        destination = pacs.destination()
    queue(layout, destination)
    box = box_of(layout, "pacs")
    for entry in left(layout).values():
        assert rewrite(box, entry, replace(entry, queued_at=1.0))
    box.starts(NAME).write_text("1\n" * 3)
    with courier_for(layout, destination) as courier:
        courier.reach.unreachable("pacs", NAME, "no connection")
        settings = settings_for(layout, destination)
        deliver_due(layout, destination, settings, courier, first=NAME)
    assert set(aside(layout)) == {SEG}
    assert sum(entry.attempts for entry in left(layout).values()) == 1


def test_starts_that_a_kill_left_behind_do_not_count_once_it_is_filed_or_requeued(layout: DataLayout) -> None:
    with fake_pacs() as pacs:
        queue_one(layout, pacs.destination())
    box = box_of(layout, "pacs")
    (entry,) = left(layout).values()
    box.starts(entry.name).write_text("1\n")
    file_sent(box, entry)
    assert starts_left(box, entry.name) == 0
    (box.sent / f"{entry.name}.json").rename(box.aside / f"{entry.name}.json")
    box.starts(entry.name).write_text("1\n2\n3\n")
    assert requeue(layout, "pacs", entry.name) is not None
    assert starts_left(box, entry.name) == 0


def test_an_object_is_not_offered_whose_start_the_disk_refuses_to_note(
    layout: DataLayout, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(association: StoreAssociation, item: object) -> None:
        raise AssertionError("it was sent")

    monkeypatch.setattr(StoreAssociation, "send", never)
    with fake_pacs() as pacs, courier_for(layout, pacs.destination()) as courier:
        queue_one(layout, pacs.destination())
        (entry,) = left(layout).values()
        box_of(layout, "pacs").starts(entry.name).mkdir()
        with pytest.raises(OSError, match=r"[Dd]irectory"):
            attempt(layout, pacs.destination(), entry.name, settings_for(layout, pacs.destination()), courier)
    assert set(left(layout)) == {entry.kind}
