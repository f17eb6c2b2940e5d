"""Which liver a case is evaluated in, and what happens to the one that was kept."""

from __future__ import annotations

import io
import logging
from pathlib import Path

import numpy as np
import pytest

from m3node.errors import InputRejected
from m3node.evaluation.ablation import regions
from m3node.evaluation.ablation.regions import LiverFrom, case_region, largest_lesion_slice, on_one_slice
from m3node.evaluation.cases.layout import CaseFolder
from m3node.evaluation.cases.reading import Case
from m3node.evaluation.ct_writer import axial_geometry
from m3node.imaging.mask import VoxelMask
from m3node.imaging.volume import CTVolume
from m3node.liver.region import LiverRegion, LiverSource
from m3node.settings import LiverSettings

SHAPE = (12, 40, 40)
SETTINGS = LiverSettings(min_volume_ml=1.0)


def block(k: int, r: int, c: int, size: tuple[int, int, int]) -> VoxelMask:
    return VoxelMask(shape=SHAPE, start=(k, r, c), data=np.ones(size, dtype=np.bool_))


PREDICTED = block(3, 10, 12, (5, 20, 18))
TRUE = block(2, 10, 12, (8, 20, 20))


def case(liver: VoxelMask | None = TRUE) -> Case:
    folder = CaseFolder("one", Path("one"), "one", False, False, None, None, None, None)
    volume = CTVolume(np.zeros(SHAPE, np.int16), axial_geometry(SHAPE, (2.0, 1.0, 1.0)), ())
    return Case(folder=folder, volume=volume, liver=liver, lesions=())


@pytest.fixture
def searches(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How often a liver was looked for."""
    counted: list[int] = []

    def find(volume: CTVolume, settings: LiverSettings) -> LiverRegion:
        counted.append(1)
        return LiverRegion(PREDICTED, PREDICTED, LiverSource.EMBEDDED, "", "for tests")

    monkeypatch.setattr(regions, "find_liver", find)
    return counted


def predicted(kept: Path) -> LiverRegion:
    region = case_region(case(), LiverFrom.PREDICTED, SETTINGS, kept)
    assert region is not None
    assert region.source is LiverSource.EMBEDDED
    return region


def test_the_predicted_liver_is_looked_for_once_and_kept(tmp_path: Path, searches: list[int]) -> None:
    first, again = (predicted(tmp_path / "livers" / "one.npz") for _ in range(2))
    assert len(searches) == 1
    assert first.parenchyma.extent == again.parenchyma.extent == PREDICTED.extent
    assert np.array_equal(first.envelope.full(), again.envelope.full())


def npz(**arrays: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.savez_compressed(stream, **arrays)
    return stream.getvalue()


def bare() -> bytes:
    stream = io.BytesIO()
    np.save(stream, PREDICTED.data)
    return stream.getvalue()


WHOLE = npz(start=np.array(PREDICTED.start), data=PREDICTED.data)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no array",
        bare(),
        WHOLE[: len(WHOLE) // 2],
        *(bytes(byte ^ (0x10 if n == at else 0) for n, byte in enumerate(WHOLE)) for at in (2, 60, 120)),
        npz(start=np.array(PREDICTED.start)),
        npz(start=np.array((1, 2)), data=PREDICTED.data),
        npz(start=np.array((9, 0, 0)), data=PREDICTED.data),
        npz(start=np.array((-1, 0, 0)), data=PREDICTED.data),
        npz(start=np.array(PREDICTED.start), data=PREDICTED.data[0]),
    ],
)
def test_a_kept_liver_that_is_damaged_or_anothers_is_made_anew_with_a_warning(
    tmp_path: Path, searches: list[int], caplog: pytest.LogCaptureFixture, content: bytes
) -> None:
    kept = tmp_path / "one.npz"
    kept.write_bytes(content)
    with caplog.at_level(logging.WARNING):
        assert predicted(kept).parenchyma.extent == PREDICTED.extent
    assert "one.npz" in caplog.text
    assert "made anew" in caplog.text
    assert predicted(kept).parenchyma.extent == PREDICTED.extent
    assert len(searches) == 1


def test_the_true_liver_is_taken_as_it_is_and_must_be_known(tmp_path: Path, searches: list[int]) -> None:
    region = case_region(case(), LiverFrom.TRUTH, SETTINGS, tmp_path / "one.npz")
    assert region is not None
    assert region.parenchyma.extent == TRUE.extent
    with pytest.raises(InputRejected, match="its liver is not known"):
        case_region(case(liver=None), LiverFrom.TRUTH, SETTINGS, tmp_path / "one.npz")
    with pytest.raises(InputRejected, match=r"smaller than liver\.min_volume_ml"):
        case_region(case(), LiverFrom.TRUTH, LiverSettings(min_volume_ml=30.0), tmp_path / "one.npz")
    assert searches == []
    assert list(tmp_path.iterdir()) == []


def test_the_slice_of_the_published_protocol_is_where_all_lesions_cover_most_and_the_lowest_of_equals() -> None:
    one, other = block(1, 0, 0, (3, 2, 5)), block(3, 20, 20, (3, 2, 5))
    assert largest_lesion_slice((one, other)) == 3  # 10 pixels of each
    assert largest_lesion_slice((one,)) == 1
    assert largest_lesion_slice((other, block(8, 0, 0, (1, 3, 4)))) == 8


def test_one_slice_of_a_mask_is_all_of_it_on_that_slice_and_nothing_elsewhere() -> None:
    full = on_one_slice(TRUE, 4).full()
    assert np.array_equal(full[4], TRUE.on_slice(4))
    assert np.count_nonzero(full) == 400
