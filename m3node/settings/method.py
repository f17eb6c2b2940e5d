"""Settings of what is found and built: liver, method, detector, results."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from m3node.settings.types import Fraction, NotNegative, Positive, Section

LayerNumber = Annotated[int, Field(ge=0, le=999)]


class LiverSettings(Section):
    """Where the liver region comes from, and how far its envelope reaches."""

    use_received_seg: bool = True
    envelope_closing_mm: Positive = 15.0
    envelope_dilation_mm: Positive = 5.0
    min_volume_ml: Positive = 30.0


class M3Settings(Section):
    """The method (multi-crop, multi-scale NMS, linking).

    Attributes
    ----------
    views : str
        ``crops`` of the liver, or whole ``slices``, each once (for comparison).
    paddings : tuple of float
        Fraction of the envelope's box added on each side, one crop each.
    min_envelope_overlap : float
        Share of a box that must lie in the envelope.
    nms_iou : float
        Boxes that overlap more are one finding.
    link_gap_mm : float
        Largest gap along the stack that a lesion may bridge.
    min_votes : int
        Views that must agree on a slice's box.
    min_diameter_mm : float
        Smaller findings are dropped.
    max_unreadable : float
        Share of views whose answer may be unreadable before the report says "incomplete", with or without lesions.
    """

    views: Literal["crops", "slices"] = "crops"
    paddings: Annotated[tuple[Annotated[float, Field(ge=0.0, le=2.0)], ...], Field(min_length=1)] = (
        0.10,
        0.15,
        0.20,
    )
    min_envelope_overlap: Fraction = 0.15
    nms_iou: Fraction = 0.5
    link_gap_mm: Annotated[float, Field(ge=0.0)] = 6.0
    min_votes: Annotated[int, Field(ge=1)] = 1
    min_diameter_mm: Positive = 5.0
    max_unreadable: Fraction = 0.05


class ContrastSettings(Section):
    """The embedded detector."""

    hyperdense: bool = False


class ModelSettings(Section):
    """Which Gemma3-type model is loaded, and how.

    Attributes
    ----------
    model : str
        Name on the hub, a folder, or ``test`` for the small test model of the package.
    revision : str
        Revision on the hub: a tag, branch or commit; the newest when empty.
    profile : str
        Model profile, by name or folder; found by the model's name when empty.
    device : str
        ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
    dtype : str
        ``auto``: bfloat16 on a GPU, float32 on a CPU.
    """

    model: Annotated[str, StringConstraints(min_length=1)] = "google/medgemma-1.5-4b-it"
    revision: str = ""
    profile: str = ""
    device: Annotated[str, StringConstraints(pattern=r"^(auto|cpu|cuda(:\d{1,2})?)$")] = "auto"
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"


class SteeringMode(StrEnum):
    """How the vision encoder's attention is led to the organ."""

    OFF = "off"
    SOFT = "soft"
    HARD = "hard"


class SteeringSettings(Section):
    """Spatial-Aware Attention Steering: a bias per patch in the vision encoder's attention.

    Attributes
    ----------
    mode : SteeringMode
        ``soft`` takes ``alpha`` off the others' logits, ``hard`` leaves the organ's patches alone to be seen.
    alpha : float
        How much, in logits.
    layers : tuple of int
        First and last layer of the vision encoder, both included; the profile's when empty.
    pooling : str
        A patch is the organ's when ``any`` pixel of it is, or when its ``area`` share is reached.
    area_share : float
        For ``area``.
    dilate_patches : int
        Patches that are added around the organ.
    dilate_mm : float
        Millimetres that are added around it before pooling.
    """

    mode: SteeringMode = SteeringMode.SOFT
    alpha: Positive = 5.0
    layers: tuple[()] | tuple[LayerNumber, LayerNumber] = ()
    pooling: Literal["any", "area"] = "any"
    area_share: Annotated[float, Field(gt=0.0, le=1.0)] = 0.5
    dilate_patches: Annotated[int, Field(ge=0, le=64)] = 1
    dilate_mm: NotNegative = 0.0

    @model_validator(mode="after")
    def _layers_rise(self) -> Self:
        if self.layers and self.layers[0] > self.layers[1]:
            raise ValueError("layers: the first comes before the last")
        return self


class MedGemmaSettings(ModelSettings):
    """The detector ``medgemma``.

    Attributes
    ----------
    slice_prompt_file, crop_prompt_file : Path or None
        Replace the profile's questions.
    max_new_tokens : int
        Longest answer; 0 for the profile's.
    batch_views : int
        Views that are answered together; 0 for as many as memory allows.
    attention_layers : tuple of int
        Language layers whose attention is shown; the profile's when empty.
    """

    steering: SteeringSettings = SteeringSettings()
    slice_prompt_file: Path | None = None
    crop_prompt_file: Path | None = None
    max_new_tokens: Annotated[int, Field(ge=0, le=8192)] = 0
    batch_views: Annotated[int, Field(ge=0, le=4096)] = 0
    attention_layers: tuple[LayerNumber, ...] = ()


class DetectorSettings(Section):
    """Which detector looks, and the settings of those that belong to the package."""

    name: str = "contrast"
    contrast: ContrastSettings = ContrastSettings()
    medgemma: MedGemmaSettings = MedGemmaSettings()


class ResultSettings(Section):
    """What is built.

    Attributes
    ----------
    series_number_base : int
        Series Number of the first result series.
    station_name : str
        Station Name (0008,1010) of the results; none when empty.
    attention_map : bool
        Build the attention capture and the Parametric Map, where the detector can tell its attention.
    """

    series_number_base: Annotated[int, Field(ge=1, le=99_000)] = 9100
    station_name: Annotated[str, StringConstraints(max_length=16)] = ""
    attention_map: bool = False
