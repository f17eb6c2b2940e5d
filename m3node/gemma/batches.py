"""Work in batches as large as memory allows: what does not fit is halved, and the size that fitted is remembered."""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch

from m3node.errors import InferenceError

_log = logging.getLogger(__name__)

Item = TypeVar("Item")
Result = TypeVar("Result")

_OUT_OF_MEMORY = ("not enough memory", "can't allocate memory", "out of memory", "CUBLAS_STATUS_ALLOC_FAILED")
"""How a CPU's allocator and cuBLAS say it; neither has an exception of its own."""


@dataclass(slots=True)
class BatchSize:
    """How many items go together; shrinks, for as long as it is kept, when memory runs out with more than ever fitted.

    Attributes
    ----------
    items : int
        At least 1.
    fitted : int
        Most that have fitted.
    """

    items: int
    fitted: int = 0


def in_batches(
    items: Sequence[Item], work: Callable[[Sequence[Item]], Sequence[Result]], *, size: BatchSize | int
) -> Iterator[Result]:
    """Work on all items, some at a time.

    Parameters
    ----------
    items : sequence
        What is worked on.
    work : callable
        Takes some of them, in order, and gives one result for each. It is called again with fewer of the same items
        when memory ran out, so it must not keep anything of a call that failed.
    size : BatchSize or int
        How many at once; a `BatchSize` remembers for the next call what fitted.

    Yields
    ------
    Result
        One an item, in order, a batch at a time.

    Raises
    ------
    InferenceError
        Not even one item fits.
    """
    at_once = size if isinstance(size, BatchSize) else BatchSize(size)
    now = max(1, at_once.items)
    done = 0
    while done < len(items):
        part = items[done : done + now]
        results = _tried(work, part)
        if results is None:
            if len(part) == 1:
                raise InferenceError(
                    "memory ran out with a single image: something else holds it, or the model is too large for it"
                )
            now = max(1, len(part) // 2)
            if len(part) > at_once.fitted:  # what has fitted before will fit again when whoever holds memory is gone
                at_once.items = now
            _log.warning("memory ran out with %d images together: going on with %d", len(part), now)
            _release()
            continue
        if len(results) != len(part):
            raise InferenceError(f"{len(results)} results came back for {len(part)} images")
        at_once.fitted = max(at_once.fitted, len(part))
        done += len(part)
        yield from results


def _tried(work: Callable[[Sequence[Item]], Sequence[Result]], part: Sequence[Item]) -> Sequence[Result] | None:
    """Work on a part; None when memory ran out. The exception ends here, and with it what its frames hold."""
    try:
        return work(part)
    except torch.OutOfMemoryError:
        return None
    except (RuntimeError, MemoryError) as error:
        if isinstance(error, MemoryError) or any(words in str(error) for words in _OUT_OF_MEMORY):
            return None
        raise


def _release() -> None:
    """Give back what the failed call held, so that a smaller one does not meet its fragments."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
