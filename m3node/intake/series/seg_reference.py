"""What a received SEG is about: which series it refers to, and whether one of its segments is a liver."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from m3node.errors import InputRejected
from m3node.intake.series.elements import items, text
from m3node.intake.series.part10 import PARSER_ERRORS, open_part10
from m3node.intake.series.references import referenced_series

LIVER_CODES = frozenset({("SCT", "10200004"), ("SRT", "T-62000"), ("SNM3", "T-62000"), ("99SDM", "T-62000")})
"""Coding scheme and value of "liver"; SRT in older files (PS3.16 annex L)."""

_SEGMENTS = 0x00620002
_TYPE = 0x0062000F
_VALUE = 0x00080100
_SCHEME = 0x00080102


@dataclass(frozen=True, slots=True)
class SegReference:
    """What a SEG is about.

    Attributes
    ----------
    series : tuple of str
        Series Instance UIDs that it was made on (Referenced Series Sequence, PS3.3 C.12.4), sorted.
    liver : bool
        Whether a segment's type is the liver (Segmented Property Type, PS3.3 C.8.20.4).
    """

    series: tuple[str, ...]
    liver: bool


def read_seg_reference(path: Path) -> SegReference:
    """Read what a SEG is about; nothing, when it cannot be read."""
    try:
        series = referenced_series(path)
        opened = open_part10(path, name=path.name, tags=(_SEGMENTS,), digest=False)
        types = [code for segment in items(opened.data_set, _SEGMENTS) for code in items(segment, _TYPE)]
        liver = any((text(code, _SCHEME), text(code, _VALUE)) in LIVER_CODES for code in types)
    except (InputRejected, *PARSER_ERRORS):
        return SegReference((), liver=False)
    return SegReference(tuple(sorted(series)), liver)
