"""Who gets what: everything for everybody without rules, what the rules say with them, and back to the sender."""

from __future__ import annotations

from pathlib import Path

import pytest

from fake_pacs import make_run
from m3node.delivery.outbox import box_of, waiting
from m3node.delivery.queueing import enqueue
from m3node.delivery.routing import destinations_for, routed
from m3node.layout import DataLayout
from m3node.results.objects import ObjectKind
from m3node.settings import Caller, Destination, ListenerSettings, RoutingRule, Settings


def destination(name: str, sr: str = "comprehensive3d") -> Destination:
    return Destination(name=name, ae_title="PACS", host="127.0.0.1", port=104, sr=sr)


def settings(*rules: RoutingRule, callers: tuple[Caller, ...] = ()) -> Settings:
    return Settings(
        destinations=(destination("pacs"), destination("viewer"), destination("research", sr="enhanced")),
        routing=rules,
        listener=ListenerSettings(callers=callers),
    )


def who(tree: Settings, kind: ObjectKind, *senders: str) -> list[str]:
    return [item.name for item in destinations_for(tree, senders, kind)]


@pytest.mark.parametrize("kind", ObjectKind)
def test_without_a_rule_every_destination_gets_everything(kind: ObjectKind) -> None:
    assert who(settings(), kind, "CT1") == ["pacs", "viewer", "research"]


def test_a_rule_for_a_kind_of_object_sends_it_there_and_nothing_else() -> None:
    tree = settings(RoutingRule(objects=("report",), destinations=("pacs",)))
    assert who(tree, ObjectKind.REPORT, "CT1") == ["pacs"]
    assert who(tree, ObjectKind.REPORT_ENHANCED, "CT1") == ["pacs"]
    assert who(tree, ObjectKind.SEGMENTATION, "CT1") == []


def test_an_object_goes_to_the_destinations_of_every_rule_that_matches_each_once() -> None:
    tree = settings(
        RoutingRule(destinations=("viewer",)),
        RoutingRule(objects=("segmentation",), destinations=("viewer", "pacs")),
    )
    assert who(tree, ObjectKind.SEGMENTATION, "CT1") == ["pacs", "viewer"]
    assert who(tree, ObjectKind.PRESENTATION, "CT1") == ["viewer"]


def test_a_rule_for_a_sender_holds_for_what_one_of_the_series_senders_is() -> None:
    tree = settings(RoutingRule(senders=("CT1",), destinations=("pacs",)))
    assert who(tree, ObjectKind.REPORT, "CT2", "CT1") == ["pacs"]
    assert who(tree, ObjectKind.REPORT, "CT2") == []


def test_what_a_sender_brought_goes_back_to_it_besides_where_the_rules_say() -> None:
    callers = (Caller(ae_title="CT1", return_to="viewer"), Caller(ae_title="CT2"))
    tree = settings(RoutingRule(objects=("report",), destinations=("pacs",)), callers=callers)
    assert who(tree, ObjectKind.REPORT, "CT1") == ["pacs", "viewer"]
    assert who(tree, ObjectKind.SEGMENTATION, "CT1") == ["viewer"]
    assert who(tree, ObjectKind.SEGMENTATION, "CT2") == []


def test_routed_objects_wait_where_they_go_in_the_form_that_is_taken_there(tmp_path: Path) -> None:
    layout = DataLayout(tmp_path)
    layout.create()
    tree = settings(
        RoutingRule(objects=("report",), destinations=("pacs", "research")),
        RoutingRule(objects=("segmentation",), destinations=("research",)),
    )
    for to, objects in routed(tree, ("CT1",), make_run(layout, "1.2.3.g1", list(ObjectKind))):
        enqueue(layout, "1.2.3.g1", objects, [to])
    assert {
        name: [entry.kind for entry in waiting(box_of(layout, name))] for name in ("pacs", "viewer", "research")
    } == {
        "pacs": ["report.sr"],
        "viewer": [],
        "research": ["segmentation.seg", "report.enhanced.sr"],
    }
