"""``attention.png``: the capture's pictures one below the other, for a volume that DICOM objects cannot refer to."""

from __future__ import annotations

import io
from pathlib import Path

from PIL import Image

from m3node.imaging.volume import CTVolume
from m3node.results.attention.picture import ShownSlice, draw_attention
from m3node.results.findings import Findings
from m3node.results.placing import place


def draw_sheet(volume: CTVolume, findings: Findings, path: Path) -> bool:
    """Draw where the model looked, in the order of ``attention`` in ``findings.json``.

    Parameters
    ----------
    volume : CTVolume
        What was looked at.
    findings : Findings
        With attention.
    path : Path
        The PNG.

    Returns
    -------
    bool
        False when a picture was there already: it stays.
    """
    shown = [ShownSlice(item, volume.hu[item.slice_index]) for item in findings.attention]
    sheet: Image.Image | None = None
    # One picture at a time in memory beside the sheet: there may be fifty.
    for number, picture in enumerate(draw_attention(shown, findings, volume.geometry)):
        rows, columns, _ = picture.shape
        if sheet is None:
            sheet = Image.new("RGB", (columns, rows * len(shown)))
        sheet.paste(Image.fromarray(picture), (0, number * rows))
    if sheet is None:
        raise ValueError("there is no attention to draw")
    stream = io.BytesIO()
    sheet.save(stream, format="PNG")
    return place(path, stream.getvalue())
