"""Tool calls in fragments of any kind are OpenAI's."""

from typing import Any

import pytest

from quarterdeck.protocol.foreign.tool_calls import ToolCalls, whole_calls


def joined(*fragments: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Id, name and arguments of each call, as a client joins them."""
    calls = ToolCalls()
    found: dict[int, list[str]] = {}
    for each in [part for fragment in fragments for part in calls.fragments([fragment])] + calls.missing():
        call = found.setdefault(each["index"], ["", "", ""])
        call[0] += each.get("id") or ""
        call[1] += each["function"].get("name") or ""
        call[2] += each["function"].get("arguments") or ""
    assert sorted(found) == list(range(len(found)))
    return [(call[0], call[1], call[2]) for _, call in sorted(found.items())]


def call(name: Any = None, arguments: Any = None, **more: Any) -> dict[str, Any]:
    function = {"name": name, "arguments": arguments}
    return {**more, "function": {key: value for key, value in function.items() if value is not None}}


TWO = [("a", "f", '{"x":1}'), ("b", "g", '{"y":2}')]


@pytest.mark.parametrize(
    "fragments",
    [
        (call("f", '{"x":1}', index=0, id="a"), call("g", '{"y":2}', index=1, id="b")),
        (call("f", '{"x":1}', index=0, id="a"), call("g", '{"y":2}', index=0, id="b")),
        (call("f", '{"x":1}', id="a"), call("g", '{"y":2}', id="b")),
        (call("f", '{"x":1}', index=1, id="a"), call("g", '{"y":2}', index=2, id="b")),
        (call("f", '{"x"', index=1, id="a"), call(None, ":1}", index=1), call("g", '{"y":2}', index=2, id="b")),
        (call("f", '{"x"', index=0, id="a"), call("f", ":1}", index=0, id="a"), call("g", '{"y":2}', index=1, id="b")),
        (call("f", '{"x"', id="a"), call(None, ":1}"), call("g", '{"y":2}', id="b")),
        (call(None, None, index=0, id="a"), call("f", '{"x":1}', index=0), call("g", '{"y":2}', index=1, id="b")),
        (call("f", {"x": 1}, index=0, id="a"), call("g", {"y": 2}, index="1", id="b")),
        ({"id": "a", "name": "f", "arguments": '{"x":1}'}, {"id": "b", "name": "g", "arguments": '{"y":2}'}),
    ],
)
def test_two_calls_stay_two(fragments: tuple[dict[str, Any], ...]) -> None:
    assert joined(*fragments) == TWO


def test_whole_calls_without_ids_and_indices_stay_apart() -> None:
    found = joined(call("f", '{"x":1}'), call("g", '{"y":2}'))
    assert [each[1:] for each in found] == [each[1:] for each in TWO]
    assert len({each[0] for each in found}) == 2


def test_calls_without_arguments_have_an_empty_object() -> None:
    assert joined(call("f", None, index=0, id="a"), call("g", "", index=0, id="b")) == [
        ("a", "f", "{}"),
        ("b", "g", "{}"),
    ]


def test_a_name_in_parts_is_joined() -> None:
    assert joined(call("look", "", index=0, id="a"), call("_up", "{}", index=0)) == [("a", "look_up", "{}")]


@pytest.mark.parametrize("arguments", [None, "", {}, "{}"])
def test_the_arguments_of_a_whole_call_can_be_parsed(arguments: Any) -> None:
    (found,) = whole_calls({"id": "a", "function": {"name": "f", "arguments": arguments}})
    assert found == {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}
