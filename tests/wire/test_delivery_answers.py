"""What a peer's status makes of an object: stored, tried again, or set aside."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from delivering import PATIENT, QUICK, SEG, aside, for_class, go, left, queue, queue_one
from pydicom.dataset import Dataset
from pydicom.uid import SegmentationStorage
from pynetdicom.events import Event

from fake_pacs import fake_pacs
from m3node.delivery.rounds import Round
from m3node.layout import DataLayout
from m3node.settings import DeliverySettings
from waiting import wait_for


@pytest.fixture
def layout(tmp_path: Path) -> DataLayout:
    layout = DataLayout(tmp_path / "data")
    layout.create()
    return layout


@pytest.mark.parametrize("status", [0x0000, 0xB000, 0xB006, 0xB007, 0xBFFF])
def test_success_and_warnings_mean_stored(layout: DataLayout, status: int) -> None:
    with fake_pacs(status) as pacs:
        queue(layout, pacs.destination())
        assert go(layout, pacs.destination()) == Round(stored=4)
    assert left(layout) == {}


@pytest.mark.parametrize("status", [0xA900, 0xC000, 0xC123, 0x0122, 0x0117, 0x0124, 0x4321])
def test_an_object_that_is_refused_is_set_aside_and_the_others_go_on(layout: DataLayout, status: int) -> None:
    with fake_pacs(for_class(str(SegmentationStorage), status)) as pacs:
        queue(layout, pacs.destination())
        assert go(layout, pacs.destination()) == Round(stored=3, aside=1)
        assert pacs.associations == 1
        assert go(layout, pacs.destination()) == Round()
    assert set(aside(layout)) == {SEG}
    assert aside(layout)[SEG].startswith(f"0x{status:04X} ")


@pytest.mark.parametrize("status", [0xA700, 0xA701, 0x0110])
def test_an_object_that_the_peer_has_no_room_for_waits_and_the_others_go_on(layout: DataLayout, status: int) -> None:
    with fake_pacs(for_class(str(SegmentationStorage), status)) as pacs:
        queue(layout, pacs.destination())
        before = time.time()
        assert go(layout, pacs.destination()) == Round(stored=3, put_off=1)
        entry = left(layout)[SEG]
        assert entry.attempts == 1
        assert entry.not_before >= before + QUICK.retry_first_seconds
        pacs.answer = 0x0000
        wait_for(lambda: go(layout, pacs.destination()).stored == 1)
        assert pacs.associations == 2
    assert left(layout) == {}


def test_each_failed_attempt_backs_off_by_its_own_count(layout: DataLayout, monkeypatch: pytest.MonkeyPatch) -> None:
    failures: list[int] = []

    def count(before: int, delivery: DeliverySettings) -> float:
        failures.append(before)
        return 0.0

    monkeypatch.setattr("m3node.delivery.attempt.back_off", count)
    with fake_pacs(0xA700) as pacs:
        queue_one(layout, pacs.destination())
        for _ in range(4):
            go(layout, pacs.destination())
    assert failures == [0, 1, 2, 3]


def test_an_object_that_is_put_off_is_not_offered_before_its_time(layout: DataLayout) -> None:
    with fake_pacs(0xA700) as pacs:
        queue_one(layout, pacs.destination())
        assert go(layout, pacs.destination(), PATIENT) == Round(put_off=1)
        assert go(layout, pacs.destination(), PATIENT) == Round()
        assert len(pacs.offered) == 1


def test_a_status_data_set_with_an_error_comment_is_read_by_its_status_alone(layout: DataLayout) -> None:
    def refuse(event: Event) -> Dataset:
        status = Dataset()
        status.Status = 0xC001
        status.ErrorComment = "Doe^Jane is unknown"
        return status

    with fake_pacs(refuse) as pacs:
        queue(layout, pacs.destination())
        assert go(layout, pacs.destination()) == Round(aside=4)
    assert set(aside(layout).values()) == {"0xC001 cannot understand"}
