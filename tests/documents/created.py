"""What the conformance statement says of the created objects: observed on objects that the node's own builder made.

Findings are built five times: of a plain source, the same with other settings, of a source that says more and other
things of itself, of a healthy liver, and of a search that was not complete. What stays, what follows the source and
what follows the settings is then seen, not claimed; only the words for what the node computes are written here.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from highdicom.sr import CodedConcept
from pydicom.datadict import tag_for_keyword
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.uid import UID

from documents.content import content_table
from documents.markers import table
from documents.nested import inside
from documents.network import Created
from documents.words import COMPUTED, CONFIGURED, FOLLOWED, SEQUENCES
from m3node.detectors.protocols import DetectorIdentity
from m3node.evaluation.ct_writer import axial_geometry, write_ct_series
from m3node.imaging.geometry import PatientGeometry
from m3node.intake.series.manifest import Manifest
from m3node.results import terms
from m3node.results.build import build_objects
from m3node.results.findings import Findings, Outcome, PredecessorReport
from m3node.results.objects import ObjectKind
from m3node.settings import Settings
from made_findings import made_findings, with_attention
from made_manifest import made_manifest, manifest_geometry

KINDS = (
    ObjectKind.REPORT,
    ObjectKind.VOLUMES,
    ObjectKind.SEGMENTATION,
    ObjectKind.PRESENTATION,
    ObjectKind.ATTENTION_CAPTURE,
    ObjectKind.ATTENTION_MAP,
)
REPORTS = (ObjectKind.REPORT, ObjectKind.VOLUMES)
EQUIPMENT = "ContributingEquipmentSequence"

RICH = {
    "SpecificCharacterSet": "ISO_IR 100",
    "PatientName": "Muster^Jürgen",
    "PatientID": "4711",
    "IssuerOfPatientID": "HOSPITAL",
    "PatientBirthDate": "19501231",
    "PatientSex": "F",
    "PatientAge": "075Y",
    "PatientSize": 1.7,
    "PatientWeight": 71.5,
    "AccessionNumber": "A-17",
    "StudyID": "S1",
    "StudyDate": "20251231",
    "StudyTime": "235959",
    "StudyDescription": "CT liver",
    "ReferringPhysicianName": "House^Gregory",
    "TimezoneOffsetFromUTC": "-0500",
    "PositionReferenceIndicator": "XY",
    "LossyImageCompression": "01",
    "LossyImageCompressionRatio": 8,
    "LossyImageCompressionMethod": "ISO_15444_1",
    "RescaleIntercept": -1000,
    "RescaleSlope": 2,
}


@dataclass(frozen=True)
class Run:
    """One build: its source's header and its objects."""

    source: Dataset
    objects: dict[ObjectKind, Dataset]


def created_tables(folder: Path) -> tuple[list[Created], dict[str, str]]:
    """What is sent, and all tables of the annex, by name; ``folder`` takes the made series."""
    runs = _runs(folder)
    base = runs[0].objects
    created = [
        Created(kind, UID(base[kind].SOPClassUID), UID(base[kind].file_meta.TransferSyntaxUID)) for kind in ObjectKind
    ]
    rows = {kind: dict(_rows(kind, runs)) for kind in KINDS}
    shared = {
        keyword for keyword, row in rows[KINDS[0]].items() if all(other.get(keyword) == row for other in rows.values())
    }
    heading = ("attribute", "tag", "VR", "module", "type", "presence", "value", "source")
    made = {"created-shared": table(heading, (row for keyword, row in rows[KINDS[0]].items() if keyword in shared))}
    for kind in KINDS:
        own = [row for keyword, row in rows[kind].items() if keyword not in shared]
        made[f"created-{kind.value}"] = table(heading, own)
    everything = [run.objects[kind] for run in runs for kind in KINDS if kind in run.objects]
    made["inside-shared"] = inside([_only(EQUIPMENT, ds) for ds in everything])
    for kind in set(KINDS) - set(REPORTS):
        documents = [run.objects[kind] for run in runs if kind in run.objects]
        made[f"inside-{kind.value}"] = inside(documents, leave_out=[EQUIPMENT])
    made["codes"] = _codes()
    for kind in REPORTS:
        made[f"content-{kind.value}"] = content_table([run.objects[kind] for run in runs])
    return created, made


