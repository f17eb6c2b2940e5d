"""Whose study it is: read from a DICOM object when it is shown, kept in memory for a moment, and nowhere else."""

from __future__ import annotations

import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset

from m3node.errors import InputRejected
from m3node.intake.series.elements import text
from m3node.intake.series.part10 import PARSER_ERRORS, open_part10
from m3node.intake.uid import is_uid
from m3node.layout import DataLayout

KEPT_SECONDS = 60.0
KEPT = 1000
LONGEST_VALUE = 4096
"""Bytes of a value that are looked at; a name has 64 letters in each of three alphabets (PS3.5 6.2)."""
SHOWN_LETTERS = 128

_CHARACTER_SET, _STUDY_DATE, _ACCESSION, _DESCRIPTION = 0x00080005, 0x00080020, 0x00080050, 0x00081030
_NAME, _ID, _BIRTH_DATE, _SEX = 0x00100010, 0x00100020, 0x00100030, 0x00100040
_TAGS = (_CHARACTER_SET, _STUDY_DATE, _ACCESSION, _DESCRIPTION, _NAME, _ID, _BIRTH_DATE, _SEX)


@dataclass(frozen=True, slots=True)
class Patient:
    """What an object says of its patient and study, for a person's eyes only.

    Attributes
    ----------
    name : str
        Family name first; in letters of the Latin alphabet and, where they differ, as it is written.
    id, birth_date, sex, accession, study_date, description : str
        As stated; dates as year-month-day.
    missing : str
        Why nothing is known; empty when something is.
    """

    name: str = ""
    id: str = ""
    birth_date: str = ""
    sex: str = ""
    accession: str = ""
    study_date: str = ""
    description: str = ""
    missing: str = ""


GONE = Patient(missing="pixels removed by retention")
DAMAGED = Patient(missing="the object cannot be read")


class Patients:
    """Reads patients; safe for threads.

    Parameters
    ----------
    layout : DataLayout
        The data folder.
    clock : callable
        Monotonic seconds.
    """

    def __init__(self, layout: DataLayout, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._layout = layout
        self._clock = clock
        self._lock = threading.Lock()
        self._known: OrderedDict[str, tuple[Patient, float]] = OrderedDict()

    def of(self, studies: Iterable[str], results: Callable[[list[str]], Mapping[str, str]]) -> dict[str, Patient]:
        """Return the patient of each of some studies.

        Parameters
        ----------
        studies : iterable of str
            Study Instance UIDs.
        results : callable
            Gives of studies of which nothing received is left the path of a result object, relative to the data folder;
            asked once at most.
        """
        now = self._clock()
        found: dict[str, Patient] = {}
        left: list[str] = []
        for study in dict.fromkeys(studies):
            with self._lock:
                kept = self._known.get(study)
            if kept is not None and now - kept[1] < KEPT_SECONDS:
                found[study] = kept[0]
                continue
            path = self._received(study)
            patient = _read(path) if path is not None else None
            if patient is None or patient.missing:
                left.append(study)
                found[study] = GONE if path is None else DAMAGED
            else:
                found[study] = self._keep(study, patient)
        paths = results(left) if left else {}
        for study, name in paths.items():
            path = self._layout.root / name
            if path.exists() and not (patient := _read(path)).missing:
                found[study] = self._keep(study, patient)
        return found

    def _keep(self, study: str, patient: Patient) -> Patient:
        with self._lock:
            self._known.pop(study, None)
            self._known[study] = (patient, self._clock())
            while len(self._known) > KEPT:
                self._known.popitem(last=False)
        return patient

    def _received(self, study: str) -> Path | None:
        """Return an instance of a study: the first that the folder names, however many there are."""
        if not is_uid(study):
            return None
        for series in _entries(self._layout.spool / study, folders=True):
            for file in _entries(series, folders=False):
                return file
        return None


def _entries(folder: Path, *, folders: bool) -> Iterable[Path]:
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False) if folders else entry.name.endswith(".dcm"):
                    yield Path(entry.path)
    except OSError:
        return  # it is not there, or just being removed


def _read(path: Path) -> Patient:
    try:
        return _patient(_shortened(open_part10(path, name="an object", tags=_TAGS, digest=False, until=_SEX).data_set))
    except (InputRejected, *PARSER_ERRORS):
        return DAMAGED


def _shortened(ds: Dataset) -> Dataset:
    """Cut values that are no names any more: in Implicit VR one may have gigabytes, and takes as long to be decoded."""
    for tag in _TAGS:
        element = ds.get_item(tag) if tag in ds else None
        if isinstance(element, RawDataElement) and element.value is not None and len(element.value) > LONGEST_VALUE:
            ds[tag] = element._replace(value=element.value[:LONGEST_VALUE], length=LONGEST_VALUE)
    return ds


def _patient(ds: Dataset) -> Patient:
    return Patient(
        name=shown_name(text(ds, _NAME)),
        id=_line(text(ds, _ID)),
        birth_date=_date(text(ds, _BIRTH_DATE)),
        sex=_line(text(ds, _SEX)),
        accession=_line(text(ds, _ACCESSION)),
        study_date=_date(text(ds, _STUDY_DATE)),
        description=_line(text(ds, _DESCRIPTION)),
    )


def shown_name(value: str) -> str:
    """Return a person's name (PS3.5 6.2.1) as people write it.

    >>> shown_name("Yamada^Tarou=山田^太郎=やまだ^たろう")
    'Yamada, Tarou (山田, 太郎)'
    """
    groups = [_group(group) for group in value.split("=")]
    groups = [group for group in groups if group]
    return " ".join([*groups[:1], *(f"({group})" for group in groups[1:2])])[: 2 * SHOWN_LETTERS]


def _group(group: str) -> str:
    family, *rest = (_line(part) for part in group.split("^"))
    given = " ".join(part for part in rest if part)
    return ", ".join(part for part in (family, given) if part)[:SHOWN_LETTERS]


def _date(value: str) -> str:
    """Return YYYYMMDD with its parts told apart; anything else as it is."""
    return f"{value[:4]}-{value[4:6]}-{value[6:]}" if len(value) == 8 and value.isdecimal() else _line(value)


def _line(value: str) -> str:
    """Return a value as one short line: what steers a terminal, or turns a line around, steers nothing here."""
    return " ".join("".join(letter if letter.isprintable() else " " for letter in value).split())[:SHOWN_LETTERS]
