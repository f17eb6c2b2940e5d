"""Compressed pixels are decoded by processes of their own: right, one series after the other, whatever dies."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.encaps import encapsulate
from pydicom.pixels.utils import compress
from pydicom.uid import JPEG2000Lossless, JPEGBaseline8Bit, JPEGLSLossless, RLELossless

from m3node.errors import InputRejected
from m3node.evaluation.ct_writer import axial_geometry, write_ct_series
from m3node.imaging import assemble as assembling
from m3node.imaging import decode_server
from m3node.imaging.assemble import assemble
from m3node.imaging.decode import Job, decode_frames, decode_into
from m3node.imaging.decode_client import close_waiting, lay_by, waiting_server
from m3node.imaging.decode_pool import decode_in_processes
from m3node.imaging.memory import VolumeMemory
from m3node.imaging.native import FrameTask
from m3node.imaging.shared import SharedVolume
from m3node.intake.series.reading import read_header
from m3node.process import process_started
from m3node.rejection import Reason
from made_noise import ending_stream, noise_series
from made_series import bare_series
from made_stacks import manifest_of
from waiting import wait_for


@pytest.fixture
def series(tmp_path: Path) -> Path:
    return noise_series(tmp_path / "ct")


@pytest.fixture
def few_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(assembling, "PROCESSES_FROM", 2)


@pytest.fixture
def jobs(test_data: Path) -> list[Job]:
    """The slices of a real series in JPEG 2000."""
    manifest = manifest_of(test_data / "ct_liver_j2k")
    return [
        (Path(manifest.root) / header.path, header, (FrameTask(k, 0, 1.0, 0.0),))
        for k, header in enumerate(manifest.instances)
    ]


@pytest.fixture
def volume(jobs: list[Job]) -> Iterator[SharedVolume]:
    shared = VolumeMemory().shared((len(jobs), 512, 512))
    shared.hu.fill(-1)
    yield shared
    shared.close()


def test_each_job_is_taken_by_one_decoder_only() -> None:
    queue = decode_server._queue(100_000)
    taken, taking = os.pipe()
    takers = []
    for _ in range(4):
        takers.append(os.fork())
        if not takers[-1]:
            while index := decode_server._next(queue):
                os.write(taking, index)
            os._exit(0)
    os.close(taking)
    with os.fdopen(taken, "rb") as file:
        found = np.frombuffer(file.read(), "<u4")
    assert [os.waitpid(pid, 0)[1] for pid in takers] == [0, 0, 0, 0]
    os.close(queue)
    assert sorted(found.tolist()) == list(range(100_000))


@pytest.fixture
def server(jobs: list[Job]) -> int:
    """Process id of the server that waits."""
    first = VolumeMemory().shared((1, 512, 512))
    decode_in_processes(jobs[:1], first, 1, lambda _: None)
    first.close()
    return waiting_pid()


def waiting_pid() -> int:
    waiting = waiting_server()
    assert waiting is not None
    lay_by(waiting)
    return waiting.pid


def children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.usefixtures("few_are_many")
@pytest.mark.parametrize("workers", [1, 3])
def test_threads_processes_and_neither_give_one_volume(series: Path, workers: int) -> None:
    plain = assemble(manifest_of(series), workers=1).hu
    for number, path in enumerate(sorted(series.iterdir())):
        if number % 3:
            ds = pydicom.dcmread(path)
            compress(ds, JPEGLSLossless if number % 2 else RLELossless, generate_instance_uid=False)
            ds.save_as(path)
    told: list[tuple[str, int, int]] = []
    mixed = assemble(manifest_of(series), workers=workers, progress=lambda *args: told.append(args))
    np.testing.assert_array_equal(mixed.hu, plain)
    assert mixed.hu.flags.writeable is False
    assert told[-1][1:] == (12, 12)
    assert [done for _, done, _ in told] == sorted({done for _, done, _ in told})


@pytest.mark.usefixtures("few_are_many")
@pytest.mark.parametrize("workers", [1, 2])
def test_a_damaged_stream_names_its_instance_in_processes_too(test_data: Path, tmp_path: Path, workers: int) -> None:
    for path in sorted((test_data / "ct_liver_j2k").iterdir())[:6]:
        (tmp_path / path.name).write_bytes(path.read_bytes())
    content = (tmp_path / "003.dcm").read_bytes()
    at = content.index(b"\xff\x4f\xff\x51")
    (tmp_path / "003.dcm").write_bytes(content[:at] + bytes(2000) + content[at + 2000 :])
    damaged = pydicom.dcmread(tmp_path / "003.dcm", stop_before_pixels=True).SOPInstanceUID
    with pytest.raises(InputRejected, match=damaged) as caught:
        assemble(manifest_of(tmp_path), workers=workers)
    assert caught.value.reason is Reason.UNDECODABLE


@pytest.mark.parametrize("workers", [1, 4])
def test_a_stream_that_ends_gdcms_process_leaves_ours_alone(tmp_path: Path, workers: int) -> None:
    for path in bare_series(tmp_path, "ending", slices=12):
        ds = pydicom.dcmread(path)
        ds.PixelData = encapsulate([ending_stream()])
        ds["PixelData"].VR = "OB"
        ds.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
        ds.save_as(path)
    with pytest.raises(InputRejected) as caught:
        assemble(manifest_of(tmp_path), workers=workers)
    assert caught.value.reason is Reason.UNDECODABLE


def test_one_server_decodes_one_series_after_the_other(jobs: list[Job], volume: SharedVolume, server: int) -> None:
    expected = np.empty(volume.hu.shape, np.int16)
    decode_into(jobs, expected, lambda _: None)
    for _ in range(2):
        volume.hu.fill(-1)
        told: list[int] = []
        decode_in_processes(jobs, volume, 3, told.append)
        np.testing.assert_array_equal(volume.hu, expected)
        assert sum(told) == len(jobs)
    assert waiting_pid() == server
    assert children(server) == []


def test_a_server_that_has_ended_is_replaced(jobs: list[Job], volume: SharedVolume, server: int) -> None:
    os.kill(server, signal.SIGKILL)
    decode_in_processes(jobs, volume, 2, lambda _: None)
    assert waiting_pid() != server
    assert (volume.hu.reshape(len(jobs), -1).max(axis=1) > 0).all()


def test_a_decoder_that_dies_is_a_reason_and_not_a_crash(jobs: list[Job], volume: SharedVolume, server: int) -> None:
    def kill(_: int) -> None:
        for decoder in children(server):
            os.kill(decoder, signal.SIGKILL)

    with pytest.raises(InputRejected, match="codec crashed on series") as caught:
        decode_in_processes(jobs, volume, 1, kill)
    assert caught.value.reason is Reason.UNDECODABLE
    decode_in_processes(jobs, volume, 1, lambda _: None)
    assert waiting_pid() == server


def test_nobody_writes_to_a_volume_that_was_given_up(jobs: list[Job], volume: SharedVolume, server: int) -> None:
    decoders: list[int] = []

    def give_up(_: int) -> None:
        decoders[:] = children(server)
        if len(decoders) == 2:  # the second may be late
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        decode_in_processes(jobs, volume, 2, give_up)
    assert [process_started(pid) for pid in (server, *decoders)] == ["", "", ""]


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from made_stacks import manifest_of
from waiting import wait_for
from m3node.imaging import assemble as assembling
from m3node.imaging.decode_client import lay_by, waiting_server

def killed(*_):
    (server,) = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    decoders = Path(f"/proc/{server}/task/{server}/children").read_text().split()
    if len(decoders) == 2:
        print(server, *decoders, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)

assembling.PROCESSES_FROM = 2
assembling.assemble(manifest_of(Path(sys.argv[1])), workers=2, progress=killed)
"""


