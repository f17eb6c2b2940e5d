"""What a run leaves behind: the objects of one stack, with their digests."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path


class ObjectKind(StrEnum):
    """The kinds of result object; the value is the stem of its file name."""

    REPORT = "report.sr"
    VOLUMES = "volumes.sr"
    SEGMENTATION = "segmentation.seg"
    PRESENTATION = "presentation.pr"
    REPORT_ENHANCED = "report.enhanced.sr"
    VOLUMES_ENHANCED = "volumes.enhanced.sr"
    ATTENTION_CAPTURE = "attention.sc"
    ATTENTION_MAP = "attention.pm"

    @property
    def file_name(self) -> str:
        """Name of the object's file in a result folder."""
        return f"{self.value}.dcm"


@dataclass(frozen=True, slots=True)
class ResultObject:
    """A built object on disk.

    Attributes
    ----------
    path : Path
        The file.
    sha256 : str
        Of the whole file; only these bytes are ever sent.
    """

    kind: ObjectKind
    path: Path
    sha256: str
    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str
    study_instance_uid: str
