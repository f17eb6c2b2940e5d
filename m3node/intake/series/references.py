"""Which series an object says it was made from: how a received SEG finds its CT."""

from __future__ import annotations

from pathlib import Path

from m3node.errors import InputRejected
from m3node.intake.series.elements import items, text
from m3node.intake.series.part10 import PARSER_ERRORS, open_part10
from m3node.rejection import Reason

_REFERENCED_SERIES = 0x00081115
_SERIES_INSTANCE_UID = 0x0020000E


def referenced_series(path: Path) -> frozenset[str]:
    """Read the Series Instance UIDs of the Common Instance Reference module (PS3.3 C.12.2).

    Raises
    ------
    InputRejected
        As for `m3node.intake.series.reading.read_header`.
    """
    opened = open_part10(path, name=path.name, tags=(_REFERENCED_SERIES,), digest=False)
    try:
        found = (text(item, _SERIES_INSTANCE_UID) for item in items(opened.data_set, _REFERENCED_SERIES))
        return frozenset(uid for uid in found if uid)
    except PARSER_ERRORS as error:
        raise InputRejected(
            Reason.UNREADABLE, f"{path.name} is damaged: its references cannot be read; send it again"
        ) from error
