"""What the embedded detector sees, and what it must not fire on, in livers made for the purpose."""

from __future__ import annotations

import gc
import weakref
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from liver_data import arranged, rearranged
from m3node.detectors.contrast import ContrastDetector
from m3node.detectors.contrast.foci import Focus
from m3node.detectors.contrast.grid import make_grid
from m3node.detectors.protocols import CropDetector, ScoreKind
from m3node.detectors.registry import load_detector
from m3node.evaluation.ct_writer import axial_geometry
from m3node.evaluation.soft_shapes import SoftEllipsoid
from m3node.imaging.mask import VoxelMask
from m3node.imaging.volume import CTVolume
from m3node.liver.region import LiverRegion, LiverSource
from m3node.m3.views import envelope_views, viewed_slices
from m3node.settings import ContrastSettings, DetectorSettings

SHAPE = (36, 110, 120)
SPACING = (3.0, 1.5, 1.5)
Z, Y, X = ((np.arange(n, dtype=np.float32) - (n - 1) / 2) * s for n, s in zip(SHAPE, SPACING, strict=True))
AT = (Z[:, None, None], Y[None, :, None], X[None, None, :])
LIVER = SoftEllipsoid((0.0, 0.0, 0.0), (46.0, 62.0, 72.0))


class Scene:
    """A liver of 105 HU in fat, with whatever is painted on it."""

    def __init__(self, *, noise: float = 10.0, seed: int = 0) -> None:
        self.hu = np.full(SHAPE, -95.0, dtype=np.float32)
        self.liver = LIVER.depth(*AT) > 0
        self.noise, self.rng = noise, np.random.default_rng(seed)
        self.paint(LIVER, 105.0)

    def paint(self, shape: SoftEllipsoid, hu: float) -> Scene:
        weight = shape.weight(*AT)
        self.hu += weight * (hu - self.hu)
        return self

    def foci(self, *, hyperdense: bool = False) -> tuple[Focus, ...]:
        detector = ContrastDetector(ContrastSettings(hyperdense=hyperdense))
        found = detector.foci(self.volume(), self.region())
        assert found is not None
        return found

    def volume(self) -> CTVolume:
        grain = ndimage.gaussian_filter(self.rng.standard_normal(SHAPE), (0.0, 0.7, 0.7))
        values = self.hu + self.noise * grain / grain.std()
        return CTVolume(hu=np.rint(values).astype(np.int16), geometry=axial_geometry(SHAPE, SPACING), sources=())

    def region(self) -> LiverRegion:
        envelope = ndimage.distance_transform_edt(~self.liver, sampling=SPACING) <= 5.0
        return LiverRegion(
            parenchyma=VoxelMask.from_full(self.liver),
            envelope=VoxelMask.from_full(envelope),
            source=LiverSource.LABEL_MAP,
            reference="",
            algorithm="test",
        )


def ball(at: tuple[float, float, float], diameter: float, edge: float = 2.0) -> SoftEllipsoid:
    return SoftEllipsoid(at, (diameter / 2,) * 3, edge=edge)


def dice(focus: Focus, shape: SoftEllipsoid) -> float:
    a, b = focus.mask.full(), shape.depth(*AT) > 0
    return 2.0 * np.count_nonzero(a & b) / (np.count_nonzero(a) + np.count_nonzero(b))


@pytest.mark.parametrize("diameter", [12.0, 20.0, 40.0])
@pytest.mark.parametrize("delta", [35.0, 60.0])
def test_a_dark_ball_is_found_and_outlined(diameter: float, delta: float) -> None:
    lesion = ball((3.0, 10.0, -20.0), diameter)
    (focus,) = Scene().paint(lesion, 105.0 - delta).foci()
    assert dice(focus, lesion) > (0.85 if diameter < 15 else 0.9)
    assert focus.contrast_hu == pytest.approx(delta, rel=0.25)


def test_an_even_liver_has_no_focus_whatever_its_noise() -> None:
    for noise in (4.0, 12.0, 25.0):
        for seed in (1, 2):
            assert Scene(noise=noise, seed=seed).foci() == ()


def test_two_lesions_are_two_foci_best_first() -> None:
    scene = Scene().paint(ball((0.0, -15.0, -30.0), 18.0), 70.0).paint(ball((6.0, 15.0, 25.0), 24.0), 50.0)
    first, second = scene.foci()
    assert first.score > second.score
    assert first.mask.count > second.mask.count


def test_a_lesion_at_the_capsule_is_found_also_beside_muscle() -> None:
    wall = SoftEllipsoid((0.0, 0.0, 0.0), (60.0, 80.0, 90.0))
    for beside in (-95.0, 58.0):
        scene = Scene()
        outside = ~scene.liver & (wall.depth(*AT) > 0)
        scene.hu[outside] = beside
        lesion = ball((0.0, -48.0, 0.0), 28.0)
        scene.hu += np.where(scene.liver, lesion.weight(*AT), 0.0) * (60.0 - scene.hu)
        (focus,) = scene.foci()
        inside = (lesion.depth(*AT) > 0) & scene.liver
        found = focus.mask.full()
        assert np.count_nonzero(found & inside) > 0.7 * np.count_nonzero(inside)
        assert np.count_nonzero(found & ~inside) < 0.35 * np.count_nonzero(inside)


