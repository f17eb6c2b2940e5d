"""What every result object carries, whichever its kind: whose it is, who made it, when, and what it is not for."""

from __future__ import annotations

import io
import warnings
from copy import deepcopy
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any

import highdicom as hd
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import UID

from m3node import identity
from m3node.detectors.protocols import DetectorIdentity
from m3node.errors import ResultError
from m3node.intake.series.manifest import Manifest
from m3node.notice import NOT_FOR_CLINICAL_USE
from m3node.results.findings import Findings
from m3node.results.objects import ObjectKind
from m3node.results.source import SourceSeries
from m3node.results.uids import instance_uid, series_uid
from m3node.settings import ResultSettings

MANUFACTURER = "m3node"

_SERIES: dict[ObjectKind, tuple[int, str]] = {
    ObjectKind.REPORT: (0, "m3node lesions"),
    ObjectKind.VOLUMES: (1, "m3node lesion volumes"),
    ObjectKind.SEGMENTATION: (2, "m3node segmentation"),
    ObjectKind.PRESENTATION: (3, "m3node key slices"),
    ObjectKind.REPORT_ENHANCED: (4, "m3node lesions"),
    ObjectKind.VOLUMES_ENHANCED: (5, "m3node lesion volumes"),
    ObjectKind.ATTENTION_CAPTURE: (6, "m3node attention"),
    ObjectKind.ATTENTION_MAP: (7, "m3node attention values"),
}


@dataclass(frozen=True, slots=True, eq=False)
class Job:
    """All that building one run's objects takes.

    Attributes
    ----------
    findings : Findings
        As persisted.
    source : SourceSeries
        The series that they answer.
    settings : ResultSettings
        How results are named.
    digest : str
        `m3node.results.uids.run_digest` of the findings.
    manifest : Manifest
        The generation, for those who need its pixels.
    kinds : frozenset of ObjectKind
        All that the run builds: an object refers only to what there will be.
    """

    findings: Findings
    source: SourceSeries
    settings: ResultSettings
    digest: str
    manifest: Manifest
    kinds: frozenset[ObjectKind]

    def uid(self, kind: ObjectKind) -> UID:
        """SOP Instance UID of this run's object of a kind."""
        return instance_uid(self.digest, kind)

    def series_uid(self, kind: ObjectKind) -> UID:
        """Series Instance UID of this run's object of a kind."""
        return series_uid(self.digest, kind)

    def attributes(self, kind: ObjectKind) -> dict[str, Any]:
        """The keyword arguments that all of highdicom's constructors share."""
        number, description = _SERIES[kind]
        when = content_datetime(self)
        return {
            "series_instance_uid": self.series_uid(kind),
            "series_number": self.settings.series_number_base + number,
            "series_description": f"{description} - not for clinical use",
            "sop_instance_uid": self.uid(kind),
            "instance_number": 1,
            "manufacturer": MANUFACTURER,
            "manufacturer_model_name": MANUFACTURER,
            "software_versions": self.findings.software_version,
            "device_serial_number": identity.DEVICE_UID,
            "content_date": when.date(),
            "content_time": when.time(),
            "contributing_equipment": [contributing_equipment(self.findings.detector, self.findings.software_version)],
        }


def content_datetime(job: Job) -> datetime:
    """Content date and time, in the source's time zone where it names one (0008,0201)."""
    try:
        when = datetime.fromisoformat(job.findings.content_time)
    except ValueError as error:
        raise ResultError(f"the findings' content time {job.findings.content_time!r} is not ISO 8601") from error
    offset = _timezone(str(job.source.header.get("TimezoneOffsetFromUTC") or ""))
    return when.astimezone(offset) if offset is not None and when.tzinfo is not None else when


def contributing_equipment(detector: DetectorIdentity, software_version: str) -> hd.ContributingEquipment:
    """Return the item of Contributing Equipment Sequence that names the detector and its model (PS3.3 C.12.1)."""
    words = [detector.description]
    if detector.weights:
        words.append(f"Weights: {detector.weights}.")
    words.append(NOT_FOR_CLINICAL_USE)
    item = hd.ContributingEquipment(
        manufacturer=MANUFACTURER,
        purpose_of_reference=codes.DCM.ProcessingEquipment,
        manufacturer_model_name=plain(detector.name, 64),
        software_versions=[plain(detector.version, 64), plain(f"m3node {software_version}", 64)],
        contribution_description=plain(" ".join(words), 1024),
    )
    item.DeviceUID = identity.DEVICE_UID
    return item


def dress(sop: Dataset, job: Job) -> bytes:
    """Give a built object its patient, study, maker and fixed times, and encode it.

    Parameters
    ----------
    sop : Dataset
        What a highdicom constructor returned; changed in place.
    job : Job
        Where it belongs.

    Returns
    -------
    bytes
        The file, PS3.10, always the same for the same findings and source.
    """
    when = content_datetime(job)
    header = job.source.header
    sop.InstanceCreationDate = sop.SeriesDate = when.strftime("%Y%m%d")
    sop.InstanceCreationTime = sop.SeriesTime = when.strftime("%H%M%S.%f")
    sop.DeviceUID = identity.DEVICE_UID
    for item in sop.ContributingEquipmentSequence:
        item.ContributionDateTime = when.strftime("%Y%m%d%H%M%S.%f")
    if job.settings.station_name:
        sop.StationName = job.settings.station_name
    for keyword in ("SpecificCharacterSet", "TimezoneOffsetFromUTC"):
        if keyword in header:
            sop[keyword] = deepcopy(header[keyword])
        elif keyword in sop:
            del sop[keyword]
    # Whether the source names a patient oddly is not ours to judge, and pydicom's warnings would print the name.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sop.copy_patient_and_study_information(header)
        sop.file_meta.ImplementationClassUID = UID(identity.IMPLEMENTATION_CLASS_UID)
        sop.file_meta.ImplementationVersionName = identity.IMPLEMENTATION_VERSION
        stream = io.BytesIO()
        sop.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def plain(text: str, limit: int) -> str:
    """Text that every character set can hold, without the backslash that separates values, and not too long."""
    ascii_only = text.encode("ascii", errors="replace").decode("ascii").replace("\\", "/")
    return ascii_only if len(ascii_only) <= limit else ascii_only[: limit - 3] + "..."


def _timezone(offset: str) -> timezone | None:
    if len(offset) != 5 or offset[0] not in "+-" or not offset[1:].isdigit():
        return None
    sign = -1 if offset[0] == "-" else 1
    return timezone(sign * timedelta(hours=int(offset[1:3]), minutes=int(offset[3:])))
