"""How messages call a file."""

from __future__ import annotations

from pathlib import Path

_MOST = 300
"""Letters; a table may name an image by a page of text."""


def shown(path: Path | str) -> str:
    """Return a file's name, or a path below a folder, fit for a terminal: what cannot be printed becomes ``?``.

    Names are whatever the file system holds, escape sequences and bytes that are no UTF-8 included.
    """
    name = path.name if isinstance(path, Path) else path
    name = name if len(name) <= _MOST else f"{name[:_MOST]}…"
    return "".join(sign if sign.isprintable() else "?" for sign in name) or "?"
