"""Images come to the model as a viewer shows them, whatever file they are in."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import ImplicitVRLittleEndian, JPEGLSLossless, RLELossless

from attention_cases import FORMS, chest, write_radiograph
from m3node.attention.images.image import ImageKind, InputImage, Side
from m3node.attention.images.limits import MAX_PIXELS
from m3node.attention.images.masks import read_mask
from m3node.attention.images.orientation import sides_by_cosines, sides_by_letters
from m3node.attention.images.reading import read_image
from m3node.errors import ImageError
from m3node.evaluation.ct_writer import axial_geometry, write_ct_series
from m3node.imaging.windows import ct_windows

CHEST = chest(3)
LEVELS = np.rint(255.0 * CHEST.shown)


def apart(image: InputImage, levels: np.ndarray = LEVELS) -> float:
    """Most grey levels by which any pixel's channel is off."""
    return float(np.abs(image.rgb.astype(float) - levels[..., np.newaxis]).max())


def rewritten(path: Path, change: Callable[[Dataset], None]) -> Path:
    ds = dcmread(path)
    change(ds)
    ds.save_as(path)
    return path


def radiograph(folder: Path, form: str = "linear", **attributes: Any) -> Path:
    path = folder / "chest.dcm"
    write_radiograph(path, CHEST.shown, form, seed=3, **attributes)
    return path


@pytest.mark.parametrize("form", [form for form in FORMS if form != "no-window"])
def test_however_a_radiograph_is_stored_it_is_shown_alike(tmp_path: Path, form: str) -> None:
    image = read_image(radiograph(tmp_path, form))
    assert apart(image) <= 1.0
    assert image.kind is ImageKind.XRAY
    assert image.spacing == (2.5, 2.5)
    assert (image.patient_left, image.patient_head) == ("right", "top")


@pytest.mark.parametrize(
    ("form", "options"),
    [
        ("linear", ["+Wi", "1"]),
        ("sigmoid", ["+Wi", "1", "+Wfs"]),
        ("rescaled", ["+Wi", "1"]),
        ("voi-table", ["+Wl", "1"]),
        ("monochrome1", ["+Wi", "1"]),
        ("monochrome1-table", ["+Wl", "1"]),
        ("inverse", ["+Wi", "1"]),
    ],
)
def test_dcmtk_shows_the_same(tmp_path: Path, program: Callable[[str], str], form: str, options: list[str]) -> None:
    path = radiograph(tmp_path, form)
    theirs = tmp_path / "theirs.png"
    subprocess.run([program("dcm2pnm"), *options, "+on", str(path), str(theirs)], check=True)
    assert apart(read_image(path), np.asarray(Image.open(theirs).convert("L"), dtype=float)) <= 1.0


def test_the_presentation_luts_shape_goes_before_the_photometric_interpretation(tmp_path: Path) -> None:
    path = radiograph(tmp_path, PhotometricInterpretation="MONOCHROME1", PresentationLUTShape="IDENTITY")
    assert apart(read_image(path)) <= 1.0


def test_without_a_window_all_but_the_extremes_is_spread_over_the_greys(tmp_path: Path) -> None:
    stored = 300.0 + 3000.0 * CHEST.shown
    low, high = np.percentile(stored, (0.5, 99.5))
    image = read_image(radiograph(tmp_path, "no-window"))
    assert apart(image, np.rint(255.0 * np.clip((stored - low) / (high - low), 0.0, 1.0))) <= 2.0


def test_a_window_that_leaves_one_grey_is_not_used(tmp_path: Path) -> None:
    without = read_image(radiograph(tmp_path, "no-window"))
    beside = read_image(radiograph(tmp_path, "no-window", WindowCenter=-5000, WindowWidth=10))
    np.testing.assert_array_equal(beside.rgb, without.rgb)


@pytest.mark.parametrize("width", [0, -3000, 0.5])
def test_a_window_of_an_impossible_width_is_none(tmp_path: Path, width: float) -> None:
    without = read_image(radiograph(tmp_path, "no-window"))
    beside = read_image(radiograph(tmp_path, "no-window", WindowCenter=2000, WindowWidth=width))
    np.testing.assert_array_equal(beside.rgb, without.rgb)


