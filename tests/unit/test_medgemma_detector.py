"""The detector `medgemma`: from views to boxes, with answers that are written for it."""

from __future__ import annotations

import dataclasses
import json
import logging
import math
import random
import resource
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from m3node.detectors.medgemma import MedGemmaDetector
from m3node.detectors.medgemma import detector as module
from m3node.detectors.medgemma.answer import UnitBox
from m3node.detectors.medgemma.boxes import SIDES, is_plausible, on_view, score_of
from m3node.detectors.medgemma.memory import MOST, ON_CPU, ON_CPU_LARGE, bytes_a_view, views_that_fit
from m3node.detectors.protocols import Box2D, CropDetector, KeepsAttention, ScoreKind, View, ViewResult
from m3node.errors import ConfigError, InferenceError
from m3node.evaluation.ct_writer import axial_geometry
from m3node.gemma.generation import Answer
from m3node.gemma.images import SquareFrame
from m3node.gemma.model import GemmaModel
from m3node.gemma.reading import read_answers
from m3node.imaging.mask import VoxelMask
from m3node.imaging.volume import CTVolume
from m3node.imaging.windows import WINDOWS, ct_windows
from m3node.liver.region import LiverRegion, LiverSource
from m3node.settings import MedGemmaSettings, SteeringMode, SteeringSettings
from tests.small_gemma import small_gemma

VOLUME = CTVolume(hu=np.zeros((1, 4, 4), np.int16), geometry=axial_geometry((1, 4, 4), (1.0, 1.0, 1.0)), sources=())
REGION = LiverRegion(
    parenchyma=VoxelMask.empty((1, 4, 4)),
    envelope=VoxelMask.empty((1, 4, 4)),
    source=LiverSource.LABEL_MAP,
    reference="",
    algorithm="test",
)
EMPTY = "Final Answer:\n```json\n[]\n```"


def written(*boxes: tuple[int, int, int, int]) -> str:
    entries = [{"box_2d": list(box), "label": "liver lesion"} for box in boxes]
    return f"Final Answer:\n```json\n{json.dumps(entries)}\n```"


@pytest.fixture(scope="module")
def model() -> GemmaModel:
    return small_gemma(vision_layers=4)


def make_view(number: int = 0, shape: tuple[int, int] = (40, 60), *, whole: bool = False) -> View:
    generator = np.random.default_rng(number)
    envelope = np.zeros(shape, dtype=np.bool_)
    envelope[shape[0] // 4 : shape[0] // 2, shape[1] // 4 : shape[1] // 2] = True
    return View(
        hu=generator.integers(-100, 200, shape, dtype=np.int16),
        envelope=envelope,
        parenchyma=envelope,
        slice_index=number,
        origin=(0, 0),
        spacing=(0.8, 0.8),
        padding=0.1,
        whole=whole,
    )


def look(detector: MedGemmaDetector, views: Sequence[View]) -> list[ViewResult]:
    return list(detector.look(views, VOLUME, REGION))


def tokens_of(model: GemmaModel, text: str) -> tuple[int, ...]:
    tokenizer: Any = model.tokenizer
    return tuple(tokenizer(text, add_special_tokens=False)["input_ids"])


Script = Callable[[int], tuple[str, bool]]


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch, model: GemmaModel) -> Callable[[Script], list[Sequence[int]]]:
    """Have the model say what a script says of view 0, 1, …; returns the prompts it was asked, as they come."""

    def use(script: Script) -> list[Sequence[int]]:
        asked: list[Sequence[int]] = []

        def generate(
            _model: GemmaModel, prompts: Sequence[Sequence[int]], features: torch.Tensor, *, max_new_tokens: int
        ) -> list[Answer]:
            assert len(features) == len(prompts)
            assert max_new_tokens > 0
            answers = []
            for prompt in prompts:
                text, ended = script(len(asked))
                asked.append(prompt)
                ids = tokens_of(model, text)
                # A token's probability tells its place: 0.5 for the first, then falling.
                answers.append(Answer(ids, ended, tuple(-math.log(2.0 + at) for at in range(len(ids)))))
            return answers

        monkeypatch.setattr(module, "generate", generate)
        return asked

    return use


