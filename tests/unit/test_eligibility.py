"""What is not fit is refused with a reason and with the numbers behind it; what is merely unusual is fit."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.uid import JPEG2000, JPEGBaseline8Bit, JPEGLSNearLossless
from scipy.spatial.transform import Rotation

from m3node.intake.series.eligibility import judge
from m3node.intake.series.header import InstanceHeader, Orientation
from m3node.intake.series.stacks import Stack, group_stacks
from m3node.rejection import Reason, Rejection
from m3node.settings import EligibilitySettings
from made_stacks import ct_slice, ct_slices, headers_of, stack_of

SETTINGS = EligibilitySettings()
HEIGHTS = [float(z) for z in range(0, 40, 2)]


def stack(headers: list[InstanceHeader]) -> Stack:
    (found,) = group_stacks(headers)
    return found


def refusal(headers: list[InstanceHeader]) -> Rejection:
    found = judge(stack(headers), SETTINGS)
    assert found is not None
    assert found.subject == "1.2"
    return found


def each(headers: list[InstanceHeader], **pixels: object) -> list[InstanceHeader]:
    return [replace(header, pixels=replace(header.pixels, **pixels)) for header in headers if header.pixels]


def turned(degrees: tuple[float, float, float], *, mirrored: bool = False) -> Orientation:
    """An axial orientation turned about x, y and z; mirrored: columns run the other way."""
    matrix = Rotation.from_euler("xyz", degrees, degrees=True).as_matrix()
    row, column = matrix @ [1.0, 0.0, 0.0], matrix @ [0.0, -1.0 if mirrored else 1.0, 0.0]
    a, b, c = (float(v) for v in row)
    d, e, f = (float(v) for v in column)
    return a, b, c, d, e, f


def along_normal(orientation: Orientation, spacing: float = 2.0, count: int = 20) -> list[InstanceHeader]:
    normal = np.cross(orientation[:3], orientation[3:])
    places = [tuple(float(v) for v in np.array([-200.0, -180.0, 30.0]) + k * spacing * normal) for k in range(count)]
    return [ct_slice(place, orientation=orientation) for place in places]


def test_an_ordinary_stack_is_fit() -> None:
    assert judge(stack(ct_slices(HEIGHTS)), SETTINGS) is None


@settings(max_examples=60, deadline=None)
@given(
    turn=st.floats(-180.0, 180.0),
    tilt=st.floats(-3.4, 3.4),
    lean=st.floats(-3.4, 3.4),
    mirrored=st.booleans(),
    spacing=st.floats(0.4, 10.0),
)
def test_rotation_in_plane_mirrored_axes_and_a_small_tilt_are_fit(
    turn: float, tilt: float, lean: float, mirrored: bool, spacing: float
) -> None:
    made = stack(along_normal(turned((tilt, lean, turn), mirrored=mirrored), spacing))
    assert judge(made, SETTINGS) is None


@settings(max_examples=60, deadline=None)
@given(tilt=st.floats(5.1, 90.0), turn=st.floats(-180.0, 180.0))
def test_a_normal_more_than_5_degrees_off_the_patients_z_is_tilted(tilt: float, turn: float) -> None:
    rotation = Rotation.from_euler("x", tilt, degrees=True) * Rotation.from_euler("z", turn, degrees=True)
    axes = rotation.as_matrix()
    made = (*(float(v) for v in axes[:, 0]), *(float(v) for v in axes[:, 1]))
    found = refusal(along_normal((made[0], made[1], made[2], made[3], made[4], made[5])))
    assert found.reason is Reason.TILTED
    assert f"slice 1 is tilted {tilt:.1f}°" in found.message


@pytest.mark.parametrize(("degrees", "fit"), [(0.9, True), (1.1, False), (18.0, False)])
def test_stacking_askew_by_more_than_1_degree_is_sheared(degrees: float, fit: bool) -> None:
    lean = math.tan(math.radians(degrees))
    found = judge(stack([ct_slice((0.0, z * lean, z)) for z in HEIGHTS]), SETTINGS)
    assert (found is None) is fit
    assert found is None or (found.reason is Reason.SHEARED and f"{degrees:.1f}°" in found.message)


def test_one_slice_to_the_side_is_sheared() -> None:
    found = refusal([ct_slice((30.0 if z == 20.0 else 0.0, 0.0, z)) for z in HEIGHTS])
    assert found.reason is Reason.SHEARED
    assert "slice 11 lies 30.0 mm to the side" in found.message


@pytest.mark.parametrize(("shift", "fit"), [(0.09, True), (0.12, False)])
def test_spacing_may_vary_by_5_percent(shift: float, fit: bool) -> None:
    heights = [z + (shift if z == 20.0 else 0.0) for z in HEIGHTS]
    found = judge(stack(ct_slices(heights)), SETTINGS)
    assert (found is None) is fit
    assert found is None or "the spacing is uneven" in found.message


@pytest.mark.parametrize(
    ("missing", "words"),
    [
        ({20.0}, "slices 10 and 11 lie 4.00 mm apart, the others 2.00 mm: a slice is missing; send the whole series"),
        ({20.0, 22.0}, "slices 10 and 11 lie 6.00 mm apart, the others 2.00 mm: 2 slices are missing"),
    ],
)
def test_a_missing_slice_is_named(missing: set[float], words: str) -> None:
    found = refusal(ct_slices([z for z in HEIGHTS if z not in missing]))
    assert found.reason is Reason.UNEVEN_SPACING
    assert words in found.message


def test_two_slices_at_one_position_are_named() -> None:
    found = refusal([*ct_slices(HEIGHTS), ct_slice((0.0, 0.0, 20.0))])
    assert found.reason is Reason.DUPLICATE_POSITION
    assert "slices 11 and 12 lie at the same position (1 such pairs)" in found.message


@pytest.mark.parametrize(("count", "fit"), [(8, True), (7, False), (1, False)])
def test_at_least_8_slices_are_needed(count: int, fit: bool) -> None:
    found = judge(stack(ct_slices(HEIGHTS[:count])), SETTINGS)
    assert (found is None) is fit
    assert found is None or (found.reason is Reason.TOO_FEW_SLICES and f"it has {count} slice" in found.message)
    assert judge(stack(ct_slices(HEIGHTS[:count])), EligibilitySettings(min_slices=1)) is None


BROKEN: dict[str, tuple[Reason, Callable[[list[InstanceHeader]], list[InstanceHeader]]]] = {
    "localizer": (
        Reason.LOCALIZER,
        lambda _: ct_slices(HEIGHTS, image_type=("ORIGINAL", "PRIMARY", "LOCALIZER")),
    ),
    "projection": (Reason.DERIVED, lambda _: ct_slices(HEIGHTS, image_type=("DERIVED", "SECONDARY", "MIP"))),
    "no pixels": (Reason.NO_PIXEL_DATA, lambda s: [replace(s[0], pixels=None), *s[1:]]),
    "12-bit JPEG": (
        Reason.UNSUPPORTED_PIXELS,
        lambda s: [replace(s[0], transfer_syntax_uid="1.2.840.10008.1.2.4.51"), *s[1:]],
    ),
    "colour": (
        Reason.UNSUPPORTED_PIXELS,
        lambda s: each(s, samples_per_pixel=3, photometric_interpretation="RGB"),
    ),
    "palette": (Reason.UNSUPPORTED_PIXELS, lambda s: each(s, photometric_interpretation="PALETTE COLOR")),
    "bits": (Reason.UNSUPPORTED_PIXELS, lambda s: each(s, bits_stored=17)),
    "high bit": (Reason.UNSUPPORTED_PIXELS, lambda s: each(s, high_bit=3)),
    "one bit": (Reason.UNSUPPORTED_PIXELS, lambda s: each(s, bits_allocated=1, bits_stored=1, high_bit=0)),
    "short pixels": (Reason.UNSUPPORTED_PIXELS, lambda s: each(s, length=1000)),
    "no rows": (Reason.UNSUPPORTED_PIXELS, lambda s: each(s, rows=0, length=0)),
    "absurd size": (Reason.UNSUPPORTED_PIXELS, lambda s: each(s, rows=65535, columns=65535, offset=-1, length=-1)),
    "no rescale": (Reason.UNSUPPORTED_PIXELS, lambda _: ct_slices(HEIGHTS, rescale_slope=None)),
    "slope of 0": (Reason.UNSUPPORTED_PIXELS, lambda _: ct_slices(HEIGHTS, rescale_slope=0.0)),
    "frames": (Reason.MISSING_GEOMETRY, lambda s: each(s, number_of_frames=3, offset=-1, length=-1)),
    "no position": (Reason.MISSING_GEOMETRY, lambda s: [*s, ct_slice(None)]),
    "no spacing": (Reason.MISSING_GEOMETRY, lambda _: ct_slices(HEIGHTS, pixel_spacing=None)),
    "spacing of 0": (Reason.MISSING_GEOMETRY, lambda _: ct_slices(HEIGHTS, pixel_spacing=(0.0, 0.8))),
    "skew axes": (Reason.MISSING_GEOMETRY, lambda _: ct_slices(HEIGHTS, orientation=(1, 0, 0, 0.5, 0.8, 0))),
    "null axes": (Reason.MISSING_GEOMETRY, lambda _: ct_slices(HEIGHTS, orientation=(0, 0, 0, 0, 0, 0))),
    "no frame of reference": (
        Reason.MISSING_GEOMETRY,
        lambda s: [replace(header, frame_of_reference_uid="") for header in s],
    ),
    "two frames of reference": (
        Reason.MIXED_GEOMETRY,
        lambda s: [replace(s[0], frame_of_reference_uid="1.99"), *s[1:]],
    ),
    "two sizes": (Reason.MIXED_GEOMETRY, lambda s: [*each(s[:1], rows=256), *s[1:]]),
    "two spacings": (
        Reason.MIXED_GEOMETRY,
        lambda s: [*ct_slices([-2.0], pixel_spacing=(0.7, 0.7)), *s],
    ),
    "two patients": (Reason.MIXED_PATIENTS, lambda s: [replace(s[0], patient_digest="ef"), *s[1:]]),
    "two studies": (Reason.MIXED_STUDIES, lambda s: [replace(s[0], study_instance_uid="1.99"), *s[1:]]),
}


@pytest.mark.parametrize("case", BROKEN)
def test_what_is_broken_has_its_reason_in_a_sentence(case: str) -> None:
    reason, broken = BROKEN[case]
    found = refusal(broken(ct_slices(HEIGHTS)))
    assert found.reason is reason
    assert found.message.startswith("series 1.2 is not analysed: ")


def test_no_orientation_at_all_is_missing_geometry() -> None:
    found = refusal([replace(h, frames=(replace(h.frames[0], orientation=None),)) for h in ct_slices(HEIGHTS)])
    assert found.reason is Reason.MISSING_GEOMETRY
    assert "20 of 20 slices have no Image Orientation (Patient)" in found.message


def test_axial_reformats_and_lossy_images_are_fit() -> None:
    reformat = ct_slices(HEIGHTS, image_type=("DERIVED", "SECONDARY", "MPR"))
    assert judge(stack(reformat), SETTINGS) is None
    lossy = ct_slices(HEIGHTS, image_type=("DERIVED", "PRIMARY", "AXIAL"))
    for syntax in (JPEGBaseline8Bit, JPEGLSNearLossless, JPEG2000):
        assert judge(stack([replace(header, transfer_syntax_uid=syntax) for header in lossy]), SETTINGS) is None


def test_the_real_series_are_judged_as_a_radiologist_would(test_data: Path) -> None:
    lenient = EligibilitySettings(min_slices=2)
    assert judge(stack_of(test_data / "ct_liver_j2k"), SETTINGS) is None
    assert judge(stack_of(test_data / "ct_liver_3slice"), lenient) is None
    few = judge(stack_of(test_data / "ct_liver_3slice"), SETTINGS)
    tilted = judge(stack_of(test_data / "ct_head_tilted"), SETTINGS)
    assert few is not None
    assert few.reason is Reason.TOO_FEW_SLICES
    assert tilted is not None
    assert tilted.reason is Reason.TILTED
    assert "18.5°" in tilted.message
    by_frames = {len(s.slices): judge(s, lenient) for s in group_stacks(headers_of(test_data / "ct_enhanced"))}
    assert by_frames[3] is None
    assert by_frames[2] is not None
    assert by_frames[2].reason is Reason.DERIVED  # a map of cerebral blood flow
