"""All cases in all conditions, each kept as it is done, so that what broke off goes on where it was."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np

from m3node import __version__
from m3node.detectors.protocols import CropDetector, Detection, Detector, DetectorIdentity
from m3node.detectors.registry import load_detector
from m3node.errors import InputRejected
from m3node.evaluation.ablation.conditions import Condition
from m3node.evaluation.ablation.looking import check_shown, look
from m3node.evaluation.ablation.record import (
    SCHEMA,
    FoundBox,
    FoundLesion,
    KnownLesion,
    Record,
    load_record,
    save_record,
)
from m3node.evaluation.ablation.regions import LiverFrom, case_region, largest_lesion_slice, on_one_slice
from m3node.evaluation.cases.layout import CaseFolder
from m3node.evaluation.cases.reading import Case, read_case
from m3node.imaging.geometry import PatientGeometry
from m3node.imaging.mask import VoxelMask
from m3node.liver.region import LiverRegion
from m3node.m3.lesion import Lesion
from m3node.m3.lesions import characterise, key_slice_of
from m3node.m3.measurements import axial_diameters
from m3node.m3.views import viewed_slices
from m3node.progress import Progress
from m3node.rejection import Reason
from m3node.settings import Settings


class Protocol(StrEnum):
    """Which slices are looked at, and whose liver it is."""

    WHOLE = "whole"
    PUBLISHED = "published"


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be run.

    Attributes
    ----------
    conditions : tuple of Condition
        In the order of the table.
    settings : Settings
        The tree; each condition brings its own detector section.
    protocol : Protocol
        ``published`` takes liver and slice from the truth.
    liver : LiverFrom
        Whose liver.
    out : Path
        Where records are kept.
    """

    conditions: tuple[Condition, ...]
    settings: Settings
    protocol: Protocol
    liver: LiverFrom
    out: Path


@dataclass(frozen=True, slots=True)
class Unusable:
    """A case that is in no metric, and why."""

    case: str
    reason: str


@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """What came of a plan.

    Attributes
    ----------
    records : tuple of Record
        By condition, then by case.
    unusable : tuple of Unusable
        By case.
    identities : dict of str to DetectorIdentity
        Who looked, by condition.
    reused : int
        How many of the records were there already.
    """

    records: tuple[Record, ...]
    unusable: tuple[Unusable, ...]
    identities: dict[str, DetectorIdentity]
    reused: int


def run_plan(cases: Sequence[CaseFolder], plan: Plan, progress: Progress) -> Run:
    """Run every condition on every case; what an earlier run kept under the same key is not run again.

    Detectors are built before the first case is read, one for all conditions that share its settings: what one of them
    cannot do is said before hours are spent on the others. Those that differ by their steering share one model.

    Raises
    ------
    ConfigError, InferenceError
        A detector cannot be loaded, cannot be shown what a condition shows, or fails. What is done stays.
    """
    groups = [(load_detector(group[0].detector), group) for group in _by_detector(plan.conditions)]
    for detector, group in groups:
        for condition in group:
            check_shown(detector, condition.shown)
    digests = {case.name: case.digest() for case in cases}
    records: dict[tuple[str, str], Record] = {}
    unusable: dict[str, str] = {}
    identities: dict[str, DetectorIdentity] = {}
    total, done, reused = len(cases) * len(plan.conditions), 0, 0
    for detector, group in groups:
        for condition in group:
            identities[condition.key] = detector.identity
        for folder in cases:
            paths = {condition.key: _path(plan, condition, detector.identity, folder, digests) for condition in group}
            held = {key: record for key, path in paths.items() if (record := load_record(path)) is not None}
            reused += len(held)
            if len(held) < len(group) and folder.name not in unusable:
                missing = [condition for condition in group if condition.key not in held]
                try:
                    for record in _run_case(folder, plan, missing, detector, digests[folder.name]):
                        save_record(record, paths[record.condition])
                        held[record.condition] = record
                except InputRejected as error:
                    unusable[folder.name] = error.message
            records |= {(key, folder.name): record for key, record in held.items()}
            done += len(group)
            progress("evaluating", done, total)
    return Run(
        records=tuple(
            records[condition.key, case.name]
            for condition in plan.conditions
            for case in cases
            if case.name not in unusable and (condition.key, case.name) in records
        ),
        unusable=tuple(Unusable(case, reason) for case, reason in sorted(unusable.items())),
        identities=identities,
        reused=reused,
    )


def liver_path(plan: Plan, case_digest: str) -> Path:
    """Where a case's predicted liver is kept."""
    sections = ("eligibility", "selection", "liver")
    settings = {section: getattr(plan.settings, section).model_dump(mode="json") for section in sections}
    return plan.out / "livers" / f"{_digest(SCHEMA, __version__, case_digest, settings)}.npz"


def region_of(case: Case, plan: Plan, case_digest: str) -> LiverRegion | None:
    """Return the liver region that a plan runs a case in: all of the liver, or its one slice.

    Raises
    ------
    InputRejected
        The truth is needed and not there.
    """
    source = LiverFrom.TRUTH if plan.protocol is Protocol.PUBLISHED else plan.liver
    region = case_region(case, source, plan.settings.liver, liver_path(plan, case_digest))
    if plan.protocol is not Protocol.PUBLISHED or region is None or not case.lesions:
        return region
    return LiverRegion(
        parenchyma=region.parenchyma,
        envelope=on_one_slice(region.envelope, largest_lesion_slice(case.lesions)),
        source=region.source,
        reference=region.reference,
        algorithm=region.algorithm,
    )


