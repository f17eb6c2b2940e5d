"""NIfTI in and out: volumes in HU, and masks on a volume's grid.

NIfTI's world is RAS (x to the patient's left is negative there), DICOM's and ours is LPS: x and y change sign. Its
arrays are (i, j, k); ours are (slice, row, column) with slices rising towards the head.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import numpy.typing as npt
from nibabel.filebasedimages import ImageFileError

from m3node.errors import InputRejected
from m3node.imaging.geometry import FloatArray, PatientGeometry
from m3node.imaging.mask import BoolArray, VoxelMask
from m3node.imaging.volume import CTVolume
from m3node.rejection import Reason

RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
MAX_TILT_DEGREES = 20.0
"""Beyond this no axis of a volume can be called axial."""

LabelArray = npt.NDArray[np.unsignedinteger[Any]]


def read_nifti(path: Path) -> CTVolume:
    """Read a CT volume.

    Parameters
    ----------
    path : Path
        ``.nii`` or ``.nii.gz``; three axes, HU after its scaling.

    Returns
    -------
    CTVolume
        Slices rise along the patient's z, rows along the axis nearest to y, columns nearest to x, directions within
        a slice as stored; no sources.

    Raises
    ------
    InputRejected
        Not NIfTI, not 3-D, without a usable orientation or without HU.
    """
    image = _load(path)
    array, affine = _arranged(image, path)
    slope, intercept = _scaling(image)
    if array.dtype == np.int16 and (slope, intercept) == (1.0, 0.0):
        hu = np.ascontiguousarray(array)  # no second copy of a large volume
    else:
        hu = np.empty(array.shape, dtype=np.int16)
        for k in range(array.shape[0]):
            plane = np.asarray(array[k], dtype=np.float64) * slope + intercept
            hu[k] = np.rint(np.clip(np.nan_to_num(plane, nan=-1024.0), -32768, 32767))
    if hu.min() >= hu.max():
        raise InputRejected(Reason.UNSUPPORTED_PIXELS, f"{path.name} holds one value only; a CT in HU is expected.")
    hu.flags.writeable = False
    return CTVolume(hu=hu, geometry=_geometry(affine, hu.shape), sources=())


def read_nifti_mask(path: Path, like: CTVolume, label: int | None = None) -> VoxelMask:
    """Read a mask and lay it on a volume's grid.

    Parameters
    ----------
    path : Path
        A label map, on the volume's grid or on another one of the same patient space.
    like : CTVolume
        The volume.
    label : int, optional
        The value that is meant; every value but zero otherwise.

    Returns
    -------
    VoxelMask
        On the volume's grid; nearest neighbour where the mask has another grid.

    Raises
    ------
    InputRejected
        Not NIfTI, not 3-D, empty, without that label, or nowhere near the volume.
    """
    image = _load(path)
    array, affine = _arranged(image, path)
    slope, intercept = _scaling(image)
    mask = np.empty(array.shape, dtype=np.bool_)
    for k in range(array.shape[0]):
        values = np.asarray(array[k], dtype=np.float64) * slope + intercept
        mask[k] = values != 0 if label is None else np.rint(values) == label
    if not mask.any():
        what = "no voxel that is not zero" if label is None else f"no voxel of label {label}"
        raise InputRejected(Reason.UNSUPPORTED_PIXELS, f"The mask {path.name} has {what}.")
    placed = _on_grid(mask, affine, like.geometry)
    if placed.count == 0:
        raise InputRejected(
            Reason.MIXED_GEOMETRY,
            f"The mask {path.name} lies outside the volume; it must be in the same patient space.",
        )
    return placed


def write_nifti_mask(mask: VoxelMask | LabelArray | BoolArray, geometry: PatientGeometry, path: Path) -> None:
    """Write a mask or label map as unsigned 8- or 16-bit NIfTI with the volume's geometry.

    Parameters
    ----------
    mask : VoxelMask or ndarray
        A mask, or labels of the shape of the volume (slices, rows, columns).
    geometry : PatientGeometry
        The grid.
    path : Path
        ``.nii`` or ``.nii.gz``.
    """
    labels = mask.full() if isinstance(mask, VoxelMask) else mask
    if labels.shape != geometry.shape:
        raise ValueError(f"labels of shape {labels.shape} do not fit the grid {geometry.shape}")
    wide = labels.dtype != np.bool_ and labels.size > 0 and int(labels.max()) > 255
    # (slice, row, column) becomes (column, row, slice): the order that NIfTI readers expect.
    affine = RAS_TO_LPS @ geometry.affine[:, [2, 1, 0, 3]]
    data = np.ascontiguousarray(labels.transpose(2, 1, 0).astype(np.uint16 if wide else np.uint8))
    image = nibabel.Nifti1Image(data, affine)
    image.header.set_xyzt_units("mm")
    nibabel.save(image, path)


def _load(path: Path) -> Any:
    try:
        image: Any = nibabel.load(path)
    except FileNotFoundError as error:
        raise InputRejected(Reason.UNREADABLE, f"{path.name} does not exist.") from error
    except (ImageFileError, OSError, EOFError, ValueError) as error:
        raise InputRejected(Reason.UNREADABLE, f"{path.name} is not a readable NIfTI file: {error}") from error
    if not isinstance(image, nibabel.Nifti1Pair):
        raise InputRejected(Reason.UNREADABLE, f"{path.name} is not NIfTI.")
    return image


def _scaling(image: Any) -> tuple[float, float]:
    slope, intercept = image.dataobj.slope, image.dataobj.inter
    if not (math.isfinite(slope) and math.isfinite(intercept)) or slope == 0:
        return 1.0, 0.0
    return float(slope), float(intercept)


def _arranged(image: Any, path: Path) -> tuple[npt.NDArray[Any], FloatArray]:
    """Stored values as (slice, row, column), slices rising in z, with the affine of that order in LPS."""
    shape = tuple(int(n) for n in image.shape)
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) != 3:
        raise InputRejected(
            Reason.UNSUPPORTED_PIXELS, f"{path.name} has {len(shape)} axes; one 3-D volume is expected."
        )
    if int(image.header["sform_code"]) == 0 and int(image.header["qform_code"]) == 0:
        raise InputRejected(
            Reason.MISSING_GEOMETRY, f"{path.name} has neither sform nor qform: left and right are unknown."
        )
    affine = RAS_TO_LPS @ np.asarray(image.affine, dtype=np.float64)
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    if not np.all(np.isfinite(affine)) or lengths.min() <= 0 or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
        raise InputRejected(Reason.MISSING_GEOMETRY, f"{path.name} has no usable orientation.")
    order = _order(affine[:3, :3] / lengths, path)
    try:
        stored = np.asarray(image.dataobj.get_unscaled()).reshape(shape)
    except (OSError, EOFError, ValueError) as error:
        raise InputRejected(Reason.UNREADABLE, f"{path.name} is cut short or damaged: {error}") from error
    if stored.dtype.kind not in "iuf":
        raise InputRejected(
            Reason.UNSUPPORTED_PIXELS, f"{path.name} holds {stored.dtype} voxels; numbers are expected."
        )
    array = stored.transpose(order)
    affine = affine[:, [*order, 3]]
    if affine[2, 0] < 0:
        affine[:3, 3] += affine[:3, 0] * (array.shape[0] - 1)
        affine[:3, 0] *= -1
        array = array[::-1]
    return array, affine


def _order(directions: FloatArray, path: Path) -> list[int]:
    """Axes of the file that become slice, row and column."""
    slice_axis = int(np.argmax(np.abs(directions[2])))
    if abs(directions[2, slice_axis]) < math.cos(math.radians(MAX_TILT_DEGREES)):
        raise InputRejected(
            Reason.TILTED, f"No axis of {path.name} is within {MAX_TILT_DEGREES:.0f}° of the patient's z."
        )
    first, second = (axis for axis in range(3) if axis != slice_axis)
    if abs(directions[0, first]) > abs(directions[0, second]):
        first, second = second, first
    return [slice_axis, first, second]


def _geometry(affine: FloatArray, shape: tuple[int, ...]) -> PatientGeometry:
    positions = affine[:3, 3] + np.arange(shape[0])[:, None] * affine[:3, 0]
    return PatientGeometry(affine=affine, positions=positions, shape=(shape[0], shape[1], shape[2]))


def _on_grid(mask: BoolArray, affine: FloatArray, geometry: PatientGeometry) -> VoxelMask:
    """Ask, for each voxel of the grid near the mask, the mask's nearest voxel."""
    to_mask = np.linalg.inv(affine) @ geometry.affine
    extent = VoxelMask.from_full(mask).extent
    assert extent is not None  # the mask is not empty
    corners = np.array([[a, b, c, 1.0] for a in _ends(extent[0]) for b in _ends(extent[1]) for c in _ends(extent[2])])
    on_grid = corners @ np.linalg.inv(to_mask).T
    low = np.clip(np.floor(on_grid[:, :3].min(axis=0)).astype(int), 0, geometry.shape)
    high = np.clip(np.ceil(on_grid[:, :3].max(axis=0)).astype(int) + 1, 0, geometry.shape)
    out = np.zeros(np.maximum(high - low, 0), dtype=np.bool_)
    rows = np.arange(low[1], high[1])[:, None]
    columns = np.arange(low[2], high[2])[None, :]
    for i in range(out.shape[0]):
        nearest = [
            np.rint(to_mask[a, 0] * (low[0] + i) + to_mask[a, 1] * rows + to_mask[a, 2] * columns + to_mask[a, 3])
            for a in range(3)
        ]
        known = np.all([(n >= 0) & (n < size) for n, size in zip(nearest, mask.shape, strict=True)], axis=0)
        at = tuple(np.where(known, n, 0).astype(np.intp) for n in nearest)
        out[i] = mask[at] & known
    start = (int(low[0]), int(low[1]), int(low[2]))
    return VoxelMask(shape=geometry.shape, start=start, data=out).cropped()


def _ends(bounds: tuple[int, int]) -> tuple[float, float]:
    return bounds[0] - 0.5, bounds[1] - 0.5
