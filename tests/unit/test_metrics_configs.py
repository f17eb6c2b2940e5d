"""Dashboard, alerts and document name metrics, labels and values that there are."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from documents.markers import blocks
from documents.metrics import metric_tables
from m3node.metrics import families

ROOT = Path(__file__).parents[2]
DASHBOARD = json.loads((ROOT / "configs" / "grafana" / "m3node.json").read_text(encoding="utf-8"))
RULES = yaml.safe_load((ROOT / "configs" / "prometheus" / "m3node.rules.yml").read_text(encoding="utf-8"))
SCRAPE = yaml.safe_load((ROOT / "configs" / "prometheus" / "scrape.yml").read_text(encoding="utf-8"))
ALERTS = RULES["groups"][0]["rules"]

SAMPLES = {
    **{family.shown: family for family in families.FAMILIES if family.kind != "histogram"},
    **{
        f"{family.shown}_{end}": family
        for family in families.FAMILIES
        if family.kind == "histogram"
        for end in ("bucket", "sum", "count")
    },
}
"""Every name that a query can ask for."""
OF_PROMETHEUS = {"instance", "job"}
STATES = ("queued", "running", "waiting", "failed", "retrying", "unknown", "stored", "dead")
CHECKS = ("disk",)

_SELECTOR = re.compile(r"\b(m3node_\w+)(?:\{([^}]*)\})?")
_MATCHER = re.compile(r'(\w+)\s*(?:=~|=)\s*"([^"]*)"')
_BY = re.compile(r"by \(([^)]*)\)")


def queries() -> Iterator[tuple[str, str]]:
    """Each query and the text that names its labels."""
    for panel in DASHBOARD["panels"]:
        for target in panel.get("targets", ()):
            yield target["expr"], target["legendFormat"]
    for rule in ALERTS:
        yield rule["expr"], " ".join(rule["annotations"].values())


@pytest.mark.parametrize(("query", "text"), list(queries()), ids=lambda text: text[:60])
def test_a_query_asks_for_what_there_is(query: str, text: str) -> None:
    assert query.count("(") == query.count(")")
    asked = _SELECTOR.findall(query)
    assert asked or query == 'up{job="m3node"} == 0'
    labels = set(OF_PROMETHEUS)
    for name, matchers in asked:
        assert name in SAMPLES, name
        family = SAMPLES[name]
        own = {*family.labels, *OF_PROMETHEUS}
        labels |= own
        for label, value in _MATCHER.findall(matchers):
            assert label in own, f"{name} has no label {label}"
            if label not in OF_PROMETHEUS:
                assert set(value.split("|")) <= {*family.words, *STATES, *CHECKS}, value
        if name.endswith("_bucket"):
            labels.add("le")
    grouped = {label.strip() for names in _BY.findall(query) for label in names.split(",")}
    assert grouped <= labels
    # A legend names what is left after grouping; an alert what its series have.
    named = set(re.findall(r"\{\{\s*(?:\$labels\.)?(\w+)\s*\}\}", text))
    assert named <= (grouped - {"le"} if grouped else labels)


def test_every_metric_is_on_the_dashboard_but_those_that_only_describe() -> None:
    shown = " ".join(query for query, _ in queries())
    unused = {family.shown for family in families.FAMILIES if f"{family.shown}" not in shown}
    assert unused == {"m3node_build_info", "m3node_studies"}


def test_the_dashboard_can_be_imported_into_any_grafana() -> None:
    (source,) = DASHBOARD["__inputs"]
    assert (source["type"], source["pluginId"]) == ("datasource", "prometheus")
    panels = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
    assert {panel["datasource"]["uid"] for panel in panels} == {f"${{{source['name']}}}"}
    numbers = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(numbers)) == len(numbers)
    assert {panel["type"] for panel in panels} <= {item["id"] for item in DASHBOARD["__requires"]}


UNITS = {"none", "short", "s", "ops", "Bps", "decbytes", "percentunit"}
"""Of Grafana's, those that fit what we count: bytes by thousands, as the rest of the node says them."""


def test_a_panel_has_what_grafana_wants_of_it() -> None:
    for panel in DASHBOARD["panels"]:
        if panel["type"] == "row":
            assert (panel["collapsed"], panel["panels"]) == (False, [])
            continue
        shown = panel["fieldConfig"]["defaults"]
        assert shown["unit"] in UNITS
        references = [target["refId"] for target in panel["targets"]]
        assert len(set(references)) == len(references)
        assert all(target["datasource"] == panel["datasource"] for target in panel["targets"])
        if panel["type"] == "stat":
            steps = [step["value"] for step in shown["thresholds"]["steps"]]
            assert steps[0] is None
            assert steps[1:] == sorted(steps[1:])


def test_no_panel_lies_on_another() -> None:
    taken: dict[tuple[int, int], str] = {}
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                assert taken.setdefault((x, y), panel["title"]) == panel["title"]


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: rule["alert"])
def test_an_alert_says_what_is_wrong_and_what_to_do(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in {"warning", "critical"}
    assert set(rule["annotations"]) == {"summary", "description"}
    assert re.fullmatch(r"[1-9]\d*[smh]", rule.get("for", "5m"))
    assert "uid" not in json.dumps(rule).lower()


def test_alerts_have_names_of_their_own() -> None:
    names = [rule["alert"] for rule in ALERTS]
    assert len(set(names)) == len(names) >= 15


def test_prometheus_asks_the_page_with_its_token() -> None:
    (job,) = SCRAPE["scrape_configs"]
    assert job["job_name"] == "m3node"
    assert job["authorization"]["credentials_file"]
    assert job["static_configs"][0]["targets"][0].endswith(":11180")


def test_the_document_shows_every_metric_as_the_code_has_it() -> None:
    document = blocks((ROOT / "docs" / "monitoring.md").read_text(encoding="utf-8"))
    assert document == metric_tables()  # make docs writes them
