"""A disk that is small enough to be full: a tmpfs, mounted for a test by the superuser."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from conftest import missing


class SmallDisk:
    """A mounted file system.

    Parameters
    ----------
    folder : Path
        Where it is mounted.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._filler = folder / "filler"

    def fill(self) -> None:
        """Leave not one byte, also of what others give back meanwhile; what they give back later is theirs."""
        with self._filler.open("ab", buffering=0) as stream:
            while os.statvfs(self.folder).f_bavail:
                for size in (1 << 16, 1 << 12, 1):
                    with suppress(OSError):
                        while True:
                            stream.write(b"\0" * size)

    def empty(self) -> None:
        """Give back what `fill` took."""
        self._filler.unlink()


@contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[SmallDisk]:
    """Mount an empty disk on a folder; skip without the right to."""
    folder.mkdir(parents=True, exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "m3node-test", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, check=False, capture_output=True).returncode != 0:
        missing("the right to mount a tmpfs")
    try:
        yield SmallDisk(folder)
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
