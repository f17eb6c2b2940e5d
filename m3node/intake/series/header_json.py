"""Headers as JSON: one compact line each, for the index and the manifests."""

from __future__ import annotations

import json
from dataclasses import fields
from typing import Any

from m3node.intake.series.header import FrameHeader, InstanceHeader, PixelLayout

_PIXELS = tuple(field.name for field in fields(PixelLayout))
_FRAME = tuple(field.name for field in fields(FrameHeader))
_INSTANCE = tuple(field.name for field in fields(InstanceHeader) if field.name not in {"pixels", "frames"})
_FRAME_TUPLES = ("position", "orientation", "pixel_spacing", "image_type")


def header_to_json(header: InstanceHeader) -> str:
    """Return the header as one line of JSON without a line break."""
    return json.dumps(header_to_dict(header), ensure_ascii=False, separators=(",", ":"))


def header_from_json(line: str) -> InstanceHeader:
    """Read a line that `header_to_json` wrote.

    Raises
    ------
    ValueError
        The line is torn, or was not written by this version.
    """
    try:
        return header_from_dict(json.loads(line))
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError("not a header of this version") from error


def header_to_dict(header: InstanceHeader) -> dict[str, Any]:
    """Return the header as what JSON can hold."""
    tree: dict[str, Any] = {name: getattr(header, name) for name in _INSTANCE}
    pixels = header.pixels
    tree["pixels"] = None if pixels is None else {name: getattr(pixels, name) for name in _PIXELS}
    tree["frames"] = [{name: getattr(frame, name) for name in _FRAME} for frame in header.frames]
    return tree


def header_from_dict(tree: dict[str, Any]) -> InstanceHeader:
    """Build the header that `header_to_dict` described; an attribute that is missing or unknown is a TypeError."""
    tree = dict(tree)
    pixels = tree.pop("pixels")
    tree["frames"] = tuple(_frame(frame) for frame in tree.pop("frames"))
    tree["image_type"] = tuple(tree["image_type"])
    return InstanceHeader(pixels=None if pixels is None else PixelLayout(**pixels), **tree)


def _frame(tree: dict[str, Any]) -> FrameHeader:
    values = dict(tree)
    for name in _FRAME_TUPLES:
        if values[name] is not None:
            values[name] = tuple(values[name])
    return FrameHeader(**values)
