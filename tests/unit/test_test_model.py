"""The test model in the package looks at the pixels, and says what it is."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("transformers", reason="the extra medgemma is not installed")

import torch

import m3node.gemma
from m3node.detectors.medgemma import MedGemmaDetector
from m3node.detectors.medgemma.answer import parse
from m3node.detectors.protocols import View
from m3node.evaluation.phantom_slices import slice_phantom
from m3node.evaluation.test_model.examples import example_of, padded_crop
from m3node.evaluation.test_model.measuring import FIRST_SEED, HELD_OUT, Measurement, measure, read
from m3node.evaluation.test_model.network import new_config, new_tokenizer
from m3node.evaluation.test_model.training import Recipe, stages_of, train
from m3node.gemma.loading import TEST_MODEL, load_model
from m3node.gemma.model import GemmaModel
from m3node.settings import MedGemmaSettings, ModelSettings, SteeringMode, SteeringSettings

FOLDER = Path(m3node.gemma.__file__).parent / "test_model"

SLICES = 48
"""Others than those of the model card, which has 320."""


@functools.cache
def model() -> GemmaModel:
    return load_model(ModelSettings(model=TEST_MODEL, device="cpu"))


@functools.cache
def measured() -> Measurement:
    return measure(model(), slices=SLICES, first_seed=FIRST_SEED + HELD_OUT)


def test_its_answers_can_be_read() -> None:
    assert measured().crops.parse_rate >= 0.98
    assert measured().whole.parse_rate >= 0.98


def test_its_boxes_lie_on_the_lesions_of_slices_it_has_never_seen() -> None:
    assert measured().crops.lesions >= 40
    assert measured().crops.mean_best_iou >= 0.30


def test_it_sees_nothing_on_a_picture_of_one_value() -> None:
    assert measured().blank_boxes == 0


def test_its_boxes_go_when_the_lesions_are_painted_over() -> None:
    assert measured().boxes_before >= 20
    assert measured().boxes_left <= 0.05


@pytest.mark.parametrize("mode", [SteeringMode.OFF, SteeringMode.SOFT])
def test_what_is_measured_is_what_the_detector_would_say(mode: SteeringMode) -> None:
    steering = SteeringSettings(mode=mode)
    detector = MedGemmaDetector(model(), MedGemmaSettings(model=TEST_MODEL, steering=steering))
    phantoms = [slice_phantom(seed) for seed in range(8)]
    crops = [padded_crop(phantom, (0.15,) * 4) for phantom in phantoms]
    views = [
        View(
            hu=phantom.hu[r0:r1, c0:c1],
            envelope=phantom.liver[r0:r1, c0:c1],
            parenchyma=phantom.liver[r0:r1, c0:c1],
            slice_index=0,
            origin=(r0, c0),
            spacing=phantom.spacing,
            padding=0.15,
        )
        for phantom, (r0, c0, r1, c1) in zip(phantoms, crops, strict=True)
    ]
    nothing: Any = None  # it needs neither volume nor region
    said = [parse(result.raw_text, ended=True).boxes for result in detector.look(views, nothing, nothing)]
    examples = [example_of(phantom, crop) for phantom, crop in zip(phantoms, crops, strict=True)]
    measured_too = [reading.boxes for reading in read(model(), examples, steering)]
    assert measured_too == [tuple((b.y0, b.x0, b.y1, b.x1) for b in boxes) for boxes in said]
    assert sum(len(boxes) for boxes in said) >= 5


def test_its_files_are_small_and_hold_no_pickle() -> None:
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 5_000_000
    assert {path.suffix for path in FOLDER.iterdir()} <= {".json", ".jinja", ".md", ".safetensors"}


def test_it_says_everywhere_that_it_is_a_test_model() -> None:
    card = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert "It is not MedGemma" in card
    assert "not for any medical use" in card
    assert model().identity.is_test_model
    assert "test model (not MedGemma)" in model().identity.name


def test_weights_card_and_script_belong_together() -> None:
    card = (FOLDER / "README.md").read_text(encoding="utf-8")
    for stage in stages_of(FOLDER):
        recipe = stage["recipe"]
        assert f"--seed {recipe['seed']} --processes {recipe['processes']}" in card
        assert f"--steps {recipe['steps']}" in card
    tokenizer = new_tokenizer()
    assert model().tokenizer.get_vocab() == tokenizer.get_vocab()
    assert model().tokenizer.chat_template == tokenizer.chat_template
    made, stored = new_config(tokenizer), model().network.config
    for part in ("text_config", "vision_config"):
        expected = getattr(made, part).to_dict()
        assert {key: getattr(stored, part).to_dict()[key] for key in expected} == expected | {
            key: getattr(stored, part).to_dict()[key] for key in ("dtype", "_name_or_path") if key in expected
        }


def test_pixels_reach_its_answers_through_global_and_sliding_layers() -> None:
    assert model().sizes.global_layers == (1, 3)
    projector = model().network.model.multi_modal_projector.mm_input_projection_weight
    assert torch.count_nonzero(projector) > 0.99 * projector.numel()


@pytest.mark.slow
def test_the_script_trains_in_several_processes_goes_on_and_writes_a_model_that_loads(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    train(Recipe(processes=2, batch=2, vision_steps=1, steps=1), first)
    train(Recipe(processes=1, batch=2, vision_steps=0, steps=1, seed=5), second, start=first)
    begun, made = (load_model(ModelSettings(model=str(f), profile=TEST_MODEL, device="cpu")) for f in (first, second))
    assert begun.identity.weights != made.identity.weights
    assert [stage["recipe"]["processes"] for stage in stages_of(second)] == [2, 1]
    assert measure(made, slices=2).crops.pictures == 2
