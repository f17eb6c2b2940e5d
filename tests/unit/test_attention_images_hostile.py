"""Whatever bytes a file holds, reading it gives an image or an `ImageError`, and nothing else."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydicom import dcmread
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import Tag

from attention_cases import FORMS, chest, write_radiograph
from m3node.attention.images.body import BodyKind, find_body
from m3node.attention.images.image import InputImage
from m3node.attention.images.reading import read_image
from m3node.errors import ImageError

SMALL = chest(0, (24, 20)).shown


def image_or_error(path: Path) -> None:
    try:
        image = read_image(path)
    except ImageError as error:
        told = str(error)
    else:
        told = ""
        check(image)
    assert told.isprintable()


def check(image: InputImage) -> None:
    assert image.rgb.dtype == np.uint8
    assert image.rgb.ndim == 3
    assert image.rgb.shape[2] == 3
    assert min(image.spacing) > 0.0
    body = find_body(image, BodyKind.AUTO)
    assert body is None or body.shape == image.shape
    if image.hu is not None:
        assert np.isfinite(image.hu).all()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Sound files of every kind."""
    folder = tmp_path_factory.mktemp("sound")
    made = {}
    for form in FORMS:
        write_radiograph(folder / form, SMALL, form, seed=form)
        made[form] = (folder / form).read_bytes()
    grey = Image.fromarray(np.rint(255.0 * SMALL).astype(np.uint8))
    for name, picture in (
        ("png", grey),
        ("jpeg", grey),
        ("palette", grey.convert("P")),
        ("rgba", grey.convert("RGBA")),
    ):
        stream = io.BytesIO()
        picture.save(stream, "jpeg" if name == "jpeg" else "png", exif=Image.Exif())
        made[name] = stream.getvalue()
    return made


@settings(max_examples=150)
@given(st.data())
def test_damaged_files(files: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    content = bytearray(files[data.draw(st.sampled_from(sorted(files)))])
    for _ in range(data.draw(st.integers(0, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        del content[data.draw(st.integers(0, len(content))) :]
    path = tmp_path_factory.getbasetemp() / "damaged"
    path.write_bytes(content)
    image_or_error(path)


DECIMALS = st.one_of(
    st.sampled_from(["0", "-1", "1", "1e30", "-1e300", "1e308", "1e-300", "nan", "inf", "", "x"]),
    st.floats(-5000.0, 5000.0).map(lambda value: f"{value:.6g}"),
)
WORDS = st.one_of(st.sampled_from(["", "LINEAR", "SIGMOID", "LINEAR_EXACT", "INVERSE", "IDENTITY", "L\\F"]), st.text())
NUMBERS = st.sampled_from([0, 1, 2, 7, 8, 11, 12, 15, 16, 20, 24, 32, 255, 65535])
ATTRIBUTES: dict[str, st.SearchStrategy[Any]] = {
    "WindowCenter": DECIMALS,
    "WindowWidth": DECIMALS,
    "RescaleSlope": DECIMALS,
    "RescaleIntercept": DECIMALS,
    "PixelSpacing": DECIMALS,
    "PixelAspectRatio": DECIMALS,
    "ImageOrientationPatient": DECIMALS,
    "VOILUTFunction": WORDS,
    "PresentationLUTShape": WORDS,
    "PatientOrientation": WORDS,
    "PhotometricInterpretation": st.one_of(WORDS, st.sampled_from(["RGB", "PALETTE COLOR", "YBR_FULL", "MONOCHROME1"])),
    "SOPClassUID": st.sampled_from(["", "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.2.1"]),
    "Modality": st.sampled_from(["", "CT", "MG", "US"]),
    "NumberOfFrames": DECIMALS,
    "Rows": NUMBERS,
    "Columns": NUMBERS,
    "BitsAllocated": NUMBERS,
    "BitsStored": NUMBERS,
    "HighBit": NUMBERS,
    "PixelRepresentation": NUMBERS,
    "SamplesPerPixel": NUMBERS,
    "PixelPaddingValue": NUMBERS,
}


@settings(max_examples=150)
@given(st.data())
def test_odd_attributes(files: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    ds = dcmread(io.BytesIO(files[data.draw(st.sampled_from(sorted(FORMS)))]))
    for keyword in data.draw(st.lists(st.sampled_from(sorted(ATTRIBUTES)), max_size=4, unique=True)):
        put(ds, keyword, data.draw(ATTRIBUTES[keyword]), values=data.draw(st.sampled_from([1, 2, 6])))
    if "VOILUTSequence" in ds and data.draw(st.booleans()):
        lut = ds.VOILUTSequence[0]
        lut.LUTDescriptor = [data.draw(NUMBERS), data.draw(NUMBERS), data.draw(NUMBERS)]
        lut["LUTDescriptor"].VR = "US"
        lut.LUTData = bytes(2 * data.draw(st.integers(0, 40)))
    path = tmp_path_factory.getbasetemp() / "odd"
    ds.save_as(path)
    image_or_error(path)


def put(ds: Dataset, keyword: str, value: Any, *, values: int) -> None:
    """Set an attribute, however wrong, as it will stand in the file."""
    raw = value.to_bytes(2, "little") if isinstance(value, int) else "\\".join([value] * values).encode()
    raw += b" " * (len(raw) % 2)
    tag = Tag(keyword)
    ds._dict[tag] = RawDataElement(tag, "UN", len(raw), raw, 0, False, True)
