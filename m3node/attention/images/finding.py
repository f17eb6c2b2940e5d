"""Which file an id means: by its name, or by the SOP Instance UID that it holds."""

from __future__ import annotations

import os
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from m3node.attention.images.names import shown
from m3node.errors import ConfigError, ImageError, InputRejected
from m3node.intake.series.elements import text
from m3node.intake.series.part10 import open_part10
from m3node.intake.uid import is_uid

PICTURES = frozenset({".png", ".jpg", ".jpeg"})
EXTENSIONS = PICTURES | {".dcm", ".dicom", ".dic", ".ima"}
"""What an id may leave out at a file's end, in small or large letters."""

_SOP_CLASS, _SOP_INSTANCE, _SERIES = 0x00080016, 0x00080018, 0x0020000E
_NAMED = 3
"""Files that a message names at most."""


@dataclass(frozen=True, slots=True)
class DicomFile:
    """What a DICOM file says it is."""

    path: Path
    sop_class_uid: str
    sop_instance_uid: str
    series_uid: str


class ImageFolder:
    """The files below a folder, by the ids that may mean them.

    The folder is walked once, when something is first looked for. Hidden files and folders (a dot before the name)
    are passed over; symbolic links are followed, a folder is entered once however many links lead to it.

    Parameters
    ----------
    root : Path
        The folder.

    Raises
    ------
    ConfigError
        There is no such folder.
    """

    def __init__(self, root: Path) -> None:
        if not root.is_dir():
            raise ConfigError(f"the folder of images {root} is not there; name one that is")
        self.root = root
        self._unreadable = 0

    def find(self, dicom_id: str) -> Path:
        """Find the file that an id means.

        An id with a slash is a path below the folder (``./x.png``: in the folder itself), any other a file's name,
        both with or without one of `EXTENSIONS`. Where no name fits, it is a SOP Instance UID: the headers of all
        files are read for that, once.

        Parameters
        ----------
        dicom_id : str
            As the table of questions has it.

        Raises
        ------
        ImageError
            No file is meant, or several that are not the same one.
        """
        wanted = _normal(dicom_id.strip())
        if not wanted:
            raise ImageError("no image is named; fill in the column dicom_id")
        found = self._names.get(wanted.removeprefix("./") if wanted.count("/") > 1 else wanted, [])
        if not found and is_uid(wanted):
            found = [file.path for file in self._by_instance.get(wanted, [])]
        return self._only(wanted, found)

    def series(self, series_uid: str) -> list[DicomFile]:
        """Return the DICOM files of a series, in the order of their paths; all headers are read, once."""
        return [file for file in self._dicom if file.series_uid == series_uid]

    def of_class(self, sop_class_uid: str) -> list[DicomFile]:
        """Return the DICOM files of a SOP class, in the order of their paths."""
        return [file for file in self._dicom if file.sop_class_uid == sop_class_uid]

    def _only(self, wanted: str, found: list[Path]) -> Path:
        distinct = list({os.path.realpath(path): path for path in reversed(found)}.values())[::-1]
        if len(distinct) == 1:
            return distinct[0]
        if not distinct:
            raise ImageError(
                f"no file below {shown(self.root)} is called {shown(wanted)}, with or without an extension"
                + (", and no DICOM file there has it as SOP Instance UID" if is_uid(wanted) else "")
                + (f"; {self._unreadable} folders there cannot be read" if self._unreadable else "")
                + "; check the id and the folder of images"
            )
        names = [shown(self._relative(path)) for path in distinct]
        more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        raise ImageError(
            f"{shown(wanted)} may mean {' or '.join(names[:_NAMED])}{more}; remove all but one, or give the path below "
            f"{shown(self.root)} as the id"
        )

    def _relative(self, path: Path) -> str:
        relative = path.relative_to(self.root)
        return f"./{relative}" if relative.parent == Path() else relative.as_posix()

    @cached_property
    def _files(self) -> list[Path]:
        return sorted(self._walk())

    def _walk(self) -> Iterator[Path]:
        entered: set[tuple[int, int]] = set()
        for folder, folders, names in os.walk(self.root, followlinks=True, onerror=self._count):
            status = os.stat(folder)
            here = (status.st_dev, status.st_ino)
            if here in entered:
                folders.clear()
                continue
            entered.add(here)
            folders[:] = [name for name in sorted(folders) if not name.startswith(".")]
            paths = (Path(folder, name) for name in names if not name.startswith("."))
            # A pipe would never end, a link may lead nowhere.
            yield from (path for path in paths if path.is_file())

    def _count(self, _error: OSError) -> None:
        self._unreadable += 1

    @cached_property
    def _names(self) -> dict[str, list[Path]]:
        names: dict[str, list[Path]] = defaultdict(list)
        for path in self._files:
            relative = _normal(self._relative(path))
            for name in (relative, relative.rpartition("/")[2]):
                stem, dot, extension = name.rpartition(".")
                names[name].append(path)
                if f"{dot}{extension}".lower() in EXTENSIONS and not stem.endswith("/"):
                    names[stem].append(path)
        return names

    @cached_property
    def _by_instance(self) -> dict[str, list[DicomFile]]:
        return _grouped(self._dicom, lambda file: file.sop_instance_uid)

    @cached_property
    def _dicom(self) -> list[DicomFile]:
        candidates = (path for path in self._files if path.suffix.lower() not in PICTURES)
        return [file for file in map(_told, candidates) if file is not None]


def sop_instance_uid(path: Path) -> str:
    """Return a DICOM file's SOP Instance UID; empty when it has none or is no DICOM file."""
    told = _told(path)
    return told.sop_instance_uid if told else ""


def _told(path: Path) -> DicomFile | None:
    try:
        opened = open_part10(path, name=path.name, tags=(_SOP_CLASS, _SOP_INSTANCE, _SERIES), digest=False)
    except InputRejected:  # no image that an id could mean; most folders hold some
        return None
    ds = opened.data_set
    return DicomFile(path, text(ds, _SOP_CLASS), text(ds, _SOP_INSTANCE), text(ds, _SERIES))


def _grouped(files: Iterable[DicomFile], key: Callable[[DicomFile], str]) -> dict[str, list[DicomFile]]:
    groups: dict[str, list[DicomFile]] = defaultdict(list)
    for file in files:
        groups[key(file)].append(file)
    return groups


def _normal(name: str) -> str:
    """Compose letters and their accents: macOS writes them apart, tables seldom do."""
    return unicodedata.normalize("NFC", name)
