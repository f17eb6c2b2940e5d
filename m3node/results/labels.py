"""Where labels stand beside their boxes, so that neither covers another."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

_NOTHING = 1e-6
"""Square pixels: rectangles that touch overlap by rounding alone."""


@dataclass(frozen=True, slots=True)
class Rect:
    """A rectangle on a picture: left, top, right, bottom; y grows downwards."""

    x0: float
    y0: float
    x1: float
    y1: float

    def moved_into(self, width: float, height: float) -> Rect:
        """The same rectangle, pushed inside a picture of this size."""
        dx = max(0.0, -self.x0) or min(0.0, width - self.x1)
        dy = max(0.0, -self.y0) or min(0.0, height - self.y1)
        return Rect(self.x0 + dx, self.y0 + dy, self.x1 + dx, self.y1 + dy)

    def overlap(self, other: Rect) -> float:
        """Area that both cover."""
        width = min(self.x1, other.x1) - max(self.x0, other.x0)
        height = min(self.y1, other.y1) - max(self.y0, other.y0)
        return width * height if width > 0 and height > 0 else 0.0


def place_labels(
    boxes: Sequence[Rect], sizes: Sequence[tuple[float, float]], picture: tuple[float, float]
) -> list[Rect]:
    """Find a place for each box's label.

    Above the box if nothing is there, else below, beside, or farther off; where every place is taken, the one that
    covers least.

    Parameters
    ----------
    boxes : sequence of Rect
        What is labelled.
    sizes : sequence of (float, float)
        Width and height of each label.
    picture : (float, float)
        Width and height of the picture; labels stay inside.

    Returns
    -------
    list of Rect
        One for each box.
    """
    placed: list[Rect] = []
    for index, (box, size) in enumerate(zip(boxes, sizes, strict=True)):
        taken = [*placed, *boxes]
        best: tuple[float, Rect] | None = None
        for candidate in _candidates(box, *size):
            inside = candidate.moved_into(*picture)
            cost = sum(inside.overlap(other) for other in taken)
            # The label's own box counts as well: pushed back into the picture, it may lie on it.
            if best is None or cost < best[0] - _NOTHING:
                best = cost, inside
            if cost < _NOTHING:
                break
        if best is None:
            raise AssertionError(f"no candidate for label {index}")
        placed.append(best[1])
    return placed


def _candidates(box: Rect, width: float, height: float) -> Iterator[Rect]:
    """Places in order of preference."""
    gap = height * 0.15
    middle = (box.y0 + box.y1 - height) / 2
    for step in range(6):
        away = gap + step * height
        for x in (box.x0, box.x1 - width):
            yield Rect(x, box.y0 - away - height, x + width, box.y0 - away)
            yield Rect(x, box.y1 + away, x + width, box.y1 + away + height)
        yield Rect(box.x1 + away, middle, box.x1 + away + width, middle + height)
        yield Rect(box.x0 - away - width, middle, box.x0 - away, middle + height)