def always(text: str, *, ended: bool = True) -> Script:
    return lambda _number: (text, ended)


def test_it_is_a_crop_detector_that_keeps_its_attention_when_asked(model: GemmaModel) -> None:
    detector = MedGemmaDetector(model, MedGemmaSettings())
    assert isinstance(detector, CropDetector)
    assert isinstance(detector, KeepsAttention)
    assert detector.keep_attention is False
    assert detector.score_kind is ScoreKind.TOKEN_PROBABILITY


def test_a_written_box_lies_where_its_units_say(
    model: GemmaModel, scripted: Callable[[Script], list[Sequence[int]]]
) -> None:
    # A view of 40×60 pixels lies in a square of 60, with 10 rows of padding above and below.
    scripted(always(written((250, 100, 500, 600))))
    (result,) = look(MedGemmaDetector(model, MedGemmaSettings()), [make_view()])
    assert result.failure == ""
    (box,) = result.boxes
    assert box.box == Box2D(pytest.approx(5), pytest.approx(6), pytest.approx(20), pytest.approx(36))  # type: ignore[arg-type]
    assert box.attention is None
    assert result.raw_text == written((250, 100, 500, 600))


def test_a_box_is_cut_off_at_the_crops_border_and_dropped_in_the_padding(
    model: GemmaModel, scripted: Callable[[Script], list[Sequence[int]]]
) -> None:
    scripted(always(written((100, 100, 300, 300), (0, 0, 160, 160), (840, 0, 1000, 160))))
    (result,) = look(MedGemmaDetector(model, MedGemmaSettings()), [make_view()])
    (box,) = result.boxes
    assert (box.box.r0, box.box.r1) == (0.0, pytest.approx(8))
    assert result.failure == ""


def test_boxes_out_of_order_too_small_or_too_large_are_dropped_and_the_answer_counts_as_read(
    model: GemmaModel, scripted: Callable[[Script], list[Sequence[int]]]
) -> None:
    low, high = SIDES
    dropped = [
        (500, 500, 400, 600),
        (400, 600, 500, 500),
        (400, 400, 400 + low - 1, 500),
        (400, 400, 500, 400 + low - 1),
        (200, 200, 200 + high + 1, 400),
        (200, 200, 400, 200 + high + 1),
    ]
    kept = [(400, 400, 400 + low, 400 + low), (200, 200, 200 + high, 200 + high)]
    scripted(always(written(*dropped, *kept)))
    (result,) = look(MedGemmaDetector(model, MedGemmaSettings()), [make_view()])
    assert (len(result.boxes), result.failure) == (2, "")


def test_the_score_is_the_geometric_mean_of_the_coordinates_probabilities(
    model: GemmaModel, scripted: Callable[[Script], list[Sequence[int]]]
) -> None:
    text = written((300, 90, 500, 600))
    scripted(always(text))
    (result,) = look(MedGemmaDetector(model, MedGemmaSettings()), [make_view()])
    digits = [at for at, letter in enumerate(text) if letter.isdigit() and at > text.index("[", text.index("box_2d"))]
    assert len(digits) == 3 + 2 + 3 + 3
    expected = math.prod(1 / (2.0 + at) for at in digits) ** (1 / len(digits))
    assert result.boxes[0].score == pytest.approx(expected)
    assert 0 < score_of((0, 1), (-1.0, -2.0)) < 1


def test_what_cannot_be_read_is_a_failure_that_is_counted_and_logged_without_the_text(
    model: GemmaModel, scripted: Callable[[Script], list[Sequence[int]]], caplog: pytest.LogCaptureFixture
) -> None:
    said = [("DOE^JANE is well", True), (written((250, 100, 500, 600)), False), (EMPTY, True), ("[{DOE", True)]
    scripted(lambda number: said[number])
    caplog.set_level(logging.DEBUG)
    results = look(MedGemmaDetector(model, MedGemmaSettings()), [make_view(number) for number in range(4)])
    assert [result.failure for result in results] == [
        "the answer holds no JSON list",
        "the answer reached the token limit",
        "",
        "the JSON in the answer is broken",
    ]
    assert all(result.boxes == () for result in results)
    assert "3 of 4 answers could not be read" in caplog.text
    assert "slice 1, padding 0.10: the answer reached the token limit" in caplog.text
    assert "DOE" not in caplog.text


