"""A written CT series is one that a viewer opens sensibly, and that holds the HU it was given."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom

from m3node.evaluation.ct_writer import axial_geometry, write_ct_series


def test_a_viewer_finds_a_soft_tissue_window_and_the_same_hu(tmp_path: Path) -> None:
    hu = np.random.default_rng(1).integers(-1024, 3072, (3, 6, 5)).astype(np.int16)
    files = write_ct_series(tmp_path, hu, axial_geometry(hu.shape, (2.0, 0.8, 0.7)), seed="window")
    for k, path in enumerate(files):
        ds = pydicom.dcmread(path)
        assert (float(ds.WindowCenter), float(ds.WindowWidth)) == (60.0, 400.0)
        assert np.array_equal(ds.pixel_array * float(ds.RescaleSlope) + float(ds.RescaleIntercept), hu[k])
