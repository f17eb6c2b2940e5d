"""The index is a memory of the spool that survives being torn."""

from __future__ import annotations

import resource
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from m3node.intake.keeper.index import (
    Index,
    RejectedGeneration,
    Settled,
    content_line,
    content_of,
    header_line,
    own_line,
    purged_line,
    refused_line,
    rejected_line,
    seg_line,
    series_files,
    settled_line,
    spooled_series,
    stat_line,
)
from m3node.rejection import Reason, Rejection
from made_headers import HEADER

SEG = replace(HEADER, path="1.1/1.9/1.8.dcm", sop_instance_uid="1.8", series_instance_uid="1.9")
REFUSED = Rejection(Reason.UNREADABLE, "damaged", "1.1/1.2/1.5.dcm")
FACTS = [
    header_line(HEADER),
    refused_line(REFUSED.subject, REFUSED),
    own_line("1.1/1.2/1.6.dcm"),
    content_line(HEADER.path, "ef"),
    seg_line(SEG),
    rejected_line(RejectedGeneration("", 1, "key")),
    settled_line(Settled(3, unfit=True)),
]


@pytest.fixture
def index(tmp_path: Path) -> Index:
    return Index(tmp_path)


def test_what_was_noted_is_known_again(index: Index, tmp_path: Path) -> None:
    index.append("1.2", FACTS[:4])
    index.append("1.2", FACTS[4:])
    record = index.load("1.2")
    assert record.headers == {HEADER.path: HEADER}
    assert record.refused == {REFUSED.subject: REFUSED}
    assert record.own == {"1.1/1.2/1.6.dcm"}
    assert record.contents == {HEADER.path: "ef"}
    assert record.segs == {SEG.path: SEG}
    assert record.rejected == [RejectedGeneration("", 1, "key")]
    assert record.settled == index.settled("1.2") == Settled(record.files, unfit=True)
    assert len((tmp_path / "1.2.jsonl").read_bytes().splitlines()) == len(FACTS)


@pytest.mark.parametrize("began", [False, True], ids=["no file", "an empty file"])
def test_a_series_of_which_nothing_was_noted_is_empty(index: Index, tmp_path: Path, began: bool) -> None:
    if began:
        (tmp_path / "1.2.jsonl").touch()
    assert index.load("1.2").files == 0
    assert index.settled("1.2") is None


def test_any_fact_after_settling_unsettles(index: Index) -> None:
    index.append("1.2", [settled_line(Settled(1, unfit=False)), own_line("1.1/1.2/1.7.dcm")])
    assert index.settled("1.2") is None
    assert index.load("1.2").settled is None


def test_what_was_removed_is_known_apart_from_what_is_there(index: Index) -> None:
    later = replace(HEADER, sha256="cd")
    index.append("1.2", [stat_line(), *FACTS, purged_line(1.5), header_line(later)])
    record = index.load("1.2")
    assert record.purged == {content_of(HEADER): HEADER}
    assert (record.purged_at, record.files, record.urgent) == (1.5, 1, True)
    assert record.headers == {HEADER.path: later}, "the same name, other bytes"
    assert (record.refused, record.own, record.contents) == ({}, set(), {})
    assert (list(record.segs), len(record.rejected)) == ([SEG.path], 1)
    index.append("1.2", [purged_line(2.5), settled_line(Settled(0, unfit=False, purged=True))])
    record = index.load("1.2")
    assert record.purged == {content_of(HEADER): HEADER, content_of(later): later}
    assert (record.purged_at, record.files) == (2.5, 0)
    assert record.settled == index.settled("1.2") == Settled(0, unfit=False, purged=True)


def test_an_index_of_an_older_release_was_not_purged(index: Index, tmp_path: Path) -> None:
    (tmp_path / "1.2.jsonl").write_text('{"settled":{"files":3,"unfit":true}}\n')
    assert index.settled("1.2") == Settled(3, unfit=True)


def test_a_fact_of_which_the_disk_took_a_part_counts_as_not_written(index: Index, tmp_path: Path) -> None:
    index.append("1.2", [header_line(HEADER)])
    size = (tmp_path / "1.2.jsonl").stat().st_size
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    # As on a full disk, the system takes what fits, and Python says how much that was.
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 10, before[1]))
    try:
        with pytest.raises(OSError, match="No space left"):
            index.append("1.2", [seg_line(SEG)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    index.append("1.2", [seg_line(SEG)])
    record = index.load("1.2")
    assert (list(record.headers), list(record.segs)) == ([HEADER.path], [SEG.path])


@given(cut=st.integers(min_value=1, max_value=200))
def test_a_torn_end_is_cut_off_and_what_is_noted_next_is_whole(
    cut: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("index")
    index = Index(folder)
    index.append("1.2", FACTS)
    path = folder / "1.2.jsonl"
    left = path.read_bytes()[:-cut]
    path.write_bytes(left)
    assert index.settled("1.2") is None
    torn = index.load("1.2")
    assert (torn.headers, torn.settled) == ({HEADER.path: HEADER}, None)
    assert path.read_bytes() == left[: left.rfind(b"\n") + 1]
    index.append("1.2", [own_line("1.1/1.2/late.dcm")])
    assert "1.1/1.2/late.dcm" in index.load("1.2").own


def test_a_torn_line_does_not_take_the_next_with_it(index: Index, tmp_path: Path) -> None:
    with (tmp_path / "1.2.jsonl").open("ab") as stream:
        stream.write(b'{"header": {"path": "1.1/')
    index.append("1.2", [seg_line(SEG)])
    assert index.load("1.2").segs == {SEG.path: SEG}


def test_a_line_that_a_power_cut_zeroed_is_left_out(index: Index, tmp_path: Path) -> None:
    index.append("1.2", [header_line(HEADER)])
    with (tmp_path / "1.2.jsonl").open("ab") as stream:
        stream.write(b"\0" * 64 + b"\n")
    index.append("1.2", [own_line("1.1/1.2/1.6.dcm"), settled_line(Settled(3, unfit=True))])
    record = index.load("1.2")
    assert record.knows(HEADER.path)
    assert record.knows("1.1/1.2/1.6.dcm")
    assert record.files == 2


def test_the_spool_is_walked_by_series_over_studies_without_unfinished_files(tmp_path: Path) -> None:
    for name in ("1.1/1.2/a.dcm", "1.1/1.2/a.r0a1b2c3d.dcm", "1.5/1.2/b.dcm", ".incoming/9/c.part", "1.1/1.3/d.dcm"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    found = spooled_series(tmp_path)
    assert found == {"1.2": [tmp_path / "1.1/1.2", tmp_path / "1.5/1.2"], "1.3": [tmp_path / "1.1/1.3"]}
    assert [path.name for path in series_files(found["1.2"])] == ["a.dcm", "a.r0a1b2c3d.dcm", "b.dcm"]
