"""Which series are urgent (STAT): a sender said so, all of a sender's are, or a rule of the site finds them."""

from __future__ import annotations

import re
from collections.abc import Iterable

from m3node.intake.series.header import InstanceHeader
from m3node.settings import PriorityRule, Settings

STAT, ROUTINE = "stat", "routine"
"""What a manifest's ``priority`` is."""


def is_urgent(headers: Iterable[InstanceHeader], settings: Settings, *, asked: bool) -> bool:
    """Decide whether instances are urgent.

    Parameters
    ----------
    headers : iterable of InstanceHeader
        A stack's or a series'.
    settings : Settings
        ``listener.callers`` and ``priority`` count.
    asked : bool
        Whether a C-STORE request of the series had Priority HIGH (PS3.7 9.3.1.1).
    """
    if asked:
        return True
    headers = tuple(headers)
    senders = {header.sender for header in headers}
    if any(caller.stat and caller.ae_title in senders for caller in settings.listener.callers):
        return True
    if not settings.priority:
        return False
    descriptions = {header.series_description for header in headers}
    protocols = {header.protocol_name for header in headers}
    return any(_matches(rule, descriptions, protocols, senders) for rule in settings.priority)


def _matches(rule: PriorityRule, descriptions: set[str], protocols: set[str], senders: set[str]) -> bool:
    pairs = ((rule.description, descriptions), (rule.protocol, protocols), (rule.sender, senders))
    return all(
        not pattern or any(re.search(pattern, value, re.IGNORECASE) for value in values) for pattern, values in pairs
    )
