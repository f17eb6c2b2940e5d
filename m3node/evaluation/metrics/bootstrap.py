"""Values of metrics and their intervals: patients, not cases or lesions, are what is resampled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from m3node.evaluation.ablation.record import Record
from m3node.evaluation.metrics.definitions import Metric, Term

MIN_PATIENTS = 10
"""Below, resampling says little about other patients: no interval is given."""

REPLICATES = 2000
SEED = 20260101
COVERAGE = 0.95


@dataclass(frozen=True, slots=True)
class Value:
    """A metric's value.

    Attributes
    ----------
    value : float or None
        None where there is nothing to divide by.
    low, high : float or None
        Percentile interval; None below `MIN_PATIENTS` patients.
    patients : int
        Patients that the metric has something of.
    """

    value: float | None
    low: float | None
    high: float | None
    patients: int


def evaluate(metric: Metric, records: Sequence[Record]) -> Value:
    """Evaluate a metric on the records of one condition."""
    return resample(_by_patient([(record.patient, metric.term(record)) for record in records]))


def difference(metric: Metric, records: Sequence[Record], others: Sequence[Record]) -> Value:
    """Evaluate how much larger a metric is in one condition than in another, resampling the same patients in both."""
    ours = _by_patient([(record.patient, metric.term(record)) for record in records])
    theirs = _by_patient([(record.patient, metric.term(record)) for record in others])
    shared = sorted(ours.keys() & theirs.keys())
    a, b = _terms([ours[patient] for patient in shared]), _terms([theirs[patient] for patient in shared])
    known = (a[:, 1] > 0) | (b[:, 1] > 0)
    a, b = a[known], b[known]
    whole = _ratio(a.sum(axis=0)) - _ratio(b.sum(axis=0))
    if np.isnan(whole):
        return Value(None, None, None, len(a))
    weights = _weights(len(a))
    return _value(float(whole), _ratio(weights @ a) - _ratio(weights @ b), len(a))


def resample(by_patient: dict[str, Term]) -> Value:
    """Divide the sums, and give the interval from resampled patients; the order of the patients plays no part."""
    terms = _terms([by_patient[patient] for patient in sorted(by_patient)])
    terms = terms[terms[:, 1] > 0]
    if not len(terms):
        return Value(None, None, None, 0)
    whole = float(_ratio(terms.sum(axis=0)))
    # Sorted, so that equal data give equal intervals whatever the patients are called.
    terms = terms[np.lexsort(terms.T)]
    return _value(whole, _ratio(_weights(len(terms)) @ terms), len(terms))


def _value(whole: float, replicates: npt.NDArray[np.float64], patients: int) -> Value:
    if patients < MIN_PATIENTS:
        return Value(whole, None, None, patients)
    low, high = np.nanquantile(replicates, [(1 - COVERAGE) / 2, (1 + COVERAGE) / 2])
    return Value(whole, float(low), float(high), patients)


def _weights(patients: int) -> npt.NDArray[np.float64]:
    rng = np.random.default_rng(SEED)
    if not patients:
        return np.zeros((REPLICATES, 0))
    return np.asarray(rng.multinomial(patients, np.full(patients, 1 / patients), size=REPLICATES), dtype=np.float64)


def _terms(terms: Sequence[Term]) -> npt.NDArray[np.float64]:
    return np.asarray(terms, dtype=np.float64).reshape(-1, 2)


def _ratio(sums: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    with np.errstate(invalid="ignore", divide="ignore"):
        ratios = np.where(sums[..., 1] > 0, sums[..., 0] / sums[..., 1], np.nan)
    return np.asarray(ratios, dtype=np.float64)


def _by_patient(terms: Sequence[tuple[str, Term]]) -> dict[str, Term]:
    summed: dict[str, Term] = {}
    for patient, (above, below) in terms:
        held = summed.get(patient, (0.0, 0.0))
        summed[patient] = (held[0] + above, held[1] + below)
    return summed
