"""Seconds and peak memory of a piece of work, on a GPU or on a CPU."""

from __future__ import annotations

import ctypes
import gc
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch


@dataclass(frozen=True, slots=True)
class Meter:
    """Measures work on one device.

    Attributes
    ----------
    device : torch.device
        Where the work is done; a GPU is waited for.
    cpu_time : bool
        Count the process's own seconds instead of the wall's, for a CPU whose cores others want too.
    """

    device: torch.device
    cpu_time: bool = False

    def seconds(self, work: Callable[[], object]) -> float:
        """Time one run."""
        clock = time.process_time if self.cpu_time else time.perf_counter
        self._wait()
        started = clock()
        work()
        self._wait()
        return clock() - started

    def pairs(self, ours: Callable[[], object], rival: Callable[[], object], count: int) -> tuple[list[float], ...]:
        """Time both in turn, after a run of each that does not count."""
        ours()
        rival()
        times: tuple[list[float], list[float]] = ([], [])
        for _ in range(count):
            for work, seconds in zip((ours, rival), times, strict=True):
                seconds.append(self.seconds(work))
        return times

    def peak_mb(self, work: Callable[[], object]) -> float:
        """Most memory during one run: what tensors took on a GPU, else all of the process; weights included."""
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(self.device)
            self.seconds(work)
            return torch.cuda.max_memory_allocated(self.device) / 1e6
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak begins anew
        work()
        return _status_mb("VmHWM")

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def _status_mb(name: str) -> float:
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(f"{name}:"):
            return float(line.split()[1]) * 1.024 / 1000.0
    return 0.0