def test_thinking_is_not_the_answer_and_unclosed_thinking_is_a_failure(
    scripted: Callable[[Script], list[Sequence[int]]], model: GemmaModel
) -> None:
    thinking = dataclasses.replace(model.profile, thinking=("<think>", "</think>"))
    thinker = dataclasses.replace(model, profile=thinking)
    box = written((250, 100, 500, 600))
    said = [f"<think>{box}</think>{EMPTY}", f"<think>{box}", f"<think>[]</think>{box}"]
    scripted(lambda number: (said[number], True))
    results = look(MedGemmaDetector(thinker, MedGemmaSettings()), [make_view(number) for number in range(3)])
    assert [len(result.boxes) for result in results] == [0, 0, 1]
    assert [result.failure for result in results] == ["", "the thinking text was not closed", ""]


def test_a_crop_and_a_whole_slice_are_asked_differently(
    model: GemmaModel, scripted: Callable[[Script], list[Sequence[int]]], tmp_path: Path
) -> None:
    (tmp_path / "crop.txt").write_text("My question?\n")
    asked = scripted(always(EMPTY))
    settings = MedGemmaSettings(crop_prompt_file=tmp_path / "crop.txt")
    look(MedGemmaDetector(model, settings), [make_view(), make_view(1, whole=True)])
    tokenizer: Any = model.tokenizer
    crop, whole = (tokenizer.decode(prompt) for prompt in asked)
    assert "My question?<end_of_turn>" in crop
    assert model.profile.slice_prompt in whole
    assert crop.count(tokenizer.image_token) == whole.count(tokenizer.image_token) == model.sizes.tokens**2


@pytest.mark.parametrize(("content", "problem"), [(None, "cannot be read"), ("  \n", "is empty")])
def test_a_prompt_that_cannot_be_used_is_said_at_once(
    model: GemmaModel, tmp_path: Path, content: str | None, problem: str
) -> None:
    if content is not None:
        (tmp_path / "prompt.txt").write_text(content)
    with pytest.raises(ConfigError, match=rf"slice_prompt_file: .*prompt\.txt {problem}"):
        MedGemmaDetector(model, MedGemmaSettings(slice_prompt_file=tmp_path / "prompt.txt"))


def test_layers_that_the_model_lacks_are_said_at_once(model: GemmaModel) -> None:
    with pytest.raises(ConfigError, match=r"steering\.layers: the model has layers 0 to 3 there, none of number 4"):
        MedGemmaDetector(model, MedGemmaSettings(steering=SteeringSettings(layers=(2, 4))))
    with pytest.raises(ConfigError, match=r"attention_layers: the model has layers 0 to 3 there, none of number 7"):
        MedGemmaDetector(model, MedGemmaSettings(attention_layers=(1, 7)))


