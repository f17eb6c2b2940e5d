"""A detector for tests of everything but detection: it "finds" a block in the middle of any liver, at once.

Installed by being on PYTHONPATH. With ``M3NODE_TEST_STEPS`` every step that a worker begins is a line of that file.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np

from m3node.detectors.protocols import (
    AttentionGrid,
    Box2D,
    Candidate,
    Detection,
    DetectorIdentity,
    ScoreKind,
    SliceAttention,
    SliceBox,
)
from m3node.imaging.mask import VoxelMask
from m3node.imaging.volume import CTVolume
from m3node.liver.region import LiverRegion
from m3node.progress import Progress
from m3node.settings import DetectorSettings

STEPS = "M3NODE_TEST_STEPS"
SECONDS = "M3NODE_TEST_DETECT_SECONDS"
"""How long it looks; not at all when not set."""
HALF = 3


class QuickDetector:
    """Finds one block of liver tissue in the slice that holds most of it."""

    identity = DetectorIdentity("quick", "1", "Finds what is not there; for tests only.")
    keep_attention = False

    @classmethod
    def from_settings(cls, settings: DetectorSettings) -> QuickDetector:
        if path := os.environ.get(STEPS):
            _note_steps(Path(path))
        return cls()

    def find(self, volume: CTVolume, region: LiverRegion, progress: Progress) -> Detection:
        seconds = float(os.environ.get(SECONDS, "0"))
        parts = max(1, int(seconds / 0.1))
        for part in range(parts):
            progress("looking", part, parts)
            time.sleep(seconds / parts)
        tissue = region.parenchyma
        counts = tissue.data.sum(axis=(1, 2))
        k = tissue.start[0] + int(np.argmax(counts))
        plane = tissue.on_slice(k)
        rows, columns = np.nonzero(plane)
        r, c = int(np.median(rows)), int(np.median(columns))
        r0, c0 = max(0, r - HALF), max(0, c - HALF)
        block = np.ascontiguousarray(plane[np.newaxis, r0 : r + HALF, c0 : c + HALF])
        height, width = block.shape[1:]
        mask = VoxelMask(shape=tissue.shape, start=(k, r0, c0), data=block)
        box = Box2D(float(r0), float(c0), float(r0 + height), float(c0 + width))
        boxes = (SliceBox(slice_index=k, box=box, score=1.0, votes=1, views=1),)
        candidate = Candidate(boxes=boxes, score=1.0, score_kind=ScoreKind.PROBABILITY, mask=mask)
        attention = (SliceAttention(k, _grid(tissue.shape), box, padding=0.1),) if self.keep_attention else ()
        return Detection(candidates=(candidate,), views_total=1, views_read=1, attention=attention)


def _grid(shape: tuple[int, int, int]) -> AttentionGrid:
    """Attention that grows from corner to corner of the slice."""
    values = np.linspace(0.0, 0.004, 64, dtype=np.float32).reshape(8, 8)
    return AttentionGrid(values, Box2D(0.0, 0.0, float(shape[1]), float(shape[2])))


def _note_steps(path: Path) -> None:
    """Have this worker write down each step that it begins."""
    from m3node.jobs.engine import jobs

    work_on = jobs.work_on

    def noted(bench: Any, step: str, run: str, *more: Any) -> Any:
        line = json.dumps({"at": time.time(), "worker": bench.name, "step": step, "run": run})
        with path.open("a", encoding="ascii") as stream:
            stream.write(f"{line}\n")
        return work_on(bench, step, run, *more)

    jobs.work_on = noted
