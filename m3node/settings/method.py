"""Settings of what is found and built: liver, method, detector, results."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StringConstraints

from m3node.settings.types import Fraction, Positive, Section


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


class DetectorSettings(Section):
    """Which detector looks, and its own settings."""

    name: str = "contrast"
    contrast: ContrastSettings = ContrastSettings()


class ResultSettings(Section):
    """What is built.

    Attributes
    ----------
    series_number_base : int
        Series Number of the first result series.
    station_name : str
        Station Name (0008,1010) of the results; none when empty.
    """

    series_number_base: Annotated[int, Field(ge=1, le=99_000)] = 9100
    station_name: Annotated[str, StringConstraints(max_length=16)] = ""
