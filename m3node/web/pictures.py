"""The pictures of a run: the overlay as it lies there, and the frames of the attention capture as PNG."""

from __future__ import annotations

import io
import re
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from m3node.errors import InputRejected
from m3node.intake.series.elements import integer_string, unsigned
from m3node.intake.series.part10 import PARSER_ERRORS, open_part10
from m3node.layout import DataLayout
from m3node.notice import ATTENTION_NOTICE
from m3node.results.objects import ObjectKind

OVERLAY = "overlay.png"
RUN_NAME = re.compile(r"[0-9.]{1,64}(\.[0-9a-f]{1,64})?\.g[0-9]{1,9}(\.[0-9a-f]{1,64})?")
"""``<SeriesInstanceUID>[.stack].g<generation>``, and for what became no stack a digest."""
SHOWN = 24
"""Frames of a capture that are shown; there may be many more."""

LARGEST = 64_000_000
"""Bytes of an overlay; ours have some hundred thousand."""

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_FRAME = re.compile(r"attention-([1-9][0-9]{0,3})\.png")
_ROWS, _COLUMNS, _SAMPLES, _FRAMES = 0x00280010, 0x00280011, 0x00280002, 0x00280008


@dataclass(frozen=True, slots=True)
class _Capture:
    """Where the frames of a capture lie."""

    path: Path
    frames: int
    rows: int
    columns: int
    offset: int


def folder_of(layout: DataLayout, run: str) -> Path | None:
    """Return a run's folder; None for what is no name of a run."""
    return layout.results / run if RUN_NAME.fullmatch(run) else None


def pictures_of(folder: Path) -> dict[str, str]:
    """Return names of a run's pictures, and what each shows."""
    found: dict[str, str] = {}
    if _is_plain(folder / OVERLAY):
        found[OVERLAY] = "Key slices with the liver's outline, lesions and sizes"
    capture = _capture(folder)
    if capture is not None:
        for number in range(1, min(capture.frames, SHOWN) + 1):
            found[f"attention-{number}.png"] = f"Picture {number} of {capture.frames}. {ATTENTION_NOTICE}"
    return found


def picture(folder: Path, name: str) -> bytes | None:
    """Return a picture as PNG; None where there is none of that name."""
    if name == OVERLAY:
        return _overlay(folder / OVERLAY)
    asked = _FRAME.fullmatch(name)
    capture = _capture(folder) if asked else None
    if asked is None or capture is None or int(asked[1]) > capture.frames:
        return None
    size = 3 * capture.rows * capture.columns
    try:
        with capture.path.open("rb") as stream:
            stream.seek(capture.offset + (int(asked[1]) - 1) * size)
            pixels = stream.read(size)
    except OSError:
        return None  # retention was faster
    if len(pixels) < size:
        return None
    content = io.BytesIO()
    Image.frombytes("RGB", (capture.columns, capture.rows), pixels).save(content, format="PNG")
    return content.getvalue()


def _overlay(path: Path) -> bytes | None:
    """Return the file, when it is a PNG of ours: no link to something else, and not without end."""
    if not _is_plain(path):
        return None
    try:
        with path.open("rb") as stream:
            content = stream.read(LARGEST + 1)
    except OSError:
        return None  # retention was faster
    return content if content.startswith(_SIGNATURE) and len(content) <= LARGEST else None


def _is_plain(path: Path) -> bool:
    return path.is_file() and not path.is_symlink()


def _capture(folder: Path) -> _Capture | None:
    path = folder / ObjectKind.ATTENTION_CAPTURE.file_name
    if not path.is_file():
        return None
    try:
        opened = open_part10(path, name=path.name, tags=(_ROWS, _COLUMNS, _SAMPLES, _FRAMES), digest=False)
        rows, columns, samples = (unsigned(opened.data_set, tag) for tag in (_ROWS, _COLUMNS, _SAMPLES))
        frames = integer_string(opened.data_set, _FRAMES) or 1
    except (InputRejected, *PARSER_ERRORS):
        return None
    if not rows or not columns or samples != 3 or opened.pixel_offset < 0:
        return None
    whole = min(frames, opened.pixel_length // (3 * rows * columns))
    return _Capture(path, whole, rows, columns, opened.pixel_offset) if whole > 0 else None
