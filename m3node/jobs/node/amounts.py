"""How times and amounts are said to a person, on the command line and on the page."""

from __future__ import annotations


def age(seconds: float) -> str:
    """Say how long something is, in the one or two units that count.

    >>> age(7), age(200), age(9000), age(400_000)
    ('7 s', '3 min', '2 h 30 min', '4 d 15 h')
    """
    whole = max(0, int(seconds))
    if whole < 60:
        return f"{whole} s"
    minutes, hours, days = whole // 60, whole // 3600, whole // 86400
    if hours == 0:
        return f"{minutes} min"
    if days == 0:
        return f"{hours} h {minutes % 60} min" if minutes % 60 else f"{hours} h"
    return f"{days} d {hours % 24} h" if hours % 24 else f"{days} d"


def megabytes(mb: float) -> str:
    """Say how much room something is."""
    return f"{mb / 1e6:.1f} TB" if mb >= 1e6 else f"{mb / 1000:.1f} GB" if mb >= 1000 else f"{mb:.0f} MB"


def count_of(count: int, one: str, many: str = "") -> str:
    """Say how many.

    >>> count_of(1, "study", "studies"), count_of(2000, "lesion")
    ('1 study', '2,000 lesions')
    """
    return f"{count:,} {one if count == 1 else many or one + 's'}"
