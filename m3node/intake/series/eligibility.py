"""Whether a stack is fit for the method, and if not, why, in words that the person who sent it can act on."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from m3node.intake.receive.contexts import COMPRESSED, UNCOMPRESSED
from m3node.intake.series.header import InstanceHeader
from m3node.intake.series.stacks import SAME_POSITION_MM, Stack, is_localizer, stack_normal
from m3node.rejection import Reason, Rejection
from m3node.settings import EligibilitySettings

NOT_HU_IMAGE_TYPES = frozenset(
    {
        "ENERGY_PROP_WT",
        "MASKED",
        "MAXIMUM",
        "MAX_IP",
        "MINIMUM",
        "MINIP",
        "MIN_IP",
        "MIP",
        "MTT",
        "RCBF",
        "RCBV",
        "STD_DEVIATION",
        "SUBTRACTION",
        "TTP",
        "VOLUME_RENDERING",
        "VRT",
    }
)
"""Values of Image Type and Frame Type whose pixels are projections, maps or renderings and not the HU of a slice.

From PS3.3 C.8.15.2.1 and C.8.16.2.1 and what vendors write. Other derived images, above all axial reformats
(``DERIVED\\SECONDARY\\MPR``) and lossily compressed ones, hold HU and are judged by their geometry like originals.
"""

MAX_VOXELS = 2_000_000_000
"""4 GB of HU; ten times the largest body CT. More is a header that is wrong."""

_SYNTAXES = frozenset(syntax.uid for syntax in UNCOMPRESSED + COMPRESSED)
_BITS = frozenset({8, 16, 32})
_DIRECTION_TOLERANCE = 1e-3
_SPACING_TOLERANCE_MM = 1e-3

Floats = npt.NDArray[np.float64]
Check = Callable[[Stack, EligibilitySettings], Rejection | None]


def judge(stack: Stack, settings: EligibilitySettings) -> Rejection | None:
    """Judge a stack; the first thing that is wrong is the reason.

    In-plane rotation, mirrored axes and feet first are all fine: the patient coordinates tell.

    Returns
    -------
    Rejection or None
        None when the stack is fit. The message counts slices from 1, lowest along the stack's normal first.
    """
    return next((found for check in _CHECKS if (found := check(stack, settings)) is not None), None)


def _kind(stack: Stack, _settings: EligibilitySettings) -> Rejection | None:
    if all(is_localizer(frame) for frame in stack.frames):
        return _no(stack, Reason.LOCALIZER, "this is a localizer (scout), which shows no cross sections")
    named = Counter(value.upper() for frame in stack.frames for value in frame.image_type)
    derived = sorted(NOT_HU_IMAGE_TYPES & named.keys())
    if derived:
        return _no(
            stack,
            Reason.DERIVED,
            f"its image type is {derived[0]}, which holds no Hounsfield units of slices; send the original images",
        )
    return None


def _whole(stack: Stack, _settings: EligibilitySettings) -> Rejection | None:
    for header in stack.instances:
        fault = _unfit_pixels(header) or _unfit_layout(header)
        if fault is not None:
            return _no(stack, fault[0], f"instance {header.sop_instance_uid} {fault[1]}")
    voxels = sum(h.pixels.rows * h.pixels.columns * len(h.frames) for h in stack.instances if h.pixels is not None)
    if voxels > MAX_VOXELS:
        return _no(stack, Reason.UNSUPPORTED_PIXELS, f"it has {voxels} voxels and at most {MAX_VOXELS} are read")
    return None


def _unfit_pixels(header: InstanceHeader) -> tuple[Reason, str] | None:
    pixels = header.pixels
    if pixels is None:
        return Reason.NO_PIXEL_DATA, "has no pixel data; send the series again"
    if header.transfer_syntax_uid not in _SYNTAXES:
        return (
            Reason.UNSUPPORTED_PIXELS,
            f"is compressed with transfer syntax {header.transfer_syntax_uid}, which cannot be decoded; have the "
            "archive send it uncompressed",
        )
    if pixels.samples_per_pixel != 1 or pixels.photometric_interpretation not in {"MONOCHROME1", "MONOCHROME2"}:
        return (
            Reason.UNSUPPORTED_PIXELS,
            f"is a colour image ({pixels.photometric_interpretation}), a screenshot rather than a CT slice",
        )
    if pixels.number_of_frames != len(header.frames):
        return (
            Reason.MISSING_GEOMETRY,
            f"announces {pixels.number_of_frames} frames and describes {len(header.frames)}",
        )
    return None


def _unfit_layout(header: InstanceHeader) -> tuple[Reason, str] | None:
    pixels = header.pixels
    if pixels is None:
        return None
    allocated, stored, high = pixels.bits_allocated, pixels.bits_stored, pixels.high_bit
    if allocated not in _BITS or not 0 < stored <= high + 1 <= allocated:
        return (
            Reason.UNSUPPORTED_PIXELS,
            f"stores {stored} of {allocated} bits with high bit {high}, which is no valid layout",
        )
    if pixels.rows < 2 or pixels.columns < 2:
        return Reason.UNSUPPORTED_PIXELS, f"has {pixels.rows}×{pixels.columns} pixels"
    needed = pixels.rows * pixels.columns * allocated // 8 * pixels.number_of_frames
    if 0 <= pixels.length < needed:
        return (
            Reason.UNSUPPORTED_PIXELS,
            f"has {pixels.length} bytes of pixel data where {needed} are needed; send it again",
        )
    return None


def _one_examination(stack: Stack, _settings: EligibilitySettings) -> Rejection | None:
    patients = len({header.patient_digest for header in stack.instances})
    if patients > 1:
        return _no(
            stack,
            Reason.MIXED_PATIENTS,
            f"its instances name {patients} different Patient IDs; correct them at their source and send them again",
        )
    studies = len({header.study_instance_uid for header in stack.instances})
    if studies > 1:
        return _no(stack, Reason.MIXED_STUDIES, f"its instances belong to {studies} studies; correct their Study UIDs")
    return None


def _described(stack: Stack, _settings: EligibilitySettings) -> Rejection | None:
    total = len(stack.slices)
    frames = stack.frames
    for what, missing in (
        ("Image Position (Patient)", sum(frame.position is None for frame in frames)),
        ("Image Orientation (Patient)", sum(frame.orientation is None for frame in frames)),
        ("Pixel Spacing", sum(frame.pixel_spacing is None for frame in frames)),
    ):
        if missing:
            return _no(stack, Reason.MISSING_GEOMETRY, f"{missing} of {total} slices have no {what}")
    if any(min(frame.pixel_spacing or (1.0, 1.0)) <= 0.0 for frame in frames):
        return _no(stack, Reason.MISSING_GEOMETRY, "its Pixel Spacing is not positive")
    if any(not _is_rotation(frame.orientation or (0.0,) * 6) for frame in frames):
        return _no(stack, Reason.MISSING_GEOMETRY, "its Image Orientation (Patient) is no pair of perpendicular axes")
    if any(not header.frame_of_reference_uid for header in stack.instances):
        return _no(stack, Reason.MISSING_GEOMETRY, "it has no Frame of Reference UID, so results cannot be laid on it")
    unscaled = sum(not frame.rescale_slope or frame.rescale_intercept is None for frame in frames)
    if unscaled:
        return _no(
            stack,
            Reason.UNSUPPORTED_PIXELS,
            f"{unscaled} of {total} slices have no Rescale Slope and Intercept, so their Hounsfield units are unknown",
        )
    return None


def _one_grid(stack: Stack, _settings: EligibilitySettings) -> Rejection | None:
    sizes = {(h.pixels.rows, h.pixels.columns) for h in stack.instances if h.pixels is not None}
    if len(sizes) > 1:
        shown = " and ".join(f"{rows}×{columns}" for rows, columns in sorted(sizes)[:2])
        return _no(stack, Reason.MIXED_GEOMETRY, f"its slices have different sizes ({shown} pixels)")
    spacings = np.array([frame.pixel_spacing for frame in stack.frames])
    if not np.allclose(spacings, spacings[0], rtol=1e-3, atol=0.0):
        low, high = spacings.min(), spacings.max()
        return _no(
            stack, Reason.MIXED_GEOMETRY, f"its slices have different pixel spacings ({low:.3f} to {high:.3f} mm)"
        )
    references = len({header.frame_of_reference_uid for header in stack.instances})
    if references > 1:
        return _no(stack, Reason.MIXED_GEOMETRY, f"its slices lie in {references} frames of reference")
    return None


def _axial(stack: Stack, settings: EligibilitySettings) -> Rejection | None:
    for index, frame in enumerate(stack.frames):
        normal = stack_normal(frame.orientation or (1.0, 0.0, 0.0, 0.0, 1.0, 0.0))
        angle = math.degrees(math.acos(min(1.0, abs(normal[2]))))
        if angle > settings.max_normal_angle_degrees:
            tilt = next((h.gantry_tilt for h in stack.instances if h.gantry_tilt), None)
            because = f" (gantry tilt {tilt:+.1f}°)" if tilt is not None else ""
            return _no(
                stack,
                Reason.TILTED,
                f"slice {index + 1} is tilted {angle:.1f}° from the axial plane{because}, and at most "
                f"{settings.max_normal_angle_degrees:g}° are analysed; send axial slices",
            )
    return None


def _enough(stack: Stack, settings: EligibilitySettings) -> Rejection | None:
    total = len(stack.slices)
    if total < settings.min_slices:
        return _no(
            stack,
            Reason.TOO_FEW_SLICES,
            f"it has {total} slice{'s' if total != 1 else ''} and at least {settings.min_slices} are needed; if more "
            "exist, send them",
        )
    return None


def _evenly_stacked(stack: Stack, settings: EligibilitySettings) -> Rejection | None:
    if len(stack.slices) < 2:
        return None
    positions = np.array([frame.position for frame in stack.frames], dtype=np.float64)
    normal = np.asarray(stack_normal(stack.frame(0).orientation or (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)))
    gaps = np.diff(positions @ normal)
    same = np.flatnonzero(gaps < SAME_POSITION_MM)
    if same.size:
        k = int(same[0])
        return _no(
            stack,
            Reason.DUPLICATE_POSITION,
            f"slices {k + 1} and {k + 2} lie at the same position ({same.size} such pairs), and nothing in their "
            "headers tells two stacks apart",
        )
    return _sheared(stack, settings, positions, normal) or _uneven(stack, settings, gaps)


def _sheared(stack: Stack, settings: EligibilitySettings, positions: Floats, normal: Floats) -> Rejection | None:
    way = positions[-1] - positions[0]
    angle = math.degrees(math.acos(min(1.0, abs(float(way @ normal)) / float(np.linalg.norm(way)))))
    if angle > settings.max_stacking_angle_degrees:
        return _no(
            stack,
            Reason.SHEARED,
            f"its slices are stacked at {angle:.1f}° to their normal, and at most "
            f"{settings.max_stacking_angle_degrees:g}° are analysed; send slices reformatted at right angles",
        )
    fractions = np.linspace(0.0, 1.0, len(positions))[:, None]
    off = positions - (positions[0] + fractions * way)
    sideways = np.linalg.norm(off - np.outer(off @ normal, normal), axis=1)
    limit = max(stack.frame(0).pixel_spacing or (1.0, 1.0))
    worst = int(np.argmax(sideways))
    if sideways[worst] > limit:
        return _no(
            stack,
            Reason.SHEARED,
            f"slice {worst + 1} lies {sideways[worst]:.1f} mm to the side of the line through the others",
        )
    return None


def _uneven(stack: Stack, settings: EligibilitySettings, gaps: Floats) -> Rejection | None:
    usual = float(np.median(gaps))
    off = np.abs(gaps - usual)
    if off.max() <= settings.spacing_tolerance * usual + _SPACING_TOLERANCE_MM:
        return None
    k = int(np.argmax(off))
    gap = float(gaps[k])
    missing = round(gap / usual) - 1
    if missing >= 1 and abs(gap - (missing + 1) * usual) <= 0.25 * usual:
        what = "a slice is missing" if missing == 1 else f"{missing} slices are missing"
        what += "; send the whole series again"
    else:
        what = "the spacing is uneven; send an evenly spaced reconstruction"
    return _no(
        stack,
        Reason.UNEVEN_SPACING,
        f"slices {k + 1} and {k + 2} lie {gap:.2f} mm apart, the others {usual:.2f} mm: {what}",
    )


_CHECKS: tuple[Check, ...] = (
    _kind,
    _whole,
    _one_examination,
    _described,
    _one_grid,
    _axial,
    _enough,
    _evenly_stacked,
)
"""From what makes the stack a different thing to what makes it an imperfect one."""


def _is_rotation(orientation: tuple[float, ...]) -> bool:
    row, column = np.asarray(orientation[:3]), np.asarray(orientation[3:])
    lengths = (float(row @ row), float(column @ column))
    # Files round direction cosines to a few digits; a degree off the right angle is still told from nonsense.
    return all(abs(length - 1.0) < 20 * _DIRECTION_TOLERANCE for length in lengths) and abs(float(row @ column)) < 0.02


def _no(stack: Stack, reason: Reason, message: str) -> Rejection:
    return Rejection(reason, f"series {stack.key.series_instance_uid} is not analysed: {message}", stack.key.label)
