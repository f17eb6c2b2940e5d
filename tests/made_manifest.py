"""The manifest of CT files that a test wrote, and the grid of its slices."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from m3node.imaging.assemble import geometry_of
from m3node.imaging.geometry import PatientGeometry
from m3node.intake.series.manifest import Manifest, make_manifest
from m3node.intake.series.reading import read_header
from m3node.intake.series.stacks import group_stacks


def made_manifest(files: Sequence[Path]) -> Manifest:
    """The manifest of files of one folder that are one stack; whether it is fit is not asked."""
    root = files[0].parent
    (stack,) = group_stacks([read_header(path, root) for path in files])
    return make_manifest(stack, root=root, created_at=0.0)


def manifest_geometry(manifest: Manifest) -> PatientGeometry:
    """The grid of the manifest's slices."""
    return geometry_of(manifest)
