"""A disk of a few megabytes that a test can fill: a tmpfs that only one child process, and who looks into it, sees."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from conftest import missing

_BALLAST = ".ballast"


def unshared(folder: Path, megabytes: int) -> list[str]:
    """Return what goes before a command so that it finds an empty small disk at a folder; skip where that is forbidden.

    The command keeps its process ID, and the disk goes with its last process. From outside, the disk is below
    ``/proc/<pid>/root``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    mount = f'mount -t tmpfs -o size={megabytes}m,mode=0755 tmpfs "$0" && exec "$@"'
    for options in (["-m"], ["-r", "-m"]):
        command = ["unshare", *options, "sh", "-c", mount, str(folder)]
        if (
            shutil.which("unshare")
            and subprocess.run([*command, "true"], check=False, capture_output=True).returncode == 0
        ):
            return command
    missing("leave to mount a small disk (unshare -m)")
    raise AssertionError


def run_on_small_disk(folder: Path, megabytes: int, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a Python program of a test, with the tests' modules at hand, to its end."""
    command: Sequence[str] = [*unshared(folder, megabytes), sys.executable, "-c", program, *arguments]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    return subprocess.run(command, check=False, capture_output=True, text=True, env=environment, timeout=300)


def fill(folder: Path) -> None:
    """Leave no byte on a folder's disk."""
    with (folder / _BALLAST).open("ab", buffering=0) as ballast:
        for size in (1 << 20, 1 << 12, 1):
            try:
                while ballast.write(b"x" * size):
                    pass
            except OSError:
                continue


def give_back(folder: Path) -> None:
    """Free what `fill` took."""
    (folder / _BALLAST).unlink()