def test_a_liver_that_darkens_towards_the_spine_has_no_focus_and_its_lesion_is_found() -> None:
    def darkened() -> Scene:
        scene = Scene()
        scene.hu -= np.where(scene.liver, 30.0 * np.clip((AT[1] + 10.0) / 60.0, 0.0, 1.0), 0.0)
        return scene

    assert darkened().foci() == ()
    lesion = ball((0.0, 20.0, 10.0), 20.0)
    scene = darkened()
    scene.hu -= 40.0 * lesion.weight(*AT)
    (focus,) = scene.foci()
    assert dice(focus, lesion) > 0.75


def test_a_fissure_of_fat_is_no_focus() -> None:
    scene = Scene()
    fissure = (np.abs(AT[2]) < 4.0) & (AT[1] < 0.0) & (np.abs(AT[0]) < 30.0)
    scene.hu[np.broadcast_to(fissure, SHAPE) & scene.liver] = -90.0
    scene.hu = ndimage.gaussian_filter(scene.hu, (0.3, 0.6, 0.6))
    scene.liver = scene.liver & ~fissure
    assert scene.foci() == ()


def test_an_unenhanced_vessel_is_no_focus() -> None:
    scene = Scene()
    for t in np.linspace(-55.0, 55.0, 120):
        scene.paint(ball((0.25 * float(t), 0.1 * float(t), float(t)), 9.0, edge=1.5), 60.0)
    assert scene.foci() == ()


def test_a_gallbladder_half_sunk_into_the_liver_is_no_focus_and_a_cyst_is_one() -> None:
    bladder = ball((0.0, -66.0, 0.0), 32.0)
    scene = Scene().paint(bladder, 8.0)
    scene.liver = scene.liver & (bladder.depth(*AT) < 0)
    assert scene.foci() == ()
    cyst = ball((0.0, 0.0, 20.0), 26.0)
    (focus,) = Scene().paint(cyst, 6.0).foci()
    assert dice(focus, cyst) > 0.85


def test_bright_foci_count_only_when_asked_for() -> None:
    scene = Scene().paint(ball((0.0, 0.0, 20.0), 20.0), 165.0)
    assert scene.foci() == ()
    (focus,) = scene.foci(hyperdense=True)
    assert dice(focus, ball((0.0, 0.0, 20.0), 20.0)) > 0.8


def test_an_enhanced_vessel_is_no_bright_focus() -> None:
    scene = Scene()
    for t in np.linspace(-40.0, 40.0, 100):
        scene.paint(ball((0.2 * float(t), 0.3 * float(t), float(t)), 10.0, edge=1.5), 160.0)
    assert scene.foci(hyperdense=True) == ()


def test_a_lesion_that_the_livers_mask_leaves_out_is_found_all_the_same() -> None:
    lesion = ball((0.0, 0.0, 20.0), 24.0)
    scene = Scene().paint(lesion, 60.0)
    scene.liver = scene.liver & (lesion.depth(*AT) < -2.0)
    region = scene.region()
    whole = replace(region, envelope=VoxelMask.from_full(LIVER.depth(*AT) > -5.0))
    (focus,) = ContrastDetector(ContrastSettings()).foci(scene.volume(), whole)
    assert dice(focus, lesion) > 0.8


def test_the_same_patient_stored_with_other_axes_gives_the_same_foci() -> None:
    lesion = ball((12.0, 10.0, -20.0), 20.0)
    scene = Scene().paint(lesion, 60.0)
    volume, region = scene.volume(), scene.region()
    order, flips = (0, 2, 1), (True, True, True)
    turned = replace(
        region,
        parenchyma=VoxelMask.from_full(arranged(region.parenchyma.full(), order, flips)),
        envelope=VoxelMask.from_full(arranged(region.envelope.full(), order, flips)),
    )
    detector = ContrastDetector(ContrastSettings())
    (focus,) = detector.foci(volume, region)
    (other,) = detector.foci(rearranged(volume, order, flips), turned)
    a, b = arranged(focus.mask.full(), order, flips), other.mask.full()
    assert 2 * np.count_nonzero(a & b) / (np.count_nonzero(a) + np.count_nonzero(b)) > 0.95


