"""A heat map shows what was measured where it was measured, and can be read without telling red from green."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageDraw
from skimage.color import rgb2lab

from m3node.drawing.cells import cells_on_pixels
from m3node.drawing.heat import OPACITY, SCALE, colour_bar, overlaid
from m3node.drawing.lettering import BACKGROUND, drawable, font_of, shortened, write

# Viénot, Brettel and Mollon (1999): what a deuteranope and a protanope see, in linear light.
CONFUSED = {
    "deuteranopia": np.array([[0.29275, 0.70725, 0.0], [0.29275, 0.70725, 0.0], [-0.02234, 0.02234, 1.0]]),
    "protanopia": np.array([[0.11238, 0.88762, 0.0], [0.11238, 0.88762, 0.0], [0.00401, -0.00401, 1.0]]),
}


def linear(rgb: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)


def encoded(light: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    light = np.clip(light, 0.0, 1.0)
    return np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)


@given(st.integers(1, 9), st.integers(1, 9), st.integers(-20, 20), st.integers(-20, 20), st.integers(0, 9))
def test_a_pixel_in_the_middle_of_a_cell_has_its_value(down: int, across: int, top: int, left: int, seed: int) -> None:
    values = np.random.default_rng(seed).random((down, across)).astype(np.float32)
    # Cells of 3 × 5 pixels have a pixel in their middle.
    got = cells_on_pixels(values, (top, left, top + 3 * down, left + 5 * across), (40, 60))
    for i in range(down):
        for j in range(across):
            r, c = top + 3 * i + 1, left + 5 * j + 2
            if 0 <= r < 40 and 0 <= c < 60:
                assert got[r, c] == pytest.approx(values[i, j], abs=1e-6)


@given(st.floats(-30, 30), st.floats(-30, 30), st.floats(20, 90), st.floats(20, 90))
def test_a_slope_stays_a_slope_between_the_outer_cells_middles(r0: float, c0: float, tall: float, wide: float) -> None:
    rows, columns = (np.arange(7) + 0.5) / 7 * tall + r0, (np.arange(6) + 0.5) / 6 * wide + c0
    values = 100.0 + 2.0 * rows[:, None] - 3.0 * columns[None, :]
    got = cells_on_pixels(values, (r0, c0, r0 + tall, c0 + wide), (50, 50))
    r, c = np.mgrid[:50, :50] + 0.5
    inside = (r >= rows[0]) & (r <= rows[-1]) & (c >= columns[0]) & (c <= columns[-1])
    assert np.allclose(got[inside], (100.0 + 2.0 * r - 3.0 * c)[inside], atol=1e-3)


def test_nothing_is_said_where_the_grid_does_not_reach() -> None:
    got = cells_on_pixels(np.ones((4, 4)), (10.0, -5.0, 30.0, 15.0), (40, 40))
    assert np.array_equal(np.argwhere(got == 1.0).min(axis=0), (10, 0))
    assert np.array_equal(np.argwhere(got == 1.0).max(axis=0), (29, 14))
    assert got.sum() == 20 * 15


def test_the_scale_grows_lighter_in_even_steps() -> None:
    lightness = rgb2lab(SCALE[None] / 255.0)[0, :, 0]
    steps = np.diff(lightness[::15])
    assert steps.min() > 0
    assert steps.max() < 1.6 * steps.mean()
    assert lightness[-1] - lightness[0] > 60


@pytest.mark.parametrize("blindness", CONFUSED)
def test_who_does_not_tell_red_from_green_sees_more_as_lighter_too(blindness: str) -> None:
    seen = encoded(linear(SCALE / 255.0) @ CONFUSED[blindness].T)
    lab = rgb2lab(seen[None])[0]
    assert np.diff(lab[::15, 0]).min() > 0
    # Neighbouring quarters of the bar stay clearly apart (a difference of 10 is seen at a glance).
    quarters = lab[[0, 64, 128, 192, 255]]
    assert np.linalg.norm(np.diff(quarters, axis=0), axis=1).min() > 10


def test_a_map_hides_nothing_where_it_is_zero_and_never_all() -> None:
    picture = np.random.default_rng(1).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    values = np.zeros((20, 30), dtype=np.float32)
    values[5:10, 5:10] = 0.5
    got = overlaid(picture, values, peak=0.5)
    assert np.array_equal(got[values == 0], picture[values == 0])
    expected = np.round(picture[5:10, 5:10] * (1 - OPACITY) + SCALE[-1] * OPACITY)
    assert np.abs(got[5:10, 5:10] - expected).max() <= 1
    assert np.array_equal(overlaid(picture, np.zeros((20, 30)), peak=0.0), picture)
    # Black and white below the strongest value are still told apart.
    below = np.array([[[0, 0, 0], [255, 255, 255]]], dtype=np.uint8)
    black, white = overlaid(below, np.ones((1, 2)), peak=1.0)[0].astype(int)
    assert (white - black).min() >= 40


def test_the_bar_has_the_maps_colours_from_the_bottom_up() -> None:
    bar = colour_bar(201, 3, grey=80)
    values = np.linspace(0.0, 0.004, 201, dtype=np.float32)
    same = overlaid(np.full((1, 201, 3), 80, dtype=np.uint8), values[None], peak=0.004)[0]
    assert np.abs(bar[::-1, 0].astype(int) - same).max() <= 1


def test_words_are_left_out_until_the_rest_fits() -> None:
    draw = ImageDraw.Draw(Image.new("RGB", (10, 10)))
    font = font_of(14)
    assert shortened(draw, "as it is", font, 1e6) == "as it is"
    short = shortened(draw, "a sentence of a few words.", font, 200)
    assert short.startswith("a ")
    assert short.endswith("...")
    assert draw.textlength(short, font=font) <= 200
    assert draw.textlength(shortened(draw, "x" * 500, font, 100), font=font) <= 100


@pytest.mark.parametrize("text", ["x" * 100_000, "word " * 20_000], ids=["one word", "words"])
def test_of_a_text_of_any_length_little_more_is_measured_than_fits(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    draw = ImageDraw.Draw(Image.new("RGB", (10, 10)))
    measure, measured = draw.textlength, list[int]()

    def measuring(part: str, font: Any) -> float:
        measured.append(len(part))
        return measure(part, font=font)

    monkeypatch.setattr(draw, "textlength", measuring)
    short = shortened(draw, text, font_of(14), 300)
    assert 10 < len(short) < 64
    assert sum(measured) < 2000, "letters, each measured again with every cut"


def drawn(text: str) -> bytes:
    image = Image.new("RGB", (400, 60), BACKGROUND)
    write(ImageDraw.Draw(image), (10, 30), text, font_of(14), anchor="lm")
    return image.tobytes()


@given(st.text())
def test_no_text_is_drawn_with_the_box_that_stands_for_a_letter_the_typeface_lacks(text: str) -> None:
    font = font_of(8)
    box = bytes(font.getmask("\uffff"))
    said = drawable(text)
    assert [letter for letter in set(said) - {" "} if bytes(font.getmask(letter)) == box] == []
    assert drawable(said) == said
    # On one line: a picture's room is measured for one.
    assert shortened(ImageDraw.Draw(Image.new("RGB", (1, 1))), text, font, 1e9) == said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Slice 3 of 40: 12 mm (0.95) ~ 'x'", "Slice 3 of 40: 12 mm (0.95) ~ 'x'"),
        ("crop, steered: layers 0–13, α 5", "crop, steered: layers 0-13, alpha 5"),
        ("Leber nativ → Übersicht 5 µm × 3 ≥ −2", "Leber nativ -> Ubersicht 5 um x 3 >= -2"),
        ("Łódź e\u0301 Straße Ωλ ½", "Lodz e Strasse Omegalambda 1/2"),
        ("±5 °C „a“ …", '±5 °C "a“ …'),
        ("肝臓 한", "?? ?"),
        ("two\nlines\tand\x00 \u200bmore", "two lines and more"),
    ],
)
def test_letters_that_the_typeface_lacks_are_spelt(text: str, said: str) -> None:
    assert drawable(text) == said
    assert drawn(text) == drawn(said)
