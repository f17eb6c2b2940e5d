"""A manifest becomes a volume: the right HU at the right place in the patient, whatever the encoding."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.pixels.utils import compress
from pydicom.uid import DeflatedExplicitVRLittleEndian, RLELossless
from scipy.spatial.transform import Rotation

from m3node.errors import InputRejected
from m3node.evaluation.ct_writer import axial_geometry, write_ct_series
from m3node.imaging.assemble import assemble
from m3node.intake.series.manifest import make_manifest
from m3node.intake.series.stacks import group_stacks
from m3node.rejection import Reason
from made_noise import noise, noise_series, of_syntax, one_of_19
from made_stacks import headers_of, manifest_of

LOSSLESS = ("1.2.1", "1.2.1.99", "1.2.2", "1.2.4.57", "1.2.4.70", "1.2.4.80", "1.2.4.90", "1.2.5", "1.2")
UNDECODABLE = ("1.2.4.51", "1.2.4.53", "1.2.4.55")


@pytest.fixture
def series(tmp_path: Path) -> Path:
    return noise_series(tmp_path / "ct")


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


def test_multi_frame_compressed_ct_is_decoded_frame_by_frame(tmp_path: Path, test_data: Path) -> None:
    ds = pydicom.dcmread(test_data / "ct_enhanced" / "legacy_converted_24x38x3.dcm")
    ds.save_as(tmp_path / "plain.dcm")
    plain = assemble(manifest_of(tmp_path)).hu
    compress(ds, RLELossless, generate_instance_uid=False)
    ds.save_as(tmp_path / "plain.dcm")
    np.testing.assert_array_equal(assemble(manifest_of(tmp_path)).hu, plain)


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
