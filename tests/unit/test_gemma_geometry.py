"""What is drawn at a place of the patient and seen by the model is found at that place again."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from m3node.detectors.protocols import Box2D, View, ViewBox
from m3node.evaluation.ct_writer import axial_geometry
from m3node.gemma.images import SquareFrame, square_coverage, square_images
from m3node.imaging.geometry import FloatArray, PatientGeometry
from m3node.imaging.mask import VoxelMask
from m3node.imaging.volume import CTVolume
from m3node.liver.region import LiverRegion, LiverSource
from m3node.m3.projection import Frame, project
from m3node.m3.views import make_view

SIDE = 896
SHAPE = (3, 120, 140)

Direction = tuple[float, float, float]
ORIENTATIONS: dict[str, tuple[Direction, Direction, bool]] = {
    "head first supine": ((1, 0, 0), (0, 1, 0), True),
    "feet first supine": ((-1, 0, 0), (0, 1, 0), True),
    "feet first prone": ((1, 0, 0), (0, -1, 0), True),
    "slices downwards": ((1, 0, 0), (0, 1, 0), False),
    "a quarter turn": ((0, 1, 0), (-1, 0, 0), True),
}


@st.composite
def crops(draw: st.DrawFn, orientation: str | None = None) -> tuple[PatientGeometry, FloatArray, tuple[int, ...]]:
    """A geometry, the square's two corners in voxels of the slice (edges, not centres), and a crop that holds it."""
    row, column, upwards = ORIENTATIONS[orientation or draw(st.sampled_from(sorted(ORIENTATIONS)))]
    spacing = (3.0, draw(st.floats(0.5, 1.2)), draw(st.floats(0.5, 1.2)))
    origin = tuple(draw(st.floats(-300, 300)) for _ in range(3))
    geometry = axial_geometry(SHAPE, spacing, origin=origin, row=row, column=column, upwards=upwards)
    corners, bounds = [], []
    for size in SHAPE[1:]:
        low = draw(st.floats(0, size - 12))
        high = min(draw(st.floats(6, 60)) + low, size)
        corners.append((low, high))
        bounds.append((draw(st.integers(0, int(low))), draw(st.integers(int(np.ceil(high)), size))))
    return geometry, np.array(corners).T, (*bounds[0], *bounds[1])


def drawn(geometry: PatientGeometry, corners: FloatArray, k: int) -> tuple[np.ndarray, FloatArray]:
    """The voxels whose centres lie in a rectangle of the patient, and that rectangle in mm: (low, high) of x and y."""
    ends = geometry.to_patient(np.column_stack([[k, k], corners - 0.5]))[:, :2]
    rectangle = np.sort(ends, axis=0)
    r, c = np.indices(SHAPE[1:])
    places = geometry.to_patient(np.stack([np.full(r.shape, k), r, c], axis=-1))[..., :2]
    return ((places >= rectangle[0]) & (places < rectangle[1])).all(axis=-1), rectangle


def view_of(geometry: PatientGeometry, square: np.ndarray, k: int, bounds: tuple[int, ...]) -> View:
    hu = np.full(SHAPE, -1000, dtype=np.int16)
    hu[k, square] = 300
    envelope = np.zeros(SHAPE, dtype=bool)
    envelope[k, square] = True
    mask = VoxelMask.from_full(envelope)
    region = LiverRegion(parenchyma=mask, envelope=mask, source=LiverSource.LABEL_MAP, reference="", algorithm="test")
    r0, r1, c0, c1 = bounds
    return make_view(CTVolume(hu=hu, geometry=geometry, sources=()), region, k, ((r0, r1), (c0, c1)), 0.1)


def bright_units(image: torch.Tensor) -> tuple[int, int, int, int]:
    """The box of what is more than half bright, in the whole numbers that a model answers with."""
    rows, columns = (np.flatnonzero((image >= 128).any(dim=axis).numpy()) for axis in (1, 0))
    edges = rows[0], columns[0], rows[-1] + 1, columns[-1] + 1
    y0, x0, y1, x1 = (round(1000 * int(edge) / SIDE) for edge in edges)
    return y0, x0, y1, x1


@settings(max_examples=200, deadline=None)
@given(case=crops())
def test_a_square_comes_back_to_its_millimetres_within_one_pixel(
    case: tuple[PatientGeometry, FloatArray, tuple[int, ...]],
) -> None:
    geometry, corners, bounds = case
    square, rectangle = drawn(geometry, corners, 1)
    view = view_of(geometry, square, 1, bounds)
    frame = SquareFrame.of(view.hu.shape, view.spacing)
    rgb = np.repeat(np.where(view.hu > 0, 255, 0).astype(np.uint8)[:, :, None], 3, axis=2)
    (image,) = square_images([rgb], [frame], SIDE, "cpu")

    found = project(Frame.of(view, 0), ViewBox(Box2D(*frame.from_units(*bright_units(image[0]))), score=1.0))

    assert found is not None
    ends = np.array([[1, found.box.r0 - 0.5, found.box.c0 - 0.5], [1, found.box.r1 - 0.5, found.box.c1 - 0.5]])
    back = np.sort(geometry.to_patient(ends)[:, :2], axis=0)
    pixel_mm = np.abs(geometry.affine[:2, 1] + geometry.affine[:2, 2])  # of x and of y, whichever axis runs along them
    assert (np.abs(back - rectangle) <= pixel_mm).all()


@settings(max_examples=50, deadline=None)
@given(case=crops())
def test_the_liver_lies_on_the_image_where_its_pixels_do(
    case: tuple[PatientGeometry, FloatArray, tuple[int, ...]],
) -> None:
    geometry, corners, bounds = case
    square, _ = drawn(geometry, corners, 1)
    view = view_of(geometry, square, 1, bounds)
    frame = SquareFrame.of(view.hu.shape, view.spacing)
    rgb = np.repeat(np.where(view.envelope, 255, 0).astype(np.uint8)[:, :, None], 3, axis=2)
    (image,) = square_images([rgb], [frame], 448, "cpu")
    (cover,) = square_coverage([view.envelope], [frame], 448, "cpu")
    seen, masked = image[0] >= 128, cover >= 0.5
    assert masked.any()
    # The two agree but for pixels that the edge runs through: at most one on each side.
    for axis in (0, 1):
        a, b = (np.flatnonzero(plane.any(dim=axis).numpy()) for plane in (seen, masked))
        assert abs(a[0] - b[0]) <= 1
        assert abs(a[-1] - b[-1]) <= 1
