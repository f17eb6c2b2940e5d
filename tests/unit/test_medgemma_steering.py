"""Each view is shown to the encoder in its own windows, and steered to its own envelope."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from m3node.detectors.medgemma import MedGemmaDetector
from m3node.detectors.medgemma import detector as module
from m3node.errors import ConfigError
from m3node.gemma.images import SquareFrame, normalised, square_images
from m3node.gemma.model import GemmaModel
from m3node.imaging.windows import ct_windows
from m3node.settings import MedGemmaSettings, SteeringMode, SteeringSettings
from tests.asking import look, make_view, random_model


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[tuple[torch.Tensor, torch.Tensor | None, tuple[int, int]]]:
    """Pixels, bias and layers of each pass of the encoder, as they come."""
    passes: list[tuple[torch.Tensor, torch.Tensor | None, tuple[int, int]]] = []
    real = module.image_features

    def noted(
        model: GemmaModel, pixels: torch.Tensor, bias: torch.Tensor | None, layers: tuple[int, int]
    ) -> torch.Tensor:
        passes.append((pixels, bias, layers))
        return real(model, pixels, bias, layers)

    monkeypatch.setattr(module, "image_features", noted)
    return passes


def looked(settings: MedGemmaSettings) -> None:
    look(MedGemmaDetector(random_model(), settings), [make_view(), make_view(1, (60, 60))])


@pytest.mark.parametrize(
    ("steering", "steered"),
    [
        (SteeringSettings(mode=SteeringMode.OFF), None),
        (SteeringSettings(dilate_patches=0), -5.0),
        (SteeringSettings(dilate_patches=0, alpha=2.0), -2.0),
        (SteeringSettings(mode=SteeringMode.HARD, dilate_patches=0), -1e4),
    ],
)
def test_each_view_is_steered_to_its_own_envelope(
    encoded: list[tuple[torch.Tensor, torch.Tensor | None, tuple[int, int]]],
    steering: SteeringSettings,
    steered: float | None,
) -> None:
    # The envelope lies in rows 10 to 20 and columns 15 to 30 of 40×60, and in rows and columns 15 to 30 of 60×60;
    # patches are 15 pixels of the square of 60.
    looked(MedGemmaSettings(steering=steering, max_new_tokens=1))
    ((_, bias, layers),) = encoded
    assert layers == random_model().profile.steered_layers
    if steered is None:
        assert bias is None
        return
    assert bias is not None
    organ = torch.zeros(4, 4, dtype=torch.bool)
    organ[1, 1] = True
    for of_one in bias.unflatten(1, (4, 4)):
        assert torch.equal(of_one == 0, organ)
        assert set(of_one.unique().tolist()) == {steered, 0.0}


def test_pooling_dilation_and_layers_are_those_of_the_settings(
    encoded: list[tuple[torch.Tensor, torch.Tensor | None, tuple[int, int]]],
) -> None:
    for steering in (
        SteeringSettings(dilate_patches=1, layers=(0, 1)),
        SteeringSettings(dilate_patches=0, pooling="area", area_share=0.9),
        SteeringSettings(dilate_patches=0, pooling="area", area_share=0.5),
    ):
        looked(MedGemmaSettings(steering=steering, max_new_tokens=1))
    assert [layers for _, _, layers in encoded] == [(0, 1), (2, 3), (2, 3)]
    # In the first view 10 of the patch's 15 rows are the organ's.
    organs = [[int((row == 0).sum()) for row in bias] for _, bias, _ in encoded if bias is not None]
    assert organs == [[9, 9], [16, 1], [1, 1]]


def test_each_view_is_shown_in_its_windows_and_padded_to_a_square(
    encoded: list[tuple[torch.Tensor, torch.Tensor | None, tuple[int, int]]],
) -> None:
    looked(MedGemmaSettings(max_new_tokens=1))
    ((pixels, _, _),) = encoded
    model, views = random_model(), [make_view(), make_view(1, (60, 60))]
    frames = [SquareFrame.of(view.hu.shape, view.spacing) for view in views]
    images = square_images([ct_windows(view.hu) for view in views], frames, model.sizes.image, "cpu")
    assert torch.equal(pixels, normalised(images, torch.float32))


def test_millimetres_of_dilation_are_those_of_each_view(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[torch.Tensor] = []
    real = module.organ_patches

    def noted(*arguments: Any, dilate_px: torch.Tensor, **named: Any) -> torch.Tensor:
        given.append(dilate_px)
        return real(*arguments, dilate_px=dilate_px, **named)

    monkeypatch.setattr(module, "organ_patches", noted)
    settings = MedGemmaSettings(steering=SteeringSettings(dilate_mm=6.0), max_new_tokens=1)
    look(MedGemmaDetector(random_model(), settings), [make_view(), make_view(1, (30, 30))])
    # The model's 56 pixels are 48 mm here and 24 mm there.
    assert given[0].tolist() == pytest.approx([7.0, 14.0])


def test_layers_that_the_model_lacks_are_said_at_once() -> None:
    model = random_model()
    with pytest.raises(ConfigError, match=r"steering\.layers: the model has layers 0 to 3 there, none of number 4"):
        MedGemmaDetector(model, MedGemmaSettings(steering=SteeringSettings(layers=(2, 4))))
    with pytest.raises(ConfigError, match=r"attention_layers: the model has layers 0 to 3 there, none of number 7"):
        MedGemmaDetector(model, MedGemmaSettings(attention_layers=(1, 7)))
