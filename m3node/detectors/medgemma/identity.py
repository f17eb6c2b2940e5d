"""Who answers: the model, its weights, and every setting that changes what it says."""

from __future__ import annotations

from m3node import __version__
from m3node.detectors.medgemma.boxes import SIDES
from m3node.detectors.medgemma.questions import Questions
from m3node.detectors.protocols import DetectorIdentity
from m3node.gemma.model import GemmaModel
from m3node.settings import SteeringMode, SteeringSettings

NAME = "medgemma"
TEST_NAME = "medgemma (test model, not MedGemma)"


def identify(
    model: GemmaModel,
    questions: Questions,
    steering: SteeringSettings,
    *,
    layers: tuple[int, int],
    max_new_tokens: int,
) -> DetectorIdentity:
    """Put the identity together; a test model is called one in its name and in the description."""
    who, test = model.identity, model.identity.is_test_model
    revision = f"@{who.revision}" if who.revision else ""
    what = (
        f"{model.profile.label}: a small test model without medical meaning"
        if test
        else f"{model.profile.label}, a vision-language model that is not validated for lesions in CT"
    )
    led = "not steered" if steering.mode is SteeringMode.OFF else f"attention steered to the liver ({steering.mode})"
    parameters = {
        "profile": model.profile.name,
        "dtype": str(model.dtype).removeprefix("torch."),
        "crop_prompt": f"sha256:{questions.digests[0]}",
        "slice_prompt": f"sha256:{questions.digests[1]}",
        "max_new_tokens": str(max_new_tokens),
        "box_sides": f"{SIDES[0]}-{SIDES[1]}",
        "steering.mode": str(steering.mode),
    }
    if steering.mode is not SteeringMode.OFF:
        parameters |= {
            "steering.layers": f"{layers[0]}-{layers[1]}",
            "steering.pooling": steering.pooling,
            "steering.dilate_patches": str(steering.dilate_patches),
            "steering.dilate_mm": str(steering.dilate_mm),
        }
        if steering.mode is SteeringMode.SOFT:
            parameters["steering.alpha"] = str(steering.alpha)
        if steering.pooling == "area":
            parameters["steering.area_share"] = str(steering.area_share)
    return DetectorIdentity(
        name=TEST_NAME if test else NAME,
        version=__version__,
        description=f"{what}, asked for boxes on single crops; {led}.",
        weights=f"{who.name}{revision} sha256:{who.weights}",
        parameters=tuple(sorted(parameters.items())),
    )
