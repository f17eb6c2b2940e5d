"""Changes of an image: what each does, that a seed gives the same bytes, and where each pixel was before."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from m3node.attention.images.image import ImageKind, InputImage
from m3node.attention.robustness.draws import Draws, derived_seed
from m3node.attention.robustness.kinds import KINDS, Kind
from m3node.attention.robustness.perturbation import Perturbation, parse_list
from m3node.errors import ConfigError

DOCUMENT = Path(__file__).parents[2] / "docs" / "attention.md"

BODY = np.s_[20:70, 15:60]


def picture(rows: int = 90, columns: int = 80, spacing: tuple[float, float] = (1.0, 1.0)) -> InputImage:
    """A smooth picture with a body in it."""
    r, c = np.mgrid[:rows, :columns]
    grey = np.asarray(127 + 70 * np.sin(r / 9) * np.cos(c / 11), dtype=np.uint8)
    body = np.zeros((rows, columns), dtype=np.bool_)
    body[BODY] = True
    return InputImage(
        Path("made.png"),
        np.repeat(grey[..., None], 3, axis=2),
        ImageKind.XRAY,
        spacing,
        hu=np.zeros((rows, columns), dtype=np.float32),
        patient_left="right",
        patient_head="top",
        body=body,
    )


def with_spot(rows: int, columns: int, at: tuple[int, int], spacing: tuple[float, float] = (1.0, 1.0)) -> InputImage:
    """Black, with a white spot of 3 × 3 pixels around a pixel, which is also the body."""
    body = np.zeros((rows, columns), dtype=np.bool_)
    body[at[0] - 1 : at[0] + 2, at[1] - 1 : at[1] + 2] = True
    rgb = np.repeat(np.where(body, 255, 0).astype(np.uint8)[..., None], 3, axis=2)
    return InputImage(Path("spot.png"), rgb, ImageKind.XRAY, spacing, body=body)


def digest(rgb: np.ndarray) -> str:
    return hashlib.sha256(rgb.tobytes()).hexdigest()[:16]


def brightest(rgb: np.ndarray) -> np.ndarray:
    """Centre of mass of the grey levels, in edge coordinates."""
    weight = rgb[..., 0].astype(float)
    r, c = np.mgrid[: weight.shape[0], : weight.shape[1]] + 0.5
    return np.array([(weight * r).sum(), (weight * c).sum()]) / weight.sum()


@pytest.mark.parametrize("kind", Kind)
def test_the_same_seed_gives_the_same_bytes_and_the_original_stays(kind: Kind) -> None:
    image = picture()
    before = image.rgb.copy()
    change = Perturbation(kind, KINDS[kind].default, seed=7)
    once, again = change.apply(image), change.apply(image)
    assert once.image.rgb.tobytes() == again.image.rgb.tobytes()
    assert np.array_equal(once.to_original, again.to_original)
    assert np.array_equal(image.rgb, before)
    assert once.image.rgb.dtype == np.uint8
    assert not np.array_equal(once.image.rgb, before)
    assert once.image.hu is None
    assert once.image.body is not None
    assert once.image.body.shape == once.image.shape


@pytest.mark.parametrize("kind", [Kind.NOISE, Kind.PIXELS, Kind.CROP, Kind.PAD])
def test_another_seed_gives_other_bytes_where_there_is_chance(kind: Kind) -> None:
    image = picture()
    seen = {Perturbation(kind, KINDS[kind].default, seed).apply(image).image.rgb.tobytes() for seed in range(5)}
    assert len(seen) > 1


def test_bytes_by_chance_are_those_of_every_other_machine() -> None:
    grey = (np.arange(48 * 40) * 7 % 211).astype(np.uint8).reshape(48, 40, 1)
    image = InputImage(Path("x"), np.repeat(grey, 3, axis=2), ImageKind.XRAY)
    kinds = (Kind.NOISE, Kind.PIXELS, Kind.CROP, Kind.PAD)
    made = {
        kind.value: digest(Perturbation(kind, KINDS[kind].default, seed=3).apply(image).image.rgb) for kind in kinds
    }
    assert made == {
        "noise": "a1b4bd48f16967d8",
        "pixels": "fe2dd9130893393a",
        "crop": "c2e721c737c0dcc8",
        "pad": "22cd841eaaf8b749",
    }


@pytest.mark.parametrize("kind", Kind)
def test_no_strength_is_no_change_to_the_byte(kind: Kind) -> None:
    image = picture()
    same = Perturbation(kind, KINDS[kind].nothing, seed=5).apply(image)
    assert np.array_equal(same.image.rgb, image.rgb)
    assert np.array_equal(same.to_original, [[1, 0, 0], [0, 1, 0]])
    assert not Perturbation(kind, KINDS[kind].nothing).moves


def test_noise_has_the_asked_for_deviation_and_keeps_grey_grey() -> None:
    image = picture(300, 300)  # more rows than are worked on at a time
    noisy = Perturbation(Kind.NOISE, 8.0, seed=1).apply(image).image.rgb
    added = noisy.astype(float)[..., 0] - image.rgb[..., 0]
    assert added.std() == pytest.approx(8.0, rel=0.02)
    assert abs(added.mean()) < 0.1
    assert np.array_equal(noisy[..., 0], noisy[..., 2])
    # The parts that are worked on one after another are not the same noise again.
    assert abs(np.corrcoef(added[:40].ravel(), added[256:296].ravel())[0, 1]) < 0.05


def test_contrast_and_brightness_by_hand() -> None:
    levels = np.array([[0, 100, 200]], dtype=np.uint8)  # mean 100
    image = InputImage(Path("x"), np.repeat(levels[..., None], 3, axis=2), ImageKind.XRAY)
    assert Perturbation(Kind.CONTRAST, 0.5).apply(image).image.rgb[0, :, 1].tolist() == [50, 100, 150]
    assert Perturbation(Kind.CONTRAST, 2.0).apply(image).image.rgb[0, :, 1].tolist() == [0, 100, 255]
    assert Perturbation(Kind.BRIGHTNESS, 60).apply(image).image.rgb[0, :, 1].tolist() == [60, 160, 255]
    assert Perturbation(Kind.BRIGHTNESS, -120).apply(image).image.rgb[0, :, 1].tolist() == [0, 0, 80]


def test_blur_is_round_in_millimetres_and_as_wide_as_said() -> None:
    image = with_spot(200, 100, (100, 50), spacing=(1.0, 2.0))  # 200 mm × 200 mm
    blurred = Perturbation(Kind.BLUR, 0.03).apply(image).image.rgb[..., 0].astype(float)  # 6 mm
    r, c = np.mgrid[:200, :100] + 0.5
    middle = np.array([100.5, 50.5])
    down = np.sqrt((blurred * (r - middle[0]) ** 2).sum() / blurred.sum())
    across = 2.0 * np.sqrt((blurred * (c - middle[1]) ** 2).sum() / blurred.sum())
    assert down == pytest.approx(6.0, rel=0.1)
    assert across == pytest.approx(6.0, rel=0.1)


@pytest.mark.parametrize("kind", [Kind.BLUR, Kind.ROTATION])
def test_each_channel_of_a_coloured_image_is_its_own(kind: Kind) -> None:
    grey = picture()
    rgb = np.stack([grey.rgb[..., 0], grey.rgb[..., 0], 255 - grey.rgb[..., 0]], axis=2)
    change = Perturbation(kind, KINDS[kind].default)
    coloured = change.apply(replace(grey, rgb=rgb)).image.rgb
    for channel in range(3):
        alone = replace(grey, rgb=np.repeat(rgb[..., channel : channel + 1], 3, axis=2))
        assert np.array_equal(coloured[..., channel], change.apply(alone).image.rgb[..., 0])


def test_pixels_are_set_in_the_body_and_as_many_as_asked_for() -> None:
    image = picture()
    changed = Perturbation(Kind.PIXELS, 30, seed=2).apply(image).image.rgb
    where = (changed != image.rgb).any(axis=2)
    assert where.sum() == 30
    assert not where[~image.body].any()  # type: ignore[operator]
    assert set(changed[where].ravel().tolist()) == {0, 255}


def test_dots_grow_with_the_image_and_need_no_body() -> None:
    bare = InputImage(Path("x"), np.full((40, 2048, 3), 90, dtype=np.uint8), ImageKind.OTHER)
    changed = Perturbation(Kind.PIXELS, 1, seed=2).apply(bare).image.rgb
    assert (changed != bare.rgb).any(axis=2).sum() == 16


def test_no_more_pixels_are_set_than_the_body_has() -> None:
    image = with_spot(30, 30, (10, 10))
    changed = Perturbation(Kind.PIXELS, 500, seed=2).apply(image).image.rgb
    assert (changed != image.rgb).any(axis=2)[image.body].any()
    assert not (changed != image.rgb).any(axis=2)[~image.body].any()  # type: ignore[operator]


def test_a_positive_rotation_turns_counter_clockwise_and_brings_in_black() -> None:
    image = with_spot(101, 101, (50, 80))  # right of the middle
    turned = Perturbation(Kind.ROTATION, 90.0).apply(image).image
    assert brightest(turned.rgb).tolist() == pytest.approx([20.5, 50.5])  # above it
    white = InputImage(Path("x"), np.full((60, 60, 3), 255, dtype=np.uint8), ImageKind.XRAY)
    corners = Perturbation(Kind.ROTATION, 45.0).apply(white).image.rgb
    assert corners[0, 0].tolist() == [0, 0, 0]
    assert corners[30, 30].tolist() == [255, 255, 255]


def test_four_quarter_turns_are_none() -> None:
    image = picture(80, 80)
    now = image
    for _ in range(4):
        now = Perturbation(Kind.ROTATION, 90.0).apply(now).image
    assert np.array_equal(now.rgb, image.rgb)
    assert np.array_equal(now.body, image.body)


def test_the_patients_sides_are_forgotten_when_they_are_no_longer_the_images() -> None:
    image = picture()
    assert Perturbation(Kind.ROTATION, 10.0).apply(image).image.patient_left == "right"
    assert Perturbation(Kind.ROTATION, -90.0).apply(image).image.patient_left is None


@given(
    kind=st.sampled_from([Kind.ROTATION, Kind.CROP, Kind.PAD]),
    share=st.floats(0.0, 1.0),
    seed=st.integers(0, 2**48),
    size=st.tuples(st.integers(60, 90), st.integers(60, 90)),
    across=st.sampled_from([0.5, 1.0, 1.7]),
)
def test_what_is_seen_after_the_change_was_where_the_affine_says(
    kind: Kind, share: float, seed: int, size: tuple[int, int], across: float
) -> None:
    strength = {Kind.ROTATION: 40 * share - 20, Kind.CROP: 0.3 * share, Kind.PAD: share}[kind]
    spot = (size[0] // 2 + 5, size[1] // 2 - 7)
    image = with_spot(*size, spot, spacing=(1.0, across))
    changed = Perturbation(kind, strength, seed).apply(image)
    before = changed.to_original @ [*brightest(changed.image.rgb), 1.0]
    assert np.abs(before - np.array(spot) - 0.5).max() < 0.15
    assert changed.image.body is not None
    there = np.argwhere(changed.image.body).mean(axis=0) + 0.5
    assert np.abs(changed.to_original @ [*there, 1.0] - np.array(spot) - 0.5).max() < 0.7
    # The affine is one of lengths and angles in millimetres, also where pixels are not square.
    scale = np.diag([1.0, across])
    turn = scale @ changed.to_original[:, :2] @ np.linalg.inv(scale)
    assert np.allclose(turn @ turn.T, np.eye(2), atol=1e-9)


@given(kind=st.sampled_from(list(Kind)), rows=st.integers(1, 4), columns=st.integers(1, 4), seed=st.integers(0, 99))
def test_images_of_few_pixels_are_changed_like_others(kind: Kind, rows: int, columns: int, seed: int) -> None:
    image = InputImage(Path("x"), np.full((rows, columns, 3), 77, dtype=np.uint8), ImageKind.OTHER)
    changed = Perturbation(kind, KINDS[kind].default, seed).apply(image)
    assert min(changed.image.shape) >= 1
    assert changed.image.rgb.shape[2] == 3


def test_shares_of_a_crop_and_of_padding_are_kept() -> None:
    image = picture(100, 80)
    assert Perturbation(Kind.CROP, 0.25).apply(image).image.shape == (75, 60)
    assert Perturbation(Kind.PAD, 0.25).apply(image).image.shape == (125, 100)


def test_changes_are_read_by_name() -> None:
    assert Perturbation.parse("rotation:5") == Perturbation(Kind.ROTATION, 5.0)
    assert Perturbation.parse(" rotation : -2.5 ", seed=4) == Perturbation(Kind.ROTATION, -2.5, 4)
    assert Perturbation.parse("noise").strength == KINDS[Kind.NOISE].default
    assert [change.kind for change in parse_list("all")] == list(Kind)
    assert parse_list("none") == ()
    assert [change.name for change in parse_list("noise:3,rotation:5,rotation:-5")] == [
        "noise:3",
        "rotation:5",
        "rotation:-5",
    ]


@given(kind=st.sampled_from(list(Kind)), share=st.floats(0.0, 1.0))
def test_a_name_reads_back_as_the_same_change(kind: Kind, share: float) -> None:
    facts = KINDS[kind]
    strength = round(facts.lowest + share * (facts.highest - facts.lowest), 0 if facts.whole else 6)
    change = Perturbation(kind, strength)
    assert Perturbation.parse(change.name) == change


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("twist:5", "no change 'twist'"),
        ("rotation:far", "'rotation:far'"),
        ("rotation:270", "from -180 to 180"),
        ("rotation:nan", "from -180 to 180"),
        ("pixels:2.5", "whole number"),
        ("crop:0.95", "from 0 to 0.9"),
        ("rotation:", "'rotation:'"),
        ("noise,noise:10", "twice"),
        ("", "no change of the image is named"),
    ],
)
def test_what_is_no_change_is_refused_with_a_reason(text: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        parse_list(text)


def test_each_name_has_a_seed_of_its_own_that_stays() -> None:
    assert derived_seed(1, "a", "noise:10") == derived_seed(1, "a", "noise:10") < 2**48
    assert (
        len({derived_seed(1, "a", "b"), derived_seed(2, "a", "b"), derived_seed(1, "ab", ""), derived_seed(1, "b")})
        == 4
    )


@given(seed=st.integers(0, 2**64), size=st.integers(1, 50), count=st.integers(0, 60))
def test_drawn_places_are_different_ones(seed: int, size: int, count: int) -> None:
    drawn = Draws(seed).some_of(size, count)
    assert len(set(drawn.tolist())) == len(drawn) == min(size, count)
    assert all(0 <= place < size for place in drawn)


def test_the_document_names_every_change_with_its_strength() -> None:
    table = DOCUMENT.read_text(encoding="utf-8").partition("## Robustness")[2].partition("| change |")[2]
    told = dict.fromkeys(KINDS, "")
    for line in table.split("\n\n")[0].splitlines()[2:]:
        name, _, default = (cell.strip().strip("`") for cell in line.strip("|").split("|"))
        told[Kind(name)] = default
    assert told == {kind: f"{facts.default:g}" for kind, facts in KINDS.items()}
