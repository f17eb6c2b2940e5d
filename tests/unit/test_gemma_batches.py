"""Batches shrink when memory runs out, and work goes on."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch

from m3node.errors import InferenceError
from m3node.gemma.batches import BatchSize, in_batches


class Bounded:
    """Work that has memory for so many items only."""

    def __init__(self, room: int, error: Exception) -> None:
        self.room = room
        self.error = error
        self.calls: list[int] = []

    def __call__(self, items: Sequence[int]) -> list[int]:
        self.calls.append(len(items))
        if len(items) > self.room:
            raise self.error
        return [item * item for item in items]


ERRORS = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried"),
    RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 8589934592 bytes"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    MemoryError(),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: f"{type(error).__name__} {str(error)[-12:]}")
def test_out_of_memory_halves_the_batch_and_goes_on(error: Exception) -> None:
    work = Bounded(room=5, error=error)
    assert list(in_batches(range(21), work, size=16)) == [n * n for n in range(21)]
    assert work.calls == [16, 8, 4, 4, 4, 4, 4, 1]


def test_the_size_that_fitted_is_remembered() -> None:
    size, work = BatchSize(16), Bounded(room=6, error=ERRORS[0])
    list(in_batches(range(10), work, size=size))
    assert size.items == 5
    work.calls.clear()
    list(in_batches(range(10), work, size=size))
    assert work.calls == [5, 5]


def test_memory_that_another_held_for_a_while_does_not_shrink_what_has_fitted_before() -> None:
    size, work = BatchSize(4), Bounded(room=4, error=ERRORS[0])
    list(in_batches(range(9), work, size=size))  # the last batch is of one
    work.room = 1
    assert len(list(in_batches(range(4), work, size=size))) == 4
    work.room = 4
    work.calls.clear()
    list(in_batches(range(8), work, size=size))
    assert work.calls == [4, 4]


def test_one_item_that_does_not_fit_is_an_error_that_says_so() -> None:
    with pytest.raises(InferenceError, match="single image"):
        list(in_batches(range(4), Bounded(room=0, error=ERRORS[0]), size=4))


def test_other_errors_are_not_taken_for_memory() -> None:
    with pytest.raises(RuntimeError, match="shapes"):
        list(in_batches(range(4), Bounded(room=0, error=RuntimeError("shapes do not match")), size=4))


def test_a_lost_result_is_an_error() -> None:
    with pytest.raises(InferenceError, match="3 results came back for 4"):
        list(in_batches(range(4), lambda items: list(items)[1:], size=4))


def test_results_come_a_batch_at_a_time() -> None:
    work = Bounded(room=9, error=ERRORS[0])
    results = in_batches(range(6), work, size=2)
    assert [next(results), next(results)] == [0, 1]
    assert work.calls == [2]


def test_a_batch_is_at_least_one() -> None:
    work = Bounded(room=9, error=ERRORS[0])
    assert list(in_batches(range(2), work, size=0)) == [0, 1]
    assert work.calls == [1, 1]


def test_nothing_to_do_is_no_work() -> None:
    work = Bounded(room=1, error=ERRORS[0])
    assert list(in_batches([], work, size=3)) == []
    assert work.calls == []


def test_what_cpu_memory_really_says_is_understood() -> None:
    size = BatchSize(2)

    def greedy(items: Sequence[int]) -> list[int]:
        if len(items) > 1:
            torch.empty(2**60, dtype=torch.uint8)
        return list(items)

    assert list(in_batches([1, 2, 3], greedy, size=size)) == [1, 2, 3]
    assert size.items == 1
