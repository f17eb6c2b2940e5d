"""A C-STORE peer on a free port that answers as a test tells it to."""

from __future__ import annotations

import hashlib
import ssl
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    EnhancedSRStorage,
    ExplicitVRLittleEndian,
    GrayscaleSoftcopyPresentationStateStorage,
    MultiFrameTrueColorSecondaryCaptureImageStorage,
    ParametricMapStorage,
    SegmentationStorage,
)
from pynetdicom import AE, evt
from pynetdicom.events import Event
from pynetdicom.sop_class import StorageCommitmentPushModel

from m3node.evaluation.ct_writer import seeded_uid
from m3node.layout import DataLayout
from m3node.results.objects import ObjectKind, ResultObject
from m3node.settings import Destination
from ports import free_port

COMPREHENSIVE_3D_SR = "1.2.840.10008.5.1.4.1.1.88.34"
CLASS_OF = {
    ObjectKind.REPORT: COMPREHENSIVE_3D_SR,
    ObjectKind.VOLUMES: COMPREHENSIVE_3D_SR,
    ObjectKind.SEGMENTATION: str(SegmentationStorage),
    ObjectKind.PRESENTATION: str(GrayscaleSoftcopyPresentationStateStorage),
    ObjectKind.REPORT_ENHANCED: str(EnhancedSRStorage),
    ObjectKind.VOLUMES_ENHANCED: str(EnhancedSRStorage),
    ObjectKind.ATTENTION_CAPTURE: str(MultiFrameTrueColorSecondaryCaptureImageStorage),
    ObjectKind.ATTENTION_MAP: str(ParametricMapStorage),
}
RESULT_CLASSES = tuple(dict.fromkeys(CLASS_OF.values()))

PATIENT_NAME = b"\x10\x00\x10\x00PN\x08\x00Doe^Jane"
GROUP_LENGTH = b"\x10\x00\x00\x00UL\x04\x00" + len(PATIENT_NAME).to_bytes(4, "little")
"""Retired and ignored (PS3.5 7.2); a sender that decodes a data set and encodes it again drops it."""

Answer = int | Callable[[Event], int | Dataset]


class FakePacs:
    """What arrived, and how many associations it took; ``answer`` may be changed at any time."""

    def __init__(self, answer: Answer = 0x0000) -> None:
        self.answer = answer
        self.port = 0
        self.offered: list[str] = []
        self.kept: dict[str, bytes] = {}
        self.associations = 0
        self._lock = threading.Lock()

    def destination(self, name: str = "pacs", **settings: object) -> Destination:
        return Destination(name=name, ae_title="PACS", host="127.0.0.1", port=self.port, **settings)

    def on_store(self, event: Event) -> int | Dataset:
        uid = str(event.request.AffectedSOPInstanceUID)
        with self._lock:
            self.offered.append(uid)
        status = self.answer(event) if callable(self.answer) else self.answer
        code = status if isinstance(status, int) else status.get("Status")
        if code is not None and (code == 0 or 0xB000 <= code <= 0xBFFF):
            with self._lock:
                self.kept[uid] = event.request.DataSet.getvalue()
        return status

    def on_open(self, event: Event) -> None:
        with self._lock:
            self.associations += 1


@contextmanager
def fake_pacs(
    answer: Answer = 0x0000,
    *,
    classes: Sequence[str] = RESULT_CLASSES,
    handlers: Sequence[tuple[object, Callable[[Event], object]]] = (),
    require_calling: Sequence[str] = (),
    port: int = 0,
    commit: Callable[[Event], int] | None = None,
    tls: ssl.SSLContext | None = None,
) -> Iterator[FakePacs]:
    """Run the peer; with ``commit``, which answers N-ACTION, it knows storage commitment."""
    pacs = FakePacs(answer)
    ae = AE(ae_title="PACS")
    if commit is not None:
        ae.add_supported_context(StorageCommitmentPushModel)
        handlers = [*handlers, (evt.EVT_N_ACTION, lambda event: (commit(event), None))]
    ae.add_supported_context("1.2.840.10008.1.1")
    for uid in classes:
        ae.add_supported_context(uid, ExplicitVRLittleEndian)
    ae.require_calling_aet = list(require_calling)
    server = ae.start_server(
        ("127.0.0.1", port or free_port()),
        block=False,
        evt_handlers=[(evt.EVT_C_STORE, pacs.on_store), (evt.EVT_ESTABLISHED, pacs.on_open), *handlers],
        ssl_context=tls,
    )
    pacs.port = server.server_address[1]
    try:
        yield pacs
    finally:
        ae.shutdown()


def make_run(
    layout: DataLayout, run: str, kinds: Sequence[ObjectKind] | None = None, *, size: int = 0
) -> tuple[ResultObject, ...]:
    """Write small files that look like a run's objects; ``size`` bytes of padding make them large."""
    kinds = kinds or (ObjectKind.REPORT, ObjectKind.VOLUMES, ObjectKind.SEGMENTATION, ObjectKind.PRESENTATION)
    folder = layout.results / run
    folder.mkdir(parents=True, exist_ok=True)
    return tuple(_write(folder, run, kind, size) for kind in kinds)


def _write(folder: Path, run: str, kind: ObjectKind, size: int) -> ResultObject:
    ds = Dataset()
    ds.SOPClassUID = CLASS_OF[kind]
    ds.SOPInstanceUID = seeded_uid(run, kind)
    ds.StudyInstanceUID = seeded_uid(run, "study")
    ds.SeriesInstanceUID = seeded_uid(run, kind, "series")
    ds.PatientName = "Doe^Jane"
    if size:
        ds.PixelData = np.random.default_rng(0).bytes(size)
        ds["PixelData"].VR = "OB"
    ds.file_meta = FileMetaDataset()
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    path = folder / kind.file_name
    ds.save_as(path, enforce_file_format=True)
    path.write_bytes(path.read_bytes().replace(PATIENT_NAME, GROUP_LENGTH + PATIENT_NAME, 1))
    return ResultObject(
        kind=kind,
        path=path,
        sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        sop_class_uid=str(ds.SOPClassUID),
        sop_instance_uid=str(ds.SOPInstanceUID),
        series_instance_uid=str(ds.SeriesInstanceUID),
        study_instance_uid=str(ds.StudyInstanceUID),
    )
