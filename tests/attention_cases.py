"""Made chest radiographs for the attention analysis: PNG, JPEG and DICOM, with what is planted in them, and a CSV.

Every phantom is made as it should be shown, 0 black … 1 white. The DICOM files store it so that it comes out like that
only when modality LUT, VOI LUT and inversion are applied as their header says: `FORMS`.
"""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    UID,
    ComputedRadiographyImageStorage,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
)
from scipy import ndimage as ndi

from m3node.evaluation.ct_writer import seeded_uid

Grey = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

SHAPE = (160, 128)
PATIENT = ("Chestphantom", "PID-77341", "19330303")
"""Name, ID and birth date in the DICOM files: nothing that is made of them may hold one of these."""

STUDIES_OF = 2
"""Images a study."""


@dataclass(frozen=True, slots=True, eq=False)
class Chest:
    """A made frontal chest radiograph, patient's left at the right edge, head at the top.

    Attributes
    ----------
    shown : ndarray of float, shape (rows, columns)
        0 black … 1 white.
    body : ndarray of bool
        Where the body is: its outline, lungs included.
    box : tuple of float
        ``(r0, c0, r1, c1)``, pixel edges around the planted nodule.
    nodule : ndarray of bool
        Its pixels.
    patient_left, upper : bool
        In which lung, and whether in the upper half of the image.
    """

    shown: Grey
    body: Bools
    box: tuple[float, float, float, float]
    nodule: Bools
    patient_left: bool
    upper: bool


