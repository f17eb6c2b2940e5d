"""The metrics of one grid, by name."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class GridMetrics:
    """Numbers about one grid; docs/attention.md has the formulas. None where the image does not allow one.

    Attributes
    ----------
    entropy, entropy_normalised : float
        In nats, 0…ln(cells); and as a share of that.
    focus : float
        The largest cell, 0…1.
    inside_body : float or None
        Attention inside the body mask.
    border_fraction : float
        Attention on the outermost cells.
    left_fraction, right_fraction : float
        Of the image, as it is looked at.
    patient_left_fraction, patient_right_fraction : float or None
        Of the patient.
    apical_fraction, basal_fraction : float
        The half at the patient's head, or the upper one where the file does not say where that is; and the other.
    centre_row, centre_column : float
        Centre of mass, as shares of the image's height and width: 0.5 is its middle.
    truth_inside : float or None
        Attention inside the truth.
    pointing_hit : bool or None
        Whether the largest cell's centre lies in the truth.
    """

    entropy: float
    entropy_normalised: float
    focus: float
    inside_body: float | None
    border_fraction: float
    left_fraction: float
    right_fraction: float
    patient_left_fraction: float | None
    patient_right_fraction: float | None
    apical_fraction: float
    basal_fraction: float
    centre_row: float
    centre_column: float
    truth_inside: float | None
    pointing_hit: bool | None