@pytest.mark.parametrize("form", ["no-window", "monochrome1"])
def test_padding_is_black_and_does_not_count(tmp_path: Path, form: str) -> None:
    whole = read_image(radiograph(tmp_path, form))

    def pad(ds: Dataset) -> None:
        stored = ds.pixel_array.copy()
        stored[:20] = 4090
        ds.PixelData = stored.tobytes()
        ds.add_new("PixelPaddingValue", "US", 4080)
        ds.add_new("PixelPaddingRangeLimit", "US", 4095)

    padded = read_image(rewritten(radiograph(tmp_path, form), pad))
    assert not padded.rgb[:20].any()
    assert np.abs(padded.rgb[20:].astype(float) - whole.rgb[20:]).mean() < 6.0


def test_a_lookup_table_of_8_bits_and_of_a_wrong_depth(tmp_path: Path) -> None:
    def eight(ds: Dataset) -> None:
        lut = ds.VOILUTSequence[0]
        entries = np.rint(255.0 * np.linspace(0.0, 1.0, 4096) ** 2).astype(np.uint8)
        lut.LUTDescriptor, lut.LUTData = [4096, 0, 8], entries.tobytes()

    def twelve_said_to_be_sixteen(ds: Dataset) -> None:
        entries = np.rint(4095.0 * np.linspace(0.0, 1.0, 4096) ** 2).astype("<u2")
        ds.VOILUTSequence[0].LUTData = entries.tobytes()

    for change in (eight, twelve_said_to_be_sixteen):
        assert apart(read_image(rewritten(radiograph(tmp_path, "voi-table"), change))) <= 1.0, change


@pytest.mark.parametrize("form", ["voi-table", "monochrome1"])
def test_implicit_and_compressed_files_are_shown_alike(tmp_path: Path, form: str) -> None:
    for syntax in (RLELossless, JPEGLSLossless, ImplicitVRLittleEndian):
        path = radiograph(tmp_path, form)
        ds = dcmread(path)
        if syntax.is_compressed:
            ds.compress(syntax)
        else:
            ds.file_meta.TransferSyntaxUID = syntax
        ds.save_as(path, implicit_vr=syntax.is_implicit_VR, little_endian=True)
        assert apart(read_image(path)) <= 1.0, syntax.name


def test_a_real_radiograph_with_dense_stored_dark_has_its_bones_bright(test_data: Path) -> None:
    image = read_image(test_data / "odd_dicom" / "RG1_J2KI.dcm")  # MONOCHROME1, 15 bits, JPEG 2000
    assert image.shape == (1955, 1841)
    spine, lung = image.rgb[900:1100, 850:980], image.rgb[500:600, 350:450]
    assert spine.mean() > lung.mean() + 60.0
    assert (image.patient_left, image.patient_head) == ("right", "top")


def test_raw_detector_values_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"chest\.dcm.*FOR PROCESSING.*take the FOR PRESENTATION"):
        read_image(radiograph(tmp_path, PresentationIntentType="FOR PROCESSING"))


def test_several_frames_are_refused(tmp_path: Path) -> None:
    def twice(ds: Dataset) -> None:
        ds.NumberOfFrames, ds.PixelData = 2, ds.PixelData * 2

    with pytest.raises(ImageError, match="2 frames, and nothing says which"):
        read_image(rewritten(radiograph(tmp_path), twice))