def test_server_and_decoders_end_with_their_parent_even_when_it_is_killed(test_data: Path) -> None:
    tests = str(Path(__file__).resolve().parents[1])
    command = [sys.executable, "-c", KILLED, str(test_data / "ct_liver_j2k"), tests]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    assert done.returncode == -signal.SIGKILL
    pids = [int(word) for word in done.stdout.split()]
    assert len(pids) == 3
    wait_for(lambda: not any(process_started(pid) for pid in pids))


def test_a_server_ends_that_nobody_asks() -> None:
    ours, theirs = socket.socketpair()
    code = "from m3node.imaging import decode_server; decode_server.WAITS_SECONDS = 0.0; decode_server.main()"
    with ours, theirs:
        done = subprocess.run([sys.executable, "-c", code], stdin=theirs.fileno(), check=False)
    assert done.returncode == 0


def test_a_fork_leaves_the_server_to_the_process_that_started_it(server: int) -> None:
    pid = os.fork()
    if not pid:
        os._exit(waiting_server() is not None)
    assert os.waitpid(pid, 0)[1] == 0
    assert waiting_pid() == server


def test_a_server_that_does_not_start_is_no_fault_of_the_series(
    jobs: list[Job], volume: SharedVolume, monkeypatch: pytest.MonkeyPatch
) -> None:
    close_waiting()
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(ChildProcessError):
        decode_in_processes(jobs, volume, 1, lambda _: None)


def test_one_core_and_all_cores_decode_jpeg_2000_alike(test_data: Path) -> None:
    root = test_data / "ct_liver_j2k"
    header = read_header(root / "000.dcm", root)
    (all_cores,) = decode_frames(root / "000.dcm", header, [0])
    (one_core,) = decode_frames(root / "000.dcm", header, [0], single_threaded=True)
    np.testing.assert_array_equal(one_core, all_cores)
    assert int(one_core.max()) > 1000


def test_a_damaged_jpeg_2000_stream_is_said_to_be_one_and_ends_no_process(tmp_path: Path) -> None:
    """GDCM throws what nobody catches at a right size followed by noise."""
    ds = pydicom.dcmread(
        write_ct_series(tmp_path, np.zeros((1, 64, 64), int), axial_geometry((1, 64, 64), (2.0, 1.0, 1.0)), seed=1)[0]
    )
    stream = bytes.fromhex("ff4fff51002900000000004000000040") + bytes(8) + random.Random(0).randbytes(100)
    ds.PixelData = encapsulate([stream])
    ds["PixelData"].VR = "OB"
    ds.file_meta.TransferSyntaxUID = JPEG2000Lossless
    ds.save_as(tmp_path / "damaged.dcm")
    header = read_header(tmp_path / "damaged.dcm", tmp_path)
    for single_threaded in (False, True):
        with pytest.raises(InputRejected) as caught:
            decode_frames(tmp_path / "damaged.dcm", header, [0], single_threaded=single_threaded)
        assert caught.value.reason is Reason.UNDECODABLE
