"""``/metrics``: what all processes have counted, and how the node is just now, as Prometheus reads it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import accumulate

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.registry import Collector

from m3node import __version__
from m3node.audit.forwarded import standing
from m3node.delivery.state import DeliveryState
from m3node.health.checks import Check, Seen, seen_now
from m3node.health.roles import INTAKE, alive
from m3node.intake.receive.association import LeaseReader
from m3node.jobs.ledger.states import RunState
from m3node.jobs.ledger.view_types import DestinationView, Overview
from m3node.jobs.node.glance import Glance
from m3node.layout import DataLayout
from m3node.metrics.families import COUNTED, SECONDS, SEEN, Family
from m3node.metrics.snapshot import Counts, all_counts
from m3node.settings import Settings
from m3node.tls.in_use import certificates_in_use

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4
"""Of what `exposition` returns."""

_PROCESS = re.compile(r"[a-z]{1,16}(-\d{1,3})?")
_STATES = {"ok": 0, "warning": 1, "failed": 2}

Samples = Mapping[tuple[str, ...], float]
"""Values by those of the labels."""


def exposition(settings: Settings, now: float, node: Seen | None = None) -> bytes:
    """Return all metrics of a node, in Prometheus' text format.

    Parameters
    ----------
    settings : Settings
        The tree.
    now : float
        Seconds since the epoch.
    node : tuple of Glance and checks, optional
        The node as it was seen a moment ago; it is looked at without.
    """
    glance, checks = seen_now(settings, now) if node is None else node
    seen: dict[str, Samples] = {**_of_node(settings, now), **_of_checks(checks)}
    if glance is not None:
        seen |= _of_glance(settings, glance)
        seen |= _of_overview(settings, glance.overview, now)
    registry = CollectorRegistry()
    registry.register(_Everything(all_counts(DataLayout(settings.data_dir).metrics), seen, _destinations(settings)))
    return generate_latest(registry)


class _Everything(Collector):
    """What was counted and seen, as the library's families; escaping and format are the library's."""

    def __init__(self, counts: Counts, seen: Mapping[str, Samples], destinations: Sequence[str]) -> None:
        self._counts = counts
        self._seen = seen
        self._destinations = destinations

    def describe(self) -> Iterable[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        for family in COUNTED:
            yield self._times(family) if family.kind == "histogram" else self._counter(family)
        for family in SEEN:
            if self._seen.get(family.name):
                gauge = GaugeMetricFamily(family.shown, family.text, labels=family.labels)
                for labels, value in self._seen[family.name].items():
                    gauge.add_metric(labels, value)
                yield gauge

    def _counter(self, family: Family) -> Metric:
        metric = CounterMetricFamily(family.shown, family.text, labels=family.labels)
        samples = dict.fromkeys(self._from_the_start(family), 0.0)
        for key, amount in self._counts.totals.items():
            if key[0] == family.name and self._is_known(family, key[1:]):
                samples[key[1:]] = amount
        for labels, amount in samples.items():
            metric.add_metric(labels, amount)
        return metric

    def _from_the_start(self, family: Family) -> Iterator[tuple[str, ...]]:
        """Yield the labels that are there before anything was counted, so that a first event is seen as a rise."""
        if not family.labels:
            yield ()
        elif family.name == "deliveries":
            yield from ((name, word) for name in self._destinations for word in family.words)
        else:
            yield from ((word,) for word in family.words)

    def _is_known(self, family: Family, labels: tuple[str, ...]) -> bool:
        """Whether labels of a file are words of ours; a file may be of another release, or of somebody's making."""
        if len(labels) != len(family.labels):
            return False
        if family.name == "process_starts":
            return _PROCESS.fullmatch(labels[0]) is not None
        if family.name == "deliveries":
            return labels[0] in self._destinations and labels[1] in family.words
        return not labels or labels[0] in family.words

    def _times(self, family: Family) -> Metric:
        metric = HistogramMetricFamily(family.shown, family.text, labels=family.labels)
        bounds = [*(str(bound) for bound in SECONDS), "+Inf"]
        for word in family.words:
            counted, total = self._counts.times.get((word,), ((0,) * len(bounds), 0.0))
            metric.add_metric([word], list(zip(bounds, map(float, accumulate(counted)), strict=True)), total)
        return metric


def _of_node(settings: Settings, now: float) -> dict[str, Samples]:
    behind: Samples = {}
    oldest: Samples = {}
    certificates: dict[tuple[str, ...], float] = {
        (item.setting,): item.not_after - now
        for item in certificates_in_use(settings, now)
        if item.not_after is not None
    }
    with suppress(OSError):  # the check says so
        forwarded = standing(settings)
        if forwarded is not None:
            behind, oldest = {(): float(forwarded.behind)}, {(): _since(forwarded.since, now)}
    leases = LeaseReader(DataLayout(settings.data_dir).associations)
    leases.poll()
    return {
        "build_info": {(__version__,): 1},
        "associations_open": {(): len(leases.live(now))},
        "certificate_expiry_seconds": certificates,
        "audit_syslog_behind": behind,
        "audit_syslog_oldest_seconds": oldest,
    }


def _of_checks(checks: Sequence[Check]) -> dict[str, Samples]:
    return {"check_state": {(item.name,): _STATES[item.state] for item in checks}}


def _of_glance(settings: Settings, glance: Glance) -> dict[str, Samples]:
    roles: dict[tuple[str, ...], float] = {(role.name,): float(role.holder is not None) for role in glance.roles}
    roles |= {(name,): float(alive(settings, name, glance.at)) for name in INTAKE}
    return {
        "role_up": roles,
        "data_free_bytes": {(): 1e6 * glance.disk.free_mb},
        "data_total_bytes": {(): 1e6 * glance.disk.total_mb},
        "database_up": {(): float(glance.overview is not None)},
    }


def _of_overview(settings: Settings, overview: Overview | None, now: float) -> dict[str, Samples]:
    if overview is None:
        return {}
    known = {item.name: item for item in overview.destinations}
    # A destination that nothing was sent to yet is there, too: an alert on nothing would never come.
    views = [known.get(name, DestinationView(name, {}, None, None, "")) for name in _destinations(settings)]
    return {
        "studies": {(): overview.studies},
        "jobs": {(state.value,): overview.runs.get(state, 0) for state in RunState},
        "jobs_queued": {(priority,): overview.queued.get(priority, 0) for priority in ("routine", "stat")},
        "queue_oldest_seconds": {(): _since(overview.oldest_queued_at, now)},
        "outbox_objects": {(item.name, state): item.states.get(state, 0) for item in views for state in DeliveryState},
        "delivery_oldest_seconds": {(item.name,): _since(item.oldest_at, now) for item in views},
        "delivery_failing_seconds": {(item.name,): _since(item.failing_since, now) for item in views},
        "dead_letters": {(item.name,): item.states.get(DeliveryState.DEAD, 0) for item in views},
    }


def _since(at: float | None, now: float) -> float:
    return 0.0 if at is None else max(0.0, now - at)


def _destinations(settings: Settings) -> tuple[str, ...]:
    return tuple(destination.name for destination in settings.destinations)