def _runs(folder: Path) -> list[Run]:
    upright = axial_geometry((12, 60, 70), (2.5, 0.9, 0.7), origin=(-20.0, -30.0, 100.0))
    turned = axial_geometry((10, 50, 80), (3.0, 0.8, 0.75), row=(0.8, 0.6, 0.0), column=(-0.6, 0.8, 0.0))
    plain, rich = _series(folder / "plain", upright, {}), _series(folder / "rich", turned, RICH)
    other = Settings.model_validate({"results": {"series_number_base": 500, "station_name": "NODE1"}})
    older = PredecessorReport("1.2.3", "1.2.4", "1.2.840.10008.5.1.4.1.1.88.34", "1.2.5")
    made = _findings(rich)
    later = replace(
        made,
        content_time="2026-05-06T07:08:09.500000+01:00",
        detector=DetectorIdentity("another", "2", "A rule.", parameters=(("beta", "2"),)),
        lesions=made.lesions[:1],
        tracking_uids=made.tracking_uids[:1],
        attention=made.attention[:1],
        predecessors=(older,),
    )
    healthy = _findings(plain, lesions=())
    return [
        _built(plain, _findings(plain), Settings(), folder / "1"),
        _built(plain, _findings(plain), other, folder / "2"),
        _built(rich, later, Settings(), folder / "3", KINDS),
        _built(plain, healthy, Settings(), folder / "4", KINDS),
        _built(plain, replace(healthy, outcome=Outcome.INCOMPLETE, views_read=20), Settings(), folder / "5", KINDS),
    ]


def _series(folder: Path, geometry: PatientGeometry, attributes: dict[str, Any]) -> Manifest:
    hu = np.full(geometry.shape, 40, dtype=np.int16)
    return made_manifest(write_ct_series(folder, hu, geometry, seed=folder.name, attributes=attributes))


def _findings(manifest: Manifest, **changes: Any) -> Findings:
    return with_attention(made_findings(manifest_geometry(manifest), manifest_key=manifest.key, **changes))


def _built(
    manifest: Manifest,
    findings: Findings,
    settings: Settings,
    folder: Path,
    kinds: Collection[ObjectKind] = tuple(ObjectKind),
) -> Run:
    objects = build_objects(findings, manifest, folder, settings, kinds=kinds)
    source = pydicom.dcmread(Path(manifest.root) / manifest.instances[0].path, stop_before_pixels=True)
    return Run(source, {item.kind: pydicom.dcmread(item.path) for item in objects})


def _rows(kind: ObjectKind, runs: list[Run]) -> Iterator[tuple[str, tuple[str, ...]]]:
    modules = _modules(runs[0].objects[kind])
    found = {element.tag: element for run in runs for element in run.objects[kind]}
    for tag in sorted(found):
        element = found[tag]
        keyword = element.keyword
        module, type_ = modules.get(keyword, ("–", "–"))
        value, source = _origin(keyword, kind, runs)
        present = _presence(keyword, kind, runs)
        yield keyword, (element.name, f"`{tag}`", element.VR, module, type_, present, value, source)


def _presence(keyword: str, kind: ObjectKind, runs: list[Run]) -> str:
    """As PS3.2 abbreviates it: value not always present, attribute not always present, always, empty."""
    elements = [run.objects[kind].get(keyword) for run in runs]
    there = [keyword in run.objects[kind] for run in runs]
    has_value = [in_it and not _is_empty(value) for in_it, value in zip(there, elements, strict=True)]
    if not all(there):
        return "ANAP"
    if not any(has_value):
        return "EMPTY"
    return "ALWAYS" if all(has_value) else "VNAP"


