"""Where the truth of a question lies in the image."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from m3node.attention.metrics.cells import Area


def box_mask(box: Area, shape: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """Mark the pixels whose centres lie in a box; a box that holds no centre marks the pixel that it lies on.

    Parameters
    ----------
    box : tuple of float
        ``(r0, c0, r1, c1)``, pixel edges.
    shape : tuple of int
        Rows and columns of the image.

    Returns
    -------
    ndarray of bool, shape (rows, columns)
        All False where the box lies beside the image.
    """
    mask = np.zeros(shape, dtype=np.bool_)
    rows, columns = (_pixels(box[axis], box[axis + 2], shape[axis]) for axis in (0, 1))
    mask[rows, columns] = True
    return mask


def _pixels(first: float, last: float, count: int) -> slice:
    """Those whose centres lie between two edges."""
    start, stop = np.ceil(first - 0.5), np.ceil(last - 0.5)
    if start == stop:
        start = np.floor((first + last) / 2)
        stop = start + 1
    return slice(*(int(np.clip(edge, 0, count)) for edge in (start, stop)))
