"""Tolerant, typed access to the elements of a data set as they were read: no value is warned about, none is logged.

pydicom converts an element on access and warns, with the value, where it breaks its VR. A header is read from whatever
a hospital sends, so the raw bytes are converted here instead: by what the attribute is, not by the VR that the sender
gave it (UN, or none at all), and what cannot be converted is absent.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from pydicom.charset import convert_encodings, decode_bytes
from pydicom.dataset import Dataset

_PADDING = " \0\t\r\n"
_ESCAPE = b"\x1b"
"""Begins a code extension (PS3.5 6.1.2.5)."""


def text(ds: Dataset, tag: int) -> str:
    """Return a string attribute without its padding; empty when absent. Values stay joined by backslashes."""
    value = _raw(ds, tag)
    if value is None:
        return ""
    if isinstance(value, bytes):
        # With code extensions text of other alphabets is of seven bits, too.
        plain = value.isascii() and _ESCAPE not in value
        return (value.decode("ascii") if plain else _decoded(ds, value)).strip(_PADDING)
    if isinstance(value, str):
        return value.strip(_PADDING)
    if isinstance(value, Sequence):
        return "\\".join(str(part) for part in value).strip(_PADDING)
    return str(value).strip(_PADDING)


def identifying_bytes(ds: Dataset, tag: int) -> bytes:
    """Return the encoded value without its padding, for digests of what must not be held in clear."""
    value = _raw(ds, tag)
    if isinstance(value, bytes):
        return value.strip(b" \0")
    return str(value or "").strip(_PADDING).encode()


def texts(ds: Dataset, tag: int) -> tuple[str, ...]:
    """Return the values of a multi-valued string attribute, each without padding."""
    joined = text(ds, tag)
    return tuple(part.strip(_PADDING) for part in joined.split("\\")) if joined else ()


def decimals(ds: Dataset, tag: int, count: int) -> tuple[float, ...] | None:
    """Return ``count`` finite numbers of a DS attribute; None when absent, fewer, or not numbers."""
    try:
        values = tuple(float(part) for part in texts(ds, tag))
    except ValueError:
        return None
    if len(values) < count or not all(math.isfinite(value) for value in values[:count]):
        return None
    return values[:count]


def decimal(ds: Dataset, tag: int) -> float | None:
    """Return the first number of a DS attribute."""
    values = decimals(ds, tag, 1)
    return values[0] if values else None


def integer_string(ds: Dataset, tag: int) -> int | None:
    """Return the first number of an IS attribute; a fraction of zero, as some write it, is let pass."""
    value = decimal(ds, tag)
    return int(value) if value is not None and value == int(value) else None


def unsigned(ds: Dataset, tag: int, *, little_endian: bool = True) -> int | None:
    """Return the first value of a US or UL attribute."""
    value = _raw(ds, tag)
    if isinstance(value, bytes):
        if len(value) < 2:
            return None
        width = 4 if len(value) == 4 else 2
        return int.from_bytes(value[:width], "little" if little_endian else "big")
    if isinstance(value, Sequence) and not isinstance(value, str) and value:
        value = value[0]
    return value if isinstance(value, int) and value >= 0 else None


def items(ds: Dataset, tag: int) -> Sequence[Dataset]:
    """Return a sequence's items; none when it is absent, empty or no sequence."""
    if tag not in ds:
        return ()
    try:
        value: Any = ds[tag].value
    except OSError as error:
        # pydicom's word for items that are none; nothing is read from a disk here.
        raise ValueError("a sequence holds something that is not an item") from error
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [item for item in value if isinstance(item, Dataset)]
    return ()


def item(ds: Dataset, tag: int) -> Dataset | None:
    """Return a sequence's first item."""
    found = items(ds, tag)
    return found[0] if found else None


def _raw(ds: Dataset, tag: int) -> Any:
    return ds.get_item(tag).value if tag in ds else None


def _decoded(ds: Dataset, value: bytes) -> str:
    try:
        names = texts(ds, 0x00080005)
        encodings = convert_encodings(list(names)) if names else ["iso8859"]
        if _ESCAPE in value:
            return str(decode_bytes(value, encodings, set()))
        return value.decode(encodings[0], errors="replace")
    except (LookupError, UnicodeDecodeError):
        return value.decode("latin-1")
