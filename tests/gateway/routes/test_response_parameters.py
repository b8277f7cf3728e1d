"""Parameters of responses and conversations: values of a wrong type, and what a response says of each."""

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.gateway.fakes import Client, FakePipeline, parts

from quarterdeck.gateway.app import create_app
from quarterdeck.inference.call import Reply
from quarterdeck.store.database import Database

CONTENT_TYPE = (("content-type", "application/json"),)
ANSWER = (
    b'{"model":"chat","choices":[{"message":{"role":"assistant","content":"Hello"},"finish_reason":"stop"}],'
    b'"usage":{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5}}'
)
ASK: dict[str, Any] = {"model": "chat", "input": "Hi", "store": False}
TEXT, NUMBER, DECIMAL, YES, LIST, OBJECT = "x", 1, 1.5, True, ["x"], {"x": "y"}
VALUES = [TEXT, NUMBER, DECIMAL, YES, LIST, OBJECT]
WRONG: dict[str, list[Any]] = {
    "model": [NUMBER, YES, LIST, OBJECT],
    "input": [NUMBER, YES, LIST, OBJECT],
    "instructions": [NUMBER, YES, LIST, OBJECT],
    "previous_response_id": [NUMBER, YES, LIST, OBJECT],
    "conversation": [NUMBER, YES, LIST, OBJECT],
    "prompt": [TEXT, NUMBER, YES, LIST],
    "store": [TEXT, NUMBER, LIST, OBJECT],
    "background": [TEXT, NUMBER, LIST, OBJECT],
    "stream": [TEXT, NUMBER, LIST, OBJECT],
    "stream_options": [TEXT, NUMBER, YES, LIST, OBJECT],
    "temperature": [TEXT, YES, LIST, OBJECT],
    "top_p": [TEXT, YES, LIST, OBJECT],
    "max_output_tokens": [TEXT, DECIMAL, YES, LIST, OBJECT],
    "max_tool_calls": [TEXT, DECIMAL, YES, LIST, OBJECT],
    "tools": [TEXT, NUMBER, YES, LIST, OBJECT],
    "tool_choice": [TEXT, NUMBER, YES, LIST, OBJECT],
    "parallel_tool_calls": [TEXT, NUMBER, LIST, OBJECT],
    "text": [TEXT, NUMBER, YES, LIST, OBJECT],
    "reasoning": [TEXT, NUMBER, YES, LIST, OBJECT],
    "truncation": [TEXT, NUMBER, YES, LIST, OBJECT],
    "include": [TEXT, NUMBER, YES, LIST, OBJECT],
    "metadata": [TEXT, NUMBER, YES, LIST],
    "top_logprobs": [TEXT, DECIMAL, YES, LIST, OBJECT],
    "user": [NUMBER, YES, LIST, OBJECT],
    "safety_identifier": [NUMBER, YES, LIST, OBJECT],
    "prompt_cache_key": [NUMBER, YES, LIST, OBJECT],
    "prompt_cache_retention": [TEXT, NUMBER, YES, LIST, OBJECT],
    "service_tier": [TEXT, NUMBER, YES, LIST, OBJECT],
}
NESTED: list[tuple[dict[str, Any], str]] = [
    ({"text": {"verbosity": "loud"}}, "text.verbosity"),
    ({"text": {"format": {}}}, "text.format.type"),
    ({"text": {"format": {"type": "json_schema", "name": 5, "schema": {}}}}, "text.format.name"),
    ({"text": {"format": {"type": "json_schema", "name": "x", "schema": []}}}, "text.format.schema"),
    ({"text": {"format": {"type": "json_schema", "name": "x", "schema": {}, "strict": "yes"}}}, "text.format.strict"),
    ({"reasoning": {"effort": "much"}}, "reasoning.effort"),
    ({"reasoning": {"effort": 1}}, "reasoning.effort"),
    ({"stream_options": {"include_obfuscation": "yes"}}, "stream_options.include_obfuscation"),
    ({"metadata": {"a": 1}}, "metadata.a"),
    ({"metadata": {"k" * 65: "x"}}, "metadata"),
    ({"metadata": {"k": "x" * 513}}, "metadata"),
    ({"top_logprobs": 21}, "top_logprobs"),
    ({"top_logprobs": -1}, "top_logprobs"),
    ({"max_tool_calls": 0}, "max_tool_calls"),
    ({"temperature": -0.1}, "temperature"),
    ({"top_p": 1.1}, "top_p"),
    ({"include": [5]}, "include[0]"),
    ({"conversation": {"id": 5}}, "conversation.id"),
    ({"tools": [{"type": "function", "name": "f", "strict": "yes"}]}, "tools[0].strict"),
    ({"tools": [{"type": "function", "name": "f", "parameters": []}]}, "tools[0].parameters"),
    ({"tools": [{"type": "function", "name": 5}]}, "tools[0].name"),
    ({"tools": [{"type": 5}]}, "tools[0].type"),
    ({"tool_choice": {"type": "allowed_tools"}}, "tool_choice.mode"),
    ({"tool_choice": {"type": 5}}, "tool_choice"),
    ({"input": [{"role": "user", "content": [5]}]}, "input[0].content[0]"),
    ({"input": [{"role": "user", "content": "x", "id": 5}]}, "input[0].id"),
    ({"input": [{"role": "user", "content": "x", "status": "done"}]}, "input[0].status"),
    ({"input": [{"type": "function_call", "call_id": "c", "name": "f"}]}, "input[0].arguments"),
    ({"input": [{"type": "function_call_output", "call_id": "c"}]}, "input[0].output"),
    ({"input": [{"type": "reasoning", "content": ["x"]}]}, "input[0].content[0]"),
]


