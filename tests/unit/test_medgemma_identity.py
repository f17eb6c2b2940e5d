"""What the detector asks, and who it says that it is: all that changes its answers."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from m3node.detectors.medgemma import MedGemmaDetector
from m3node.errors import ConfigError
from m3node.settings import MedGemmaSettings, SteeringMode, SteeringSettings
from tests.asking import EMPTY, look, make_view, random_model, script


@pytest.mark.parametrize("replaced", ["crop", "slice"])
def test_a_crop_and_a_whole_slice_are_asked_differently_and_either_question_can_be_replaced(
    replaced: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    model = random_model()
    (tmp_path / "prompt.txt").write_text("My question?\n")
    asked = script(monkeypatch, EMPTY).asked
    settings = MedGemmaSettings(**{f"{replaced}_prompt_file": tmp_path / "prompt.txt"})  # type: ignore[arg-type]
    look(MedGemmaDetector(model, settings), [make_view(), make_view(1, whole=True)])
    tokenizer: Any = model.tokenizer
    shown = dict(zip(("crop", "slice"), (tokenizer.decode(prompt) for prompt in asked), strict=True))
    own = {"crop": model.profile.crop_prompt, "slice": model.profile.slice_prompt}
    for kind, prompt in shown.items():
        assert ("My question?" if kind == replaced else own[kind]) + "<end_of_turn>" in prompt
        assert prompt.count(tokenizer.image_token) == model.sizes.tokens**2


@pytest.mark.parametrize("kind", ["crop", "slice"])
@pytest.mark.parametrize(
    ("content", "problem"), [(None, "cannot be read"), (b"\xff\xfe", "cannot be read"), (b" \n", "is empty")]
)
def test_a_question_that_cannot_be_used_is_said_at_once(
    kind: str, tmp_path: Path, content: bytes | None, problem: str
) -> None:
    if content is not None:
        (tmp_path / "prompt.txt").write_bytes(content)
    settings = MedGemmaSettings(**{f"{kind}_prompt_file": tmp_path / "prompt.txt"})  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=rf"detector\.medgemma\.{kind}_prompt_file: .*prompt\.txt {problem}"):
        MedGemmaDetector(random_model(), settings)


def test_the_identity_names_model_weights_and_what_changes_answers(tmp_path: Path) -> None:
    model = random_model()
    identity = MedGemmaDetector(model, MedGemmaSettings()).identity
    assert identity.name == "medgemma (test model, not MedGemma)"
    assert "test model" in identity.description
    assert "steered to the liver (soft)" in identity.description
    assert identity.weights == "random weights sha256:seed 0"
    assert len(identity.name) <= 64
    assert all(len(name) <= 64 and len(value) <= 256 for name, value in identity.parameters)
    assert [name for name, _ in identity.parameters] == sorted(name for name, _ in identity.parameters)
    (tmp_path / "prompt.txt").write_text("Another question?")
    others = [
        MedGemmaSettings(steering=SteeringSettings(mode=SteeringMode.OFF)),
        MedGemmaSettings(steering=SteeringSettings(mode=SteeringMode.HARD)),
        MedGemmaSettings(steering=SteeringSettings(alpha=4.0)),
        MedGemmaSettings(steering=SteeringSettings(layers=(1, 3))),
        MedGemmaSettings(steering=SteeringSettings(pooling="area")),
        MedGemmaSettings(steering=SteeringSettings(pooling="area", area_share=0.25)),
        MedGemmaSettings(steering=SteeringSettings(dilate_mm=3.0)),
        MedGemmaSettings(steering=SteeringSettings(dilate_patches=2)),
        MedGemmaSettings(crop_prompt_file=tmp_path / "prompt.txt"),
        MedGemmaSettings(slice_prompt_file=tmp_path / "prompt.txt"),
        MedGemmaSettings(max_new_tokens=77),
    ]
    parameters = {MedGemmaDetector(model, settings).identity.parameters for settings in others}
    assert len(parameters | {identity.parameters}) == len(others) + 1
    # How many are answered together, and what is shown of attention, is no part of it.
    same = MedGemmaDetector(model, MedGemmaSettings(batch_views=2, attention_layers=(1,)))
    assert same.identity == identity


def test_what_does_not_change_the_answers_is_not_in_the_identity() -> None:
    def parameters(**steering: Any) -> dict[str, str]:
        settings = MedGemmaSettings(steering=SteeringSettings(**steering))
        return dict(MedGemmaDetector(random_model(), settings).identity.parameters)

    off = parameters(mode=SteeringMode.OFF)
    assert off == parameters(mode=SteeringMode.OFF, alpha=9.0, dilate_patches=3, layers=(0, 1))
    assert (
        "not steered"
        in MedGemmaDetector(
            random_model(), MedGemmaSettings(steering=SteeringSettings(mode=SteeringMode.OFF))
        ).identity.description
    )
    assert parameters(mode=SteeringMode.HARD) == parameters(mode=SteeringMode.HARD, alpha=9.0)
    assert parameters() == parameters(area_share=0.2)
    assert (parameters()["profile"], parameters()["dtype"]) == ("test", "float32")
    assert parameters()["steering.layers"] == "2-3"
    assert parameters()["max_new_tokens"] == "160"
    assert parameters()["box_sides"] == "20-600"


def test_a_model_that_is_no_test_model_is_named_with_its_revision() -> None:
    model = random_model()
    who = dataclasses.replace(
        model.identity, name="google/medgemma-1.5-4b-it", revision="abc123", weights="0f" * 32, is_test_model=False
    )
    identity = MedGemmaDetector(dataclasses.replace(model, identity=who), MedGemmaSettings()).identity
    assert identity.name == "medgemma"
    assert identity.weights == f"google/medgemma-1.5-4b-it@abc123 sha256:{'0f' * 32}"
    assert "not validated" in identity.description