def test_views_are_taken_a_batch_at_a_time_and_answered_in_order(
    model: GemmaModel, scripted: Callable[[Script], list[Sequence[int]]]
) -> None:
    scripted(lambda number: (written((300, 300, 400 + 10 * number, 500)), True))
    taken: list[int] = []

    def views() -> Iterator[View]:
        for number in range(7):
            taken.append(number)
            yield make_view(number)

    results = MedGemmaDetector(model, MedGemmaSettings(batch_views=3)).look(views(), VOLUME, REGION)
    heights = []
    for at, result in enumerate(results):
        assert len(taken) == min(7, 3 * (at // 3 + 1))
        heights.append(round((result.boxes[0].box.r1 - result.boxes[0].box.r0) / 60 * 1000))
    assert heights == [100 + 10 * number for number in range(7)]


def test_memory_that_runs_out_halves_the_batch_and_loses_no_view(
    model: GemmaModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    real = module.generate
    views = [make_view(number) for number in range(9)]
    settings = MedGemmaSettings(batch_views=8, max_new_tokens=6)
    expected = look(MedGemmaDetector(model, settings), views)

    def short_of_memory(
        model: GemmaModel, prompts: Sequence[Sequence[int]], features: torch.Tensor, **named: Any
    ) -> list[Answer]:
        calls.append(len(prompts))
        if len(prompts) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return real(model, prompts, features, **named)

    monkeypatch.setattr(module, "generate", short_of_memory)
    results = look(MedGemmaDetector(model, settings), views)
    assert calls == [8, 4, 2, 2, 2, 2, 1]
    assert [result.raw_text for result in results] == [result.raw_text for result in expected]


@pytest.mark.parametrize(
    ("steering", "steered"),
    [
        (SteeringSettings(mode=SteeringMode.OFF), None),
        (SteeringSettings(dilate_patches=0), -5.0),
        (SteeringSettings(mode=SteeringMode.HARD, dilate_patches=0), -1e4),
    ],
)
def test_each_view_is_steered_to_its_own_envelope(
    model: GemmaModel, monkeypatch: pytest.MonkeyPatch, steering: SteeringSettings, steered: float | None
) -> None:
    given: list[tuple[torch.Tensor | None, tuple[int, int]]] = []
    real = module.image_features

    def noted(
        model: GemmaModel, pixels: torch.Tensor, bias: torch.Tensor | None, layers: tuple[int, int]
    ) -> torch.Tensor:
        given.append((bias, layers))
        return real(model, pixels, bias, layers)

    monkeypatch.setattr(module, "image_features", noted)
    # The envelope lies in rows 10 to 20 and columns 15 to 30 of 40×60; patches are 15 pixels of the square of 60.
    look(
        MedGemmaDetector(model, MedGemmaSettings(steering=steering, max_new_tokens=1)),
        [make_view(), make_view(1, (60, 60))],
    )
    ((bias, layers),) = given
    assert layers == model.profile.steered_layers
    if steered is None:
        assert bias is None
        return
    assert bias is not None
    first, second = bias.unflatten(1, (4, 4))
    organ = torch.zeros(4, 4, dtype=torch.bool)
    organ[1, 1] = True
    assert torch.equal(first == 0, organ)
    assert torch.equal(second == 0, organ)  # rows 15 to 30 here
    assert set(first.unique().tolist()) == {steered, 0.0}


def test_millimetres_of_dilation_are_those_of_each_view(model: GemmaModel, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[torch.Tensor] = []
    real = module.organ_patches

    def noted(*arguments: Any, dilate_px: torch.Tensor, **named: Any) -> torch.Tensor:
        given.append(dilate_px)
        return real(*arguments, dilate_px=dilate_px, **named)

    monkeypatch.setattr(module, "organ_patches", noted)
    settings = MedGemmaSettings(steering=SteeringSettings(dilate_mm=6.0), max_new_tokens=1)
    look(MedGemmaDetector(model, settings), [make_view(), make_view(1, (30, 30))])
    # The model's 56 pixels are 48 mm here and 24 mm there.
    assert given[0].tolist() == pytest.approx([7.0, 14.0])


def test_attention_is_kept_when_asked_and_is_what_the_model_paid(
    model: GemmaModel, scripted: Callable[[Script], list[Sequence[int]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [written((250, 100, 500, 600), (300, 300, 400, 500)), EMPTY, "no list"]
    scripted(lambda number: (texts[number], True))
    noted: list[tuple[Any, ...]] = []

    def reading(*arguments: Any) -> Any:
        noted.append(arguments)
        return read_answers(*arguments)

    monkeypatch.setattr(module, "read_answers", reading)
    detector = MedGemmaDetector(model, MedGemmaSettings())
    detector.keep_attention = True
    views = [make_view(0), make_view(1), make_view(2)]
    found, empty, failed = look(detector, views)

    ((_, prompts, features, answers, rows, layers),) = noted
    assert layers == model.sizes.global_layers
    assert len(answers) == 2  # what could not be read is not read back
    assert [list(row) for row in rows] == [list(range(len(texts[0]))), list(range(len(texts[1])))]
    readings = read_answers(model, prompts, features, answers, rows, layers)
    area = Box2D(*SquareFrame.of((40, 60), (0.8, 0.8)).area)
    for result, one in zip((found, empty), readings, strict=True):
        assert result.attention is not None
        assert result.attention.area == area
        assert one.attention is not None
        np.testing.assert_allclose(result.attention.values, one.attention.mean(axis=0), atol=1e-6)
        assert 0 < result.attention.values.sum() <= 1
    assert (failed.attention, failed.boxes) == (None, ())
    attention = readings[0].attention
    assert attention is not None
    starts = [texts[0].index("[250"), texts[0].index("[300")]
    for box, start in zip(found.boxes, starts, strict=True):
        digits = [at for at in range(start, texts[0].index("]", start)) if texts[0][at].isdigit()]
        assert box.attention is not None
        np.testing.assert_allclose(box.attention.values, attention[digits].mean(axis=0), atol=1e-6)


def test_scores_do_not_depend_on_whether_attention_is_kept(
    model: GemmaModel, scripted: Callable[[Script], list[Sequence[int]]]
) -> None:
    detector = MedGemmaDetector(model, MedGemmaSettings())
    scores = []
    for detector.keep_attention in (False, True):
        scripted(always(written((250, 100, 500, 600))))
        scores.append(look(detector, [make_view()])[0].boxes[0].score)
    assert scores[0] == scores[1]


def test_the_identity_names_model_weights_and_what_changes_answers(model: GemmaModel, tmp_path: Path) -> None:
    identity = MedGemmaDetector(model, MedGemmaSettings()).identity
    assert identity.name == "medgemma (test model, not MedGemma)"
    assert "test model" in identity.description
    assert identity.weights == "random weights sha256:seed 0"
    assert len(identity.name) <= 64
    assert all(len(name) <= 64 and len(value) <= 256 for name, value in identity.parameters)
    (tmp_path / "crop.txt").write_text("Another question?")
    others = [
        MedGemmaSettings(steering=SteeringSettings(mode=SteeringMode.OFF)),
        MedGemmaSettings(steering=SteeringSettings(alpha=4.0)),
        MedGemmaSettings(steering=SteeringSettings(layers=(1, 3))),
        MedGemmaSettings(steering=SteeringSettings(pooling="area")),
        MedGemmaSettings(steering=SteeringSettings(dilate_mm=3.0)),
        MedGemmaSettings(steering=SteeringSettings(dilate_patches=2)),
        MedGemmaSettings(crop_prompt_file=tmp_path / "crop.txt"),
        MedGemmaSettings(max_new_tokens=77),
    ]
    parameters = {MedGemmaDetector(model, settings).identity.parameters for settings in others}
    assert len(parameters | {identity.parameters}) == len(others) + 1
    # How many are answered together, and what is shown of attention, is no part of it.
    same = MedGemmaDetector(model, MedGemmaSettings(batch_views=2, attention_layers=(1,)))
    assert same.identity == identity


def test_a_model_that_is_no_test_model_is_named_with_its_revision(model: GemmaModel) -> None:
    real = dataclasses.replace(
        model,
        identity=dataclasses.replace(
            model.identity, name="google/medgemma-1.5-4b-it", revision="abc123", weights="0f" * 32, is_test_model=False
        ),
    )
    identity = MedGemmaDetector(real, MedGemmaSettings()).identity
    assert identity.name == "medgemma"
    assert identity.weights == f"google/medgemma-1.5-4b-it@abc123 sha256:{'0f' * 32}"
    assert "not validated" in identity.description


def test_windows_are_the_published_ones_rounded() -> None:
    hu = np.arange(-2000, 3000, dtype=np.int16).reshape(50, 100)
    rgb = ct_windows(hu)
    assert (rgb.shape, rgb.dtype) == ((50, 100, 3), np.uint8)
    for channel, (low, high) in enumerate(WINDOWS):
        exact = (np.clip(hu.astype(float), low, high) - low) / (high - low) * 255
        np.testing.assert_array_equal(rgb[..., channel], np.rint(exact))
    assert ct_windows(
        np.array([[-1024, 1024], [-135, 215], [0, 80], [40, -32768], [32767, 40]], np.int16)
    ).tolist() == [
        [[0, 0, 0], [255, 255, 255]],
        [[111, 0, 0], [154, 255, 255]],
        [[128, 98, 0], [137, 157, 255]],
        [[132, 128, 128], [0, 0, 0]],
        [[255, 255, 255], [132, 128, 128]],
    ]


units = st.integers(0, 1000)
spans = ((0, 1),) * 4


@given(
    numbers=st.tuples(units, units, units, units),
    shape=st.tuples(st.integers(1, 600), st.integers(1, 600)),
    spacing=st.tuples(st.floats(0.3, 3.0), st.floats(0.3, 3.0)),
)
def test_no_box_lies_outside_its_crop(
    numbers: tuple[int, int, int, int], shape: tuple[int, int], spacing: tuple[float, float]
) -> None:
    box = UnitBox(*numbers, spans=spans)  # type: ignore[arg-type]
    placed = on_view(box, SquareFrame.of(shape, spacing))
    if placed is not None:
        assert 0 <= placed.r0 < placed.r1 <= shape[0]
        assert 0 <= placed.c0 < placed.c1 <= shape[1]
    if is_plausible(box):
        assert box.y0 < box.y1
        assert box.x0 < box.x1


def test_random_answers_give_no_exception_and_no_box_outside_the_crop(
    model: GemmaModel, scripted: Callable[[Script], list[Sequence[int]]]
) -> None:
    chance = random.Random(5)
    pieces = [*'[]{},:"0123456789 \n', "```json", "```", written((100, 100, 300, 300)), EMPTY, "läsion", "肝"]
    scripted(lambda _number: ("".join(chance.choices(pieces, k=chance.randrange(1, 12))), chance.random() < 0.9))
    results = look(MedGemmaDetector(model, MedGemmaSettings()), [make_view(number) for number in range(300)])
    assert len(results) == 300
    assert any(result.boxes for result in results)
    assert any(result.failure for result in results)
    for result in results:
        assert not (result.boxes and result.failure)
        for box in result.boxes:
            assert 0 <= box.box.r0 < box.box.r1 <= 40
            assert 0 <= box.box.c0 < box.box.c1 <= 60
            assert 0 < box.score <= 1


def test_a_model_that_breaks_is_an_inference_error_without_its_input(
    model: GemmaModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_arguments: object, **_named: object) -> list[Answer]:
        raise RuntimeError("CUDA error: device-side assert triggered\nCompile with TORCH_USE_CUDA_DSA")

    monkeypatch.setattr(module, "generate", broken)
    with pytest.raises(InferenceError, match=r"the model failed: CUDA error: device-side assert triggered$"):
        look(MedGemmaDetector(model, MedGemmaSettings()), [make_view()])


def test_on_a_cpu_few_views_go_together_and_on_a_gpu_as_many_as_fit(
    model: GemmaModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert views_that_fit(model, 300, 1000) == ON_CPU
    with monkeypatch.context() as patched:
        patched.setattr("m3node.detectors.medgemma.memory.LARGE", 1000)
        assert views_that_fit(model, 300, 1000) == ON_CPU_LARGE
    on_gpu = dataclasses.replace(model, device=torch.device("cuda"))
    need = bytes_a_view(model, 300, 1000)
    for free, views in ((need * 15, 10), (need // 2, 1), (need * 10_000, MOST)):
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _device, free=free: (free, free))
        assert views_that_fit(on_gpu, 300, 1000) == views
    assert bytes_a_view(model, 300, 2000) > need


def test_memory_stays_flat_over_a_thousand_crops(model: GemmaModel) -> None:
    """One process and one model: after the first rounds nothing is added any more."""
    detector = MedGemmaDetector(model, MedGemmaSettings(max_new_tokens=8))
    detector.keep_attention = True
    views = [make_view(number, (40 + number % 7, 60)) for number in range(50)]

    def megabytes() -> float:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * resource.getpagesize() / 1e6

    after = []
    for _ in range(20):
        assert sum(1 for _ in detector.look(views, VOLUME, REGION)) == 50
        after.append(megabytes())
    # The lowest of several, since allocators keep some now and then; a kept crop alone would be 30 MB in 1,000.
    assert min(after[15:]) - min(after[5:10]) < 15
