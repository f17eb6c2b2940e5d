"""Which conditions the ablation has, for which detector, and what a sweep makes of them."""

from __future__ import annotations

import pytest

from m3node.errors import ConfigError
from m3node.evaluation.ablation.conditions import Condition, Shown, layer_ranges, make_conditions, swept
from m3node.settings import DetectorSettings, MedGemmaSettings, SteeringMode, SteeringSettings

CONTRAST = DetectorSettings()
MEDGEMMA = DetectorSettings(name="medgemma", medgemma=MedGemmaSettings(steering=SteeringSettings(alpha=3.0)))


def mode(condition: Condition) -> SteeringMode:
    return condition.detector.medgemma.steering.mode


def test_a_detector_without_steering_has_the_conditions_without() -> None:
    assert [condition.key for condition in make_conditions(CONTRAST)] == ["full", "crop", "method"]
    with pytest.raises(ConfigError, match="'contrast' has no steering: leave out steered, method-unsteered"):
        make_conditions(CONTRAST, ["full", "steered", "method-unsteered"])


def test_a_steered_detector_is_compared_with_itself_unsteered() -> None:
    conditions = {condition.key: condition for condition in make_conditions(MEDGEMMA)}
    assert list(conditions) == ["full", "crop", "steered", "crop-steered", "method"]
    assert {key: mode(condition) for key, condition in conditions.items()} == {
        "full": SteeringMode.OFF,
        "crop": SteeringMode.OFF,
        "steered": SteeringMode.SOFT,
        "crop-steered": SteeringMode.SOFT,
        "method": SteeringMode.SOFT,
    }
    assert conditions["method"].detector == MEDGEMMA
    assert conditions["steered"].detector == MEDGEMMA
    assert {key: condition.shown for key, condition in conditions.items()} == {
        "full": Shown.SLICE,
        "crop": Shown.CROP,
        "steered": Shown.SLICE,
        "crop-steered": Shown.CROP,
        "method": Shown.METHOD,
    }
    (unsteered,) = make_conditions(MEDGEMMA, ["method-unsteered", "method-unsteered"])
    assert (unsteered.shown, mode(unsteered)) == (Shown.METHOD, SteeringMode.OFF)
    assert unsteered.detector.medgemma.steering.alpha == 3.0


def test_where_the_settings_say_off_the_steered_conditions_are_steered_all_the_same() -> None:
    off = DetectorSettings(name="medgemma", medgemma=MedGemmaSettings(steering=SteeringSettings(mode=SteeringMode.OFF)))
    assert [mode(condition) for condition in make_conditions(off, ["steered", "full"])] == [
        SteeringMode.SOFT,
        SteeringMode.OFF,
    ]


def test_an_unknown_condition_is_named() -> None:
    with pytest.raises(ConfigError, match="there is no condition 'corp'; known are full, crop"):
        make_conditions(MEDGEMMA, ["corp"])


def test_a_sweep_is_a_grid_in_the_place_of_each_steered_view() -> None:
    grid = swept(make_conditions(MEDGEMMA, ["crop", "crop-steered", "method"]), ["2", "hard"], [(0, 26), (14, 26)])
    assert [condition.key for condition in grid] == [
        "crop",
        "crop-steered.l0-26.a2",
        "crop-steered.l0-26.ahard",
        "crop-steered.l14-26.a2",
        "crop-steered.l14-26.ahard",
        "method",
    ]
    steering = grid[1].detector.medgemma.steering
    assert (steering.mode, steering.alpha, steering.layers) == (SteeringMode.SOFT, 2.0, (0, 26))
    assert mode(grid[2]) is SteeringMode.HARD
    assert [condition.title for condition in grid[1:3]] == [
        "crop, steered: layers 0–26, α 2",
        "crop, steered: layers 0–26, hard",
    ]
    assert {condition.shown for condition in grid[1:5]} == {Shown.CROP}
    assert [condition.detector for condition in (grid[0], grid[-1])] == [
        condition.detector for condition in make_conditions(MEDGEMMA, ["crop", "method"])
    ]


def test_what_is_named_twice_in_a_sweep_is_run_once() -> None:
    grid = swept(make_conditions(MEDGEMMA, ["steered"]), ["2", "hard", "2"], [(0, 3), (0, 3)])
    assert [condition.key for condition in grid] == ["steered.l0-3.a2", "steered.l0-3.ahard"]


@pytest.mark.parametrize("alpha", ["0", "-1", "much", "inf", "nan"])
def test_a_sweep_refuses_what_is_no_alpha(alpha: str) -> None:
    with pytest.raises(ConfigError, match="a sweep's alpha is a number above 0, or hard"):
        swept(make_conditions(MEDGEMMA), [alpha], [(0, 3)])


def test_a_sweep_needs_something_to_steer() -> None:
    with pytest.raises(ConfigError, match="needs the condition steered or crop-steered"):
        swept(make_conditions(CONTRAST), ["2"], [(0, 3)])


def test_a_sweep_takes_all_layers_the_earlier_and_the_later_ones() -> None:
    assert layer_ranges(14, 26) == ((0, 26), (0, 13), (14, 26))
    assert layer_ranges(0, 3) == ((0, 3),)