@pytest.fixture
def client(database: Database) -> Client:
    pipeline = FakePipeline()
    pipeline.answer = Reply(200, ((b"content-type", b"application/json"),), ANSWER)
    return Client(create_app(parts(pipeline, database=database)))


async def test_a_value_of_a_wrong_type_is_refused_by_its_name(client: Client) -> None:
    for name, values in WRONG.items():
        for value in values:
            answer = await client.post("/v1/responses", {**ASK, name: value})
            assert answer.status == 400, (name, value)
            error = answer.error
            assert error["param"].partition(".")[0].partition("[")[0] == name, (value, error)
            assert error["type"] == "invalid_request_error"
            assert error["message"] and error["code"], (value, error)


async def test_a_wrong_value_within_a_parameter_is_refused_with_its_place(client: Client) -> None:
    found = {}
    for members, param in NESTED:
        answer = await client.post("/v1/responses", {**ASK, **members})
        if answer.status != 400 or answer.error["param"] != param:
            found[str(members)] = answer.json
    assert found == {}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
NAMES = st.sampled_from([*WRONG, "type", "id", "role", "content", "format", "name", "output", "summary", "call_id"])
SHAPED = st.recursive(
    JSON | st.sampled_from(["function", "message", "reasoning", "mcp", "item_reference", "user", "input_text", "auto"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(list(WRONG)), SHAPED, max_size=3))
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_whatever_is_sent_is_answered_or_refused(client: Client, members: dict[str, Any]) -> None:
    for path in ("", "/input_tokens", "/compact"):
        answer = await client.post(f"/v1/responses{path}", {**ASK, "background": None, **members, "stream": None})
        assert answer.status in (200, 400, 404, 409, 424), (members, answer.body)
        assert answer.status == 200 or answer.error["message"]


async def test_a_response_shows_defaults_and_what_was_stated(client: Client) -> None:
    shown = (await client.post("/v1/responses", ASK)).json
    assert {
        name: shown[name] for name in shown if name not in ("id", "output", "usage", "created_at", "completed_at")
    } == {
        "object": "response",
        "status": "completed",
        "background": False,
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "max_output_tokens": None,
        "max_tool_calls": None,
        "model": "chat",
        "parallel_tool_calls": True,
        "previous_response_id": None,
        "conversation": None,
        "prompt": None,
        "prompt_cache_key": None,
        "prompt_cache_retention": None,
        "reasoning": {"effort": None, "summary": None},
        "safety_identifier": None,
        "service_tier": "default",
        "store": False,
        "temperature": 1.0,
        "top_p": 1.0,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
        "text": {"format": {"type": "text"}, "verbosity": "medium"},
        "tool_choice": "auto",
        "tools": [],
        "top_logprobs": 0,
        "truncation": "disabled",
        "user": None,
        "metadata": {},
    }
    stated = {
        "instructions": "Be brief.",
        "max_output_tokens": 20,
        "max_tool_calls": 3,
        "parallel_tool_calls": False,
        "prompt_cache_key": "k",
        "prompt_cache_retention": "24h",
        "safety_identifier": "s",
        "temperature": 0.5,
        "top_p": 0.5,
        "top_logprobs": 3,
        "truncation": "auto",
        "user": "u",
        "metadata": {"a": "b"},
        "presence_penalty": 0.1,
        "frequency_penalty": 0.2,
    }
    options = {"text": {"verbosity": "low"}, "reasoning": {"effort": "high", "summary": "auto"}, "service_tier": "fast"}
    shown = (await client.post("/v1/responses", {**ASK, **stated, **options})).json
    assert {name: shown[name] for name in stated} == stated
    assert shown["text"] == {"format": {"type": "text"}, "verbosity": "low"}
    assert shown["reasoning"] == {"effort": "high", "summary": "auto"}
    assert shown["service_tier"] == "default"  # the one that served it


CONVERSATIONS: list[tuple[str, str, Any, str]] = [
    ("POST", "", {"metadata": 5}, "metadata"),
    ("POST", "", {"metadata": {"a": 5}}, "metadata.a"),
    ("POST", "", {"metadata": {str(at): "x" for at in range(17)}}, "metadata"),
    ("POST", "", {"items": "x"}, "items"),
    ("POST", "", {"items": ["x"]}, "items[0]"),
    ("POST", "", {"items": [{"role": "user", "content": "x"}] * 21}, "items"),
    ("POST", "", {"items": [{"type": "item_reference", "id": "msg_1"}]}, "items[0].type"),
    ("POST", "", {"items": [{"role": "user"}]}, "items[0].content"),
    ("POST", "", {"name": "x"}, "name"),
    ("POST", "/conv_1", {}, "metadata"),
    ("POST", "/conv_1", {"metadata": []}, "metadata"),
    ("POST", "/conv_1/items", {}, "items"),
    ("GET", "/conv_1/items?limit=0", None, "limit"),
    ("GET", "/conv_1/items?limit=101", None, "limit"),
    ("GET", "/conv_1/items?limit=x", None, "limit"),
    ("GET", "/conv_1/items?order=up", None, "order"),
    ("GET", "/conv_1/items?include[]=all", None, "include[0]"),
]


@pytest.mark.parametrize(("method", "path", "body", "param"), CONVERSATIONS)
async def test_a_conversations_wrong_values_are_refused_by_name(
    client: Client, method: str, path: str, body: Any, param: str
) -> None:
    content = b"" if body is None else None
    if content is None:
        answer = await client.post(f"/v1/conversations{path}", body, headers=CONTENT_TYPE)
    else:
        answer = await client.get(f"/v1/conversations{path}")
    assert (answer.status, answer.error["param"]) == (400, param), answer.body
