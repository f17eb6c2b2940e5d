"""Unpacks a ZIP that may have been made to do harm: nothing leaves the folder, nothing grows without bound."""

from __future__ import annotations

import shutil
import stat
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from m3node.errors import InputRejected
from m3node.rejection import Reason

MAX_RATIO = 250
"""Unpacked to packed bytes. CT packs to a half or a third; deflate can reach 1032, on bytes that are all alike."""

RATIO_MATTERS_FROM = 256 * 1024**2
"""Unpacked bytes from which the ratio counts; a small archive of nearly empty slices is no bomb."""

_CHUNK = 1024**2
_ENCRYPTED = 0x1


def unpack_zip(path: Path, folder: Path, *, max_unpacked_bytes: int, max_members: int) -> None:
    """Unpack every file of an archive below ``folder``.

    Parameters
    ----------
    path : Path
        The archive.
    folder : Path
        An empty folder of our own.
    max_unpacked_bytes, max_members : int
        Limits on the whole archive; bytes are counted as they come, not as the archive claims.

    Raises
    ------
    InputRejected
        ``UNSAFE_ARCHIVE``: absolute names, names that leave the folder, links, two members of one name, or beyond a
        limit. ``UNREADABLE``: damaged, encrypted, or no room on the disk.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = [member for member in archive.infolist() if not member.is_dir()]
            _check(members, path, max_unpacked_bytes, max_members)
            if sum(member.file_size for member in members) > shutil.disk_usage(folder).free:
                raise InputRejected(Reason.UNREADABLE, f"there is no room on the disk to unpack {path.name}")
            left = max_unpacked_bytes
            for member in members:
                left -= _unpack(archive, member, folder, left, path.name)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
        raise InputRejected(Reason.UNREADABLE, f"{path.name} is a damaged or unusual ZIP: pack it again") from error
    except OSError as error:
        raise InputRejected(Reason.UNREADABLE, f"{path.name} cannot be unpacked: {error.strerror}") from error


def _check(members: list[zipfile.ZipInfo], path: Path, max_unpacked_bytes: int, max_members: int) -> None:
    if len(members) > max_members:
        raise _unsafe(path.name, f"it holds {len(members)} files, and {max_members} are the limit")
    total = sum(member.file_size for member in members)
    if total > max_unpacked_bytes:
        raise _unsafe(path.name, f"it unpacks to {total} bytes, and {max_unpacked_bytes} are the limit")
    if total > RATIO_MATTERS_FROM and total > MAX_RATIO * max(1, path.stat().st_size):
        raise _unsafe(path.name, f"it unpacks to more than {MAX_RATIO} times its size")
    names: set[PurePosixPath] = set()
    for number, member in enumerate(members, start=1):
        name = PurePosixPath(member.filename)
        if name.is_absolute() or ".." in name.parts or "\\" in member.filename or ":" in name.parts[0]:
            raise _unsafe(path.name, f"file {number} has a name that leads out of it")
        if stat.S_ISLNK(member.external_attr >> 16):
            raise _unsafe(path.name, f"file {number} is a link")
        if name in names:
            raise _unsafe(path.name, f"file {number} has the name of another one")
        if member.flag_bits & _ENCRYPTED:
            raise InputRejected(Reason.UNREADABLE, f"{path.name} is encrypted; pack it without a password")
        names.add(name)


def _unpack(archive: zipfile.ZipFile, member: zipfile.ZipInfo, folder: Path, left: int, name: str) -> int:
    target = folder.joinpath(*PurePosixPath(member.filename).parts)
    target.parent.mkdir(parents=True, exist_ok=True)
    written = 0
    with archive.open(member) as source, open(target, "xb") as out:
        while chunk := source.read(_CHUNK):
            written += len(chunk)
            if written > left:
                raise _unsafe(name, "it unpacks to more than it announces and than the limit allows")
            out.write(chunk)
    return written


def _unsafe(name: str, why: str) -> InputRejected:
    return InputRejected(Reason.UNSAFE_ARCHIVE, f"{name} is not unpacked: {why}")