def test_colour_dicom_keeps_its_colour(tmp_path: Path) -> None:
    rgb = np.stack([LEVELS, LEVELS // 2, 255 - LEVELS], axis=-1).astype(np.uint8)

    def colour(ds: Dataset) -> None:
        ds.SamplesPerPixel, ds.PhotometricInterpretation, ds.PlanarConfiguration = 3, "RGB", 0
        ds.BitsAllocated, ds.BitsStored, ds.HighBit = 8, 8, 7
        ds.PixelData = rgb.tobytes()

    image = read_image(rewritten(radiograph(tmp_path), colour))
    np.testing.assert_array_equal(image.rgb, rgb)
    assert image.kind is ImageKind.OTHER


@pytest.mark.parametrize(
    ("attributes", "spacing"),
    [
        ({"PixelSpacing": [0.2, 0.3]}, (0.2, 0.3)),
        ({}, (2.5, 2.5)),
        ({"ImagerPixelSpacing": None, "NominalScannedPixelSpacing": [0.5, 0.5]}, (0.5, 0.5)),
        ({"ImagerPixelSpacing": None, "PixelAspectRatio": [2, 1]}, (2.0, 1.0)),
        ({"ImagerPixelSpacing": [0.0, 0.0]}, (1.0, 1.0)),
        ({"ImagerPixelSpacing": None}, (1.0, 1.0)),
    ],
)
def test_spacing_comes_from_where_it_stands(
    tmp_path: Path, attributes: dict[str, Any], spacing: tuple[float, float]
) -> None:
    assert read_image(radiograph(tmp_path, **attributes)).spacing == spacing


def test_a_spacing_that_cannot_be_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="correct the spacing"):
        read_image(radiograph(tmp_path, PixelSpacing=[0.001, 1000.0]))


@pytest.mark.parametrize(
    ("letters", "left", "head"),
    [
        (("L", "F"), "right", "top"),
        (("R", "F"), "left", "top"),
        (("L", "H"), "right", "bottom"),
        (("P", "F"), None, "top"),  # lateral
        (("F", "L"), "bottom", "left"),
        (("H", "R"), "top", "right"),
        (("LF", "FR"), "right", "top"),  # a little turned
        (("LE", "CD"), None, None),  # a dog's
        (("L", "DV"), None, None),
        (("L", "R"), None, None),
        (("LR", "F"), None, None),
        (("L",), None, None),
        (("", ""), None, None),
    ],
)
def test_patient_orientation_tells_the_sides(letters: tuple[str, ...], left: Side | None, head: Side | None) -> None:
    assert sides_by_letters(letters) == (left, head)


@pytest.mark.parametrize(
    ("cosines", "left", "head"),
    [
        ((1, 0, 0, 0, 1, 0), "right", None),  # head or feet first, supine
        ((-1, 0, 0, 0, -1, 0), "left", None),  # prone
        ((0, 1, 0, -1, 0, 0), "top", None),  # on the side
        ((1, 0, 0, 0, 0, -1), "right", "top"),  # coronal
        ((0, 1, 0, 0, 0, -1), None, "top"),  # sagittal
        ((1, 0, 0, 0, 0.94, -0.34), "right", None),  # tilted
    ],
)
def test_direction_cosines_tell_the_sides(cosines: tuple[float, ...], left: Side | None, head: Side | None) -> None:
    assert sides_by_cosines(cosines) == (left, head)


def test_cosines_that_are_no_direction_leave_it_to_the_letters(tmp_path: Path) -> None:
    image = read_image(radiograph(tmp_path, ImageOrientationPatient=[0] * 6, PatientOrientation=["R", "F"]))
    assert (image.patient_left, image.patient_head) == ("left", "top")


def test_a_quadrupeds_sides_are_not_guessed(tmp_path: Path) -> None:
    image = read_image(radiograph(tmp_path, AnatomicalOrientationType="QUADRUPED"))
    assert (image.patient_left, image.patient_head) == (None, None)


def test_a_slice_of_ct_is_shown_as_the_detector_shows_it(tmp_path: Path) -> None:
    hu = np.random.default_rng(0).integers(-1000, 1000, (1, 32, 40))
    geometry = axial_geometry(hu.shape, (2.0, 0.7, 0.8), row=(-1.0, 0.0, 0.0), column=(0.0, -1.0, 0.0))
    (path,) = write_ct_series(tmp_path, hu, geometry, seed=1)
    image = read_image(path)
    assert image.kind is ImageKind.CT
    assert image.hu is not None
    np.testing.assert_array_equal(image.hu, hu[0])
    np.testing.assert_array_equal(image.rgb, ct_windows(hu[0].astype(np.int16)))
    assert image.spacing == (0.7, 0.8)
    assert (image.patient_left, image.patient_head) == ("left", None)
    assert image.series_uid == dcmread(path).SeriesInstanceUID


def test_a_slice_of_ct_without_rescale_is_refused(tmp_path: Path) -> None:
    hu = np.zeros((1, 32, 32), dtype=np.int16)
    (path,) = write_ct_series(tmp_path, hu, axial_geometry(hu.shape, (2.0, 1.0, 1.0)), seed=1)
    for change in (lambda ds: setattr(ds, "RescaleSlope", 0), lambda ds: delattr(ds, "RescaleSlope")):
        with pytest.raises(ImageError, match="without Rescale Slope"):
            read_image(rewritten(path, change))


def test_a_localizer_is_shown_as_the_projection_that_it_is(test_data: Path) -> None:
    image = read_image(test_data / "odd_dicom" / "philips_cd" / "S1000" / "I10")
    assert image.kind is ImageKind.XRAY
    assert image.hu is None
    assert image.patient_head == "top"


PICTURE = Image.fromarray(LEVELS.astype(np.uint8))


@pytest.mark.parametrize(
    ("name", "picture", "tolerance"),
    [
        ("grey.png", PICTURE, 0),
        ("palette.png", PICTURE.convert("P"), 0),
        ("rgb.png", PICTURE.convert("RGB"), 0),
        ("opaque.png", PICTURE.convert("RGBA"), 0),
        ("grey-alpha.png", PICTURE.convert("LA"), 0),
        ("deep.png", Image.fromarray(np.rint(CHEST.shown * 4000.0).astype(np.uint16)), 1),
        ("cmyk.jpg", PICTURE.convert("CMYK"), 20),
        ("grey.jpg", PICTURE, 20),
        ("rgb.jpeg", PICTURE.convert("RGB"), 20),
    ],
)
def test_every_kind_of_picture_is_shown_alike(
    tmp_path: Path, name: str, picture: Image.Image, tolerance: float
) -> None:
    levels = LEVELS
    if name == "deep.png":  # of 12 bits in 16: stretched over its own range
        levels = 255.0 * (CHEST.shown - CHEST.shown.min()) / np.ptp(CHEST.shown)
    picture.save(tmp_path / name)
    image = read_image(tmp_path / name)
    assert apart(image, levels) <= tolerance
    assert image.kind is ImageKind.XRAY
    assert (image.patient_left, image.patient_head, image.spacing) == (None, None, (1.0, 1.0))


def test_transparency_is_put_on_black(tmp_path: Path) -> None:
    alpha = Image.new("L", PICTURE.size, 255)
    alpha.paste(0, (0, 0, 64, 160))
    picture = PICTURE.convert("RGBA")
    picture.putalpha(alpha)
    picture.save(tmp_path / "x.png")
    image = read_image(tmp_path / "x.png")
    assert not image.rgb[:, :64].any()
    np.testing.assert_array_equal(image.rgb[:, 64:, 0], LEVELS[:, 64:])


def test_exif_says_which_way_is_up(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn clockwise to be shown upright
    PICTURE.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "x.png", exif=exif)
    assert apart(read_image(tmp_path / "x.png")) == 0.0


def test_a_colour_picture_is_no_radiograph(tmp_path: Path) -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(tmp_path / "x.png")
    assert read_image(tmp_path / "x.png").kind is ImageKind.OTHER


def test_what_a_file_is_its_content_says_not_its_name(tmp_path: Path) -> None:
    radiograph(tmp_path).rename(tmp_path / "x.png")
    PICTURE.save(tmp_path / "y.dcm", format="png")
    assert apart(read_image(tmp_path / "x.png")) <= 1.0
    assert apart(read_image(tmp_path / "y.dcm")) == 0.0


def cut(data: bytes) -> bytes:
    return data[: len(data) // 2]


@pytest.mark.parametrize("name", ["x.png", "x.jpg", "x.dcm"])
def test_a_file_that_is_cut_short_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name == "x.dcm":
        radiograph(tmp_path).rename(path)
    else:
        PICTURE.save(path)
    path.write_bytes(cut(path.read_bytes()))
    with pytest.raises(ImageError, match=rf"{name}.*(cut short|damaged)"):
        read_image(path)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "empty"),
        (b"dicom_id,study_id\n", "no PNG, JPEG or DICOM file"),
        (b"GIF89a" + bytes(100), "no PNG, JPEG or DICOM file"),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), "damaged"),
        (bytes(128) + b"DICM", "holds no data set"),
    ],
)
def test_what_is_no_image_is_told_apart(tmp_path: Path, content: bytes, told: str) -> None:
    path = tmp_path / "x"
    path.write_bytes(content)
    with pytest.raises(ImageError, match=told):
        read_image(path)