def chest(seed: int, shape: tuple[int, int] = SHAPE) -> Chest:
    """Make a chest: trunk, neck, lungs, heart, diaphragm, spine, ribs, one nodule, a side marker outside the body.

    The nodule's side and height go through all four quarters with ``seed``.
    """
    rng = np.random.default_rng(seed)
    rows, columns = shape
    y, x = np.meshgrid((np.arange(rows) + 0.5) / rows, (np.arange(columns) + 0.5) / columns, indexing="ij")
    dx, dy = rng.uniform(-0.02, 0.02, 2)
    x, y = x - dx, y - dy

    def ellipse(cy: float, cx: float, ry: float, rx: float, power: float = 2.0) -> Bools:
        return np.asarray(np.abs((y - cy) / ry) ** power + np.abs((x - cx) / rx) ** power <= 1.0)

    body = ellipse(0.85, 0.5, 0.68, 0.42, 3.0) | (ellipse(0.1, 0.5, 0.3, 0.12, 4.0))
    lungs = {side: ellipse(0.5, 0.5 + sign * 0.2, 0.27, 0.13, 2.4) for side, sign in (("right", -1), ("left", 1))}
    diaphragm = y > 0.72 + 0.05 * np.cos((x - 0.5) * 14.0)
    heart = ellipse(0.6, 0.55, 0.13, 0.14)
    grey = np.where(body, 0.62, 0.02)
    for lung in lungs.values():
        grey[lung & ~diaphragm & ~heart] = 0.28
    spine = body & (np.abs(x - 0.5) < 0.05)
    grey[spine] += 0.14
    ribs = body & (np.sin((y + 0.7 * (x - 0.5) ** 2) * 75.0) > 0.75)
    grey[ribs] += 0.07
    patient_left, upper = bool(seed % 2), bool(seed // 2 % 2)
    cy = (0.37 if upper else 0.6) + dy + rng.uniform(-0.03, 0.03)
    cx = 0.5 + (0.21 if patient_left else -0.21) + dx + rng.uniform(-0.02, 0.02)
    radius = rng.uniform(0.04, 0.055) * columns
    r, c = np.mgrid[0:rows, 0:columns] + 0.5
    nodule = np.asarray((r - cy * rows) ** 2 + (c - cx * columns) ** 2 <= radius**2)
    grey[nodule] = 0.8
    grey = ndi.gaussian_filter(grey, 0.006 * rows) + rng.normal(0.0, 0.01, shape)
    marker = (slice(int(0.05 * rows), int(0.1 * rows)), slice(int(0.9 * columns), int(0.95 * columns)))
    grey[marker] = 1.0
    hit_rows, hit_columns = np.flatnonzero(nodule.any(1)), np.flatnonzero(nodule.any(0))
    box = (hit_rows[0], hit_columns[0], hit_rows[-1] + 1, hit_columns[-1] + 1)
    return Chest(
        shown=np.clip(grey, 0.0, 1.0),
        body=body,
        box=(float(box[0]), float(box[1]), float(box[2]), float(box[3])),
        nodule=nodule,
        patient_left=patient_left,
        upper=upper,
    )


def _linear(ds: Dataset, shown: Grey) -> Grey:
    ds.WindowCenter, ds.WindowWidth = 2000.5, 3001  # PS3.3 C.11.2.1.2.1: 500 is black, 3500 white
    return 500.0 + 3000.0 * shown


def _linear_exact(ds: Dataset, shown: Grey) -> Grey:
    ds.WindowCenter, ds.WindowWidth = 2000, 3000
    ds.VOILUTFunction = "LINEAR_EXACT"
    return 500.0 + 3000.0 * shown


def _sigmoid(ds: Dataset, shown: Grey) -> Grey:
    ds.WindowCenter, ds.WindowWidth = 2000, 1000
    ds.VOILUTFunction = "SIGMOID"
    inner = np.clip(shown, 0.002, 0.998)
    return 2000.0 - 250.0 * np.log(1.0 / inner - 1.0)


def _rescaled(ds: Dataset, shown: Grey) -> Grey:
    """Window in values behind the modality LUT."""
    ds.RescaleSlope, ds.RescaleIntercept, ds.RescaleType = 0.5, -100, "US"
    ds.WindowCenter, ds.WindowWidth = 900.5, 1501  # 150 … 1650
    return 500.0 + 3000.0 * shown


def _voi_table(ds: Dataset, shown: Grey) -> Grey:
    item = Dataset()
    item.LUTDescriptor = [4096, 0, 16]
    item.LUTData = np.rint(65535.0 * np.linspace(0.0, 1.0, 4096) ** 2).astype("<u2").tobytes()
    item["LUTData"].VR = "OW"
    ds.VOILUTSequence = [item]
    return 4095.0 * np.sqrt(shown)


def _monochrome1(ds: Dataset, shown: Grey) -> Grey:
    ds.PhotometricInterpretation, ds.PresentationLUTShape = "MONOCHROME1", "INVERSE"
    return _linear(ds, 1.0 - shown)


def _monochrome1_table(ds: Dataset, shown: Grey) -> Grey:
    ds.PhotometricInterpretation = "MONOCHROME1"
    del ds.PresentationLUTShape  # as in CR, which has no such attribute
    return _voi_table(ds, 1.0 - shown)


def _inverse(ds: Dataset, shown: Grey) -> Grey:
    """What the presentation LUT's shape says goes before the photometric interpretation."""
    ds.PresentationLUTShape = "INVERSE"
    return _linear(ds, 1.0 - shown)


def _no_window(_ds: Dataset, shown: Grey) -> Grey:
    return 300.0 + 3000.0 * shown


FORMS: dict[str, Callable[[Dataset, Grey], Grey]] = {
    "linear": _linear,
    "linear-exact": _linear_exact,
    "sigmoid": _sigmoid,
    "rescaled": _rescaled,
    "voi-table": _voi_table,
    "monochrome1": _monochrome1,
    "monochrome1-table": _monochrome1_table,
    "inverse": _inverse,
    "no-window": _no_window,
}
"""How a radiograph may be stored: each sets the header and gives the values to store."""


def write_radiograph(path: Path, shown: Grey, form: str, *, seed: object, **attributes: Any) -> str:
    """Write a DX (a CR for forms without presentation LUT shape); returns its SOP Instance UID.

    ``attributes`` are set last, by keyword; None deletes one.
    """
    ds = Dataset()
    ds.SpecificCharacterSet = "ISO_IR 192"
    ds.ImageType = ["ORIGINAL", "PRIMARY"]
    ds.SOPInstanceUID = UID(seeded_uid(seed, "radiograph"))
    ds.StudyInstanceUID = UID(seeded_uid(seed, "study"))
    ds.SeriesInstanceUID = UID(seeded_uid(seed, "series"))
    ds.StudyDate = ds.ContentDate = "20260101"
    ds.StudyTime = ds.ContentTime = "120000"
    ds.AccessionNumber = ds.StudyID = ds.ReferringPhysicianName = ""
    ds.PatientName, ds.PatientID, ds.PatientBirthDate, ds.PatientSex = f"{PATIENT[0]}^Made", PATIENT[1], PATIENT[2], "O"
    ds.Manufacturer = "m3node"
    ds.BodyPartExamined, ds.ViewPosition = "CHEST", "PA"
    ds.PresentationIntentType = "FOR PRESENTATION"
    ds.PatientOrientation = ["L", "F"]
    ds.ImagerPixelSpacing = [2.5, 2.5]
    ds.SeriesNumber = ds.InstanceNumber = 1
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.PresentationLUTShape = "IDENTITY"
    ds.Rows, ds.Columns = shown.shape
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 12, 11, 0
    stored = FORMS[form](ds, shown)
    dx = "PresentationLUTShape" in ds
    ds.SOPClassUID = DigitalXRayImageStorageForPresentation if dx else ComputedRadiographyImageStorage
    ds.Modality = "DX" if dx else "CR"
    ds.PixelData = np.clip(np.rint(stored), 0, 4095).astype("<u2").tobytes()
    for keyword, value in attributes.items():
        if value is None:
            delattr(ds, keyword)
        else:
            setattr(ds, keyword, value)
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    path.parent.mkdir(parents=True, exist_ok=True)
    ds.save_as(path, enforce_file_format=True)
    return str(ds.SOPInstanceUID)


@dataclass(frozen=True, slots=True, eq=False)
class Case:
    """One image of the set; ``form`` is ``png``, ``png16``, ``jpeg``, ``colour`` or one of `FORMS`."""

    dicom_id: str
    study_id: str
    path: Path
    form: str
    chest: Chest


@dataclass(frozen=True, slots=True, eq=False)
class CaseSet:
    """Images below ``images``, and ``questions``, the CSV of all their questions."""

    images: Path
    questions: Path
    cases: tuple[Case, ...]


COLUMNS = (
    "dicom_id",
    "study_id",
    "question",
    "answer",
    "baseline_question",
    "question_variant",
    "variant_index",
    "strategy",
    "truth_box",
    "truth_mask",
)

QUESTIONS = (
    "Is there a nodule in the left lung?",
    "Does the chest X-ray show a pulmonary nodule on the patient's left side?",
    "Is the left lung free of any nodule?",
)
STRATEGIES = ("", "paraphrase", "negation")

_PICTURES = ("png", "png16", "jpeg", "colour")


def write_cases(root: Path, *, count: int = 20, variants: int = 3, shape: tuple[int, int] = SHAPE) -> CaseSet:
    """Write ``count`` images and a CSV with ``variants`` (at most 3) questions of each.

    The first half are pictures, the others DICOM in each of `FORMS`; every other DICOM file is named so that only its
    SOP Instance UID fits. Variant 0 is the baseline question; the first picture's truth is a mask, the others' a box.
    """
    images = root / "images"
    pictures = (count + 1) // 2
    cases = []
    for number in range(count):
        form = _PICTURES[number % 4] if number < pictures else tuple(FORMS)[(number - pictures) % len(FORMS)]
        made = chest(number, shape)
        study = f"s{number // STUDIES_OF:03d}"
        if number < pictures:
            dicom_id = f"chest-{number:03d}"
            path = _write_picture(images / study / dicom_id, made.shown, form)
        elif number % 2:
            dicom_id = f"chest-{number:03d}"
            path = images / study / f"{dicom_id}.dcm"
            write_radiograph(path, made.shown, form, seed=number)
        else:
            path = images / study / f"IM{number:05d}"
            dicom_id = write_radiograph(path, made.shown, form, seed=number)
        cases.append(Case(dicom_id, study, path, form, made))
    mask = images / "masks" / "nodule-000.png"
    mask.parent.mkdir()
    Image.fromarray(np.where(cases[0].chest.nodule, 255, 0).astype(np.uint8)).save(mask)
    questions = root / "questions.csv"
    with questions.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, COLUMNS)
        table.writeheader()
        for case in cases:
            table.writerows(_rows(case, variants))
    return CaseSet(images, questions, tuple(cases))


