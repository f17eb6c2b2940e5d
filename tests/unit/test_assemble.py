"""A manifest becomes a volume: the right HU at the right place in the patient, whatever the encoding."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.pixels.utils import compress
from pydicom.uid import DeflatedExplicitVRLittleEndian, JPEG2000Lossless, JPEGLSLossless, RLELossless
from scipy.spatial.transform import Rotation

from m3node.errors import InputRejected
from m3node.evaluation.ct_writer import axial_geometry, write_ct_series
from m3node.imaging import assemble as assembling
from m3node.imaging import decode
from m3node.imaging.assemble import assemble
from m3node.imaging.decode import decode_frames
from m3node.imaging.decode_pool import decode_in_processes
from m3node.imaging.digest import content_digest
from m3node.imaging.native import FrameTask
from m3node.imaging.rescale import unpack_bits, write_hu
from m3node.imaging.shared import SharedVolume
from m3node.intake.series.manifest import Manifest, make_manifest
from m3node.intake.series.reading import read_header
from m3node.intake.series.stacks import group_stacks
from m3node.rejection import Reason
from made_stacks import headers_of, manifest_of

LOSSLESS = ("1.2.1", "1.2.1.99", "1.2.2", "1.2.4.57", "1.2.4.70", "1.2.4.80", "1.2.4.90", "1.2.5", "1.2")
UNDECODABLE = ("1.2.4.51", "1.2.4.53", "1.2.4.55")


def noise(shape: tuple[int, int, int], seed: int = 0) -> npt.NDArray[np.int16]:
    return np.random.default_rng(seed).integers(-1024, 3000, shape, dtype=np.int16)


def one_of_19(test_data: Path) -> dict[str, Manifest]:
    """A manifest of each file of ct_transfer_syntaxes, by file name."""
    folder = test_data / "ct_transfer_syntaxes"
    made = {}
    for header in headers_of(folder):
        (stack,) = group_stacks([header])
        made[header.path] = make_manifest(stack, root=folder)
    return made


def of_syntax(manifests: dict[str, Manifest], ending: str) -> Manifest:
    (found,) = (m for name, m in manifests.items() if name.endswith(f"_1.2.840.10008.{ending}.dcm"))
    return found


def test_the_lossless_transfer_syntaxes_give_identical_hu(test_data: Path) -> None:
    manifests = one_of_19(test_data)
    assert len(manifests) == 19
    reference = pydicom.dcmread(test_data / "ct_transfer_syntaxes" / "CTImage.dcm")
    expected = reference.pixel_array.astype(int) - 1024
    for ending in LOSSLESS:
        np.testing.assert_array_equal(assemble(of_syntax(manifests, ending)).hu[0], expected, err_msg=ending)


@pytest.mark.parametrize(("ending", "within"), [("1.2.4.91", 5), ("1.2.4.81", 1), ("1.2.4.50", 64)])
def test_the_lossy_ones_are_near(test_data: Path, ending: str, within: int) -> None:
    manifests = one_of_19(test_data)
    expected = assemble(of_syntax(manifests, "1.2")).hu.astype(int)
    lossy = assemble(of_syntax(manifests, ending)).hu
    inside = expected > -1500  # a lossy codec may do what it likes to the padding
    assert 0 < np.abs(lossy - expected)[inside].max() <= within


@pytest.mark.parametrize("ending", UNDECODABLE)
def test_12_bit_jpeg_names_its_instance(test_data: Path, ending: str) -> None:
    manifest = of_syntax(one_of_19(test_data), ending)
    with pytest.raises(InputRejected, match=manifest.instances[0].sop_instance_uid) as caught:
        assemble(manifest)
    assert caught.value.reason is Reason.UNDECODABLE


@pytest.mark.parametrize("folder", ["ct_liver_j2k", "ct_liver_3slice", "ct_head_tilted"])
def test_real_series_have_the_hu_and_places_that_pydicom_reads(test_data: Path, folder: str) -> None:
    volume = assemble(manifest_of(test_data / folder))
    by_uid = {ds.SOPInstanceUID: ds for ds in map(pydicom.dcmread, (test_data / folder).glob("*.dcm"))}
    assert len(by_uid) == len(volume.sources)
    for k, source in enumerate(volume.sources):
        ds = by_uid[source.sop_instance_uid]
        hu = np.clip(ds.pixel_array * ds.RescaleSlope + ds.RescaleIntercept, -32768, 32767)
        np.testing.assert_array_equal(volume.hu[k], hu)
        np.testing.assert_allclose(volume.geometry.positions[k], ds.ImagePositionPatient)
    middle = len(by_uid) // 2
    if folder != "ct_head_tilted":  # unevenly spaced: there the affine is an average, and it is refused
        np.testing.assert_allclose(
            volume.geometry.to_patient([middle, 0, 0]), volume.geometry.positions[middle], atol=1e-6
        )


def test_enhanced_and_legacy_converted_ct_are_volumes(test_data: Path) -> None:
    folder = test_data / "ct_enhanced"
    for stack in group_stacks(headers_of(folder)):
        volume = assemble(make_manifest(stack, root=folder))
        ds = pydicom.dcmread(folder / stack.instances[0].path)
        transform = ds.SharedFunctionalGroupsSequence[0].get("PixelValueTransformationSequence")
        transform = transform or ds.PerFrameFunctionalGroupsSequence[0].PixelValueTransformationSequence
        for k, (source, ref) in enumerate(zip(volume.sources, stack.slices, strict=True)):
            assert source.frame_number == ref.frame + 1
            hu = ds.pixel_array[ref.frame] * transform[0].RescaleSlope + transform[0].RescaleIntercept
            np.testing.assert_array_equal(volume.hu[k], hu)
        steps = np.diff(volume.geometry.positions @ np.cross(*np.reshape(stack.frame(0).orientation, (2, 3))))
        assert (steps > 0).all()


def test_the_volume_cannot_be_written_to(test_data: Path) -> None:
    volume = assemble(manifest_of(test_data / "ct_liver_3slice"))
    with pytest.raises(ValueError, match="read-only"):
        volume.hu[0, 0, 0] = 0


@settings(max_examples=20, deadline=None)
@given(
    turn=st.floats(-180.0, 180.0),
    mirrored=st.booleans(),
    upwards=st.booleans(),
    origin=st.tuples(*[st.floats(-300.0, 300.0)] * 3),
    spacing=st.tuples(st.floats(0.5, 5.0), st.floats(0.3, 1.0), st.floats(0.3, 1.0)),
    shuffle=st.randoms(use_true_random=False),
)
def test_every_voxel_keeps_its_place_in_the_patient(
    *,
    tmp_path_factory: pytest.TempPathFactory,
    turn: float,
    mirrored: bool,
    upwards: bool,
    origin: tuple[float, float, float],
    spacing: tuple[float, float, float],
    shuffle: object,
) -> None:
    """Rotated in plane, mirrored, stored feet first: what was written at a point of the patient is read there."""
    folder = tmp_path_factory.mktemp("placed")
    axes = Rotation.from_euler("z", turn, degrees=True).as_matrix()
    row, column = (tuple(float(v) for v in axes[:, i]) for i in (0, 1))
    if mirrored:
        row = (-row[0], -row[1], -row[2])
    hu = noise((5, 4, 6))
    geometry = axial_geometry(
        (5, 4, 6),
        spacing,
        origin=origin,
        row=(row[0], row[1], row[2]),
        column=(column[0], column[1], column[2]),
        upwards=upwards,
    )
    position = "HFS" if upwards else "FFS"
    files = list(write_ct_series(folder, hu, geometry, seed="placed", patient_position=position))
    order = list(range(5))
    shuffle.shuffle(order)  # type: ignore[attr-defined]
    for number, k in enumerate(order):
        files[k].rename(folder / f"shuffled-{number}.dcm")
    volume = assemble(manifest_of(folder))
    for voxel in itertools.product(range(5), range(4), range(6)):
        found = volume.geometry.to_voxel(geometry.to_patient(voxel))
        nearest = tuple(int(v) for v in np.rint(found))
        np.testing.assert_allclose(found, nearest, atol=1e-3)
        assert volume.hu[nearest] == hu[voxel]


@pytest.fixture
def series(tmp_path: Path) -> Path:
    write_ct_series(tmp_path / "ct", noise((12, 16, 20)), axial_geometry((12, 16, 20), (2.0, 0.7, 0.7)), seed="s")
    return tmp_path / "ct"


@pytest.fixture
def few_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(assembling, "PROCESSES_FROM", 2)


@pytest.mark.usefixtures("few_are_many")
@pytest.mark.parametrize("workers", [1, 3])
def test_threads_processes_and_neither_give_one_volume(series: Path, workers: int) -> None:
    plain = assemble(manifest_of(series), workers=1).hu
    for number, path in enumerate(sorted(series.iterdir())):
        if number % 3:
            ds = pydicom.dcmread(path)
            compress(ds, JPEGLSLossless if number % 2 else RLELossless, generate_instance_uid=False)
            ds.save_as(path)
    told: list[tuple[str, int, int]] = []
    mixed = assemble(manifest_of(series), workers=workers, progress=lambda *args: told.append(args))
    np.testing.assert_array_equal(mixed.hu, plain)
    assert mixed.hu.flags.writeable is False
    assert told[-1][1:] == (12, 12)
    assert [done for _, done, _ in told] == sorted({done for _, done, _ in told})


@pytest.mark.usefixtures("few_are_many")
@pytest.mark.parametrize("workers", [1, 2])
def test_a_damaged_stream_names_its_instance_in_processes_too(test_data: Path, tmp_path: Path, workers: int) -> None:
    for path in sorted((test_data / "ct_liver_j2k").iterdir())[:6]:
        (tmp_path / path.name).write_bytes(path.read_bytes())
    content = (tmp_path / "003.dcm").read_bytes()
    at = content.index(b"\xff\x4f\xff\x51")
    (tmp_path / "003.dcm").write_bytes(content[:at] + bytes(2000) + content[at + 2000 :])
    damaged = pydicom.dcmread(tmp_path / "003.dcm", stop_before_pixels=True).SOPInstanceUID
    with pytest.raises(InputRejected, match=damaged) as caught:
        assemble(manifest_of(tmp_path), workers=workers)
    assert caught.value.reason is Reason.UNDECODABLE


def test_a_worker_that_dies_is_a_reason_and_not_a_crash(test_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = manifest_of(test_data / "ct_liver_j2k")
    jobs = [(Path(manifest.root) / manifest.instances[0].path, manifest.instances[0], (FrameTask(0, 0, 1.0, 0.0),))]
    volume = SharedVolume((1, 512, 512))
    decode_in_processes(jobs, volume, 1, lambda _: None)
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(InputRejected, match="codec crashed on series") as caught:
        decode_in_processes(jobs, volume, 1, lambda _: None)
    volume.close()
    assert caught.value.reason is Reason.UNDECODABLE


def test_multi_frame_compressed_ct_is_decoded_frame_by_frame(tmp_path: Path, test_data: Path) -> None:
    ds = pydicom.dcmread(test_data / "ct_enhanced" / "legacy_converted_24x38x3.dcm")
    ds.save_as(tmp_path / "plain.dcm")
    plain = assemble(manifest_of(tmp_path)).hu
    compress(ds, RLELossless, generate_instance_uid=False)
    ds.save_as(tmp_path / "plain.dcm")
    np.testing.assert_array_equal(assemble(manifest_of(tmp_path)).hu, plain)


def test_each_slice_has_its_own_rescale_and_fractions_are_rounded(series: Path) -> None:
    expected = []
    for number, path in enumerate(sorted(series.iterdir())):
        ds = pydicom.dcmread(path)
        ds.RescaleSlope, ds.RescaleIntercept = str(0.5 + number / 8), str(-1000.25 - number)
        ds.save_as(path)
        expected.append(np.rint(ds.pixel_array * (0.5 + number / 8) - 1000.25 - number))
    np.testing.assert_array_equal(assemble(manifest_of(series)).hu, expected)


@given(
    stored=st.lists(st.integers(-32768, 32767), min_size=1, max_size=20),
    signed=st.booleans(),
    slope=st.sampled_from([1.0, 2.0, 0.5, 2.0002442]),
    intercept=st.sampled_from([0.0, -1024.0, -4047.0, 1024.0, 0.5, 32767.0]),
)
def test_hu_is_the_rescaled_value_rounded_and_clipped(
    stored: list[int], signed: bool, slope: float, intercept: float
) -> None:
    cells = np.array([stored], dtype=np.int16)
    values: npt.NDArray[np.integer] = cells.copy() if signed else cells.copy().view(np.uint16)
    expected = np.clip(np.rint(values.astype(np.float64) * slope + intercept), -32768, 32767)
    out = values.view(np.int16)  # in place, as the volume is filled
    write_hu(values, slope, intercept, out)
    np.testing.assert_array_equal(out, expected)


@given(value=st.integers(-2048, 2047), junk=st.integers(0, 15), shift=st.integers(0, 4), signed=st.booleans())
def test_unused_bits_are_no_part_of_the_value(value: int, junk: int, shift: int, signed: bool) -> None:
    """12 bits stored at any high bit; overlays of old files in the others."""
    stored = value if signed else value + 2048
    cell = ((stored & 0xFFF) << shift) & 0xFFFF
    cell |= (junk << (12 + shift)) & 0xFFFF  # above
    cell |= junk & ((1 << shift) - 1)  # below
    plane = np.array([[cell]], dtype=np.uint16)
    found = unpack_bits(plane, bits_stored=12, high_bit=11 + shift, signed=signed)
    assert found[0, 0] == stored


def test_overlay_bits_in_a_file_do_not_reach_the_volume(series: Path) -> None:
    plain = assemble(manifest_of(series)).hu
    for path in series.iterdir():
        ds = pydicom.dcmread(path)
        ds.PixelData = (np.frombuffer(ds.PixelData, "<u2") | 0xF000).tobytes()
        ds.save_as(path)
    np.testing.assert_array_equal(assemble(manifest_of(series)).hu, plain)


@pytest.mark.parametrize("bits", [8, 32])
def test_cells_of_8_and_32_bits_are_read(series: Path, bits: int) -> None:
    expected = []
    for path in sorted(series.iterdir()):
        ds = pydicom.dcmread(path)
        values = ds.pixel_array % 200
        ds.BitsAllocated, ds.BitsStored, ds.HighBit = bits, bits, bits - 1
        ds.PixelData = values.astype(f"<u{bits // 8}").tobytes()
        ds["PixelData"].VR = "OW"
        ds.save_as(path)
        expected.append(values.astype(int) - 1024)
    np.testing.assert_array_equal(assemble(manifest_of(series)).hu, expected)


def test_a_file_that_changed_since_it_was_indexed_is_refused(series: Path) -> None:
    manifest = manifest_of(series)
    first = series / manifest.instances[0].path
    content = first.read_bytes()

    def refused(changed: bytes | None) -> str:
        first.unlink()
        if changed is not None:
            first.write_bytes(changed)
        with pytest.raises(InputRejected, match=manifest.instances[0].sop_instance_uid) as caught:
            assemble(manifest)
        assert caught.value.reason is Reason.UNDECODABLE
        return caught.value.message

    assert "ends 10 bytes early" in refused(content[:-10])
    assert "not where they were" in refused(content[:300] + b"  " + content[300:])
    first.write_bytes(content)
    assert "cannot be opened" in refused(None)


def test_deflated_pixels_are_inflated(series: Path) -> None:
    plain = assemble(manifest_of(series)).hu
    for path in series.iterdir():
        ds = pydicom.dcmread(path)
        ds.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
        ds.save_as(path)
    manifest = manifest_of(series)
    np.testing.assert_array_equal(assemble(manifest).hu, plain)
    first = series / manifest.instances[0].path
    first.write_bytes(first.read_bytes()[:-300])
    with pytest.raises(InputRejected, match=r"bytes are missing|damaged") as caught:
        assemble(manifest)
    assert caught.value.reason is Reason.UNDECODABLE


def test_a_stack_that_was_not_judged_is_refused_with_its_reason(series: Path) -> None:
    manifest = manifest_of(series)

    def reason(**change: object) -> Reason:
        broken = replace(manifest, instances=(replace(manifest.instances[0], **change), *manifest.instances[1:]))
        with pytest.raises(InputRejected) as caught:
            assemble(broken)
        return caught.value.reason

    header = manifest.instances[0]
    assert header.pixels is not None
    assert reason(pixels=None) is Reason.NO_PIXEL_DATA
    assert reason(pixels=replace(header.pixels, rows=15)) is Reason.MIXED_GEOMETRY
    assert reason(pixels=replace(header.pixels, samples_per_pixel=3)) is Reason.UNSUPPORTED_PIXELS
    assert reason(frames=(replace(header.frames[0], rescale_slope=None),)) is Reason.UNSUPPORTED_PIXELS
    assert reason(frames=(replace(header.frames[0], position=None),)) is Reason.MISSING_GEOMETRY


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


PEAK = """
import resource, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from made_stacks import manifest_of
from m3node.imaging.assemble import assemble
manifest = manifest_of(Path(sys.argv[1]))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
volume = assemble(manifest, workers=2)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, volume.hu.nbytes // 1024)
"""


def test_memory_stays_near_one_volume(tmp_path: Path) -> None:
    shape = (60, 512, 512)
    write_ct_series(tmp_path, np.zeros(shape, dtype=np.int16), axial_geometry(shape, (1.0, 0.7, 0.7)), seed="big")
    tests = str(Path(__file__).resolve().parents[1])
    done = subprocess.run(
        [sys.executable, "-c", PEAK, str(tmp_path), tests], capture_output=True, text=True, check=True, env=_bare()
    )
    grown, volume = (int(word) for word in done.stdout.split())
    assert grown < 1.25 * volume  # KiB; a second copy, or one in floats, would be 2 or more


def _bare() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("M3NODE_")}


def test_no_file_stays_open(series: Path) -> None:
    assemble(manifest_of(series), workers=2)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        assemble(manifest_of(series), workers=2)
    assert len(os.listdir("/proc/self/fd")) == before


def test_one_core_and_all_cores_decode_jpeg_2000_alike(test_data: Path) -> None:
    root = test_data / "ct_liver_j2k"
    header = read_header(root / "000.dcm", root)
    (all_cores,) = decode_frames(root / "000.dcm", header, [0])
    (one_core,) = decode_frames(root / "000.dcm", header, [0], single_threaded=True)
    np.testing.assert_array_equal(one_core, all_cores)
    assert int(one_core.max()) > 1000


def test_a_preferred_codec_that_gives_up_leaves_the_work_to_another(
    test_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = test_data / "ct_liver_j2k"
    header = read_header(root / "000.dcm", root)
    (expected,) = decode_frames(root / "000.dcm", header, [0])
    monkeypatch.setitem(decode._SINGLE_THREADED, JPEG2000Lossless, "no such codec")
    (decoded,) = decode_frames(root / "000.dcm", header, [0], single_threaded=True)
    np.testing.assert_array_equal(decoded, expected)
