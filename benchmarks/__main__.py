"""``make bench``: every benchmark in turn, each in a process of its own, then which of them met their bars."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

BENCHMARKS = ("receive", "idle", "volume", "results", "memory", "jobs", "detector", "attention")


def main() -> int:
    folder = Path(__file__).parent
    status = {
        name: subprocess.run([sys.executable, folder / f"{name}.py"], check=False).returncode for name in BENCHMARKS
    }
    print()
    for name, code in status.items():
        print(f"{name}: {'bars met' if code == 0 else 'NOT MET, or it could not be run: see above'}")
    return int(any(status.values()))


if __name__ == "__main__":
    sys.exit(main())
