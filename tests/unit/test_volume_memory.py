"""Memory is used again only when nobody can see it: a mistake here would show one patient's CT as another's."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from m3node.evaluation.ct_writer import axial_geometry, write_ct_series
from m3node.imaging import memory as module
from m3node.imaging.assemble import assemble
from m3node.imaging.memory import VolumeMemory
from m3node.imaging.shared import map_volume
from made_stacks import manifest_of

SHAPE = (4, 8, 8)


def address(array: np.ndarray) -> int:
    return int(array.__array_interface__["data"][0])


def test_a_volume_that_is_gone_leaves_its_memory_to_the_next() -> None:
    memory = VolumeMemory()
    first = memory.empty(SHAPE)
    place = address(first)
    first.fill(7)
    del first
    second = memory.empty(SHAPE)
    assert address(second) == place
    assert (second == 7).all()  # the very same memory, as the caller is told


def test_a_volume_in_use_keeps_its_memory() -> None:
    memory = VolumeMemory()
    first = memory.empty(SHAPE)
    first.fill(1)
    second = memory.empty(SHAPE)
    second.fill(2)
    assert (first == 1).all()


def test_a_slice_in_use_keeps_the_memory_of_its_volume() -> None:
    memory = VolumeMemory()
    for view in (
        lambda volume: volume[2],
        lambda volume: volume[1:, ::2, 3:].T,
        lambda volume: volume.reshape(-1).view(np.uint16)[5:9],
        memoryview,
        np.flip,
    ):
        volume = memory.empty(SHAPE)
        volume.fill(1)
        seen = view(volume)
        del volume
        memory.empty(SHAPE).fill(2)
        assert (np.asarray(seen) == 1).all()


def test_a_smaller_volume_fits_and_a_larger_one_gets_its_own() -> None:
    memory = VolumeMemory()
    place = address(memory.empty(SHAPE))
    small = memory.empty((1, 8, 8))
    assert small.shape == (1, 8, 8)
    assert address(small) == place
    del small
    large = memory.empty((40, 64, 64))
    large.fill(3)
    assert large.shape == (40, 64, 64)


def test_very_much_memory_is_not_kept(monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(module, "KEPT_BYTES", 100)
    memory = VolumeMemory()
    memory.empty(SHAPE).fill(5)
    assert (memory.empty(SHAPE) == 0).all()  # fresh from the kernel


def test_shared_memory_is_used_again_too_and_serves_volumes_that_nobody_shares() -> None:
    memory = VolumeMemory()
    first = memory.shared(SHAPE)
    place = address(first.hu)
    first.close()
    del first
    second = memory.shared(SHAPE)
    assert address(second.hu) == place
    second.close()
    del second
    assert address(memory.empty(SHAPE)) == place


def test_what_others_write_to_a_shared_volume_is_seen_and_clearing_it_early_changes_nothing() -> None:
    memory = VolumeMemory()
    memory.empty(SHAPE).fill(9)
    volume = memory.shared(SHAPE)  # not the piece before, which nobody else can map
    volume.hu.fill(1)
    map_volume(volume.handle, SHAPE)[2] = 5
    volume.close()
    volume.populate(until=lambda: False)
    assert volume.hu[:, 0, 0].tolist() == [1, 1, 5, 1]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 6), st.booleans(), st.booleans()), min_size=1, max_size=30))
def test_no_two_volumes_ever_share_memory(steps: list[tuple[int, bool, bool]]) -> None:
    memory = VolumeMemory()
    alive: list[tuple[np.ndarray, int]] = []
    for number, (slices, drop, shared) in enumerate(steps, start=1):
        if shared:
            opened = memory.shared((slices, 8, 8))
            opened.close()
            volume = opened.hu
            del opened
        else:
            volume = memory.empty((slices, 8, 8))
        volume.fill(number)
        alive.append((volume, number))
        if drop:
            alive.pop(0)
        assert all((held == value).all() for held, value in alive)


def test_volumes_of_several_threads_stay_apart() -> None:
    memory = VolumeMemory()
    wrong: list[int] = []

    def work(number: int) -> None:
        for _ in range(200):
            volume = memory.empty(SHAPE)
            volume.fill(number)
            if not (volume == number).all():
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_one_series_after_the_other_is_read_right_while_both_are_held_and_when_not(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    shape = (9, 16, 16)
    truths = [rng.integers(-1000, 2000, shape).astype(np.int16) for _ in range(3)]
    manifests = []
    for number, truth in enumerate(truths):
        write_ct_series(tmp_path / str(number), truth, axial_geometry(shape, (2.0, 1.0, 1.0)), seed=number)
        manifests.append(manifest_of(tmp_path / str(number)))
    held = [assemble(manifest) for manifest in manifests]
    for volume, truth in zip(held, truths, strict=True):
        np.testing.assert_array_equal(volume.hu, truth)
    del held, volume
    for manifest, truth in zip(manifests, truths, strict=True):
        np.testing.assert_array_equal(assemble(manifest).hu, truth)
