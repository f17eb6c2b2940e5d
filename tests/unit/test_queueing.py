"""A run is queued once for each destination: what it wants, in the order in which it can use it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from fake_pacs import make_run
from m3node.delivery.outbox import (
    box_of,
    file_sent,
    set_aside,
    waiting,
)
from m3node.delivery.queueing import enqueue, kinds_for
from m3node.errors import DeliveryError
from m3node.layout import DataLayout
from m3node.results.objects import ObjectKind
from queued import RUN, destination, kinds_waiting


@pytest.fixture
def layout(tmp_path: Path) -> DataLayout:
    layout = DataLayout(tmp_path / "data")
    layout.create()
    return layout


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
        monkeypatch.setattr("m3node.delivery.queueing.time.time", lambda at=at: at)
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
