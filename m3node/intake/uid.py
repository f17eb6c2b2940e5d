"""What counts as a UID, whichever way an instance comes: over the network or in a folder."""

from __future__ import annotations

import re

MAX_LENGTH = 64
"""PS3.5 9.1."""

_DOTTED = re.compile(r"[0-9]+(?:\.[0-9]+)*")


def is_uid(value: str) -> bool:
    """Whether a value may name an instance, and a file: digits and single dots, at most 64 characters.

    Leading zeros in a component break PS3.5 9.1 and are let pass: scanners and anonymisers write them, archives keep
    them, and they do no harm. They count: ``1.02`` and ``1.2`` are two UIDs.
    """
    return len(value) <= MAX_LENGTH and _DOTTED.fullmatch(value) is not None