def _run_case(
    folder: CaseFolder,
    plan: Plan,
    conditions: Sequence[Condition],
    detector: Detector | CropDetector,
    case_digest: str,
) -> Iterable[Record]:
    case = read_case(folder, plan.settings)
    if plan.protocol is Protocol.PUBLISHED and not case.lesions:
        raise InputRejected(
            Reason.NOT_SELECTED, "the published protocol takes its slice from the truth, and no lesion of it is known"
        )
    region = region_of(case, plan, case_digest)
    for condition in conditions:
        yield _run_one(case, region, condition, plan, detector)


def _run_one(
    case: Case, region: LiverRegion | None, condition: Condition, plan: Plan, detector: Detector | CropDetector
) -> Record:
    begun = time.perf_counter()
    detection = Detection(candidates=(), views_total=0, views_read=0)
    lesions: tuple[Lesion, ...] = ()
    if region is not None:
        detection = look(detector, condition.shown, case.volume, region, plan.settings.m3)
        lesions = characterise(case.volume, region, detection, plan.settings.m3)
    seconds = time.perf_counter() - begun
    truth = case.lesions
    if truth and plan.protocol is Protocol.PUBLISHED:
        k = largest_lesion_slice(truth)
        truth = tuple(part for lesion in truth if (part := on_one_slice(lesion, k)).count)
    boxes = [
        FoundBox(box.slice_index, (box.box.r0, box.box.c0, box.box.r1, box.box.c1), box.score, box.votes, box.views)
        for candidate in detection.candidates
        for box in candidate.boxes
    ]
    return Record(
        case=case.folder.name,
        patient=case.folder.patient,
        condition=condition.key,
        slices=viewed_slices(region.envelope, case.volume.geometry) if region is not None else (),
        liver_found=region is not None,
        liver_dice=_dice([region.parenchyma] if region is not None else [], [case.liver]) if case.liver else None,
        views_total=detection.views_total,
        views_read=detection.views_read,
        boxes=tuple(sorted(boxes, key=lambda box: (box.k, -box.score))),
        found=tuple(_found(lesion) for lesion in lesions),
        truth=None if truth is None else tuple(known_lesion(lesion, case.volume.geometry) for lesion in truth),
        dice=_dice([lesion.mask for lesion in lesions], truth) if truth else None,
        seconds=seconds,
    )


def known_lesion(mask: VoxelMask, geometry: PatientGeometry) -> KnownLesion:
    """Measure a true lesion."""
    extent = mask.extent
    assert extent is not None  # the readers give no empty lesion
    boxes = []
    for k in range(*extent[0]):
        plane = mask.on_slice(k)
        rows, columns = np.flatnonzero(plane.any(axis=1)), np.flatnonzero(plane.any(axis=0))
        if rows.size:
            boxes.append((k, (float(rows[0]), float(columns[0]), float(rows[-1] + 1), float(columns[-1] + 1))))
    return KnownLesion(
        extent=extent,
        diameter_mm=axial_diameters(mask, key_slice_of(mask), geometry)[0].length_mm,
        volume_ml=mask.count * geometry.voxel_volume_ml,
        boxes=tuple(boxes),
    )


def _found(lesion: Lesion) -> FoundLesion:
    extent = lesion.mask.extent
    assert extent is not None  # a reported lesion is never empty
    return FoundLesion(
        extent=extent,
        score=lesion.score,
        diameter_mm=lesion.measurements.longest.length_mm,
        volume_ml=lesion.measurements.volume_ml,
    )


def _dice(found: Sequence[VoxelMask], truth: Sequence[VoxelMask]) -> float:
    """Dice of two unions of masks; 0 where nothing was found."""
    a, b = _union(found), _union(truth)
    if a is None or b is None or not a.count + b.count:
        return 0.0
    extent = b.extent
    common = int(np.count_nonzero(a.within(extent) & b.within(extent))) if extent is not None else 0
    return 2.0 * common / (a.count + b.count)


def _union(masks: Sequence[VoxelMask]) -> VoxelMask | None:
    extents = [extent for mask in masks if (extent := mask.extent) is not None]
    if not extents:
        return None
    low = [min(extent[axis][0] for extent in extents) for axis in range(3)]
    high = [max(extent[axis][1] for extent in extents) for axis in range(3)]
    around = ((low[0], high[0]), (low[1], high[1]), (low[2], high[2]))
    data = np.zeros(tuple(b - a for a, b in around), dtype=np.bool_)
    for mask in masks:
        data |= mask.within(around)
    return VoxelMask(shape=masks[0].shape, start=(low[0], low[1], low[2]), data=data)


def _by_detector(conditions: Sequence[Condition]) -> list[list[Condition]]:
    groups: list[list[Condition]] = []
    for condition in conditions:
        group = next((group for group in groups if group[0].detector == condition.detector), None)
        if group is None:
            groups.append([condition])
        else:
            group.append(condition)
    return groups


def _path(
    plan: Plan, condition: Condition, identity: DetectorIdentity, folder: CaseFolder, digests: dict[str, str]
) -> Path:
    """A record's place: its name holds a digest of everything that it depends on."""
    sections = ("eligibility", "selection", "liver", "m3")
    key = _digest(
        SCHEMA,
        __version__,
        digests[folder.name],
        folder.patient,
        {section: getattr(plan.settings, section).model_dump(mode="json") for section in sections},
        condition.shown.value,
        condition.detector.model_dump(mode="json"),
        asdict(identity),
        plan.protocol.value,
        plan.liver.value,
    )
    return plan.out / "records" / folder.name / f"{condition.key}.{key[:16]}.json"


def _digest(*parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
