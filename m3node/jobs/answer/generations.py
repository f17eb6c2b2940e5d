"""How the generations of a stack stand to each other: which came before, which is newer, whose turn it is."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

from m3node.errors import M3NodeError
from m3node.intake.series.manifest import Manifest, read_manifest
from m3node.jobs.answer.record import RECORD, read_record, records_of
from m3node.jobs.answer.starts import BEGUN
from m3node.jobs.answer.steps import FINDINGS
from m3node.layout import DataLayout

_log = logging.getLogger(__name__)


def older_runs(manifest: Manifest, layout: DataLayout) -> tuple[Path, ...]:
    """Return the folders of the finished runs that a manifest supersedes, newest first.

    The links are followed, not the names: a stack's label may have changed between generations.
    """
    folders = records_of(layout.results, manifest.stack.series_instance_uid)
    older: list[Path] = []
    key = manifest.supersedes
    while key in folders:
        folder = folders.pop(key)
        older.append(folder)
        record = read_record(folder)
        key = record.supersedes if record is not None else ""
    return tuple(older)


def newer_generation(manifest: Manifest, layout: DataLayout) -> str:
    """Return the key of a manifest that supersedes this one, or an empty string."""
    for _, other in _siblings(manifest, layout):
        if other.supersedes == manifest.key:
            return other.key
    return ""


def run_before(manifest: Manifest, layout: DataLayout) -> str:
    """Return the run of an earlier generation that is under way, or an empty string.

    It goes first, so that an archive never gets the older answer last, and lesions keep their tracking. One that
    nobody has begun need not: it will find that it is superseded, since it writes down that it began before it looks.
    """
    if not manifest.supersedes:
        return ""
    earlier = {other.key: (path, other) for path, other in _siblings(manifest, layout)}
    key = manifest.supersedes
    while key in earlier:
        path, other = earlier.pop(key)
        folder = layout.results / path.stem
        if not (folder / RECORD).exists() and ((folder / BEGUN).exists() or (folder / FINDINGS).exists()):
            return path.stem
        key = other.supersedes
    return ""


def _siblings(manifest: Manifest, layout: DataLayout) -> Iterator[tuple[Path, Manifest]]:
    """The readable generations of the manifest's series, all its stacks."""
    for path in layout.manifests.glob(f"{manifest.stack.series_instance_uid}.*json"):
        try:
            other = read_manifest(path)
        except M3NodeError as error:
            _log.error("%s", error)  # its own turn says more; this run need not wait for it
            continue
        if other.stack.series_instance_uid == manifest.stack.series_instance_uid:
            yield path, other
