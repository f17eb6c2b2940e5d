"""The body is found on radiographs and CT slices, the liver on slices whose series lies there."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from attention_cases import chest
from liver_data import enhanced
from m3node.attention.images import liver
from m3node.attention.images.body import BodyKind, body_of_ct, body_of_radiograph, find_body
from m3node.attention.images.finding import ImageFolder
from m3node.attention.images.image import ImageKind, InputImage
from m3node.attention.images.liver import LiverOutlines
from m3node.attention.images.reading import read_image
from made_series import phantom_series

Bools = npt.NDArray[np.bool_]


def rgb_of(shown: npt.NDArray[np.float64]) -> npt.NDArray[np.uint8]:
    return np.repeat(np.rint(255.0 * np.clip(shown, 0.0, 1.0)).astype(np.uint8)[..., np.newaxis], 3, axis=-1)


def dice(a: Bools | None, b: Bools) -> float:
    assert a is not None
    return float(2.0 * (a & b).sum() / (a.sum() + b.sum()))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("gamma", [1.0, 2.0, 0.6])
def test_the_body_is_found_lungs_included_and_the_marker_left_out(seed: int, gamma: float) -> None:
    made = chest(seed, (320, 256))
    body = body_of_radiograph(rgb_of(made.shown**gamma))
    assert dice(body, made.body) > 0.97
    assert body is not None
    assert body[made.nodule].all()
    assert not body[16:32, 231:243].any()  # the side marker


@pytest.mark.parametrize("grey", [0.0, 1.0])
def test_shutters_of_either_grey_are_no_body(grey: float) -> None:
    made = chest(1, (320, 256))
    shown, truth = made.shown.copy(), made.body.copy()
    for edge in (np.s_[:60], np.s_[-30:], np.s_[:, :25], np.s_[:, -25:]):
        shown[edge], truth[edge] = grey, False
    assert dice(body_of_radiograph(rgb_of(shown)), truth) > 0.97


def test_lungs_that_the_image_cuts_off_belong_to_the_body() -> None:
    made = chest(2, (320, 256))
    cut = np.s_[:200, 20:236]
    assert dice(body_of_radiograph(rgb_of(made.shown[cut])), made.body[cut]) > 0.97


def test_a_real_chest_fills_its_image_but_for_the_corners_above_the_shoulders(test_data: Path) -> None:
    image = read_image(test_data / "odd_dicom" / "RG1_J2KI.dcm")
    body = find_body(image, BodyKind.AUTO)
    assert body is not None
    assert 0.9 < body.mean() < 0.99
    assert body[400:1400, 200:1700].all()
    assert not body[60:150, :200].any()


@settings(max_examples=25)
@given(st.integers(8, 700), st.integers(8, 700), st.floats(0.0, 1.0), st.integers(0, 3))
def test_a_radiographs_body_is_as_large_as_the_image_or_none(rows: int, columns: int, level: float, seed: int) -> None:
    noise = np.random.default_rng(seed).random((rows, columns))
    for shown in (noise, np.full((rows, columns), level), (noise > level).astype(float)):
        body = body_of_radiograph(rgb_of(shown))
        assert body is None or body.shape == (rows, columns)


def test_the_kind_decides_what_is_looked_for(tmp_path: Path) -> None:
    made = chest(0)
    rgb = rgb_of(made.shown)
    radiograph = InputImage(tmp_path, rgb, ImageKind.XRAY)
    other = InputImage(tmp_path, rgb, ImageKind.OTHER)
    assert dice(find_body(radiograph, BodyKind.AUTO), made.body) > 0.97
    assert find_body(radiograph, BodyKind.NONE) is None
    assert find_body(radiograph, BodyKind.CT) is None
    assert find_body(radiograph, BodyKind.LIVER) is None
    assert find_body(other, BodyKind.AUTO) is None
    assert dice(find_body(other, BodyKind.XRAY), made.body) > 0.97
    specks = np.zeros((100, 100))
    specks[40:50, 40:50] = 1.0
    assert find_body(InputImage(tmp_path, rgb_of(specks), ImageKind.XRAY), BodyKind.AUTO) is None


def test_the_table_and_an_arm_are_no_part_of_the_trunk() -> None:
    r, c = np.mgrid[0:256, 0:256]
    trunk = ((r - 120) / 70) ** 2 + ((c - 128) / 90) ** 2 <= 1.0
    lung = ((r - 110) / 30) ** 2 + ((c - 90) / 25) ** 2 <= 1.0
    arm = (r - 130) ** 2 + (c - 20) ** 2 <= 12**2
    hu = np.full((256, 256), -1000.0, dtype=np.float32)
    hu[trunk | arm] = 40.0
    hu[lung] = -850.0
    hu[189:193, 10:246] = 200.0  # the trunk lies on it
    found = body_of_ct(hu, (1.4, 1.4))
    assert dice(found, trunk) > 0.99
    assert found[lung].all()


@pytest.mark.parametrize(
    ("name", "inside", "outside"),
    [
        ("ct_liver_j2k/012.dcm", np.s_[260:360, 120:380], np.s_[425:]),  # arms at the sides, table below
        ("ct_liver_3slice/02.dcm", np.s_[150:400, 100:400], np.s_[480:]),
    ],
)
def test_the_body_on_real_slices(test_data: Path, name: str, inside: slice, outside: slice) -> None:
    image = read_image(test_data / name)
    body = find_body(image, BodyKind.AUTO)
    assert image.hu is not None
    assert body is not None
    assert body[inside].mean() > 0.98
    assert not body[outside].any()
    assert (image.hu[body] > -300.0).mean() > 0.7
    assert image.patient_left == "right"


def test_the_liver_of_a_real_series_is_found_once_for_all_its_slices(
    test_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    finds: list[int] = []
    find = liver.find_liver
    monkeypatch.setattr(liver, "find_liver", lambda *args, **kwargs: finds.append(1) or find(*args, **kwargs))
    folder = ImageFolder(test_data / "ct_liver_j2k")
    livers = LiverOutlines(folder)
    volume, labels = enhanced(test_data)
    for k in (4, 15):
        image = read_image(folder.find(volume.sources[k].sop_instance_uid))
        found = find_body(image, BodyKind.LIVER, livers=livers)
        assert found is not None
        assert (found & labels[k]).sum() > 0.98 * labels[k].sum()
        assert found.sum() < 1.5 * labels[k].sum()
    assert len(finds) == 1


def test_a_series_that_is_no_fit_has_no_liver_and_the_log_says_why(
    test_data: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = ImageFolder(test_data / "ct_liver_3slice")
    livers = LiverOutlines(folder)
    with caplog.at_level(logging.WARNING):
        for name in ("01", "02"):
            assert find_body(read_image(folder.find(name)), BodyKind.LIVER, livers=livers) is None
    assert [record.getMessage() for record in caplog.records].count(caplog.records[0].getMessage()) == 1
    assert "it has 3 slices" in caplog.text


def test_a_received_segmentation_is_the_liver(test_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Path] = []
    find = liver.find_liver
    monkeypatch.setattr(
        liver, "find_liver", lambda *args, seg_paths: given.extend(seg_paths) or find(*args, seg_paths=seg_paths)
    )
    for number, path in enumerate(sorted((test_data / "ct_liver_3slice").iterdir())):
        (tmp_path / f"slice-{number}").symlink_to(path)
    (tmp_path / "seg").symlink_to(test_data / "ct_liver_3slice_seg" / "liver.dcm")
    folder = ImageFolder(tmp_path)
    livers = LiverOutlines(folder, eligibility=liver.EligibilitySettings(min_slices=3))
    image = read_image(folder.find("slice-1"))
    found = find_body(image, BodyKind.LIVER, livers=livers)
    assert found is not None
    assert image.hu is not None
    assert given == [tmp_path / "seg"]
    assert 0.1 < found.mean() < 0.25
    assert np.median(image.hu[found]) > 0.0


def test_only_so_many_series_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(liver, "_KEPT", 1)
    finds: list[str] = []
    monkeypatch.setattr(liver, "find_liver", lambda volume, *_, **__: finds.append(volume.sources[0].sop_instance_uid))
    paths = [phantom_series(tmp_path / str(seed), seed)[5] for seed in (1, 2)]
    livers = LiverOutlines(ImageFolder(tmp_path))
    for index in (0, 0, 1, 0):
        assert livers.find(read_image(paths[index])) is None
    assert len(finds) == 3


def test_a_picture_has_no_series(tmp_path: Path) -> None:
    Image.fromarray(rgb_of(chest(0).shown)).save(tmp_path / "x.png")
    livers = LiverOutlines(ImageFolder(tmp_path))
    assert find_body(read_image(tmp_path / "x.png"), BodyKind.LIVER, livers=livers) is None
