"""What in the limits of callers is allowed but seldom meant, said by ``m3node config check``."""

from __future__ import annotations

from collections.abc import Iterator

from m3node.intake.receive.rates import LONGEST_PAUSE
from m3node.settings import Settings

_LIMITS = ("max_associations", "instances_per_minute", "max_object_mb", "maximum_pdu_size", "idle_seconds")


def find_limit_surprises(settings: Settings) -> Iterator[str]:
    """Say it, one sentence each."""
    listener = settings.listener
    for caller in listener.callers:
        for name in _LIMITS:
            own, of_all = getattr(caller, name), getattr(listener, name)
            if own is not None and of_all and own > of_all:
                yield (
                    f"{name} of listener.callers {caller.ae_title} has no effect: it is {own:g}, "
                    f"and listener.{name} is {of_all:g}"
                )
    rates = [(caller.instances_per_minute or 0, f"listener.callers {caller.ae_title}") for caller in listener.callers]
    for rate, where in [(listener.instances_per_minute, "listener"), *rates]:
        if 0 < rate < 60 / LONGEST_PAUSE:
            yield (
                f"instances_per_minute of {where} is {rate}: an instance would wait for {60 / rate:g} s, so it is "
                f"refused (0xA700) and not answered later; what a sender does not repeat is lost to this node"
            )
