"""An image as it is shown to the model, with what its file says about it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

Side = Literal["left", "right", "top", "bottom"]


class ImageKind(StrEnum):
    """What the body is looked for in."""

    XRAY = "xray"
    CT = "ct"
    OTHER = "other"


@dataclass(frozen=True, slots=True, eq=False)
class InputImage:
    """One image.

    Attributes
    ----------
    path : Path
        Its file.
    rgb : ndarray of uint8, shape (rows, columns, 3)
        What the model is shown, after VOI LUT and inversion; bright is dense on an X-ray.
    kind : ImageKind
        By the file: modality for DICOM, `ImageKind.XRAY` for grey PNG and JPEG, else `ImageKind.OTHER`.
    spacing : tuple of float
        mm between rows, between columns; (1, 1) where the file does not say.
    hu : ndarray of float32 or None, shape (rows, columns)
        Hounsfield units, for CT only.
    patient_left : Side or None
        The side of the *image* at which the patient's left lies; None where the file does not say.
    patient_head : Side or None
        The same for the patient's head.
    body : ndarray of bool or None, shape (rows, columns)
        The body in it, when it was looked for and found.
    series_uid : str
        Series Instance UID, for DICOM; else empty.
    """

    path: Path
    rgb: npt.NDArray[np.uint8]
    kind: ImageKind
    spacing: tuple[float, float] = (1.0, 1.0)
    hu: npt.NDArray[np.float32] | None = None
    patient_left: Side | None = None
    patient_head: Side | None = None
    body: npt.NDArray[np.bool_] | None = None
    series_uid: str = ""

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.rgb.shape[0], self.rgb.shape[1]
