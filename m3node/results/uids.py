"""Deterministic UIDs: the same findings on the same generation always give the same objects (decision 6 of the design).

A UID is ``2.25.`` and a version 5 UUID (PS3.5 B.2) over everything that the answer depends on: the manifest, the
settings that matter, the code's version, the detector, where the liver came from, the findings themselves, and the
object's kind. Time is no part of it.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from typing import Any

import numpy as np
from pydicom.uid import UID

from m3node.detectors.protocols import Box2D
from m3node.imaging.mask import VoxelMask
from m3node.m3.lesion import Lesion
from m3node.results.findings import Findings, KeyAttention
from m3node.results.objects import ObjectKind

_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_OID, "m3node/results")


def derived_uid(*parts: object) -> UID:
    """Return the UID that these parts always give; their order counts."""
    return UID(f"2.25.{uuid.uuid5(_NAMESPACE, json.dumps([str(part) for part in parts])).int}")


def mask_digest(mask: VoxelMask) -> str:
    """SHA-256 over a mask's grid and true voxels, however its block was cut."""
    block = mask.cropped()
    digest = hashlib.sha256(repr((block.shape, block.start, block.data.shape)).encode())
    digest.update(np.packbits(block.data).tobytes())
    return digest.hexdigest()


def run_digest(findings: Findings) -> str:
    """SHA-256 over all that a run's objects depend on."""
    region = findings.region
    detector = findings.detector
    # Only where there is some: what runs without it were called before must not change.
    attention = {"attention": [_attention_digest(item) for item in findings.attention]} if findings.attention else {}
    return _digest(
        {
            **attention,
            "manifest": findings.manifest_key,
            "settings": findings.settings_digest,
            "software": findings.software_version,
            "detector": [detector.name, detector.version, detector.weights, list(detector.parameters)],
            "liver": None
            if region is None
            else [region.source.value, region.reference, region.algorithm, mask_digest(region.parenchyma)],
            "outcome": findings.outcome.value,
            "views": [findings.views_total, findings.views_read],
            "lesions": [_lesion_digest(lesion) for lesion in findings.lesions],
            "tracking": list(findings.tracking_uids),
            "predecessors": [item.sop_instance_uid for item in findings.predecessors],
        }
    )


def instance_uid(digest: str, kind: ObjectKind) -> UID:
    """SOP Instance UID of a run's object; ``digest`` is the run's."""
    return derived_uid("instance", kind.value, digest)


def series_uid(digest: str, kind: ObjectKind) -> UID:
    """Series Instance UID of a run's object: each has a series of its own."""
    return derived_uid("series", kind.value, digest)


def dimension_organization_uid(digest: str) -> UID:
    """Dimension Organization UID of a run's SEG, which highdicom would make at random."""
    return derived_uid("dimension organization", digest)


def tracking_uid(findings: Findings, lesion: Lesion) -> UID:
    """Tracking Unique Identifier of a lesion that no earlier generation knew."""
    return derived_uid(
        "tracking",
        findings.manifest_key,
        findings.settings_digest,
        findings.software_version,
        findings.detector.name,
        findings.detector.version,
        findings.detector.weights,
        mask_digest(lesion.mask),
        lesion.number,
    )


def _attention_digest(item: KeyAttention) -> str:
    grid = item.grid
    return _digest(
        [
            item.slice_index,
            item.lesion,
            item.padding,
            None if item.box is None else _edges(item.box),
            _edges(grid.area),
            grid.values.shape,
            hashlib.sha256(np.ascontiguousarray(grid.values, dtype="<f4").tobytes()).hexdigest(),
        ]
    )


def _edges(box: Box2D) -> list[float]:
    return [box.r0, box.c0, box.r1, box.c1]


def _lesion_digest(lesion: Lesion) -> str:
    measured, box = lesion.measurements, lesion.key_box
    return _digest(
        [
            lesion.number,
            mask_digest(lesion.mask),
            lesion.mask_origin.value,
            lesion.key_slice,
            _edges(box.box),
            [lesion.score, lesion.score_kind.value, lesion.votes, lesion.views],
            [measured.longest.length_mm, measured.perpendicular.length_mm, measured.volume_ml],
            [measured.hu_mean, measured.hu_sd, measured.hu_liver_mean],
        ]
    )


def _digest(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=float)
    return hashlib.sha256(text.encode()).hexdigest()
