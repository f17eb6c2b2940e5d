"""Who gets what: by the rules of the settings, and back to the sender where the settings say so."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from m3node.results.objects import ObjectKind, ResultObject
from m3node.settings import Destination, RoutingRule, Settings

_NAMES = {
    ObjectKind.REPORT: "report",
    ObjectKind.REPORT_ENHANCED: "report",
    ObjectKind.VOLUMES: "volumes",
    ObjectKind.VOLUMES_ENHANCED: "volumes",
    ObjectKind.SEGMENTATION: "segmentation",
    ObjectKind.PRESENTATION: "presentation",
    ObjectKind.ATTENTION_CAPTURE: "attention",
    ObjectKind.ATTENTION_MAP: "attention",
}
"""Kinds of object as rules name them: Enhanced SR is another form of the same report."""


def destinations_for(settings: Settings, senders: Collection[str], kind: ObjectKind) -> tuple[Destination, ...]:
    """Return who gets a kind of object, in the order of the settings.

    Without a rule everybody does. With rules, whoever a rule names that matches; all rules are looked at. A sender's
    own destination (``return_to``) gets every kind besides.

    Parameters
    ----------
    settings : Settings
        The tree.
    senders : collection of str
        Calling AE titles that delivered the series.
    kind : ObjectKind
        What is to be sent.
    """
    if not settings.routing:
        return settings.destinations
    wanted = {name for rule in settings.routing if _matches(rule, senders, kind) for name in rule.destinations}
    wanted |= {caller.return_to for caller in settings.listener.callers if caller.ae_title in senders}
    return tuple(destination for destination in settings.destinations if destination.name in wanted)


def routed(
    settings: Settings, senders: Collection[str], objects: Sequence[ResultObject]
) -> tuple[tuple[Destination, tuple[ResultObject, ...]], ...]:
    """Return each destination that gets something of a run, with what it gets.

    `m3node.delivery.queueing.enqueue` leaves out of it the form of report that the destination does not take.
    """
    pairs = []
    for destination in settings.destinations:
        its = tuple(item for item in objects if destination in destinations_for(settings, senders, item.kind))
        if its:
            pairs.append((destination, its))
    return tuple(pairs)


def _matches(rule: RoutingRule, senders: Collection[str], kind: ObjectKind) -> bool:
    object_fits = not rule.objects or _NAMES[kind] in rule.objects
    sender_fits = not rule.senders or any(sender in rule.senders for sender in senders)
    return object_fits and sender_fits
