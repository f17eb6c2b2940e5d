"""Stacks and manifests: from files the way the product makes them, and from headers made up without any file."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from m3node.intake.series.header import FrameHeader, InstanceHeader, Orientation, PixelLayout
from m3node.intake.series.manifest import Manifest, make_manifest
from m3node.intake.series.reading import read_headers
from m3node.intake.series.stacks import Stack, group_stacks
from made_headers import HEADER

AXIAL: Orientation = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)


def headers_of(folder: Path) -> list[InstanceHeader]:
    """Headers of every readable file below a folder."""
    found = read_headers(sorted(path for path in folder.rglob("*") if path.is_file()), folder)
    return [header for header in found if isinstance(header, InstanceHeader)]


def stack_of(folder: Path) -> Stack:
    """The one stack below a folder."""
    (stack,) = group_stacks(headers_of(folder))
    return stack


def manifest_of(folder: Path) -> Manifest:
    """The manifest of the one stack below a folder."""
    return make_manifest(stack_of(folder), root=folder, created_at=0.0)


def ct_slices(
    heights: Sequence[float], *, series: str = "1.2", orientation: Orientation = AXIAL, **frame: object
) -> list[InstanceHeader]:
    """Headers of single-frame CT slices at these z, 512×512 of 0.8 mm; ``frame`` sets attributes of the frame."""
    return [ct_slice((0.0, 0.0, z), series=series, orientation=orientation, **frame) for z in heights]


def ct_slice(
    position: tuple[float, float, float] | None,
    *,
    series: str = "1.2",
    orientation: Orientation = AXIAL,
    **frame: object,
) -> InstanceHeader:
    """Header of one such slice; every call gives another instance."""
    number = next(_numbers)
    made = FrameHeader(
        number=1,
        position=position,
        orientation=orientation,
        pixel_spacing=(0.8, 0.8),
        slice_thickness=2.0,
        rescale_slope=1.0,
        rescale_intercept=-1024.0,
        acquisition_number=1,
        temporal_position=None,
        kernel="B30f",
        image_type=("ORIGINAL", "PRIMARY", "AXIAL"),
    )
    pixels = PixelLayout(
        rows=512,
        columns=512,
        samples_per_pixel=1,
        photometric_interpretation="MONOCHROME2",
        bits_allocated=16,
        bits_stored=12,
        high_bit=11,
        pixel_representation=0,
        number_of_frames=1,
        offset=1000,
        length=512 * 512 * 2,
    )
    return replace(
        HEADER,
        path=f"{number}.dcm",
        sha256=f"{number:064x}",
        sop_instance_uid=f"1.3.{number}",
        series_instance_uid=series,
        instance_number=number,
        pixels=pixels,
        frames=(replace(made, **frame),),
    )


_numbers = itertools.count(1)
