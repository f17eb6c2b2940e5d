"""A delivery survives its file, and what is no delivery is an error of delivery."""

from __future__ import annotations

import json
from dataclasses import MISSING, fields

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from m3node.delivery.entry import Entry, from_json, to_json
from m3node.delivery.state import DeliveryState
from m3node.errors import DeliveryError

VALUES = {
    "str": st.text(max_size=20),
    "int": st.integers(0, 9),
    "float": st.floats(0, 1e10),
    "DeliveryState": st.sampled_from(DeliveryState),
}
entries = st.builds(Entry, **{field.name: VALUES[str(field.type)] for field in fields(Entry)})


@given(entries)
def test_an_entry_survives_its_file(entry: Entry) -> None:
    assert from_json(to_json(entry)) == entry


trees = st.recursive(
    st.none() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
)


@example(b"[" * 100_000)  # deeper than the parser goes
@given(st.binary(max_size=200) | trees.map(lambda tree: json.dumps(tree).encode()))
def test_what_is_no_entry_is_a_delivery_error(content: bytes) -> None:
    with pytest.raises(DeliveryError):
        from_json(content)


@given(entry=entries, data=st.data())
def test_an_entry_with_a_field_too_many_too_few_or_of_another_type_is_a_delivery_error(
    entry: Entry, data: st.DataObject
) -> None:
    tree = json.loads(to_json(entry))
    name = data.draw(st.sampled_from(sorted(tree)))
    required = {"schema", *(field.name for field in fields(Entry) if field.default is MISSING)}
    change = data.draw(st.sampled_from(["wrong", "more", *(["less"] if name in required else [])]))
    if change == "less":
        del tree[name]
    elif change == "more":
        tree[f"{name}x"] = tree[name]
    else:
        tree[name] = data.draw(st.sampled_from([None, [], {}, 1 if isinstance(tree[name], str) else "1"]))
    with pytest.raises(DeliveryError):
        from_json(json.dumps(tree).encode())
