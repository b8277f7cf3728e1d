"""JSON of any depth can be read, and what is deep enough to have been cut is refused."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quarterdeck.kube.nesting import MAX_DEPTH, bounded, is_deeper_than, loads
from quarterdeck.kube.resources.model import Model
from quarterdeck.kube.resources.object import MAX_LEVELS, InvalidObjectError

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=20,
)


def nested(value: Any, levels: int) -> str:
    return '{"[":[' * (levels // 2) + json.dumps(value) + "]}" * (levels // 2)


def depth(value: Any) -> int:
    if isinstance(value, dict):
        value = list(value.values())
    return 1 + max(map(depth, value), default=0) if isinstance(value, list) else 0


@given(VALUES, VALUES, st.integers(0, 200))
def test_what_is_not_too_deep_is_kept_and_the_rest_is_cut(deep: Any, beside: Any, levels: int) -> None:
    text = f'{{"deep": {nested(deep, levels)}, "beside": {json.dumps(beside, ensure_ascii=False)}}}'.encode()
    found = loads(text)
    assert found["beside"] == beside
    assert depth(found) <= MAX_DEPTH
    if depth(json.loads(text)) <= MAX_DEPTH:
        assert bounded(text) is text


@pytest.mark.parametrize("levels", [998, 10_000, 200_000])
def test_a_document_that_python_can_not_parse_is_read(levels: int) -> None:
    text = f'{{"items": [{{"a": 1, "deep": {nested(1, levels)}}}, {{"a": 2}}]}}'.encode()
    with pytest.raises(RecursionError):
        json.loads(text)
    found = loads(text)["items"]
    assert [each["a"] for each in found] == [1, 2]


@pytest.mark.parametrize("text", [b"", b"{", b"}}}", b'{"a"', b"[" * 5000, b'{"a": "' + b"[" * 5000, b"\xff"])
def test_what_is_no_json_is_refused(text: bytes) -> None:
    with pytest.raises(ValueError):
        loads(text)


@given(VALUES, st.integers(0, 5))
def test_depth_is_counted_in_levels(value: Any, levels: int) -> None:
    assert is_deeper_than(value, levels) == (depth(value) > levels)


def test_an_object_that_was_cut_is_refused() -> None:
    body = f'{{"metadata": {{"name": "m"}}, "spec": {{"engine": {{"args": {{"x": {nested(1, 5000)}}}}}}}}}'
    with pytest.raises(InvalidObjectError, match="nested too deeply, the limit is 64 levels"):
        Model.parse(loads(body.encode()))
    spec = {"engine": {"type": "sim", "args": {"x": loads(nested(1, MAX_LEVELS - 4).encode())}}}
    assert Model.parse({"metadata": {"name": "m"}, "spec": spec}).spec.engine.args
