"""The liver's outline is one that a radiologist would draw: no rings around a few voxels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from liver_data import enhanced, whole_trunk
from m3node.imaging.volume import CTVolume
from m3node.liver.embedded import segment_liver


def parts_mm2(volume: CTVolume) -> list[float]:
    """Areas of the parts that slices with more than one part show."""
    found = segment_liver(volume)
    assert found is not None
    _, row_mm, column_mm = volume.geometry.spacing
    areas: list[float] = []
    for plane in found.data:
        labels, count = ndimage.label(plane)
        if count > 1:
            areas += (np.bincount(labels.ravel())[1:] * row_mm * column_mm).tolist()
    return areas


@pytest.mark.parametrize("contrast_medium", [True, False])
def test_a_part_of_the_liver_on_a_slice_is_larger_than_a_few_voxels(test_data: Path, contrast_medium: bool) -> None:
    volume = enhanced(test_data)[0] if contrast_medium else whole_trunk(test_data)
    assert [area for area in parts_mm2(volume) if area < 30.0] == []
