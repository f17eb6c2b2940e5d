"""What a C-STORE status means for the object that was sent (PS3.4 B.2.3, PS3.7 Annex C)."""

from __future__ import annotations

from enum import StrEnum


class Verdict(StrEnum):
    """What became of one attempt to send one object."""

    STORED = "stored"
    AGAIN = "again"
    REFUSED = "refused"


_MEANINGS: tuple[tuple[int, int, Verdict, str], ...] = (
    (0x0000, 0x0000, Verdict.STORED, "success"),
    (0x0001, 0x0001, Verdict.STORED, "stored, with a warning"),
    (0x0107, 0x0107, Verdict.STORED, "stored, with a warning about an attribute"),
    (0x0110, 0x0110, Verdict.AGAIN, "processing failure"),
    # Said by an archive that has it from an attempt whose answer was lost: no other bytes go out under its UID.
    (0x0111, 0x0111, Verdict.STORED, "stored before"),
    (0x0116, 0x0116, Verdict.STORED, "stored, with a warning about an attribute's value"),
    (0x0117, 0x0117, Verdict.REFUSED, "invalid SOP instance"),
    (0x0122, 0x0122, Verdict.REFUSED, "SOP class not supported"),
    (0x0124, 0x0124, Verdict.REFUSED, "not authorised"),
    # A message that crossed a broken association; the same object on a new one is a fresh message.
    (0x0210, 0x0210, Verdict.AGAIN, "duplicate invocation"),
    (0x0211, 0x0211, Verdict.REFUSED, "unrecognised operation"),
    (0x0212, 0x0212, Verdict.REFUSED, "mistyped argument"),
    (0xA700, 0xA7FF, Verdict.AGAIN, "out of resources"),
    (0xA900, 0xA9FF, Verdict.REFUSED, "data set does not match SOP class"),
    (0xB000, 0xBFFF, Verdict.STORED, "stored, with a warning"),
    (0xC000, 0xCFFF, Verdict.REFUSED, "cannot understand"),
)


def judge_status(status: int) -> tuple[Verdict, str]:
    """Return what a status means; one that the standard does not give to C-STORE is a refusal.

    Parameters
    ----------
    status : int
        Status (0000,0900) of the response.

    Returns
    -------
    tuple of Verdict and str
        What to do, and the status in words with its code.
    """
    for first, last, verdict, words in _MEANINGS:
        if first <= status <= last:
            return verdict, f"0x{status:04X} {words}"
    return Verdict.REFUSED, f"0x{status:04X} unknown status"
