"""A digest of what a file says tells a changed slice from one that is only encoded or labelled otherwise."""

from __future__ import annotations

from pathlib import Path

import pydicom
import pytest

from m3node.imaging.digest import content_digest
from made_noise import noise_series, of_syntax, one_of_19


@pytest.fixture
def series(tmp_path: Path) -> Path:
    return noise_series(tmp_path / "ct")


def test_one_content_in_any_encoding_has_one_digest(test_data: Path) -> None:
    manifests = one_of_19(test_data)
    folder = test_data / "ct_transfer_syntaxes"
    same = {
        content_digest(folder / m.instances[0].path)
        for name, m in manifests.items()
        if m.instances[0].sop_instance_uid == manifests["CTImage.dcm"].instances[0].sop_instance_uid
    }
    assert len(same) == 1
    lossy = of_syntax(manifests, "1.2.4.91").instances[0].path
    assert content_digest(folder / lossy) not in same


@pytest.mark.parametrize(
    ("keyword", "value", "counts"),
    [
        ("ImagePositionPatient", [0, 0, 7], True),
        ("ImageOrientationPatient", [0, 1, 0, 1, 0, 0], True),
        ("PixelSpacing", [0.71, 0.7], True),
        ("RescaleIntercept", "-1000", True),
        ("PatientID", "SOMEONE ELSE", True),
        ("StudyInstanceUID", "1.2.3", True),
        ("WindowCenter", "40", False),
        ("SeriesDescription", "renamed", False),
        ("PatientName", "Married^Since", False),
    ],
)
def test_the_digest_changes_with_what_counts(series: Path, keyword: str, value: object, counts: bool) -> None:
    path = sorted(series.iterdir())[0]
    before = content_digest(path)
    ds = pydicom.dcmread(path)
    setattr(ds, keyword, value)
    ds.save_as(path)
    assert (content_digest(path) != before) is counts


def test_one_changed_pixel_changes_the_digest(series: Path) -> None:
    path = sorted(series.iterdir())[0]
    before = content_digest(path)
    content = bytearray(path.read_bytes())
    content[-2] ^= 1
    path.write_bytes(content)
    assert content_digest(path) != before