def test_images_too_small_and_too_large_are_refused_before_they_are_read(tmp_path: Path) -> None:
    Image.new("L", (1, 1)).save(tmp_path / "one.png")
    with pytest.raises(ImageError, match=r"one\.png is 1×1 pixels: too small"):
        read_image(tmp_path / "one.png")
    side = int(MAX_PIXELS**0.5) + 1
    Image.new("1", (side, side)).save(tmp_path / "vast.png")
    Image.new("1", (2 * side, side)).save(tmp_path / "bomb.png")
    for name in ("vast.png", "bomb.png"):
        with pytest.raises(ImageError, match=rf"{name}.*make it smaller"):
            read_image(tmp_path / name)

    def claim(ds: Dataset) -> None:
        ds.Rows = ds.Columns = 65535

    with pytest.raises(ImageError, match=r"chest\.dcm is 65535×65535 pixels: more"):
        read_image(rewritten(radiograph(tmp_path), claim))


def test_a_picture_of_50_megabytes_is_read(tmp_path: Path) -> None:
    path = tmp_path / "large.png"
    picture = Image.new("L", (7300, 7200), 7)
    picture.paste(PICTURE, (7000, 7000))
    picture.save(path, compress_level=0)
    assert path.stat().st_size > 50_000_000
    image = read_image(path)
    assert image.shape == (7200, 7300)
    np.testing.assert_array_equal(image.rgb[7000:7160, 7000:7128, 1], LEVELS)


