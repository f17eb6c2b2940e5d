"""A crop detector is shown padded crops of the slices that hold liver."""

from __future__ import annotations

import numpy as np
import pytest

from m3node.detectors.protocols import Box2D
from m3node.evaluation.ct_writer import axial_geometry
from m3node.imaging.mask import VoxelMask
from m3node.imaging.volume import CTVolume
from m3node.liver.region import LiverRegion, LiverSource
from m3node.m3.views import envelope_views, focus_views, viewed_slices

SHAPE = (12, 100, 120)
SPACING = (3.0, 0.75, 1.5)


@pytest.fixture
def volume() -> CTVolume:
    hu = np.arange(np.prod(SHAPE), dtype=np.int64).reshape(SHAPE) % 3000
    return CTVolume(hu=hu.astype(np.int16), geometry=axial_geometry(SHAPE, SPACING), sources=())


@pytest.fixture
def region() -> LiverRegion:
    envelope = np.zeros(SHAPE, dtype=bool)
    envelope[3:9, 20:60, 10:50] = True
    envelope[9, 20:32, 10:22] = True  # 162 mm²
    envelope[10, 20:31, 10:22] = True  # 149 mm²: the rim
    parenchyma = envelope.copy()
    parenchyma[:, 30:40, 30:40] = False
    return LiverRegion(
        parenchyma=VoxelMask.from_full(parenchyma),
        envelope=VoxelMask.from_full(envelope),
        source=LiverSource.LABEL_MAP,
        reference="",
        algorithm="test",
    )


def test_slices_with_only_the_envelopes_rim_are_not_shown(volume: CTVolume, region: LiverRegion) -> None:
    assert viewed_slices(region.envelope, volume.geometry) == tuple(range(3, 10))


def test_a_crop_is_the_envelopes_box_with_its_padding_as_far_as_the_slice_goes(
    volume: CTVolume, region: LiverRegion
) -> None:
    views = list(envelope_views(volume, region, [4, 5], (0.10, 0.50)))
    assert [(view.slice_index, view.padding) for view in views] == [(4, 0.1), (4, 0.5), (5, 0.1), (5, 0.5)]
    assert (views[0].origin, views[0].hu.shape) == ((16, 6), (48, 48))
    assert (views[1].origin, views[1].hu.shape) == ((0, 0), (80, 70))
    view = views[0]
    assert np.array_equal(view.hu, volume.hu[4, 16:64, 6:54])
    assert np.array_equal(view.envelope, region.envelope.on_slice(4)[16:64, 6:54])
    assert np.array_equal(view.parenchyma, region.parenchyma.on_slice(4)[16:64, 6:54])


def test_views_share_the_volumes_memory(volume: CTVolume, region: LiverRegion) -> None:
    view = next(envelope_views(volume, region, [4], (0.1,)))
    assert np.shares_memory(view.hu, volume.hu)


def test_a_second_look_is_closer_and_centred_on_the_lesion(volume: CTVolume, region: LiverRegion) -> None:
    (small, large) = focus_views(volume, region, [(4, Box2D(45, 55, 55, 65)), (4, Box2D(35, 40, 65, 80))])
    assert (small.origin, small.hu.shape) == ((10, 40), (80, 40))  # 60 mm each way
    assert (large.origin, large.hu.shape) == ((5, 0), (90, 120))  # three times the box
