"""Real CTs with their liver labels, and ways to disturb them, for the tests of where the liver is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pydicom
from scipy import ndimage

from m3node.evaluation.ct_writer import axial_geometry
from m3node.imaging.assemble import assemble
from m3node.imaging.geometry import PatientGeometry
from m3node.imaging.mask import BoolArray, VoxelMask
from m3node.imaging.nifti import read_nifti, read_nifti_mask
from m3node.imaging.volume import CTVolume, SliceSource
from m3node.intake.folder.inputs import survey
from m3node.settings import Settings

LIVER = 5


def stack(folder: Path) -> CTVolume:
    """Read a folder of single-frame CT as one stack, in the plainest way and without judging it."""
    slices = [pydicom.dcmread(path) for path in sorted(folder.glob("*.dcm"))]
    row, column = np.array(slices[0].ImageOrientationPatient, float).reshape(2, 3)
    slices.sort(key=lambda ds: float(np.cross(row, column) @ np.array(ds.ImagePositionPatient, float)))
    positions = np.array([ds.ImagePositionPatient for ds in slices], float)
    hu = np.stack([ds.pixel_array * float(ds.RescaleSlope) + float(ds.RescaleIntercept) for ds in slices])
    affine = np.eye(4)
    affine[:3, 0] = (positions[-1] - positions[0]) / (len(slices) - 1)
    affine[:3, 1] = column * float(slices[0].PixelSpacing[0])
    affine[:3, 2] = row * float(slices[0].PixelSpacing[1])
    affine[:3, 3] = positions[0]
    sources = tuple(SliceSource(ds.SOPClassUID, ds.SOPInstanceUID, None) for ds in slices)
    geometry = PatientGeometry(affine=affine, positions=positions, shape=(hu.shape[0], hu.shape[1], hu.shape[2]))
    return CTVolume(hu=np.rint(hu).astype(np.int16), geometry=geometry, sources=sources)


def received(folder: Path) -> CTVolume:
    """Read a folder as the node does; it must hold one stack that is fit."""
    (manifest,) = survey(folder, Settings()).manifests
    return assemble(manifest)


def enhanced(test_data: Path) -> tuple[CTVolume, BoolArray]:
    """The slab with contrast medium: 20 slices of 2 mm, and its liver."""
    volume = received(test_data / "ct_liver_j2k")
    return volume, read_nifti_mask(test_data / "ct_liver_j2k.labels.nii.gz", volume, LIVER).full()


def unenhanced(test_data: Path) -> tuple[CTVolume, BoolArray]:
    """30 slices of 3 mm without contrast medium, and their liver."""
    volume = read_nifti(test_data / "nifti" / "example_ct_sm.nii.gz")
    return volume, read_nifti_mask(test_data / "nifti" / "example_seg.nii.gz", volume, LIVER).full()


def whole_trunk(test_data: Path) -> CTVolume:
    """Thigh to dome, 112 slices of 3 mm, without contrast medium."""
    return read_nifti(test_data / "nifti" / "example_ct.nii.gz")


def dice(found: VoxelMask | None, truth: BoolArray) -> float:
    """Dice coefficient; 0 when nothing was found."""
    if found is None:
        return 0.0
    mask = found.full()
    return 2.0 * float((mask & truth).sum()) / float(mask.sum() + truth.sum())


def rearranged(volume: CTVolume, order: tuple[int, int, int], flips: tuple[bool, bool, bool]) -> CTVolume:
    """Store the same patient with other index axes: the affine changes with the array, the patient does not."""
    index = np.eye(4)[:, [*order, 3]]
    shape = [volume.hu.shape[axis] for axis in order]
    back = np.eye(4)
    for axis, flip in enumerate(flips):
        if flip:
            back[axis, axis], back[axis, 3] = -1.0, shape[axis] - 1
    return _volume(arranged(volume.hu, order, flips), volume.geometry.affine @ index @ back)


def arranged(
    array: npt.NDArray[np.generic], order: tuple[int, int, int], flips: tuple[bool, bool, bool]
) -> npt.NDArray[np.generic]:
    """Reorder and reverse the axes of an array."""
    return np.ascontiguousarray(array.transpose(order)[tuple(slice(None, None, -1 if f else 1) for f in flips)])


def cropped(volume: CTVolume, first: int, last: int) -> CTVolume:
    """Keep slices first…last."""
    affine = volume.geometry.affine.copy()
    affine[:3, 3] += affine[:3, 0] * first
    return _volume(volume.hu[first:last], affine)


def with_hu(volume: CTVolume, hu: npt.NDArray[np.generic]) -> CTVolume:
    """Replace the HU."""
    return CTVolume(
        hu=np.clip(np.rint(hu), -1024, 3071).astype(np.int16), geometry=volume.geometry, sources=volume.sources
    )


def _volume(hu: npt.NDArray[np.generic], affine: npt.NDArray[np.float64]) -> CTVolume:
    positions = affine[:3, 3] + np.arange(hu.shape[0])[:, None] * affine[:3, 0]
    geometry = PatientGeometry(affine=affine, positions=positions, shape=(hu.shape[0], hu.shape[1], hu.shape[2]))
    return CTVolume(hu=hu.astype(np.int16), geometry=geometry, sources=())


def with_lesions(
    volume: CTVolume, liver: BoolArray, *, count: int, diameter_mm: float, darker: float, seed: int
) -> tuple[CTVolume, BoolArray]:
    """Darken balls with a smooth edge anywhere in the liver, at its border, too; noise stays."""
    rng = np.random.default_rng(seed)
    centres = np.argwhere(liver)[rng.integers(int(liver.sum()), size=count)]
    grid = np.ogrid[tuple(slice(0, n) for n in liver.shape)]
    depth = np.zeros(liver.shape)
    for centre in centres:
        square = sum(((g - c) * mm) ** 2 for g, c, mm in zip(grid, centre, volume.geometry.spacing, strict=True))
        depth = np.maximum(depth, 1.0 / (1.0 + np.exp(np.sqrt(square) - diameter_mm / 2.0)))
    depth *= liver
    return with_hu(volume, volume.hu - darker * depth), depth > 0.5


def thorax() -> CTVolume:
    """A chest without a liver: skin, ribs, spine, lungs, a heart and an aorta, 40 slices of 3 mm, 128×128 of 3 mm."""
    shape = (40, 128, 128)
    geometry = axial_geometry(shape, (3.0, 3.0, 3.0), origin=(-190.5, -190.5, 0.0))
    z, y, x = (geometry.spacing[a] * (np.arange(shape[a]) - (shape[a] - 1) / 2) for a in range(3))
    z, y, x = z[:, None, None], y[None, :, None], x[None, None, :]
    hu = np.full(shape, -1000.0)
    for reach, value in ((1.0, -100.0), (0.92, 45.0), (0.82, -850.0)):
        hu = np.where((x / 175) ** 2 + (y / 115) ** 2 + 0 * z < reach**2, value, hu)
    ring = ((x / 175) ** 2 + (y / 115) ** 2 > 0.83**2) & ((x / 175) ** 2 + (y / 115) ** 2 < 0.88**2)
    hu = np.where(ring & (np.cos(12 * np.arctan2(y, x) + z / 8) > 0.4), 500.0, hu)
    hu = np.where((np.abs(x) < 25) & (np.abs(y) < 80) & (hu < -200), 30.0, hu)
    hu = np.where(((x - 35) / 65) ** 2 + ((y + 25) / 50) ** 2 + (z / 70) ** 2 < 1, 42.0, hu)
    hu = np.where((x - 20) ** 2 + (y - 45) ** 2 + 0 * z < 13**2, 45.0, hu)
    hu = np.where((x / 22) ** 2 + ((y - 75) / 20) ** 2 + 0 * z < 1, 250.0, hu)
    hu += np.random.default_rng(5).normal(0, 12, shape)
    return CTVolume(hu=hu.astype(np.int16), geometry=geometry, sources=())


def liver_under_heart(liver_hu: float, heart_hu: float, *, apart_mm: float) -> tuple[CTVolume, BoolArray, BoolArray]:
    """A lower chest and upper abdomen with a heart on the left lobe; liver and heart. 80 slices of 3 mm.

    ``apart_mm`` of fat part them; at 0 they touch over the whole underside of the heart.
    """
    shape = (80, 128, 128)
    geometry = axial_geometry(shape, (3.0, 3.0, 3.0), origin=(-190.5, -190.5, 0.0))
    z, y, x = (3.0 * (np.arange(n) - (n - 1) / 2) for n in shape)
    z, y, x = z[:, None, None], y[None, :, None], x[None, None, :]
    trunk = (x / 175) ** 2 + (y / 115) ** 2 + 0 * z
    right_dome = 40 - ((x + 60) / 110) ** 2 * 60 - (y / 90) ** 2 * 50
    left_dome = 25 - ((x - 40) / 80) ** 2 * 60 - (y / 90) ** 2 * 60
    above = z - np.maximum(right_dome, left_dome)
    hu = np.full(shape, -1000.0)
    for reach, value in ((1.0, -100.0), (0.92, 45.0), (0.82, -100.0)):
        hu = np.where(trunk < reach**2, value, hu)
    hu = np.where((trunk < 0.82**2) & (above > 0), -850.0, hu)
    ribs = (trunk > 0.83**2) & (trunk < 0.88**2) & (np.cos(12 * np.arctan2(y, x) + z / 8) > 0.4)
    hu = np.where(ribs, 500.0, hu)
    hu = np.where((np.abs(x) < 25) & (np.abs(y) < 80) & (hu < -200), 30.0, hu)
    right_lobe = ((x + 60) / 95) ** 2 + ((y + 5) / 80) ** 2 + ((z + 25) / 75) ** 2 < 1
    left_lobe = ((x - 10) / 75) ** 2 + ((y + 35) / 40) ** 2 + (z / 40) ** 2 < 1
    liver = (right_lobe | left_lobe) & (above < -3) & (trunk < 0.8**2)
    around = ((x - 35) / 60) ** 2 + ((y + 25) / 48) ** 2 + ((z - 55) / 60) ** 2 < 1
    heart = around & (above > apart_mm)
    hu = np.where(around & (above > -3), -60.0 if apart_mm else heart_hu, hu)
    hu = np.where(heart, heart_hu, hu)
    hu = np.where(liver, liver_hu, hu)
    hu = np.where((x - 10) ** 2 + (y - 45) ** 2 + 0 * z < 12**2, 45.0, hu)
    hu = np.where((x / 22) ** 2 + ((y - 75) / 20) ** 2 + 0 * z < 1, 250.0, hu)
    hu = ndimage.gaussian_filter(hu, 0.6) + np.random.default_rng(9).normal(0, 12, shape)
    return CTVolume(hu=hu.astype(np.int16), geometry=geometry, sources=()), liver, heart


def thighs() -> CTVolume:
    """Two thighs that touch: even muscle around bone, 40 slices of 3 mm, 128×128 of 3 mm."""
    shape = (40, 128, 128)
    geometry = axial_geometry(shape, (3.0, 3.0, 3.0), origin=(-190.5, -190.5, 0.0))
    y, x = (3.0 * (np.arange(n) - (n - 1) / 2) for n in shape[1:])
    from_middle = np.hypot(np.abs(x[None, :]) - 88.0, y[:, None])
    plane = np.full(shape[1:], -1000.0)
    for radius, value in ((95.0, -100.0), (80.0, 60.0), (16.0, 900.0), (9.0, 20.0)):
        plane = np.where(from_middle < radius, value, plane)
    hu = plane + np.random.default_rng(2).normal(0, 12, shape)
    return CTVolume(hu=hu.astype(np.int16), geometry=geometry, sources=())
