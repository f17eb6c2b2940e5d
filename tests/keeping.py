"""A keeper for tests: its data folder, receivers played by hand, and a clock that stands still until told."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.dataset import Dataset
from pydicom.uid import SegmentationStorage

from m3node.evaluation.ct_writer import axial_geometry, seeded_uid, write_ct_series
from m3node.imaging.digest import content_digest
from m3node.intake.keeper.index import Index, SeriesRecord
from m3node.intake.keeper.keeper import PURGE_SECONDS, Keeper
from m3node.intake.keeper.purging import Held
from m3node.intake.receive.association import OpenLease
from m3node.intake.series.manifest import Manifest, StackKey, read_manifest
from m3node.layout import DataLayout
from m3node.rejection import Reason, Rejection
from m3node.settings import Caller, CompletenessSettings, ListenerSettings, PriorityRule, Settings

QUIET = 10.0
CALLERS = (
    Caller(ae_title="HASTY", quiet_seconds=2.0),
    Caller(ae_title="CONTOURS", wait_for_seg_seconds=60.0),
    Caller(ae_title="EMERGENCY", stat=True),
)


class Node:
    """A keeper of ``folder/data``, and what is sent to it in ``folder/sent``."""

    def __init__(self, folder: Path, *, late_seg: bool = False, priority: Sequence[PriorityRule] = ()) -> None:
        self.layout = DataLayout(folder / "data")
        self.layout.create()
        self.now = 1000.0
        self.recorded: list[tuple[StackKey, int, str, Rejection]] = []
        self.disposable: list[str] = []
        self.settings = Settings(
            data_dir=self.layout.root,
            listener=ListenerSettings(callers=CALLERS),
            completeness=CompletenessSettings(quiet_seconds=QUIET, late_seg_makes_generation=late_seg),
            priority=tuple(priority),
        )
        self.leases: dict[str, OpenLease] = {}
        self._sent = folder / "sent"
        self._written = itertools.count()
        self._mtime = 1_700_000_000.0
        self.restart()

    def restart(self) -> None:
        """As after kill -9: nothing but the files is left."""
        self.keeper = Keeper(
            self.settings,
            record=self._record,
            content_digest=content_digest,
            disposable=self._dispose,
            clock=lambda: self.now,
        )
        self.keeper.rescan()

    def _dispose(self, held: Sequence[Held]) -> Iterator[str]:
        there = {item.series for item in held}
        yield from (series for series in self.disposable if series in there)

    def purge(self, *seeds: int) -> None:
        """Have the pixels of series removed when they may be."""
        self.disposable = [seeded_uid(seed, "series") for seed in seeds]
        self.wait(PURGE_SECONDS)
        self.disposable = []

    def files(self, seed: int = 1) -> list[str]:
        """Names of a series' files in the spool."""
        return sorted(path.name for path in self.layout.spool.glob(f"*/{seeded_uid(seed, 'series')}/*"))

    def index(self, seed: int = 1) -> SeriesRecord:
        """What the index knows of a series."""
        return Index(self.layout.index).load(seeded_uid(seed, "series"))

    def _record(self, key: StackKey, generation: int, digest: str, rejection: Rejection) -> None:
        self.recorded.append((key, generation, digest, rejection))

    def series(self, seed: object = 1, slices: int = 12, **attributes: Any) -> tuple[Path, ...]:
        """Write a CT series of small slices, to be sent."""
        shape = (slices, 16, 16)
        hu = np.random.default_rng(7).integers(-100, 200, shape)
        folder = self._sent / str(next(self._written))
        return write_ct_series(folder, hu, axial_geometry(shape, (2.0, 0.8, 0.8)), seed=seed, attributes=attributes)

    def spool(self, source: Path, *, sender: str = "PACS", revision: str = "") -> tuple[str, str]:
        """Put a file where a receiver puts it; return its path below the data folder and the status."""
        ds = pydicom.dcmread(source)
        folder = self.layout.spool / ds.StudyInstanceUID / ds.SeriesInstanceUID
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{ds.SOPInstanceUID}{'.r' + revision if revision else ''}.dcm"
        status = "duplicate" if path.exists() else "revision" if revision else "new"
        ds.file_meta.SourceApplicationEntityTitle = sender
        ds.save_as(path)
        self._mtime += 0.1
        os.utime(path, (self._mtime, self._mtime))
        return path.relative_to(self.layout.root).as_posix(), status

    def store(
        self,
        *sources: Path,
        sender: str = "PACS",
        revision: str = "",
        close: bool = True,
        urgent: Iterable[Path] = (),
    ) -> None:
        """Receive files over one association."""
        lease = self.leases.get(sender)
        if lease is None:
            lease = OpenLease(self.layout.associations, calling=sender, called="M3NODE", peer="127.0.0.1")
            self.leases[sender] = lease
        for source in sources:
            path, status = self.spool(source, sender=sender, revision=revision)
            lease.append(path, status, urgent=source in set(urgent))
        if close:
            self.close(sender)

    def close(self, sender: str = "PACS") -> None:
        self.leases.pop(sender).close()

    def wait(self, seconds: float) -> None:
        """Let time pass, looking at either end of it."""
        self.keeper.step()
        self.now += seconds
        self.keeper.step()

    @property
    def manifests(self) -> list[Manifest]:
        found = [read_manifest(path) for path in self.layout.manifests.iterdir()]
        return sorted(found, key=lambda manifest: (manifest.stack, manifest.generation))

    def manifests_of(self, seed: int) -> int:
        return sum(item.stack.series_instance_uid == seeded_uid(seed, "series") for item in self.manifests)

    @property
    def reasons(self) -> list[tuple[int, Reason]]:
        return [(generation, rejection.reason) for _, generation, _, rejection in self.recorded]


def changed(source: Path, name: str, change: Callable[[Dataset], object]) -> Path:
    """A copy of a file with something changed in it."""
    ds = pydicom.dcmread(source)
    change(ds)
    path = source.with_name(name)
    ds.save_as(path)
    return path


def second_acquisition(first: Sequence[Path]) -> list[Path]:
    """The same slices once more, as another acquisition of the same series."""

    def of(file: Path) -> Path:
        values = {"SOPInstanceUID": seeded_uid("second", file.name), "AcquisitionNumber": 2}
        return changed(file, f"second-{file.name}", lambda ds: ds.update(values))

    return [of(file) for file in first]


def liver_seg(files: Sequence[Path], code: tuple[str, str] = ("SCT", "10200004"), **attributes: Any) -> Path:
    """The parts of a SEG that say what it is about; of the liver of the files' series unless told otherwise."""
    source = pydicom.dcmread(files[0])
    kind = Dataset()
    kind.CodingSchemeDesignator, kind.CodeValue, kind.CodeMeaning = *code, "x"
    segment = Dataset()
    segment.SegmentNumber = 1
    segment.SegmentedPropertyTypeCodeSequence = [kind]
    referenced = Dataset()
    referenced.SeriesInstanceUID = source.SeriesInstanceUID

    def change(ds: Dataset) -> None:
        ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = SegmentationStorage
        ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = seeded_uid("seg")
        ds.SeriesInstanceUID = seeded_uid("seg", "series")
        ds.Modality = "SEG"
        ds.SegmentSequence = [segment]
        ds.ReferencedSeriesSequence = [referenced]
        for keyword, value in attributes.items():
            setattr(ds, keyword, value)

    return changed(files[0], "seg.dcm", change)
