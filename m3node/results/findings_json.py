"""The words and numbers of ``findings.json``: every key is listed here, and is part of the product's promise.

::

    schema              "m3node.findings/1"
    notice              not for clinical use
    outcome             lesions | no-lesion | no-liver | incomplete | rejected
    manifest_key        SHA-256 of the generation that was looked at
    content_time        ISO 8601 with offset
    software_version, settings_digest
    detector            name, version, description, weights, parameters {name: value}
    liver               source, reference, algorithm, or null
    views               total, read, failures [text]
    lesions             a list, by number:
      number, tracking_uid, score, score_kind, votes, views, mask_origin
      key_slice         slice index from 0, in manifest order
      key_box           slice, rows [from, to), columns [from, to), score, votes, views
      boxes             the same for every slice
      measurements      longest_mm, perpendicular_mm (length, start and end as slice, row, column), volume_ml, hu_mean,
                        hu_sd, hu_liver_mean (null where it could not be measured), centroid_mm (x, y, z; patient, LPS)
    predecessors        SRs of the generation before
    rejection           reason, message, subject, or null
    attention           a list, where attention was asked for and told; by slice:
      slice, lesion     slice index from 0; number of the lesion, or null where none was found
      padding           of the view that was answered
      box               rows, columns: the model's own box whose words are meant, or null for the whole answer
      area              rows, columns: what the cells cover; array "0", "1", ... of attention.npz has their values
    masks_sha256        SHA-256 of masks.npz, or ""
    attention_sha256    SHA-256 of attention.npz, or ""
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from m3node.detectors.protocols import AttentionGrid, Box2D, DetectorIdentity, ScoreKind, SliceBox
from m3node.errors import ResultError
from m3node.imaging.mask import VoxelMask
from m3node.liver.region import LiverRegion, LiverSource
from m3node.m3.lesion import Diameter, Lesion, MaskOrigin, Measurements, Point3
from m3node.notice import NOT_FOR_CLINICAL_USE
from m3node.rejection import Reason, Rejection
from m3node.results.findings import Findings, KeyAttention, Outcome, PredecessorReport

SCHEMA = "m3node.findings/1"

Json = dict[str, Any]


class MaskNames:
    """Names of the masks in ``masks.npz``."""

    PARENCHYMA = "liver_parenchyma"
    ENVELOPE = "liver_envelope"

    @staticmethod
    def lesion(number: int) -> str:
        """Name of lesion ``number``'s mask."""
        return f"lesion_{number}"


def findings_to_json(findings: Findings, *, masks_sha256: str, attention_sha256: str = "") -> Json:
    """Return the content of ``findings.json``."""
    detector, region = findings.detector, findings.region
    return {
        "schema": SCHEMA,
        "notice": NOT_FOR_CLINICAL_USE,
        "outcome": findings.outcome.value,
        "manifest_key": findings.manifest_key,
        "content_time": findings.content_time,
        "software_version": findings.software_version,
        "settings_digest": findings.settings_digest,
        "detector": {
            "name": detector.name,
            "version": detector.version,
            "description": detector.description,
            "weights": detector.weights,
            "parameters": dict(detector.parameters),
        },
        "liver": None
        if region is None
        else {"source": region.source.value, "reference": region.reference, "algorithm": region.algorithm},
        "views": {
            "total": findings.views_total,
            "read": findings.views_read,
            "failures": list(findings.failures),
        },
        "lesions": [
            _lesion_to_json(lesion, uid) for lesion, uid in zip(findings.lesions, findings.tracking_uids, strict=True)
        ],
        "predecessors": [
            {
                "study_instance_uid": item.study_instance_uid,
                "series_instance_uid": item.series_instance_uid,
                "sop_class_uid": item.sop_class_uid,
                "sop_instance_uid": item.sop_instance_uid,
            }
            for item in findings.predecessors
        ],
        "rejection": None
        if findings.rejection is None
        else {
            "reason": findings.rejection.reason.value,
            "message": findings.rejection.message,
            "subject": findings.rejection.subject,
        },
        "attention": [_attention_to_json(item) for item in findings.attention],
        "masks_sha256": masks_sha256,
        "attention_sha256": attention_sha256,
    }


def findings_from_json(
    document: Json, masks: dict[str, VoxelMask], grids: Sequence[npt.NDArray[np.float32]] = ()
) -> Findings:
    """Build findings again.

    Parameters
    ----------
    document : dict
        Content of ``findings.json``.
    masks : dict of str to VoxelMask
        By name.
    grids : sequence of ndarray of float32
        The cells of each entry of ``attention``; without them there is no attention.

    Raises
    ------
    ResultError
        The schema is not ours.
    KeyError, ValueError, TypeError
        A key is missing, or a value is not what the schema says.
    """
    if document.get("schema") != SCHEMA:
        raise ResultError(f"findings.json has schema {document.get('schema')!r}; this m3node reads {SCHEMA!r}")
    detector, liver, views = document["detector"], document["liver"], document["views"]
    rejection = document["rejection"]
    return Findings(
        manifest_key=document["manifest_key"],
        outcome=Outcome(document["outcome"]),
        content_time=document["content_time"],
        software_version=document["software_version"],
        detector=DetectorIdentity(
            name=detector["name"],
            version=detector["version"],
            description=detector["description"],
            weights=detector["weights"],
            parameters=tuple(detector["parameters"].items()),
        ),
        settings_digest=document["settings_digest"],
        region=None
        if liver is None
        else LiverRegion(
            parenchyma=masks[MaskNames.PARENCHYMA],
            envelope=masks[MaskNames.ENVELOPE],
            source=LiverSource(liver["source"]),
            reference=liver["reference"],
            algorithm=liver["algorithm"],
        ),
        lesions=tuple(_lesion_from_json(item, masks) for item in document["lesions"]),
        views_total=views["total"],
        views_read=views["read"],
        failures=tuple(views["failures"]),
        tracking_uids=tuple(item["tracking_uid"] for item in document["lesions"]),
        predecessors=tuple(PredecessorReport(**item) for item in document["predecessors"]),
        rejection=None
        if rejection is None
        else Rejection(Reason(rejection["reason"]), rejection["message"], rejection["subject"]),
        # Findings of older releases have no such key.
        attention=tuple(
            _attention_from_json(item, values) for item, values in zip(document["attention"], grids, strict=True)
        )
        if grids
        else (),
    )


