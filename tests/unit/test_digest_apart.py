"""Digests from a process of its own are the same, and a codec that crashes is a damaged stream and nothing else."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pydicom
import pytest
from pydicom.encaps import encapsulate
from pydicom.uid import JPEGBaseline8Bit

from m3node.errors import InputRejected
from m3node.imaging.digest import content_digest
from m3node.imaging.digest_apart import DigestsApart
from m3node.rejection import Reason
from made_noise import ending_stream
from made_series import bare_series


@pytest.fixture
def apart() -> Iterator[DigestsApart]:
    digests = DigestsApart()
    yield digests
    digests.close()


def test_digests_and_reasons_are_the_same(tmp_path: Path, apart: DigestsApart) -> None:
    files = bare_series(tmp_path, "apart", slices=3)
    assert [apart(path) for path in files] == [content_digest(path) for path in files]
    (tmp_path / "no.dcm").write_bytes(b"nothing")
    with pytest.raises(InputRejected) as here:
        content_digest(tmp_path / "no.dcm")
    with pytest.raises(InputRejected) as there:
        apart(tmp_path / "no.dcm")
    assert (there.value.reason, there.value.message) == (here.value.reason, here.value.message)


def test_a_process_that_dies_costs_one_answer(tmp_path: Path, apart: DigestsApart) -> None:
    (path,) = bare_series(tmp_path, "apart", slices=1)
    digest = apart(path)
    assert apart._child is not None
    os.kill(apart._child.pid, signal.SIGABRT)
    apart._child.wait()
    with pytest.raises(InputRejected) as caught:
        apart(path)
    assert caught.value.reason is Reason.UNDECODABLE
    assert apart(path) == digest


def test_a_process_that_the_kernel_kills_is_no_fault_of_the_file(tmp_path: Path, apart: DigestsApart) -> None:
    (path,) = bare_series(tmp_path, "apart", slices=1)
    digest = apart(path)
    assert apart._child is not None
    apart._child.kill()
    apart._child.wait()
    with pytest.raises(OSError, match="Cannot allocate memory"):
        apart(path)
    assert apart(path) == digest


def test_a_stream_that_ends_gdcms_process_is_undecodable(tmp_path: Path, apart: DigestsApart) -> None:
    (path,) = bare_series(tmp_path, "apart", slices=1)
    digest = apart(path)
    ds = pydicom.dcmread(path)
    ds.Rows = ds.Columns = 64
    ds.PixelData = encapsulate([ending_stream()])
    ds["PixelData"].VR = "OB"
    ds.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    ds.save_as(tmp_path / "damaged.dcm")
    with pytest.raises(InputRejected, match="a codec crashed") as caught:
        apart(tmp_path / "damaged.dcm")
    assert caught.value.reason is Reason.UNDECODABLE
    assert apart(path) == digest
