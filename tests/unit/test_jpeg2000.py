"""JPEG 2000 frames are decoded without pydicom where they are what the header says, and come out the same."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from openjpeg.utils import encode_array
from pydicom.encaps import encapsulate
from pydicom.uid import JPEG2000Lossless

from m3node.errors import InputRejected
from m3node.imaging import decode
from m3node.imaging.decode import decode_frames
from m3node.imaging.jpeg2000 import decode_as_announced
from m3node.imaging.rescale import Stored
from m3node.intake.series.header import PixelLayout
from m3node.intake.series.reading import read_header
from made_noise import noise_series

FORMATS = [
    pytest.param(bits, signed, id=f"{'signed' if signed else 'unsigned'} {bits} bits")
    for bits in (8, 12, 13, 16)
    for signed in (False, True)
]


class Written:
    """One instance whose pixel data are replaced, and what its header says of them.

    Attributes
    ----------
    took : list of int
        How many frames each call of `decode_as_announced` decoded.
    """

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.path = sorted(noise_series(folder).iterdir())[0]
        self.header = read_header(self.path, folder)
        self.head = self.path.read_bytes()[: self.layout.offset - 12]
        self.monkeypatch = monkeypatch
        self.took: list[int] = []
        monkeypatch.setattr(decode, "decode_as_announced", self.decode_and_count)

    @property
    def layout(self) -> PixelLayout:
        assert self.header.pixels is not None
        return self.header.pixels

    def hold(self, value: bytes, bits: int, *, signed: bool = False, frames: int = 1, **says: int) -> None:
        """Write encapsulated pixel data, and have the header say so, and otherwise what ``says`` says."""
        undefined = b"\xe0\x7f\x10\x00OB\x00\x00\xff\xff\xff\xff"
        self.path.write_bytes(self.head + undefined + value + b"\xfe\xff\xdd\xe0" + bytes(4))
        layout = {
            "rows": 48,
            "columns": 40,
            "bits_allocated": 8 if bits <= 8 else 16,
            "bits_stored": bits,
            "pixel_representation": int(signed),
            "number_of_frames": frames,
        }
        pixels = replace(self.layout, offset=-1, length=-1, **(layout | says))
        self.header = replace(self.header, transfer_syntax_uid=JPEG2000Lossless, pixels=pixels)

    def decode_and_count(
        self, handle: int, value_offset: int, layout: PixelLayout, frames: Sequence[int]
    ) -> list[Stored]:
        planes = decode_as_announced(handle, value_offset, layout, frames)
        self.took.append(len(planes))
        return planes

    def decoded(self, *frames: int) -> list[Stored]:
        return decode_frames(self.path, self.header, frames, single_threaded=True)

    def decoded_both_ways(self, *frames: int) -> list[Stored]:
        """Decode as the node does, and with pydicom only, and find the same."""
        ours = self.decoded(*frames)
        with self.monkeypatch.context() as patch:
            patch.setattr(decode, "decode_as_announced", lambda *_: [])
            pydicoms = self.decoded(*frames)
        assert [plane.dtype for plane in ours] == [plane.dtype for plane in pydicoms]
        np.testing.assert_array_equal(ours, pydicoms)
        return ours


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Written:
    return Written(tmp_path, monkeypatch)


def frames_of(count: int, bits: int, *, signed: bool) -> list[Stored]:
    """Frames of noise, from the least to the greatest value that so many bits hold."""
    least = -(1 << (bits - 1)) if signed else 0
    kind = f"{'i' if signed else 'u'}{1 if bits <= 8 else 2}"
    return [
        np.random.default_rng(seed).integers(least, least + (1 << bits), (48, 40)).astype(kind) for seed in range(count)
    ]


def coded(frame: Stored, bits: int) -> bytes:
    return encode_array(frame, bits_stored=bits, photometric_interpretation=2)


@pytest.mark.parametrize("table", [True, False], ids=["offset table", "empty offset table"])
@pytest.mark.parametrize(("bits", "signed"), FORMATS)
def test_it_gives_the_frames_that_pydicom_gives(written: Written, bits: int, signed: bool, table: bool) -> None:
    frames = frames_of(3, bits, signed=signed)
    value = encapsulate([coded(frame, bits) for frame in frames], has_bot=table)
    written.hold(value, bits, signed=signed, frames=3)
    np.testing.assert_array_equal(written.decoded_both_ways(2, 0, 1), [frames[2], frames[0], frames[1]])
    assert written.took == [3]


@pytest.mark.parametrize(
    ("bits", "signed", "says"),
    [
        pytest.param(12, False, {"bits_stored": 16}, id="fewer bits than the header says"),
        pytest.param(13, False, {"pixel_representation": 1}, id="unsigned where the header says signed"),
        pytest.param(13, True, {"pixel_representation": 0}, id="signed where the header says unsigned"),
        pytest.param(8, False, {"bits_allocated": 16}, id="one byte in cells of two"),
    ],
)
def test_a_codestream_that_says_other_than_the_header_is_left_to_pydicom(
    written: Written, bits: int, signed: bool, says: dict[str, int]
) -> None:
    (frame,) = frames_of(1, bits, signed=signed)
    written.hold(encapsulate([coded(frame, bits)]), bits, signed=signed, **says)
    written.decoded_both_ways(0)
    assert written.took == [0]


def test_a_frame_of_another_size_than_the_header_says_is_refused(written: Written) -> None:
    (frame,) = frames_of(1, 12, signed=False)
    written.hold(encapsulate([coded(frame, 12)]), 12, columns=20)
    with pytest.raises(InputRejected, match="cannot be decoded"):
        written.decoded(0)
    assert written.took == [0]


def test_a_frame_in_several_fragments_is_left_to_pydicom(written: Written) -> None:
    (frame,) = frames_of(1, 12, signed=False)
    written.hold(encapsulate([coded(frame, 12)], fragments_per_frame=3), 12)
    np.testing.assert_array_equal(written.decoded_both_ways(0), [frame])
    assert written.took == [0]


def test_a_codestream_in_jp2_boxes_is_left_to_pydicom(written: Written) -> None:
    (frame,) = frames_of(1, 12, signed=False)
    boxed = encode_array(frame, bits_stored=12, photometric_interpretation=2, codec_format=1)
    written.hold(encapsulate([boxed]), 12)
    np.testing.assert_array_equal(written.decoded_both_ways(0), [frame])
    assert written.took == [0]


def test_pydicom_and_the_other_codecs_have_the_last_word_on_a_damaged_frame(written: Written) -> None:
    frames = [coded(frame, 12) for frame in frames_of(2, 12, signed=False)]
    frames[1] = frames[1][:60] + bytes(len(frames[1]) - 60)
    written.hold(encapsulate(frames), 12, frames=2)
    with pytest.raises(InputRejected, match="cannot be decoded"):
        written.decoded(0, 1)
    assert written.took == [1]


@pytest.mark.parametrize("kept", [0.0, 0.1, 0.5, 0.9])
def test_what_a_cut_file_holds_is_not_taken_for_a_frame(written: Written, kept: float) -> None:
    (frame,) = frames_of(1, 12, signed=False)
    value = encapsulate([coded(frame, 12)])
    written.hold(value, 12)
    os.truncate(written.path, len(written.head) + 12 + int(kept * len(value)))
    with suppress(InputRejected):
        written.decoded(0)
    assert written.took == [0]


def test_the_slices_of_a_real_scanner_need_no_pydicom(test_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = test_data / "ct_liver_j2k"
    header = read_header(root / "000.dcm", root)
    (expected,) = decode_frames(root / "000.dcm", header, [0])
    monkeypatch.setattr(decode, "get_decoder", None)
    (plane,) = decode_frames(root / "000.dcm", header, [0], single_threaded=True)
    np.testing.assert_array_equal(plane, expected)
    assert int(plane.max()) > 1000
