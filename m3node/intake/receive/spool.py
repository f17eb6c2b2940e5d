"""Puts a received instance on disk so that it is whole, durable and never replaced (decision 4 of the design).

The bytes go to a temporary file in the same file system, ``fdatasync``, a hard link to the final name (a rename would
silently replace another sender's file), ``fsync`` of the folder and, the first time a folder is used, of its parents.
Only then may the sender hear 0x0000.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import struct
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Literal

from m3node.disk import Watermark
from m3node.durable import sync_folder
from m3node.identity import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION
from m3node.intake.receive.identity import Identity
from m3node.layout import DataLayout
from m3node.process import process_started

LOGGER = logging.getLogger(__name__)

INCOMING = ".incoming"
"""Folder below the spool for files that are still being written; ``<pid>.<started>.<serial>.part``."""

Buffer = bytes | bytearray | memoryview

_serial = count()
_FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Stored:
    """Where an instance lies.

    Attributes
    ----------
    path : Path
        Its file.
    status : str
        ``new``; ``duplicate`` when the same bytes were there before; ``revision`` when the SOP Instance UID was there
        with other bytes.
    """

    path: Path
    status: Literal["new", "duplicate", "revision"]


class Spool:
    """Stores instances for one process; safe to use from several threads and besides other processes.

    Parameters
    ----------
    layout : DataLayout
        Its folders must exist.
    durable : bool
        False leaves out ``fdatasync`` and ``fsync``: only to measure what they cost.
    room : Watermark, optional
        Below it nothing is stored.

    Attributes
    ----------
    incoming : Path
        Folder for files that are not finished.
    room : Watermark or None
        As given.
    """

    def __init__(self, layout: DataLayout, *, durable: bool = True, room: Watermark | None = None) -> None:
        self.room = room
        self.data_root = layout.root
        self._root = layout.spool
        self.incoming = self._root / INCOMING
        self.incoming.mkdir(exist_ok=True)
        self._durable = durable
        self._prefix = f"{os.getpid()}.{process_started(os.getpid())}"
        # Folders whose own entries in their parents are known to be on disk, by device and inode: a folder that
        # another process made may not be, so that each process synchronises the parents once for itself.
        self._settled: set[tuple[int, int]] = set()

    def store(self, identity: Identity, data: Buffer, *, transfer_syntax_uid: str, sender: str) -> Stored:
        """Store one instance.

        Parameters
        ----------
        identity : Identity
            Its UIDs, already validated: they name folders and the file.
        data : bytes-like
            The encoded data set, as received.
        transfer_syntax_uid : str
            How it is encoded.
        sender : str
            Calling AE title; kept as Source Application Entity Title (0002,0016).

        Returns
        -------
        Stored
            Once this returns, a power cut does not lose the instance.

        Raises
        ------
        OSError
            The disk is full, or too full by its watermark, or broken; no part of the instance is left behind.
        """
        if self.room is not None and self.room.below():
            raise OSError(errno.ENOSPC, f"less than {self.room.mb:g} MB are free (disk.refuse_free_mb)")
        folder = self._root / identity.study_instance_uid / identity.series_instance_uid
        meta = file_meta(identity, transfer_syntax_uid, sender)
        temporary = self.incoming / f"{self._prefix}.{next(_serial)}.part"
        folder_fd = self._open_folder(folder)
        try:
            try:
                self._write(temporary, (meta, data))
                stored = _link(temporary, folder, identity.sop_instance_uid, transfer_syntax_uid, data)
            finally:
                with suppress(FileNotFoundError):
                    temporary.unlink()
            # Also for a duplicate: who stored it first may not have come to this line yet.
            self._settle(folder, folder_fd)
        finally:
            os.close(folder_fd)
        return stored

    def _open_folder(self, folder: Path) -> int:
        try:
            return os.open(folder, _FOLDER_FLAGS)
        except FileNotFoundError:
            folder.mkdir(parents=True, exist_ok=True)
            return os.open(folder, _FOLDER_FLAGS)

    def _write(self, path: Path, parts: Sequence[Buffer]) -> None:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640)
        try:
            write_all(fd, parts)
            if self._durable:
                os.fdatasync(fd)
        finally:
            os.close(fd)

    def _settle(self, folder: Path, folder_fd: int) -> None:
        if not self._durable:
            return
        os.fsync(folder_fd)
        status = os.fstat(folder_fd)
        key = (status.st_dev, status.st_ino)
        if key in self._settled:
            return
        for parent in (folder.parent, self._root):
            sync_folder(parent)
        self._settled.add(key)


def _link(temporary: Path, folder: Path, sop_instance_uid: str, transfer_syntax_uid: str, data: Buffer) -> Stored:
    """Give the file its name; when the name is taken, find out whether by the same bytes."""
    final = folder / f"{sop_instance_uid}.dcm"
    if (new := _name(temporary, final, transfer_syntax_uid, data)) is not None:
        return Stored(final, "new" if new else "duplicate")
    digest = encoding_digest(transfer_syntax_uid, data)
    # Eight digits tell revisions of one instance apart but for a chance of one in 4 billion; then all of them do.
    for digits in (8, len(digest)):
        revision = folder / f"{sop_instance_uid}.r{digest[:digits]}.dcm"
        if (new := _name(temporary, revision, transfer_syntax_uid, data)) is not None:
            return Stored(revision, "revision" if new else "duplicate")
    raise FileExistsError(f"a file that is not a revision of {sop_instance_uid} has the name of one")


def _name(temporary: Path, path: Path, transfer_syntax_uid: str, data: Buffer) -> bool | None:
    """Give the file a name: True when it has it, False when the same bytes have it, None when other bytes do."""
    while True:
        try:
            os.link(temporary, path)
        except FileExistsError:
            # The keeper may just be removing what is not needed any more, and then the name is free.
            with suppress(FileNotFoundError):
                return False if _holds(path, transfer_syntax_uid, data) else None
        else:
            return True


def encoding_digest(transfer_syntax_uid: str, data: Buffer) -> str:
    """SHA-256 of an encoded data set together with its transfer syntax.

    The same bytes under two transfer syntaxes (JPEG 2000 sent as .90 and as .91) are two revisions.
    """
    digest = hashlib.sha256(transfer_syntax_uid.encode("ascii") + b"\0")
    digest.update(data)
    return digest.hexdigest()


def _holds(path: Path, transfer_syntax_uid: str, data: Buffer) -> bool:
    """Whether a file of the spool holds this data set in this transfer syntax."""
    with path.open("rb") as file:
        head = file.read(132 + 12)
        if len(head) < 144 or head[128:132] != b"DICM":
            return False
        meta = file.read(struct.unpack_from("<L", head, 140)[0])
        syntax = _element(0x0010, b"UI", transfer_syntax_uid.encode("ascii"))
        if syntax not in meta or os.fstat(file.fileno()).st_size != 144 + len(meta) + len(data):
            return False
        view = memoryview(data)
        step = 1024 * 1024
        return all(file.read(step) == view[pos : pos + step] for pos in range(0, len(view), step))


def _element(number: int, vr: bytes, value: bytes) -> bytes:
    if len(value) % 2:
        value += b"\0" if vr in (b"UI", b"OB") else b" "
    length = struct.pack("<HL", 0, len(value)) if vr == b"OB" else struct.pack("<H", len(value))
    return struct.pack("<HH", 0x0002, number) + vr + length + value


def file_meta(identity: Identity, transfer_syntax_uid: str, sender: str) -> bytes:
    """Encode preamble and file meta information (PS3.10 7.1) of a stored instance.

    Written here and not by pydicom, because it stands in the acknowledged path of every instance.
    """
    elements = b"".join(
        (
            _element(0x0001, b"OB", b"\0\1"),
            _element(0x0002, b"UI", identity.sop_class_uid.encode("ascii")),
            _element(0x0003, b"UI", identity.sop_instance_uid.encode("ascii")),
            _element(0x0010, b"UI", transfer_syntax_uid.encode("ascii")),
            _element(0x0012, b"UI", IMPLEMENTATION_CLASS_UID.encode("ascii")),
            _element(0x0013, b"SH", IMPLEMENTATION_VERSION.encode("ascii")),
            _element(0x0016, b"AE", sender.encode("ascii", errors="replace")[:16]),
        )
    )
    return b"\0" * 128 + b"DICM" + _element(0x0000, b"UL", struct.pack("<L", len(elements))) + elements


def write_all(fd: int, parts: Sequence[Buffer]) -> None:
    """Write every byte; one system call in the ordinary case."""
    left = [memoryview(part).cast("B") for part in parts if len(part)]
    while left:
        written = os.writev(fd, left)
        while left and written >= len(left[0]):
            written -= len(left.pop(0))
        if left and written:
            left[0] = left[0][written:]


def remove_leftovers(layout: DataLayout) -> int:
    """Remove temporary files whose process is gone; such a file was never acknowledged.

    Returns
    -------
    int
        How many.
    """
    removed = 0
    for path in (layout.spool / INCOMING).glob("*.part"):
        pid, _, rest = path.name.partition(".")
        started = rest.partition(".")[0]
        if pid.isdigit() and process_started(int(pid)) != started:
            path.unlink(missing_ok=True)
            removed += 1
    if removed:
        LOGGER.info("removed %d unfinished files of receivers that are gone", removed)
    return removed
