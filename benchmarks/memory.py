"""Peak memory of ``m3node run`` on a series of 500 slices: all its processes, sampled from the kernel's own figures.

Proportional set size is what is counted: shared pages (the volume that decoding processes write into) count once.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console

from m3node.evaluation.ct_writer import write_ct_series
from m3node.evaluation.phantom import abdomen_phantom

SLICES = 500
BAR_MB = 900.0
SAMPLE_SECONDS = 0.05


def main() -> int:
    console = Console(width=120)
    with tempfile.TemporaryDirectory(prefix="m3node-memory-") as folder:
        series, out, said = (Path(folder) / name for name in ("series", "out", "said"))
        _write_series(series)
        command = [sys.executable, "-m", "m3node", "run", series, "--out", out]
        started, peak = time.perf_counter(), 0.0
        with said.open("wb") as log, subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT) as process:
            while process.poll() is None:
                peak = max(peak, _tree_mb(process.pid))
                time.sleep(SAMPLE_SECONDS)
        seconds = time.perf_counter() - started
        if process.returncode != 0:
            console.print(said.read_text())
            console.print(f"m3node run ended with status {process.returncode}")
            return 1
    if peak == 0.0:
        sys.exit("the kernel tells no memory figures here: /proc/<pid>/smaps_rollup cannot be read")
    met = peak <= BAR_MB
    console.print(f"Peak memory of m3node run, {SLICES} slices of 512×512 (1 mm), all processes together")
    console.print(f"  {peak:.0f} MB, bar {BAR_MB:.0f} MB: {'met' if met else 'NOT MET'} ({seconds:.0f} s)")
    return 0 if met else 1


def _write_series(folder: Path) -> None:
    # In a process of its own, so that the phantom's memory is gone before the measurement.
    code = f"import memory; memory.write_phantom({str(folder)!r})"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parent)


def write_phantom(folder: str) -> None:
    phantom = abdomen_phantom(shape=(SLICES, 512, 512), spacing=(1.0, 0.8, 0.8))
    write_ct_series(Path(folder), phantom.hu, phantom.geometry, seed="memory benchmark")


def _tree_mb(root: int) -> float:
    return sum(_pss_kb(pid) for pid in _descendants(root)) / 1000.0


def _descendants(root: int) -> list[int]:
    found = [root]
    for pid in found:
        # The kernel lists children by the thread that started them.
        for children in Path(f"/proc/{pid}/task").glob("*/children"):
            found += [int(child) for child in _read(children).split()]
    return found


def _pss_kb(pid: int) -> float:
    for line in _read(Path(f"/proc/{pid}/smaps_rollup")).splitlines():
        if line.startswith("Pss:"):
            return float(line.split()[1]) * 1.024
    return 0.0


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace")
    except OSError:  # the process ended between two looks
        return ""


if __name__ == "__main__":
    sys.exit(main())
