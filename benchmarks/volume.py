"""A series of 500 CT slices of 512×512 to a volume in HU: m3node with its headers indexed before, against SimpleITK.

SimpleITK is given the folder: ``GetGDCMSeriesFileNames`` reads the headers to sort the files, ``ImageSeriesReader``
reads them. For information, also with the files given in order, as if it had an index too; and the common way with
pydicom (``dcmread`` and ``apply_rescale``) on the files in order. Pairs of runs alternate, files are in the page cache,
and the volumes are compared voxel by voxel before any time is taken. What is timed is a process at work: m3node reads
into the memory of the volume before (m3node/imaging/memory.py) with the decode server that it has
(m3node/imaging/decode_client.py), SimpleITK does with its memory what it does. For information, also the first JPEG
2000 series of a process, which starts the server and takes its memory from the kernel.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pydicom
import SimpleITK
from openjpeg.utils import encode_array
from pydicom.encaps import encapsulate
from pydicom.pixels import apply_rescale
from pydicom.uid import JPEG2000Lossless

from m3node.evaluation.ct_writer import write_ct_series
from m3node.evaluation.phantom import abdomen_phantom
from m3node.imaging import assemble as assembling
from m3node.imaging.assemble import assemble
from m3node.imaging.decode_client import close_waiting
from m3node.imaging.geometry import PatientGeometry
from m3node.imaging.memory import VolumeMemory
from m3node.intake.series.header import InstanceHeader
from m3node.intake.series.manifest import Manifest, make_manifest
from m3node.intake.series.reading import read_headers
from m3node.intake.series.stacks import group_stacks
from table import RatioRow, print_ratios

Volume = npt.NDArray[np.generic]


def make_series(folder: Path, slices: int) -> list[Path]:
    """Write a noisy abdomen phantom, its 20 middle slices over and over."""
    phantom = abdomen_phantom(seed=1)
    middle = phantom.hu.shape[0] // 2
    hu = np.take(phantom.hu[middle - 10 : middle + 10], np.arange(slices) % 20, axis=0)
    affine = phantom.geometry.affine.copy()
    positions = affine[:3, 3] + np.arange(slices)[:, None] * affine[:3, 0]
    geometry = PatientGeometry(affine=affine, positions=positions, shape=(slices, *hu.shape[1:]))
    return list(write_ct_series(folder, hu, geometry, seed="benchmark"))


def compress(files: list[Path], folder: Path) -> list[Path]:
    """Write the files again in JPEG 2000, lossless; equal pixels are encoded once."""
    folder.mkdir()
    made: dict[bytes, bytes] = {}
    for path in files:
        ds = pydicom.dcmread(path)
        if ds.PixelData not in made:
            made[ds.PixelData] = encode_array(ds.pixel_array, bits_stored=12, photometric_interpretation=2)
        ds.PixelData = encapsulate([made[ds.PixelData]])
        ds["PixelData"].VR = "OB"
        ds.file_meta.TransferSyntaxUID = JPEG2000Lossless
        ds.save_as(folder / path.name)
    return sorted(folder.iterdir())


def index(folder: Path) -> Manifest:
    """Do what the node does on arrival."""
    headers = [found for found in read_headers(sorted(folder.iterdir()), folder) if isinstance(found, InstanceHeader)]
    (stack,) = group_stacks(headers)
    return make_manifest(stack, root=folder)


def volume_of(manifest: Manifest, workers: int) -> Volume:
    return assemble(manifest, workers=workers).hu


def first_volume_of(manifest: Manifest, workers: int) -> Volume:
    """Read with neither a decode server nor memory from before."""
    close_waiting()
    assembling._MEMORY = VolumeMemory()
    return volume_of(manifest, workers)


def with_simpleitk(files: Sequence[Path | str]) -> SimpleITK.Image:
    reader = SimpleITK.ImageSeriesReader()
    reader.SetFileNames([str(path) for path in files])
    return reader.Execute()


def folder_with_simpleitk(folder: Path) -> SimpleITK.Image:
    return with_simpleitk(SimpleITK.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder)))


def with_pydicom(files: list[Path]) -> Volume:
    return np.stack([apply_rescale(ds.pixel_array, ds) for ds in map(pydicom.dcmread, files)])


def compare(
    ours: Callable[[], Volume], rival: Callable[[], Volume | SimpleITK.Image], pairs: int
) -> tuple[list[float], list[float]]:
    """Time pairs, after a run of each whose volumes must be equal."""
    theirs = rival()
    seen = SimpleITK.GetArrayViewFromImage(theirs) if isinstance(theirs, SimpleITK.Image) else theirs
    if not np.array_equal(ours(), seen):
        sys.exit("the volumes differ")
    del seen, theirs
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(pairs):
        for run, seconds in zip((ours, rival), times, strict=True):
            begin = time.perf_counter()
            run()
            seconds.append(time.perf_counter() - begin)
    return times


def main() -> int:
    """Print the table; the exit status says whether the bars are met."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--slices", type=int, default=500)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--workers", type=int, default=min(4, os.cpu_count() or 1))
    arguments = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory(prefix="m3node-bench-") as name:
        plain = make_series(Path(name) / "plain", arguments.slices)
        coded = compress(plain, Path(name) / "coded")
        for files, what, bar in ((plain, "uncompressed", 1 / 8), (coded, "JPEG 2000 lossless", 1 / 2)):
            manifest = index(files[0].parent)
            ours = partial(volume_of, manifest, arguments.workers)
            series = partial(folder_with_simpleitk, files[0].parent)
            comparisons: list[tuple[str, Callable[[], Volume], Callable[[], Volume | SimpleITK.Image], float | None]]
            comparisons = [("against SimpleITK", ours, series, bar)]
            if files is plain:
                comparisons.append(("against SimpleITK, files in order", ours, partial(with_simpleitk, files), None))
                comparisons.append(("against dcmread and apply_rescale", ours, partial(with_pydicom, files), None))
            else:
                first = partial(first_volume_of, manifest, arguments.workers)
                comparisons.append(("first of a process", first, series, None))
            rows += [
                RatioRow(f"{what}, {name}", *compare(mine, rival, arguments.pairs), bar=limit)
                for name, mine, rival, limit in comparisons
            ]
    title = f"{arguments.slices} slices of 512×512 to HU, {arguments.workers} workers (seconds)"
    return 0 if print_ratios(title, rows) else 1


if __name__ == "__main__":
    sys.exit(main())