@pytest.mark.parametrize("slices", [1, 3])
def test_a_lesion_is_found_in_a_stack_of_few_slices(slices: int) -> None:
    scene = Scene().paint(ball((0.0, 0.0, 0.0), 24.0), 60.0)
    volume, region = scene.volume(), scene.region()
    keep = slice(17, 17 + slices)
    few = CTVolume(hu=volume.hu[keep], geometry=axial_geometry((slices, *SHAPE[1:]), SPACING), sources=())
    cut = replace(
        region,
        parenchyma=VoxelMask.from_full(region.parenchyma.full()[keep]),
        envelope=VoxelMask.from_full(region.envelope.full()[keep]),
    )
    assert len(ContrastDetector(ContrastSettings()).foci(few, cut)) == 1


@given(
    spacing=st.tuples(st.floats(0.8, 5.0), st.floats(0.5, 1.9), st.floats(0.5, 1.9)),
    shift=st.tuples(*[st.integers(0, 3)] * 3),
)
@settings(max_examples=20, deadline=None)
def test_an_outline_on_the_coarser_grid_lands_on_the_right_voxels(
    spacing: tuple[float, float, float], shift: tuple[int, int, int]
) -> None:
    shape = tuple(int(50.0 / step) + 4 for step in spacing)
    k, r, c = ((np.arange(n) - n / 2 - s) * step for n, step, s in zip(shape, spacing, shift, strict=True))
    depth = 15.0 - np.sqrt(k[:, None, None] ** 2 + r[None, :, None] ** 2 + c[None, None, :] ** 2)
    truth = depth > 0
    mask = VoxelMask.from_full(truth)
    region = LiverRegion(parenchyma=mask, envelope=mask, source=LiverSource.LABEL_MAP, reference="", algorithm="")
    # HU that are the depth itself, so that the grid's block means are the coarse depth.
    volume = CTVolume(
        hu=np.rint(depth * 20).astype(np.int16),
        geometry=axial_geometry((shape[0], shape[1], shape[2]), spacing),
        sources=(),
    )
    grid = make_grid(volume, region)
    assert grid is not None
    whole = tuple(slice(0, n) for n in grid.hu.shape)
    found = grid.refined((whole[0], whole[1], whole[2]), grid.hu, np.ones(grid.hu.shape, dtype=bool)).full()
    assert 2 * np.count_nonzero(found & truth) / (np.count_nonzero(found) + np.count_nonzero(truth)) > 0.97


def test_views_get_boxes_around_the_outline_on_their_slice() -> None:
    lesion = ball((0.0, 10.0, -20.0), 24.0)
    scene = Scene().paint(lesion, 60.0)
    volume, region = scene.volume(), scene.region()
    detector = ContrastDetector(ContrastSettings())
    slices = viewed_slices(region.envelope, volume.geometry)
    views = list(envelope_views(volume, region, slices, (0.1,)))
    results = list(detector.look(iter(views), volume, region))
    assert len(results) == len(views)
    seen = [view.slice_index for view, result in zip(views, results, strict=True) if result.boxes]
    assert seen == list(range(min(seen), max(seen) + 1))
    view, result = next((v, r) for v, r in zip(views, results, strict=True) if v.slice_index == 18)
    (found,) = result.boxes
    assert found.mask is not None
    assert found.mask.shape == view.hu.shape
    rows, columns = np.nonzero(found.mask)
    assert (found.box.r0, found.box.r1) == (rows.min(), rows.max() + 1)
    assert (found.box.c0, found.box.c1) == (columns.min(), columns.max() + 1)
    middle = (found.box.r0 + found.box.r1) / 2 + view.origin[0] - 0.5
    assert Y[round(middle)] == pytest.approx(10.0, abs=1.6)


def test_too_little_parenchyma_is_not_searched_and_said_to_be_a_failure() -> None:
    scene = Scene().paint(ball((0.0, 0.0, 0.0), 24.0), 60.0)
    region = scene.region()
    bare = replace(region, parenchyma=VoxelMask.empty(SHAPE))
    detector, volume = ContrastDetector(ContrastSettings()), scene.volume()
    assert detector.foci(volume, bare) is None
    (result,) = detector.look(envelope_views(volume, region, [18], (0.1,)), volume, bare)
    assert (result.boxes, result.failure) == ((), "too little liver tissue to compare with")


def test_it_keeps_no_volume_alive() -> None:
    scene = Scene()
    volume, region = scene.volume(), scene.region()
    held = weakref.ref(volume.hu)
    detector = ContrastDetector(ContrastSettings())
    assert len(list(detector.look(envelope_views(volume, region, [18], (0.1,)), volume, region))) == 1
    del volume
    gc.collect()
    assert held() is None


def test_it_is_the_default_detector_and_says_what_it_is() -> None:
    detector = load_detector(DetectorSettings())
    assert isinstance(detector, CropDetector)
    assert isinstance(detector, ContrastDetector)
    assert detector.score_kind is ScoreKind.CONTRAST
    assert "no trained model" in detector.identity.description
    assert detector.identity.weights == ""
    assert ("hyperdense", "false") in detector.identity.parameters
