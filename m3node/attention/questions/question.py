"""One question about one image."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass

BASELINE = 0
"""``variant_index`` of the baseline question itself."""

_UNSAFE = re.compile(r"[^A-Za-z0-9.-]+")
_DEVICE = re.compile(r"(?:con|prn|aux|nul|com[0-9]|lpt[0-9])\.", re.IGNORECASE)
"""What Windows, where results may be looked at, takes for a device whatever follows."""

_SHOWN = 40
"""Characters of an id that a file name shows; the digest tells apart what they do not."""


@dataclass(frozen=True, slots=True)
class Question:
    """A row of the table of questions.

    Attributes
    ----------
    line : int
        Where it stands in the file, from 1 for the header's line.
    dicom_id, study_id : str
        The image and its study, as the table names them.
    text : str
        What is asked: the variant where the row has one, else the question.
    baseline : str
        The question that ``text`` is a variant of; ``text`` itself when it is none.
    variant_index : int
        `BASELINE` for the baseline question.
    strategy : str
        How the variant was made; empty when not said.
    truth : str
        The right answer; empty when not known.
    truth_box : tuple of float or None
        ``(r0, c0, r1, c1)``, pixel edges of the image as it is shown, of what the question is about.
    truth_mask : str
        Name of an image below the folder of images whose pixels that are not 0 are what the question is about; empty
        when there is none.
    """

    line: int
    dicom_id: str
    study_id: str
    text: str
    baseline: str
    variant_index: int
    strategy: str = ""
    truth: str = ""
    truth_box: tuple[float, float, float, float] | None = None
    truth_mask: str = ""

    @property
    def key(self) -> str:
        """Name of this question's files: the same in each run, safe as a file name, and of no other question."""
        # As JSON: no text can pass for two of these, and what a command line could not decode is written out.
        told = json.dumps((self.study_id, self.dicom_id, self.variant_index, self.baseline, self.text))
        digest = hashlib.sha256(told.encode()).hexdigest()[:12]
        parts = (_UNSAFE.sub("-", part)[:_SHOWN].strip("-.") or "x" for part in (self.study_id, self.dicom_id))
        key = "_".join((*parts, f"v{self.variant_index}", digest))
        return f"x{key}" if _DEVICE.match(key) else key

    @property
    def group(self) -> tuple[str, str, str]:
        """What variants of one baseline question about one image share."""
        return self.study_id, self.dicom_id, self.baseline
