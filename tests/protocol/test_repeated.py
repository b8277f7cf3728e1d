"""Members that an object has twice are found wherever it is, and only then."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quarterdeck.errors import BadRequestError
from quarterdeck.protocol.repeated import MAX_DEPTH, refuse_repeated

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
STYLES = st.sampled_from([{}, {"separators": (",", ":")}, {"indent": 1}, {"ensure_ascii": False}])


@given(VALUES, STYLES)
def test_json_of_any_style_passes(value: Any, style: dict[str, Any]) -> None:
    refuse_repeated(msgspec.Raw(json.dumps(value, **style).encode("utf-8", "replace")))


@given(st.dictionaries(st.text(), VALUES, min_size=1, max_size=4), VALUES, STYLES, st.integers(0, MAX_DEPTH))
def test_a_repeated_member_is_found_in_objects_and_lists(
    members: dict[str, Any], value: Any, style: dict[str, Any], depth: int
) -> None:
    name = next(iter(members))
    text = json.dumps(members, **style).rstrip()[:-1] + "," + json.dumps({name: value}, **style).lstrip()[1:]
    for level in range(depth):
        text = f"[{text}]" if level % 2 else f'{{"a":{text}}}'
    with pytest.raises(BadRequestError) as refused:
        refuse_repeated(msgspec.Raw(text.encode("utf-8", "replace")))
    assert refused.value.code == "duplicate_parameter"


def test_a_deep_value_is_not_read_to_its_end() -> None:
    refuse_repeated(msgspec.Raw(b"[" * 900 + b'{"a":1,"a":1}' + b"]" * 900))
