"""A patient whose every value is known, and the search for those values in all that a node wrote."""

from __future__ import annotations

import html
import json
import os
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

from pydicom.dataset import Dataset

NAME, IDENTIFIER, BIRTH, ACCESSION = "ZZTOPSECRET^ZZGIVEN", "ZZID4711", "19610203", "ZZACC0815"
LATIN, KANJI = "Zzmüßtermann^Jörgßenzz", "山田花子太郎^漢字名前"

_OTHERS = {
    "OtherPatientNames": "ZZALIAS^ZZFORMER",
    "PatientBirthName": "ZZBORNAS",
    "PatientMotherBirthName": "ZZMOTHER",
    "PatientAddress": "ZZSTREET 5, 99999 ZZTOWN",
    "PatientTelephoneNumbers": "+4955512345678",
    "PatientComments": "ZZCOMMENT",
    "AdmissionID": "ZZADM4713",
    "IssuerOfAdmissionID": "ZZADMISSIONS",
    "ReferringPhysicianName": "ZZREFERRER^A",
    "RequestingPhysician": "ZZREQUESTER^B",
    "OperatorsName": "ZZOPERATOR^C",
    "PerformingPhysicianName": "ZZPERFORMER^D",
}

PATIENT: dict[str, Any] = {
    "PatientName": NAME,
    "PatientID": IDENTIFIER,
    "PatientBirthDate": BIRTH,
    "AccessionNumber": ACCESSION,
    **_OTHERS,
}
"""Attributes by keyword; `nested` has those that lie in sequences."""


def nested() -> dict[str, Any]:
    """Attributes of the patient that lie in sequences."""
    other, asked = Dataset(), Dataset()
    other.PatientID = "ZZOTHER4712"
    asked.AccessionNumber = ACCESSION
    asked.RequestedProcedureID = "1"
    return {"OtherPatientIDsSequence": [other], "RequestAttributesSequence": [asked]}


def _texts() -> Iterator[str]:
    values = [NAME, IDENTIFIER, ACCESSION, LATIN, KANJI, "ZZOTHER4712", *_OTHERS.values()]
    for value in values:
        # Each part of a value is one too many; words of everyday language and single letters are none.
        yield from (part for part in value.replace(",", "^").replace(" ", "^").split("^") if len(part) > 4)
    yield from (BIRTH, "1961-02-03", "03.02.1961", "02/03/1961", "1961/02/03")


def _forms(text: str) -> Iterator[bytes]:
    for form in (text, json.dumps(text)[1:-1], quote(text), html.escape(text), ascii(text)[1:-1]):
        yield form.encode()
    yield "".join(f"&#{ord(letter)};" if ord(letter) > 127 else letter for letter in text).encode()
    for encoding in ("latin-1", "iso2022_jp"):
        try:
            encoded = text.encode(encoding)
        except UnicodeEncodeError:
            continue
        yield encoded.removeprefix(b"\x1b$B").removesuffix(b"\x1b(B")


SECRETS = tuple(sorted({form.lower() for text in _texts() for form in _forms(text) if len(form) > 5}))
"""Lower-case bytes that nothing may hold."""

OBJECTS = (".dcm", ".png")
"""Files that name the patient because they have to, and pictures."""


def spilled(folder: Path, *, identified: Iterable[Path] = (), inputs: Iterable[Path] = ()) -> list[str]:
    """What is told of the patient in a folder, by names of files and folders and by all but DICOM objects and pictures.

    Parameters
    ----------
    folder : Path
        All of it is searched, archives too.
    identified : iterable of Path
        Folders whose files may have the patient ID.
    inputs : iterable of Path
        Folders in which archives are somebody else's.
    """
    found = []
    for path in sorted(folder.rglob("*")):
        name = os.fsencode(path.relative_to(folder)).lower()
        found += [f"{secret!r} in the name {path}" for secret in SECRETS if secret in name]
        if not path.is_file() or path.suffix in OBJECTS:
            continue
        fine = {IDENTIFIER.lower().encode()} if any(path.is_relative_to(other) for other in identified) else set()
        if zipfile.is_zipfile(path) and any(path.is_relative_to(other) for other in inputs):
            continue
        for where, content in _contents(path):
            found += [f"{secret!r} in {where}" for secret in SECRETS if secret in content and secret not in fine]
    return found


def _contents(path: Path) -> Iterator[tuple[str, bytes]]:
    yield str(path), path.read_bytes().lower()
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            for member in archive.namelist():
                if not member.endswith(OBJECTS):
                    yield f"{path}/{member}", archive.read(member).lower()
