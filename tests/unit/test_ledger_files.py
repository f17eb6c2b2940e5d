"""What the ledger reads of a manifest and of an index file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger_node import header, manifest
from m3node.errors import M3NodeError
from m3node.intake.keeper.index import (
    Index,
    RejectedGeneration,
    Settled,
    header_line,
    own_line,
    purged_line,
    refused_line,
    rejected_line,
    seg_line,
    settled_line,
)
from m3node.intake.series.manifest import read_manifest, write_manifest
from m3node.jobs.ledger.files import read_manifest_facts, read_series
from m3node.jobs.ledger.rows import ManifestFacts
from m3node.jobs.ledger.states import SeriesState
from m3node.rejection import Reason, Rejection


def test_a_manifest_is_read_quickly_as_it_is_read_in_full(tmp_path: Path) -> None:
    for made in (manifest("1.2"), manifest("1.2", 2, supersedes="k", stack="ab")):
        path = write_manifest(made, tmp_path)
        assert read_manifest_facts(path) == ManifestFacts.of(read_manifest(path))


def test_a_manifest_that_is_written_otherwise_is_read_in_full(tmp_path: Path) -> None:
    path = write_manifest(manifest("1.2"), tmp_path)
    path.write_text(json.dumps(json.loads(path.read_text()), indent=1))
    assert read_manifest_facts(path) == ManifestFacts.of(manifest("1.2"))


@given(st.integers(0, 5000))
def test_a_torn_manifest_is_an_error(tmp_path_factory: pytest.TempPathFactory, length: int) -> None:
    path = write_manifest(manifest("1.2"), tmp_path_factory.mktemp("manifests"))
    content = path.read_bytes()
    path.write_bytes(content[: min(length, len(content) - 1)])
    with pytest.raises(M3NodeError):
        read_manifest_facts(path)


def test_the_index_says_where_a_series_stands(tmp_path: Path) -> None:
    index, path = Index(tmp_path), tmp_path / "1.2.jsonl"
    index.append("1.2", [refused_line("1.1/1.2/0.dcm", Rejection(Reason.UNREADABLE, "torn", "0"))])
    facts = read_series(path)
    assert facts is not None
    assert (facts.series["study_instance_uid"], facts.series["instances"]) == ("1.1", 0)
    index.append("1.2", [header_line(header("1.2", 3)), own_line("1.1/1.2/4.dcm"), seg_line(header("1.9", 1))])
    index.append("1.2", [rejected_line(RejectedGeneration("", 1, "d"))])
    facts = read_series(path)
    assert facts is not None
    assert facts.series["state"] is SeriesState.RECEIVING
    index.append("1.2", [settled_line(Settled(3, unfit=False))])
    facts = read_series(path)
    assert facts is not None
    assert facts.series["state"] is SeriesState.ANSWERED
    assert [row["path"] for row in facts.instances] == ["1.1/1.2/3.dcm"]
    assert facts.series["first_received_at"] == facts.series["last_received_at"] == 23.0
    index.append("1.2", [header_line(header("1.2", 4))])
    facts = read_series(path)
    assert facts is not None
    assert (facts.series["state"], facts.series["instances"]) == (SeriesState.RECEIVING, 2)


def test_a_series_whose_pixels_were_removed_is_remembered_with_its_instances(tmp_path: Path) -> None:
    index, path = Index(tmp_path), tmp_path / "1.2.jsonl"
    index.append("1.2", [header_line(header("1.2", number)) for number in range(3)])
    index.append("1.2", [settled_line(Settled(3, unfit=False))])
    index.append("1.2", [purged_line(99.5), settled_line(Settled(0, unfit=False, purged=True))])
    facts = read_series(path)
    assert facts is not None
    assert (facts.series["state"], facts.series["purged_at"]) == (SeriesState.PURGED, 99.5)
    assert (facts.series["instances"], len(facts.instances)) == (3, 3)


def test_a_line_that_a_crash_tore_is_left_to_the_keeper(tmp_path: Path) -> None:
    Index(tmp_path).append("1.2", [header_line(header("1.2", 0)), settled_line(Settled(1, unfit=False))])
    path = tmp_path / "1.2.jsonl"
    with path.open("a") as stream:
        stream.write('{"header": {"pa')
    before = path.read_bytes()
    facts = read_series(path)
    assert facts is not None
    assert facts.series["instances"] == 1
    assert path.read_bytes() == before
