"""Each thing that is asked of a part of a level is enough by itself to say that it is no focus."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from m3node.detectors.contrast.judging import HYPERDENSE, HYPODENSE, Blob

BALL = Blob(
    part=(slice(0, 1), slice(0, 1), slice(0, 1)),
    inside=np.ones((1, 1, 1), dtype=np.bool_),
    radius=10.0,
    thickness=0.9,
    length=1.1,
    widening=2.0,
    surround=1.0,
    foreign=0.0,
    tissue_hu=60.0,
    core_hu=40.0,
    shell_hu=0.0,
    sd=5.0,
)
"""Nearly a ball of 10 mm radius, wholly inside even liver, 40 HU darker."""

LEAST_SURROUND = HYPODENSE.min_surround[1]

NO_FOCUS: dict[str, dict[str, Any]] = {
    "a tube": {"length": HYPODENSE.max_length + 0.1},
    "a star": {"thickness": HYPODENSE.min_compactness * BALL.length - 0.01},
    "no thicker than what it is part of": {"widening": HYPODENSE.min_widening - 0.1},
    "half outside the liver": {"surround": LEAST_SURROUND - 0.01},
    "small and at the border": {"radius": HYPODENSE.surround_radii_mm[0], "surround": HYPODENSE.min_surround[0] - 0.01},
    "water at the border": {"tissue_hu": HYPODENSE.water_hu - 1, "surround": HYPODENSE.min_water_surround - 0.01},
    "beside what is no liver": {"foreign": HYPODENSE.max_foreign[2] + 0.01},
    "irregular beside what is no liver": {"foreign": 0.2, "thickness": 0.45},
    "hardly darker": {"core_hu": HYPODENSE.min_contrast_hu - 1, "sd": 1.0},
    "hardly darker than the noise": {"core_hu": 5.0 * HYPODENSE.min_contrast_sd[1] - 1, "sd": 5.0, "radius": 12.0},
    "a little of everything": {"core_hu": 17.0, "sd": 5.0, "thickness": 0.45, "surround": 0.6, "radius": 6.0},
}


@pytest.mark.parametrize("rule", [HYPODENSE, HYPERDENSE], ids=["hypodense", "hyperdense"])
def test_a_ball_inside_the_liver_is_a_focus(rule: Any) -> None:
    assert BALL.fits(rule)


def test_a_single_place_of_a_coarse_grid_counts_as_compact() -> None:
    assert replace(BALL, length=0.0).compactness == 1.0


@pytest.mark.parametrize("what", NO_FOCUS)
def test_one_thing_against_it_is_enough(what: str) -> None:
    assert not replace(BALL, **NO_FOCUS[what]).fits(HYPODENSE)


@pytest.mark.parametrize(
    "change",
    [
        {"surround": LEAST_SURROUND + 0.01},
        {"tissue_hu": HYPODENSE.water_hu - 1},
        {"foreign": 0.2},
        {"thickness": 0.45},
    ],
    ids=["at the capsule", "a cyst", "beside a vessel", "irregular"],
)
def test_what_is_only_unusual_is_a_focus(change: dict[str, float]) -> None:
    assert replace(BALL, **change).fits(HYPODENSE)


@pytest.mark.parametrize("change", [{"surround": 0.8}, {"foreign": 0.15}, {"length": 1.6}, {"thickness": 0.55}])
def test_what_is_bright_must_be_nearly_a_ball_wholly_inside_the_liver(change: dict[str, float]) -> None:
    assert replace(BALL, **change).fits(HYPODENSE)
    assert not replace(BALL, **change).fits(HYPERDENSE)