def _attention_to_json(item: KeyAttention) -> Json:
    return {
        "slice": int(item.slice_index),
        "lesion": item.lesion,
        "padding": float(item.padding),
        "box": None if item.box is None else _edges_to_json(item.box),
        "area": _edges_to_json(item.grid.area),
    }


def _attention_from_json(item: Json, values: npt.NDArray[np.float32]) -> KeyAttention:
    return KeyAttention(
        slice_index=item["slice"],
        grid=AttentionGrid(values=values, area=_edges_from_json(item["area"])),
        box=None if item["box"] is None else _edges_from_json(item["box"]),
        lesion=item["lesion"],
        padding=item["padding"],
    )


def _lesion_to_json(lesion: Lesion, tracking_uid: str) -> Json:
    measured = lesion.measurements
    return {
        "number": lesion.number,
        "tracking_uid": tracking_uid,
        "score": float(lesion.score),
        "score_kind": lesion.score_kind.value,
        "votes": int(lesion.votes),
        "views": int(lesion.views),
        "mask_origin": lesion.mask_origin.value,
        "key_slice": int(lesion.key_slice),
        "key_box": _box_to_json(lesion.key_box),
        "measurements": {
            "longest_mm": _diameter_to_json(measured.longest),
            "perpendicular_mm": _diameter_to_json(measured.perpendicular),
            "volume_ml": _finite(measured.volume_ml),
            "hu_mean": _finite(measured.hu_mean),
            "hu_sd": _finite(measured.hu_sd),
            "hu_liver_mean": _finite(measured.hu_liver_mean),
            "centroid_mm": [float(v) for v in measured.centroid_mm],
        },
        "boxes": [_box_to_json(box) for box in lesion.boxes],
    }


def _lesion_from_json(item: Json, masks: dict[str, VoxelMask]) -> Lesion:
    measured = item["measurements"]
    return Lesion(
        number=item["number"],
        mask=masks[MaskNames.lesion(item["number"])],
        mask_origin=MaskOrigin(item["mask_origin"]),
        boxes=tuple(_box_from_json(box) for box in item["boxes"]),
        key_slice=item["key_slice"],
        key_box=_box_from_json(item["key_box"]),
        score=item["score"],
        score_kind=ScoreKind(item["score_kind"]),
        votes=item["votes"],
        views=item["views"],
        measurements=Measurements(
            longest=_diameter_from_json(measured["longest_mm"]),
            perpendicular=_diameter_from_json(measured["perpendicular_mm"]),
            volume_ml=_number(measured["volume_ml"]),
            hu_mean=_number(measured["hu_mean"]),
            hu_sd=_number(measured["hu_sd"]),
            hu_liver_mean=_number(measured["hu_liver_mean"]),
            centroid_mm=_point(measured["centroid_mm"]),
        ),
    )


def _box_to_json(box: SliceBox) -> Json:
    return {
        "slice": int(box.slice_index),
        **_edges_to_json(box.box),
        "score": float(box.score),
        "votes": int(box.votes),
        "views": int(box.views),
    }


def _box_from_json(item: Json) -> SliceBox:
    return SliceBox(
        slice_index=item["slice"],
        box=_edges_from_json(item),
        score=item["score"],
        votes=item["votes"],
        views=item["views"],
    )


def _edges_to_json(box: Box2D) -> Json:
    return {"rows": [float(box.r0), float(box.r1)], "columns": [float(box.c0), float(box.c1)]}


def _edges_from_json(item: Json) -> Box2D:
    (r0, r1), (c0, c1) = item["rows"], item["columns"]
    return Box2D(r0=r0, c0=c0, r1=r1, c1=c1)


def _diameter_to_json(diameter: Diameter) -> Json:
    return {
        "length": float(diameter.length_mm),
        "start": [float(v) for v in diameter.start],
        "end": [float(v) for v in diameter.end],
    }


def _diameter_from_json(item: Json) -> Diameter:
    return Diameter(length_mm=item["length"], start=_point(item["start"]), end=_point(item["end"]))


def _finite(value: float) -> float | None:
    """JSON knows no NaN: what could not be measured is null."""
    return float(value) if math.isfinite(value) else None


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def _point(values: list[float]) -> Point3:
    first, second, third = values
    return first, second, third
