"""A small archive: keeps whatever it is sent, by study, in a folder. For the demonstration, not for patients."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE, AllStoragePresentationContexts, evt
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined] # made at run time
from pynetdicom.transport import ThreadedAssociationServer

CANNOT_UNDERSTAND = 0xC000
OUT_OF_RESOURCES = 0xA700


@dataclass(frozen=True, slots=True)
class Kept:
    """An object that the archive keeps."""

    path: Path
    sop_class_uid: str
    sop_instance_uid: str
    study_instance_uid: str
    series_instance_uid: str


class Archive:
    """A storage service class provider on a free loopback port; a context manager.

    Parameters
    ----------
    folder : Path
        Objects go to ``folder/<study>/<sop>.dcm``.
    ae_title : str
        Its AE title.
    """

    def __init__(self, folder: Path, ae_title: str = "ARCHIVE") -> None:
        self.ae_title = ae_title
        self._folder = folder
        self._kept: dict[str, Kept] = {}
        self._lock = threading.Lock()
        self._ae = AE(ae_title=ae_title)
        for context in AllStoragePresentationContexts:
            syntaxes = [ExplicitVRLittleEndian, ImplicitVRLittleEndian]
            self._ae.add_supported_context(str(context.abstract_syntax), syntaxes)
        self._ae.add_supported_context(Verification)
        self._server: ThreadedAssociationServer | None = None

    def __enter__(self) -> Self:
        self._folder.mkdir(parents=True, exist_ok=True)
        self._server = self._ae.start_server(
            ("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, self._store)]
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._ae.shutdown()

    @property
    def port(self) -> int:
        """Where it listens on 127.0.0.1."""
        if self._server is None:
            raise RuntimeError("the archive is not started")
        return int(self._server.server_address[1])

    @property
    def kept(self) -> tuple[Kept, ...]:
        """What it keeps, in the order of arrival."""
        with self._lock:
            return tuple(self._kept.values())

    def _store(self, event: evt.Event) -> int:
        try:
            data_set = event.dataset
            study, series = UID(data_set.StudyInstanceUID), UID(data_set.SeriesInstanceUID)
            instance = UID(data_set.SOPInstanceUID)
        except (AttributeError, ValueError, KeyError, NotImplementedError):
            return CANNOT_UNDERSTAND
        # They name folder and file.
        if not (study.is_valid and series.is_valid and instance.is_valid):
            return CANNOT_UNDERSTAND
        path = self._folder / study / f"{instance}.dcm"
        try:
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(event.encoded_dataset())
        except OSError:
            return OUT_OF_RESOURCES
        with self._lock:
            self._kept[str(instance)] = Kept(
                path=path,
                sop_class_uid=str(data_set.SOPClassUID),
                sop_instance_uid=str(instance),
                study_instance_uid=str(study),
                series_instance_uid=str(series),
            )
        return 0x0000
