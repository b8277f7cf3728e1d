"""A caller's trace context and Langfuse's members of metadata, bounded."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quarterdeck.inference.metering.caller_trace import caller_trace, session_of, user_of
from quarterdeck.protocol.trace_context import OWN, TraceContext
from quarterdeck.record import CallerTrace

TRACE, OTHER = "4bf92f3577b34da6a3ce929d0e0e4736", "a" * 32


@pytest.mark.parametrize("metadata", [None, {}, {"session_id": "s"}, {"user_id": "u"}, {"langfuse_unknown": "x"}])
def test_nothing_stated_is_no_trace(metadata: dict[str, Any] | None) -> None:
    assert caller_trace(None, metadata) is None
    assert caller_trace(OWN, metadata) is None


def test_the_callers_context_is_kept_and_goes_before_an_id_in_metadata() -> None:
    context = TraceContext(TRACE, "b" * 16, False, "v=1")
    assert caller_trace(context, None) == CallerTrace(TRACE, "b" * 16, False, "v=1")
    found = caller_trace(context, {"langfuse_trace_id": OTHER})
    assert found is not None
    assert found.id == TRACE


@pytest.mark.parametrize(
    ("value", "id"),
    [(OTHER, OTHER), (OTHER.upper(), ""), ("0" * 32, ""), ("abc", ""), (7, ""), (None, "")],
)
def test_a_trace_id_in_metadata_must_be_one(value: object, id: str) -> None:
    found = caller_trace(None, {"langfuse_trace_id": value, "langfuse_trace_name": "n"})
    assert found == CallerTrace(id=id, name="n")


@pytest.mark.parametrize(
    ("value", "tags"),
    [
        ("one", ("one",)),
        ("one, two,,one", ("one", "two")),
        ('["one", "two"]', ("one", "two")),
        ("[one", ("[one",)),
        (["one", "two", 3, None, " "], ("one", "two")),
        ({"a": 1}, ()),
        (7, ()),
        ([f"t{number}" for number in range(99)], tuple(f"t{number}" for number in range(16))),
        (["x" * 1000], ("x" * 200,)),
    ],
)
def test_tags(value: object, tags: tuple[str, ...]) -> None:
    found = caller_trace(None, {"langfuse_tags": value, "langfuse_trace_name": "n"})
    assert found is not None
    assert found.tags == tags


def test_other_members_are_the_traces_metadata_bounded() -> None:
    metadata: dict[str, Any] = {
        "plan": "gold",
        "n": 7,
        "ok": True,
        "share": 0.5,
        "deep": {"a": 1},
        "none": None,
        "": "x",
    }
    found = caller_trace(None, metadata)
    assert found == CallerTrace(metadata={"plan": "gold", "n": "7", "ok": "true", "share": "0.5"})
    many = caller_trace(None, {f"k{number}" + "x" * 100: "v" * 1000 for number in range(1000)})
    assert many is not None
    assert len(many.metadata) == 16
    assert {len(name) for name in many.metadata} == {64}
    assert {len(value) for value in many.metadata.values()} == {512}


def test_user_and_session() -> None:
    assert user_of({"langfuse_user_id": "u"}) == "u"
    assert user_of({"langfuse_user_id": 7}) == ""
    assert session_of({"langfuse_session_id": "a", "session_id": "b"}) == "a"
    assert session_of({"session_id": "b"}) == "b"
    assert session_of({"session_id": ["b"]}) == ""


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=10,
)
names = st.sampled_from(
    ["langfuse_tags", "langfuse_trace_name", "langfuse_trace_id", "langfuse_user_id", "session_id", "x"]
)


@given(metadata=st.dictionaries(names | st.text(max_size=10), json_values, max_size=8))
def test_no_metadata_raises(metadata: dict[str, Any]) -> None:
    caller_trace(None, metadata)
    user_of(metadata)
    session_of(metadata)