def test_missing_files_and_folders_are_told(tmp_path: Path) -> None:
    for path in (tmp_path / "gone.png", tmp_path):
        with pytest.raises(ImageError, match="no file that can be read"):
            read_image(path)


def test_a_message_holds_nothing_that_a_terminal_obeys(tmp_path: Path) -> None:
    path = tmp_path / "a\x1b[2J\udcff.png"
    path.write_bytes(b"")
    with pytest.raises(ImageError) as caught:
        read_image(path)
    assert str(caught.value).startswith("a?[2J?.png is empty")
    assert str(caught.value).isprintable()


def test_a_message_names_no_patient(tmp_path: Path) -> None:
    def break_it(ds: Dataset) -> None:
        ds.PatientName, ds.BitsStored = "Doe^Jane", 40

    with pytest.raises(ImageError) as caught:
        read_image(rewritten(radiograph(tmp_path), break_it))
    assert "Doe" not in str(caught.value)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "I;16"])
def test_a_mask_marks_what_is_not_0(tmp_path: Path, mode: str) -> None:
    marked = CHEST.nodule
    values = Image.fromarray(marked.astype(np.uint8) * 255)
    if mode == "P":
        picture = Image.fromarray(marked.astype(np.uint8), "P")
        picture.putpalette([0, 0, 0, 0, 0, 0])
    elif mode == "I;16":
        picture = Image.fromarray(marked.astype(np.uint16))
    else:
        picture = values.convert(mode)
    picture.save(tmp_path / "mask.png")
    PICTURE.save(tmp_path / "x.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "mask.png", read_image(tmp_path / "x.png")), marked)


def test_what_is_transparent_in_a_mask_is_not_marked(tmp_path: Path) -> None:
    alpha = np.where(CHEST.nodule, 255, 0).astype(np.uint8)
    white = np.full_like(alpha, 255)
    Image.fromarray(np.stack([white, white, white, alpha], axis=-1)).save(tmp_path / "mask.png")
    PICTURE.save(tmp_path / "x.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "mask.png", read_image(tmp_path / "x.png")), CHEST.nodule)


def test_a_mask_must_be_a_png_as_large_as_the_image(tmp_path: Path) -> None:
    PICTURE.save(tmp_path / "x.png")
    image = read_image(tmp_path / "x.png")
    PICTURE.resize((64, 80)).save(tmp_path / "small.png")
    with pytest.raises(ImageError, match=r"80×64 pixels, its image x\.png 160×128"):
        read_mask(tmp_path / "small.png", image)
    PICTURE.save(tmp_path / "mask.jpg")
    with pytest.raises(ImageError, match="is no PNG"):
        read_mask(tmp_path / "mask.jpg", image)
    with pytest.raises(ImageError, match=r"gone\.png"):
        read_mask(tmp_path / "gone.png", image)
