"""What is inside the sequences of the created objects, as the conformance statement shows it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset

from documents.markers import table

SHOWN_VALUES = 3
"""More different values than this are said to vary."""

Row = tuple[str, ...]


def inside(documents: Sequence[Dataset], *, leave_out: Iterable[str] = ()) -> str:
    """The sequences of objects of one kind and all that their items hold, with what is the same in all of them."""
    omitted = {"ContentSequence", *leave_out}
    rows: list[Row] = []
    for element in _elements(documents):
        if element.VR == "SQ" and element.keyword not in omitted:
            rows += _rows([element.keyword], documents, 0)
    return table(("attribute", "tag", "VR", "in", "value"), rows)


def _rows(keywords: Iterable[str], holders: Sequence[Dataset], depth: int) -> Iterator[Row]:
    for keyword in keywords:
        elements = [holder[keyword] for holder in holders if keyword in holder]
        first, items = elements[0], [item for element in elements if element.VR == "SQ" for item in element.value]
        name = f"{'>' * depth} {first.name}".strip()
        where = "all" if len(elements) == len(holders) else "some"
        if first.VR != "SQ" or _are_codes(items):
            yield name, f"`{first.tag}`", first.VR, where, _value(elements)
        else:
            yield name, f"`{first.tag}`", first.VR, where, "" if items else "empty"
            yield from _rows([element.keyword for element in _elements(items)], items, depth + 1)


def _elements(holders: Iterable[Dataset]) -> list[DataElement]:
    found = {element.tag: element for holder in holders for element in holder}
    return [found[tag] for tag in sorted(found)]


def _are_codes(items: Sequence[Dataset]) -> bool:
    return bool(items) and all("CodeValue" in item for item in items)


def _value(elements: Sequence[DataElement]) -> str:
    first = elements[0]
    # Of classes and instances: which they are follows from the source and the findings, also where one class was seen.
    if first.VR == "UI":
        return "varies"
    texts = list(dict.fromkeys(_text(element) for element in elements))
    if len(texts) > SHOWN_VALUES or (len(texts) > 1 and first.VR not in ("CS", "SQ")):
        return "varies"
    return " or ".join(texts)


def _text(element: DataElement) -> str:
    if element.VR == "SQ":
        return ", ".join(f"({item.CodeValue}, {item.CodingSchemeDesignator}, {item.CodeMeaning})" for item in element)
    if element.is_empty:
        return "empty"
    values = [str(value) for value in element.value] if element.VM > 1 else [str(element.value)]
    return "`" + "\\".join(values) + "`"
