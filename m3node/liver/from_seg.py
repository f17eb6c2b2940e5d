"""The liver of a received SEG, laid on a stack by patient geometry."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from m3node.errors import InputRejected
from m3node.imaging.geometry import FloatArray, PatientGeometry
from m3node.imaging.mask import BoolArray, VoxelMask
from m3node.imaging.volume import CTVolume
from m3node.liver.envelope import make_envelope
from m3node.liver.region import LiverRegion, LiverSource
from m3node.liver.seg_reader import LiverFrames, read_liver_frames
from m3node.rejection import Reason
from m3node.settings import LiverSettings

MAX_ANGLE_DEGREES = 2.0
POSITION_TOLERANCE_MM = 0.1


def region_from_seg(path: Path, volume: CTVolume, settings: LiverSettings) -> LiverRegion | None:
    """Take the liver of a SEG.

    Parameters
    ----------
    path : Path
        BINARY, FRACTIONAL (half of the maximum counts as liver) or LABELMAP.
    volume : CTVolume
        The stack that it is laid on; the SEG's grid may differ in plane and in slice positions.
    settings : LiverSettings
        The envelope's closing and dilation.

    Returns
    -------
    LiverRegion or None
        Union of the segments that are liver, and of those whose anatomic region is liver (lobes, lesions); None
        when no segment is liver.

    Raises
    ------
    InputRejected
        Not a SEG, without geometry, of other images, at an angle to the stack, undecodable, or empty on the stack.
    """
    frames = read_liver_frames(path, volume)
    if frames is None:
        return None
    parenchyma = lay_frames(frames, volume.geometry)
    if parenchyma.count == 0:
        raise InputRejected(
            Reason.MIXED_GEOMETRY,
            f"SEG {frames.uid}: its liver lies on none of the stack's slices; is it of another stack of the series?",
        )
    return LiverRegion(
        parenchyma=parenchyma,
        envelope=make_envelope(parenchyma, volume.geometry, settings),
        source=LiverSource.RECEIVED_SEG,
        reference=frames.uid,
        algorithm=frames.algorithm,
    )


def lay_frames(frames: LiverFrames, geometry: PatientGeometry) -> VoxelMask:
    """Lay the frames on the stack's slices: each slice takes the frames nearest to it along the normal."""
    across = np.cross(geometry.affine[:3, 2], geometry.affine[:3, 1])
    cosine = abs(float(across @ frames.plane.normal)) / float(np.linalg.norm(across))
    if cosine < np.cos(np.radians(MAX_ANGLE_DEGREES)):
        raise InputRejected(
            Reason.MIXED_GEOMETRY, f"SEG {frames.uid}: its frames lie at an angle to the stack's slices."
        )
    users = _users(frames, geometry)
    masks: dict[int, BoolArray] = {}
    order = sorted(users)
    for at, liver in zip(order, frames.decode(order), strict=True):
        if not liver.any():
            continue
        for k in users[at]:
            laid = _in_plane(liver, frames, at, geometry, k)
            masks[k] = masks[k] | laid if k in masks else laid
    return _stacked(masks, geometry.shape)


def _users(frames: LiverFrames, geometry: PatientGeometry) -> dict[int, list[int]]:
    """Which slices take each frame: those within half a slice distance for which no other frame is nearer."""
    normal = frames.plane.normal
    heights = frames.origins @ normal
    middle = np.array([(geometry.shape[1] - 1) / 2, (geometry.shape[2] - 1) / 2])
    # At the image's middle, so that a slight angle between stack and SEG does not shift the choice.
    centres = geometry.positions + geometry.affine[:3, 1:3] @ middle
    reach = _reach(heights, frames, geometry)
    users: dict[int, list[int]] = {}
    for k, height in enumerate((centres @ normal).tolist()):
        distances = np.abs(heights - height)
        nearest = float(distances.min())
        if nearest <= reach:
            for at in np.flatnonzero(distances <= nearest + POSITION_TOLERANCE_MM).tolist():
                users.setdefault(at, []).append(k)
    return users


def _reach(heights: FloatArray, frames: LiverFrames, geometry: PatientGeometry) -> float:
    """How far a frame speaks along the normal: half of its own slice distance, or of the stack's where unknown."""
    steps = np.diff(np.unique(np.round(heights, 2)))
    apart = frames.plane.between or (float(steps.min()) if steps.size else geometry.spacing[0])
    return apart / 2 + POSITION_TOLERANCE_MM


def _in_plane(liver: BoolArray, frames: LiverFrames, at: int, geometry: PatientGeometry, k: int) -> BoolArray:
    """Ask for each pixel of slice ``k`` the frame's nearest pixel."""
    plane = frames.plane
    down, right = geometry.affine[:3, 1], geometry.affine[:3, 2]
    offset = geometry.positions[k] - frames.origins[at]
    r = np.arange(geometry.shape[1])[:, None]
    c = np.arange(geometry.shape[2])[None, :]
    axes = ((plane.column, plane.spacing[0]), (plane.row, plane.spacing[1]))
    index = [np.rint((offset @ d + (down @ d) * r + (right @ d) * c) / step).astype(np.intp) for d, step in axes]
    known = (index[0] >= 0) & (index[0] < liver.shape[0]) & (index[1] >= 0) & (index[1] < liver.shape[1])
    return np.asarray(liver[np.where(known, index[0], 0), np.where(known, index[1], 0)] & known)


def _stacked(masks: dict[int, BoolArray], shape: tuple[int, int, int]) -> VoxelMask:
    """Put planes together without ever holding the whole grid."""
    filled = {k: mask for k, mask in masks.items() if mask.any()}
    if not filled:
        return VoxelMask.empty(shape)
    any_plane = np.logical_or.reduce(list(filled.values()))
    rows, columns = np.flatnonzero(any_plane.any(axis=1)), np.flatnonzero(any_plane.any(axis=0))
    first, last = min(filled), max(filled)
    block = np.zeros((last - first + 1, rows[-1] - rows[0] + 1, columns[-1] - columns[0] + 1), dtype=np.bool_)
    for k, mask in filled.items():
        block[k - first] = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return VoxelMask(shape=shape, start=(first, int(rows[0]), int(columns[0])), data=block)
