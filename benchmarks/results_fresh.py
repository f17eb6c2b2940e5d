"""``results_fresh.py RUN MANIFEST OUT``: build a run's objects in an interpreter that has just started."""

from __future__ import annotations

import sys
from pathlib import Path

from m3node.intake.series.manifest import read_manifest
from m3node.results.build import build_objects
from m3node.results.store import load_findings
from m3node.settings import Settings


def main(run: Path, manifest: Path, out: Path) -> int:
    objects = build_objects(load_findings(run), read_manifest(manifest), out, Settings())
    return 0 if len(objects) == 4 else 1


if __name__ == "__main__":
    sys.exit(main(*map(Path, sys.argv[1:])))