def _write_picture(stem: Path, shown: Grey, form: str) -> Path:
    stem.parent.mkdir(parents=True, exist_ok=True)
    path = stem.with_suffix(".jpg" if form == "jpeg" else ".png")
    bytes_ = np.rint(255.0 * shown).astype(np.uint8)
    if form == "png16":
        Image.fromarray(np.rint(65535.0 * shown).astype(np.uint16)).save(path)
    elif form == "colour":
        Image.fromarray(np.stack([bytes_, bytes_ // 2 + 40, bytes_ // 3], axis=-1)).save(path)
    else:
        Image.fromarray(bytes_).save(path)
    return path


def _rows(case: Case, variants: int) -> list[dict[str, str]]:
    rows = []
    for index, text in enumerate(QUESTIONS[:variants]):
        yes = case.chest.patient_left is (STRATEGIES[index] != "negation")
        box = " ".join(f"{edge:g}" for edge in case.chest.box)
        masked = case.dicom_id == "chest-000"
        rows.append(
            {
                "dicom_id": case.dicom_id,
                "study_id": case.study_id,
                "question": QUESTIONS[0],
                "answer": "yes" if yes else "no",
                "baseline_question": QUESTIONS[0],
                "question_variant": text if index else "",
                "variant_index": str(index),
                "strategy": STRATEGIES[index],
                "truth_box": "" if masked else box,
                "truth_mask": "masks/nodule-000.png" if masked else "",
            }
        )
    return rows
