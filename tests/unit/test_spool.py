"""An acknowledged instance is whole, durable, and never replaced by another sender's."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.filereader import data_element_generator

from m3node.identity import IMPLEMENTATION_CLASS_UID
from m3node.intake.receive import spool as spool_module
from m3node.intake.receive.identity import Identity
from m3node.intake.receive.spool import INCOMING, Spool, Stored, encoding_digest, file_meta, remove_leftovers
from m3node.layout import DataLayout

EXPLICIT = "1.2.840.10008.1.2.1"
IDENTITY = Identity("1.2.840.10008.5.1.4.1.1.2", "2.25.3", "2.25.1", "2.25.2")
FINAL = "2.25.1/2.25.2/2.25.3.dcm"
# (0010,0010) PN "A^B", Explicit VR Little Endian
DATA = b"\x10\x00\x10\x00PN\x04\x00A^B "
OTHER = b"\x10\x00\x10\x00PN\x04\x00A^C "


@pytest.fixture
def layout(tmp_path: Path) -> DataLayout:
    layout = DataLayout(tmp_path / "data")
    layout.create()
    return layout


def store(spool: Spool, data: bytes = DATA, syntax: str = EXPLICIT) -> Stored:
    return spool.store(IDENTITY, data, transfer_syntax_uid=syntax, sender="CT1")


def files(layout: DataLayout) -> set[str]:
    return {str(path.relative_to(layout.spool)) for path in layout.spool.rglob("*") if path.is_file()}


def test_the_file_holds_the_bytes_as_they_came_and_who_sent_them(layout: DataLayout) -> None:
    stored = store(Spool(layout))
    assert stored == Stored(layout.spool / FINAL, "new")
    assert files(layout) == {FINAL}
    content = stored.path.read_bytes()
    assert content.endswith(DATA)
    assert content[: -len(DATA)] == file_meta(IDENTITY, EXPLICIT, "CT1")
    ds = pydicom.dcmread(stored.path)
    assert ds.PatientName == "A^B"
    meta = ds.file_meta
    assert meta.SourceApplicationEntityTitle == "CT1"
    assert meta.TransferSyntaxUID == EXPLICIT
    assert meta.MediaStorageSOPClassUID == IDENTITY.sop_class_uid
    assert meta.MediaStorageSOPInstanceUID == IDENTITY.sop_instance_uid
    assert meta.ImplementationClassUID == IMPLEMENTATION_CLASS_UID
    assert meta.FileMetaInformationVersion == b"\0\1"


uid_text = st.lists(st.integers(0, 10**6).map(str), min_size=1, max_size=8).map(".".join)
titles = st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="\\"), min_size=1, max_size=16)


@settings(deadline=None)
@given(uid=uid_text, syntax=uid_text, sender=titles)
def test_the_file_meta_information_is_read_back_by_pydicom(uid: str, syntax: str, sender: str) -> None:
    encoded = file_meta(Identity(uid, uid, uid, uid), syntax, sender)
    buffer = BytesIO(encoded)
    pydicom.filereader.read_preamble(buffer, force=False)
    meta = pydicom.filereader._read_file_meta_info(buffer)
    assert buffer.tell() == len(encoded)
    assert (meta.MediaStorageSOPInstanceUID, meta.TransferSyntaxUID) == (uid, syntax)
    assert meta.SourceApplicationEntityTitle == sender


@settings(deadline=None)
@given(uid=uid_text, syntax=uid_text, sender=titles)
def test_every_value_of_the_file_meta_information_has_an_even_length(uid: str, syntax: str, sender: str) -> None:
    # PS3.5 7.1.1; pydicom reads odd ones, others do not.
    stream = BytesIO(file_meta(Identity(uid, uid, uid, uid), syntax, sender))
    stream.seek(132)
    lengths = [element.length for element in data_element_generator(stream, False, True)]
    assert len(lengths) == 8
    assert not any(length % 2 for length in lengths)


def test_the_same_bytes_again_are_a_duplicate_and_stored_once(layout: DataLayout) -> None:
    first = store(Spool(layout))
    before = first.path.stat()
    assert store(Spool(layout)) == Stored(first.path, "duplicate")
    assert files(layout) == {FINAL}
    assert first.path.stat().st_mtime_ns == before.st_mtime_ns


def test_the_same_bytes_from_another_sender_are_a_duplicate(layout: DataLayout) -> None:
    spool = Spool(layout)
    store(spool)
    assert spool.store(IDENTITY, DATA, transfer_syntax_uid=EXPLICIT, sender="A LONGER TITLE").status == "duplicate"


def test_other_bytes_are_a_revision_beside_and_the_first_stays(layout: DataLayout) -> None:
    spool = Spool(layout)
    first = store(spool)
    content = first.path.read_bytes()
    revision = store(spool, OTHER)
    name = f"2.25.3.r{encoding_digest(EXPLICIT, OTHER)[:8]}.dcm"
    assert revision == Stored(first.path.with_name(name), "revision")
    assert first.path.read_bytes() == content
    assert revision.path.read_bytes().endswith(OTHER)
    assert store(spool, OTHER) == Stored(revision.path, "duplicate")
    assert store(spool, DATA) == Stored(first.path, "duplicate")
    assert len(files(layout)) == 2


def test_the_same_bytes_in_another_transfer_syntax_are_a_revision(layout: DataLayout) -> None:
    spool = Spool(layout)
    store(spool, syntax="1.2.840.10008.1.2.4.90")
    assert store(spool, syntax="1.2.840.10008.1.2.4.91").status == "revision"


def test_two_revisions_whose_short_digests_are_equal_are_both_kept(
    layout: DataLayout, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = Spool(layout)
    store(spool)
    real = encoding_digest
    monkeypatch.setattr(spool_module, "encoding_digest", lambda syntax, data: "0" * 8 + real(syntax, data)[8:])
    assert store(spool, OTHER).status == "revision"
    assert store(spool, OTHER + b"\0").status == "revision"
    assert store(spool, OTHER + b"\0").status == "duplicate"
    assert len(files(layout)) == 3


def test_a_broken_file_of_that_name_is_neither_trusted_nor_replaced(layout: DataLayout) -> None:
    path = layout.spool / FINAL
    path.parent.mkdir(parents=True)
    path.write_bytes(b"")
    assert store(Spool(layout)).status == "revision"
    assert path.read_bytes() == b""


def test_data_are_synchronised_before_the_name_and_the_name_before_the_answer(
    layout: DataLayout, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    names: dict[int, str] = {}
    real_open, real_link, real_fdatasync, real_fsync = os.open, os.link, os.fdatasync, os.fsync

    def opened(path: Path, *args: int, **kwargs: int) -> int:
        handle = real_open(path, *args, **kwargs)
        names[handle] = "data" if Path(path).suffix == ".part" else str(Path(path).relative_to(layout.root))
        return handle

    def noted(what: str, function: Callable[..., None]) -> Callable[..., None]:
        def call(*args: int) -> None:
            calls.append(" ".join([what, *(names[argument] for argument in args if argument in names)]))
            function(*args)

        return call

    monkeypatch.setattr(os, "open", opened)
    monkeypatch.setattr(os, "link", noted("link", real_link))
    monkeypatch.setattr(os, "fdatasync", noted("fdatasync", real_fdatasync))
    monkeypatch.setattr(os, "fsync", noted("fsync", real_fsync))
    spool = Spool(layout)
    store(spool)
    series = "fsync spool/2.25.1/2.25.2"
    assert calls == ["fdatasync data", "link", series, "fsync spool/2.25.1", "fsync spool"]
    calls.clear()
    store(spool)  # a duplicate: its first sender may have died before the name was durable
    assert calls[-1] == series


def test_another_process_synchronises_the_parents_for_itself(
    layout: DataLayout, monkeypatch: pytest.MonkeyPatch
) -> None:
    store(Spool(layout))
    synchronised: list[Path] = []
    monkeypatch.setattr(spool_module, "sync_folder", synchronised.append)
    spool = Spool(layout)
    store(spool)
    assert synchronised == [layout.spool / "2.25.1", layout.spool]
    store(spool)
    assert len(synchronised) == 2


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
@pytest.mark.parametrize("call", ["writev", "fdatasync", "link"])
def test_a_disk_that_fails_leaves_nothing_behind(
    layout: DataLayout, monkeypatch: pytest.MonkeyPatch, call: str, code: int
) -> None:
    spool = Spool(layout)

    def fail(*args: object) -> None:
        if call == "writev":
            os.write(int(str(args[0])), b"half")
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as broken:
        broken.setattr(os, call, fail)
        with pytest.raises(OSError, match=os.strerror(code)):
            store(spool)
    assert files(layout) == set()
    assert store(spool).status == "new"


def test_a_short_write_is_continued(layout: DataLayout, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.writev
    monkeypatch.setattr(os, "writev", lambda fd, parts: real(fd, [memoryview(parts[0])[:7]]))
    assert store(Spool(layout)).path.read_bytes() == file_meta(IDENTITY, EXPLICIT, "CT1") + DATA


def test_a_folder_removed_under_the_spool_is_made_again(layout: DataLayout) -> None:
    spool = Spool(layout)
    store(spool)
    shutil.rmtree(layout.spool / "2.25.1")
    assert store(spool).status == "new"


@pytest.mark.parametrize("same", [True, False], ids=["same-bytes", "other-bytes"])
def test_many_senders_of_one_instance_at_once_lose_nothing(layout: DataLayout, same: bool) -> None:
    spools = [Spool(layout) for _ in range(8)]
    barrier = threading.Barrier(len(spools))
    results: list[tuple[bytes, Stored]] = []

    def send(number: int, spool: Spool) -> None:
        data = DATA if same else DATA + bytes([number]) * 1000
        barrier.wait()
        results.append((data, store(spool, data)))

    threads = [threading.Thread(target=send, args=item) for item in enumerate(spools)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    statuses = sorted(stored.status for _, stored in results)
    assert statuses == (["duplicate"] * 7 + ["new"] if same else ["new"] + ["revision"] * 7)
    assert all(stored.path.read_bytes().endswith(data) for data, stored in results)
    assert len(files(layout)) == (1 if same else 8)


def test_a_file_that_is_removed_while_it_is_compared_is_stored_anew(
    layout: DataLayout, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = Spool(layout)
    first = store(spool)
    link = os.link

    def removed_then(source: Path, target: Path) -> None:
        try:
            link(source, target)
        except FileExistsError:
            first.path.unlink(missing_ok=True)
            raise

    monkeypatch.setattr(os, "link", removed_then)
    again = store(spool)
    assert (again.status, again.path) == ("new", first.path)
    assert again.path.read_bytes().endswith(DATA)


def test_unfinished_files_of_dead_processes_are_removed_and_of_living_ones_kept(layout: DataLayout) -> None:
    Spool(layout)
    dead = subprocess.run(
        [sys.executable, "-c", "import os; from m3node.process import process_started as s; "
         "print(f'{os.getpid()}.{s(os.getpid())}')"],
        capture_output=True, text=True, check=True,
    ).stdout.strip()  # fmt: skip
    alive = Spool(layout)._prefix
    for prefix in (dead, alive):
        (layout.spool / INCOMING / f"{prefix}.0.part").write_bytes(b"half")
    assert remove_leftovers(layout) == 1
    assert files(layout) == {f"{INCOMING}/{alive}.0.part"}
