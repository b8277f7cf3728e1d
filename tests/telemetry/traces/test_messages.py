"""A request's content is on its call's span, in the forms that backends read."""

import json
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.trace.v1.trace_pb2 import ScopeSpans
from tests.records import a_record

from quarterdeck.content import Content
from quarterdeck.telemetry.traces.messages import attributes_of, input_messages, output_messages
from quarterdeck.telemetry.traces.projection import TraceProjection

ASKED = {
    "messages": [
        {"role": "system", "content": "Be brief."},
        {
            "role": "user",
            "content": [{"type": "text", "text": "What is this?"}, {"type": "image_url", "image_url": {}}],
        },
        {
            "role": "assistant",
            "tool_calls": [{"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
        },
        {"role": "tool", "tool_call_id": "call_1", "content": "42"},
    ]
}
SAID = [
    {"index": 0, "message": {"role": "assistant", "content": "A ship.", "reasoning": "Hm"}, "finish_reason": "stop"}
]


def span_attributes(content: Content | None, **changes: Any) -> list[dict[str, str]]:
    """The attributes of each span that has a text."""
    record = a_record(**changes)
    data = TraceProjection().encode(record, content)
    return [
        {each.key: each.value.string_value for each in span.attributes} for span in ScopeSpans.FromString(data).spans
    ]


def test_messages_have_parts_in_gen_ais_form() -> None:
    system, user, assistant, tool = input_messages(ASKED)
    assert system == {"role": "system", "parts": [{"type": "text", "content": "Be brief."}]}
    assert user["parts"][0] == {"type": "text", "content": "What is this?"}
    assert assistant["parts"] == [{"type": "tool_call", "id": "call_1", "name": "f", "arguments": "{}"}]
    assert tool["parts"] == [{"type": "tool_call_response", "id": "call_1", "response": "42"}]
    assert output_messages(SAID) == [
        {
            "role": "assistant",
            "parts": [{"type": "reasoning", "content": "Hm"}, {"type": "text", "content": "A ship."}],
            "finish_reason": "stop",
        }
    ]
    assert input_messages({"prompt": ["a", "b"]})[1] == {"role": "user", "parts": [{"type": "text", "content": "b"}]}
    assert output_messages([{"index": 0, "text": "x", "finish_reason": None}])[0]["parts"][0]["content"] == "x"


def test_only_the_calls_span_has_the_content() -> None:
    content = Content(
        level="full", input=json.dumps(ASKED).encode(), output=json.dumps(SAID).encode(), is_input_cut=True
    )
    having = [found for found in span_attributes(content) if "langfuse.observation.input" in found]
    (call,) = having
    assert json.loads(call["langfuse.observation.input"]) == ASKED["messages"]
    assert json.loads(call["langfuse.observation.output"]) == SAID[0]["message"]
    assert json.loads(call["input.value"]) == ASKED["messages"]
    assert json.loads(call["gen_ai.output.messages"])[0]["finish_reason"] == "stop"
    assert call["langfuse.observation.metadata.input_cut"] == "true"


def test_hashed_content_is_only_its_hashes() -> None:
    content = Content(level="hashed", input_hash="ab" * 32, output_hash="cd" * 32)
    (call,) = [each for each in span_attributes(content) if "langfuse.observation.metadata.input_sha256" in each]
    assert call["langfuse.observation.metadata.output_sha256"] == "cd" * 32
    assert "langfuse.observation.input" not in call


def test_without_content_nothing_is_added() -> None:
    record = a_record()
    assert TraceProjection().encode(record, None) == TraceProjection().encode(record)
    assert b"observation.input" not in TraceProjection().encode(record)


_json = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["messages", "role", "content", "message", "tool_calls", "function", "x"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=20,
)


@given(_json, _json)
def test_any_content_makes_valid_attributes(asked: Any, said: Any) -> None:
    content = Content(level="full", input=msgspec.json.encode(asked), output=msgspec.json.encode(said))
    spans = ScopeSpans.FromString(TraceProjection().encode(a_record(), content)).spans
    assert spans
    assert attributes_of(content)
