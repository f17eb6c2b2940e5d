"""The content tree of the created reports, as the conformance statement shows it."""

from __future__ import annotations

from collections.abc import Iterator

from pydicom.dataset import Dataset

from documents.markers import table


def content_table(documents: list[Dataset]) -> str:
    """Every path of the content tree once: how it is related, what type and concept it has, and where it is."""
    seen: dict[tuple[str, ...], set[int]] = {}
    rows: dict[tuple[str, ...], tuple[str, ...]] = {}
    for number, document in enumerate(documents):
        for path, row in _items(document, ()):
            seen.setdefault(path, set()).add(number)
            rows.setdefault(path, row)
    ordered = sorted(rows, key=lambda path: _position(path, list(rows)))
    return table(
        ("level", "relation", "value type", "concept", "code", "in"),
        [(*rows[path], "every report" if len(seen[path]) == len(documents) else "some") for path in ordered],
    )


def _position(path: tuple[str, ...], known: list[tuple[str, ...]]) -> tuple[int, ...]:
    """Siblings in the order of their first appearance, each before its children."""
    return tuple(known.index(path[: depth + 1]) for depth in range(len(path)))


def _items(item: Dataset, above: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], tuple[str, ...]]]:
    names = item.get("ConceptNameCodeSequence")
    code = f"({names[0].CodeValue}, {names[0].CodingSchemeDesignator})" if names else "–"
    meaning = str(names[0].CodeMeaning) if names else "–"
    related = str(item.get("RelationshipType", "–"))
    path = (*above, f"{related} {item.ValueType} {code}")
    yield path, (">" * len(above) or "root", related, str(item.ValueType), meaning, code)
    for child in item.get("ContentSequence", ()):
        yield from _items(child, path)
