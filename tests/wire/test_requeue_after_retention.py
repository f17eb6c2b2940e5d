"""What retention has removed is not asked for again: the person is told, before anything that is left is touched."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from m3node.delivery.outbox import box_of, waiting
from m3node.delivery.recall import cancel_one
from m3node.evaluation.ct_writer import axial_geometry
from m3node.intake.keeper.index import Index, header_line
from m3node.intake.keeper.purging import purge
from m3node.intake.series.manifest import Manifest, write_manifest
from m3node.jobs.answer.closing import close
from m3node.jobs.answer.steps import find, make_detector
from m3node.jobs.engine.actions import Refused
from m3node.jobs.keeping.house import REMOVABLE
from m3node.progress import silent
from m3node.rejection import Reason, Rejection
from m3node.results.store import ATTENTION_FILE, save_findings
from made_findings import made_findings, with_attention
from working import SHAPE, Workplace, run_of, workplace

ARCHIVE = '[[destinations]]\nname = "archive"\nae_title = "ARCHIVE"\nhost = "127.0.0.1"\nport = 1\n'


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Workplace]:
    with workplace(tmp_path, toml=ARCHIVE) as place:
        yield place


def end(place: Workplace, manifest: Manifest, *, failed: str = "", cancelled: str = "") -> Path:
    """End a run, and return its folder."""
    folder = place.layout.results / run_of(manifest)
    folder.mkdir(exist_ok=True)
    rejection = Rejection(Reason.FAILED, failed, run_of(manifest)) if failed else None
    note = place.ledger.note_entry
    close(manifest, place.layout, place.settings, worker="slot-0", note=note, rejection=rejection, cancelled=cancelled)
    return folder


def received_files(place: Workplace, manifest: Manifest) -> list[Path]:
    return [place.layout.spool / header.path for header in manifest.instances]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("how", ["failed", "cancelled"])
def test_a_run_whose_pixels_were_removed_is_refused_and_stays_as_it_is(place: Workplace, how: str) -> None:
    manifest = place.series(0)
    folder = end(place, manifest, **{how: "for the test"})
    before = contents(folder)
    series = manifest.stack.series_instance_uid
    index = Index(place.layout.index)
    index.append(series, [header_line(header) for header in manifest.instances])
    files = received_files(place, manifest)
    assert purge(series, [files[0].parent], place.layout.spool, index)
    with pytest.raises(Refused, match=r"removed \(retention.received_hours\).*send all of it under a new Series"):
        place.actions.requeue_run(run_of(manifest))
    assert contents(folder) == before
    for path in files:  # as a kill leaves them: the keeper removes them when it starts
        path.touch()
    with pytest.raises(Refused, match=r"retention\.received_hours"):
        place.actions.requeue_run(run_of(manifest))


def test_a_run_that_lacks_one_of_its_files_is_refused(place: Workplace) -> None:
    manifest = place.series(0)
    end(place, manifest, failed="for the test")
    received_files(place, manifest)[3].unlink()
    with pytest.raises(Refused, match="received files"):
        place.actions.requeue_run(run_of(manifest))
    assert place.record(manifest) is not None


def test_a_run_that_lacks_the_liver_that_was_received_with_it_is_refused(place: Workplace) -> None:
    bare = place.series(0)
    liver = replace(bare.instances[0], path="study/liver.dcm")
    (place.layout.manifests / bare.file_name).unlink()
    manifest = replace(bare, liver_segs=(liver,))
    write_manifest(manifest, place.layout.manifests)
    end(place, manifest, failed="for the test")
    with pytest.raises(Refused, match="received files"):
        place.actions.requeue_run(run_of(manifest))
    (place.layout.spool / liver.path).touch()
    assert "is queued again" in place.actions.requeue_run(run_of(manifest))


def test_a_run_whose_masks_or_maps_were_removed_is_refused_and_one_with_all_of_them_is_not(place: Workplace) -> None:
    findings = with_attention(made_findings(axial_geometry(SHAPE, (2.0, 1.0, 1.0))))
    lacking, mapless, whole = (place.series(number) for number in range(3))
    for manifest in (lacking, mapless, whole):
        folder = place.layout.results / run_of(manifest)
        folder.mkdir()
        save_findings(findings, folder)
        end(place, manifest, failed="no objects could be built")
    for name in REMOVABLE:
        (place.layout.results / run_of(lacking) / name).unlink(missing_ok=True)
    (place.layout.results / run_of(mapless) / ATTENTION_FILE).unlink()
    for manifest, gone in ((lacking, r"masks\.npz and no attention\.npz"), (mapless, r"attention\.npz")):
        with pytest.raises(Refused, match=rf"has no {gone} any more \(retention.results_days\)"):
            place.actions.requeue_run(run_of(manifest))
        assert place.record(manifest) is not None
    assert "is queued again" in place.actions.requeue_run(run_of(whole))


def test_a_delivery_whose_object_was_removed_is_refused(place: Workplace) -> None:
    manifest = place.series(0)
    folder = place.layout.results / run_of(manifest)
    folder.mkdir()
    find(manifest, folder, place.settings, make_detector(place.settings), silent)
    end(place, manifest)
    box = box_of(place.layout, "archive")
    entry, *_ = waiting(box)
    cancel_one(place.layout, "archive", entry.name, "a mistake")
    (place.layout.root / entry.path).unlink()
    with pytest.raises(Refused, match=r"object of .* was removed \(retention.results_days\)"):
        place.actions.requeue_delivery("archive", entry.name)
    assert (box.aside / f"{entry.name}.json").exists()
