"""The conditions of the ablation: what the detector is shown, and whether it is steered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from m3node.errors import ConfigError
from m3node.settings import DetectorSettings, SteeringMode

HARD = "hard"
"""In a sweep, stands among the α for the hard mode."""


class Shown(StrEnum):
    """What the detector is shown of a slice."""

    SLICE = "slice"
    CROP = "crop"
    METHOD = "method"


@dataclass(frozen=True, slots=True)
class Condition:
    """One way to run a detector.

    Attributes
    ----------
    key : str
        Short name; part of file names.
    title : str
        In tables and plots.
    shown : Shown
        The whole slice once, one crop of it, or all that the method does.
    detector : DetectorSettings
        The detector with its steering.
    """

    key: str
    title: str
    shown: Shown
    detector: DetectorSettings


_TITLES = {
    "full": ("full slice", Shown.SLICE),
    "crop": ("crop", Shown.CROP),
    "steered": ("full slice, steered", Shown.SLICE),
    "crop-steered": ("crop, steered", Shown.CROP),
    "method": ("whole method", Shown.METHOD),
    "method-unsteered": ("whole method, not steered", Shown.METHOD),
}
CONDITIONS = tuple(_TITLES)
"""Keys of all conditions."""

_UNSTEERED = frozenset({"full", "crop", "method-unsteered"})
_DEFAULT = ("full", "crop", "steered", "crop-steered", "method")


def can_be_steered(settings: DetectorSettings) -> bool:
    """Whether the detector that the settings name has steering."""
    return hasattr(getattr(settings, settings.name.replace("-", "_"), None), "steering")


def make_conditions(settings: DetectorSettings, wanted: Sequence[str] = ()) -> tuple[Condition, ...]:
    """Make the conditions of the ablation.

    Parameters
    ----------
    settings : DetectorSettings
        The steered conditions are steered as they say; where they say ``off``, softly.
    wanted : sequence of str
        Keys; all but ``method-unsteered`` without them, and only the ones without steering for a detector that has
        none.

    Raises
    ------
    ConfigError
        There is no such condition, or not for this detector.
    """
    steerable = can_be_steered(settings)
    keys = list(dict.fromkeys(wanted)) or [key for key in _DEFAULT if steerable or "steered" not in key]
    if unknown := [key for key in keys if key not in _TITLES]:
        raise ConfigError(f"there is no condition {unknown[0]!r}; known are {', '.join(CONDITIONS)}")
    if not steerable and (wrong := [key for key in keys if "steered" in key]):
        raise ConfigError(f"the detector {settings.name!r} has no steering: leave out {', '.join(wrong)}")
    conditions = []
    for key in keys:
        title, shown = _TITLES[key]
        if not steerable:
            detector = settings
        elif key in _UNSTEERED:
            detector = _steered(settings, mode=SteeringMode.OFF)
        else:
            own = getattr(settings, settings.name).steering
            detector = settings if own.mode is not SteeringMode.OFF else _steered(settings, mode=SteeringMode.SOFT)
        conditions.append(Condition(key=key, title=title, shown=shown, detector=detector))
    return tuple(conditions)


def swept(
    conditions: Sequence[Condition], alphas: Sequence[str], layers: Sequence[tuple[int, int]]
) -> tuple[Condition, ...]:
    """Put a grid of steerings in the place of each steered single view; the others stay.

    Parameters
    ----------
    conditions : sequence of Condition
        As `make_conditions` made them.
    alphas : sequence of str
        Numbers above 0, or ``hard``.
    layers : sequence of (int, int)
        First and last steered layer, both included.

    Raises
    ------
    ConfigError
        Nothing is steered, or a value is none.
    """
    if not any(condition.key in {"steered", "crop-steered"} for condition in conditions):
        raise ConfigError("a sweep needs the condition steered or crop-steered, of a detector that has steering")
    grid: list[Condition] = []
    for condition in conditions:
        if condition.key not in {"steered", "crop-steered"}:
            grid.append(condition)
            continue
        for first, last in dict.fromkeys(layers):
            for alpha in dict.fromkeys(alphas):
                change: dict[str, Any] = {"layers": (first, last)}
                if alpha == HARD:
                    change["mode"] = SteeringMode.HARD
                else:
                    change |= {"mode": SteeringMode.SOFT, "alpha": _positive(alpha)}
                grid.append(
                    Condition(
                        key=f"{condition.key}.l{first}-{last}.a{alpha}",
                        title=f"{condition.title}: layers {first}–{last}, {'hard' if alpha == HARD else f'α {alpha}'}",
                        shown=condition.shown,
                        detector=_steered(condition.detector, **change),
                    )
                )
    return tuple(grid)


def layer_ranges(first: int, last: int) -> tuple[tuple[int, int], ...]:
    """Return the ranges a sweep takes by default: all layers, those before the steered ones, and the steered ones."""
    return tuple(dict.fromkeys(((0, last), *(((0, first - 1),) if first else ()), (first, last))))


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0.0 < value < float("inf"):
        raise ConfigError(f"a sweep's alpha is a number above 0, or {HARD}; {text!r} is neither")
    return value


def _steered(settings: DetectorSettings, **change: Any) -> DetectorSettings:
    section = getattr(settings, settings.name)
    steering = type(section.steering).model_validate({**section.steering.model_dump(), **change})
    return settings.model_copy(update={settings.name: section.model_copy(update={"steering": steering})})