def _is_empty(value: Any) -> bool:
    return value is None or (hasattr(value, "__len__") and len(value) == 0) or str(value) == ""


def _origin(keyword: str, kind: ObjectKind, runs: list[Run]) -> tuple[str, str]:
    """What the value is, and where it comes from."""
    texts = [_text(run.objects[kind], keyword) for run in runs]
    sources = [_text(run.source, keyword) for run in runs]
    alike = len(set(texts)) == 1
    if not any(texts):
        origin = "", "FIXED"
    elif texts[0] != texts[1]:  # their runs differ in settings alone
        origin = CONFIGURED[keyword], "CONFIG"
    elif not alike and texts == sources:
        origin = "that of the source", "SRC"
    elif alike and keyword not in COMPUTED:
        origin = _fixed(keyword, texts[0] or ""), "FIXED"
    elif keyword in FOLLOWED:
        origin = FOLLOWED[keyword], "SRC"
    else:
        origin = COMPUTED[keyword], "AUTO"
    return origin


def _text(dataset: Dataset, keyword: str) -> str | None:
    if keyword not in dataset:
        return None
    element: DataElement = dataset[keyword]
    if element.VR == "SQ":
        return "\n".join(str(item) for item in element.value)
    return repr(element.value) if isinstance(element.value, bytes) else str(element.value)


def _fixed(keyword: str, text: str) -> str:
    if keyword in SEQUENCES:
        return SEQUENCES[keyword]
    if keyword == "SoftwareVersions":
        return "the version of m3node"
    if keyword in ("DeviceSerialNumber", "DeviceUID"):
        return "the same in every object and release (`m3node/identity.py`)"
    return f"`{text}`"


@cache
def _standard(name: str) -> Any:
    """PS3.3's modules and attributes, as highdicom carries them."""
    return json.loads((files("highdicom") / "_standard" / f"{name}.json").read_text(encoding="utf-8"))


def _modules(ds: Dataset) -> dict[str, tuple[str, str]]:
    """Where each attribute belongs, and its type there.

    Of several modules that have it the last one in the IOD's order, which is the most special, as Multi-frame
    Functional Groups is beside General Image; but SOP Common, which ends each IOD, and optional ones count least.
    """
    homes: dict[str, list[tuple[int, int, str, str]]] = {}
    usages = _standard("iod_module_map")[_standard("sop_class_iod_map")[str(ds.SOPClassUID)]]
    for order, module in enumerate(usages):
        key, usage = module["key"], module["usage"]
        own = [item for item in _standard("module_attribute_map").get(key, ()) if not item["path"]]
        # A conditional module without its mandatory attributes is not there (PS3.3 A.1.3).
        if usage != "M" and any(item["type"] == "1" and not _has(ds, item["keyword"]) for item in own):
            continue
        rank = 0 if key == "sop-common" else {"M": 3, "C": 2}.get(usage, 1)
        for item in own:
            homes.setdefault(item["keyword"], []).append((rank, order, key, item["type"]))
    chosen = {keyword: max(found) for keyword, found in homes.items()}
    return {keyword: (key.replace("-", " "), type_) for keyword, (_, _, key, type_) in chosen.items()}


def _has(ds: Dataset, keyword: str) -> bool:
    # Overlays are repeating groups, whose keywords name no tag; no object here has one.
    return tag_for_keyword(keyword) is not None and keyword in ds


def _only(keyword: str, ds: Dataset) -> Dataset:
    part = Dataset()
    part[keyword] = ds[keyword]
    return part


def _codes() -> str:
    concepts = {id(value): value for value in vars(terms).values() if isinstance(value, CodedConcept)}
    rows = sorted((item.scheme_designator, item.value, item.meaning) for item in concepts.values())
    return table(("scheme", "code", "meaning"), rows)
