"""Reads an SR's content tree by code values, independently of what wrote it."""

from __future__ import annotations

from collections.abc import Iterator

from pydicom.dataset import Dataset


def concept(item: Dataset) -> str:
    """Code value of an item's concept name; empty without one."""
    names = item.get("ConceptNameCodeSequence")
    return str(names[0].CodeValue) if names else ""


def children(item: Dataset, code: str = "") -> list[Dataset]:
    """The items right below, of one concept where given."""
    return [child for child in item.get("ContentSequence", []) if not code or concept(child) == code]


def descendants(item: Dataset) -> Iterator[Dataset]:
    """Every item below."""
    for child in item.get("ContentSequence", []):
        yield child
        yield from descendants(child)


def only(item: Dataset, code: str) -> Dataset:
    """The one item right below with this concept."""
    found = children(item, code)
    assert len(found) == 1, f"{len(found)} items {code}"
    return found[0]


def value_code(item: Dataset) -> tuple[str, str]:
    """Scheme and value of a CODE item."""
    code = item.ConceptCodeSequence[0]
    return str(code.CodingSchemeDesignator), str(code.CodeValue)


def measurement(item: Dataset) -> tuple[float, str]:
    """Value and unit of a NUM item."""
    measured = item.MeasuredValueSequence[0]
    return float(measured.NumericValue), str(measured.MeasurementUnitsCodeSequence[0].CodeValue)


def groups(report: Dataset) -> list[Dataset]:
    """The measurement groups."""
    return children(only(report, "126010"), "125007")


def texts(item: Dataset) -> str:
    """Every text below, joined."""
    return "\n".join(str(child.TextValue) for child in descendants(item) if child.ValueType == "TEXT")
