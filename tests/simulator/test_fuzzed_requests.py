"""Fuzzed request bodies get a response, never an unhandled exception."""

import asyncio
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.simulator.harness import http

from quarterdeck.simulator import SimulatorConfig, create_app
from quarterdeck.simulator.protocol import requests as known

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-5, 50)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)
WORDS = ["type", "properties", "required", "items", "enum", "anyOf", "$ref", "minimum", "pattern", "const", "allOf"]
schemas = st.recursive(
    values | st.sampled_from(["object", "string", "array", "integer", "#", "#/properties"]),
    lambda inner: st.dictionaries(st.sampled_from(WORDS), inner, max_size=4) | st.lists(inner, max_size=2),
    max_leaves=8,
)
messages = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["user", "assistant", "tool", "system"]) | values, "content": values},
        optional={"tool_calls": values, "name": values},
    ),
    max_size=3,
)
tools = st.lists(
    st.fixed_dictionaries({"function": st.fixed_dictionaries({"name": st.just("f"), "parameters": schemas})})
)
forms = st.fixed_dictionaries(
    {"type": st.just("json_schema"), "json_schema": st.fixed_dictionaries({"schema": schemas})}
)
choices = st.sampled_from(["required", "auto", "none"]) | st.just({"type": "function", "function": {"name": "f"}})
LIKELY: dict[str, st.SearchStrategy[Any]] = {
    "messages": messages,
    "tools": tools,
    "tool_choice": choices,
    "response_format": forms,
    "stream": st.booleans(),
    "max_tokens": st.integers(0, 50),
}


def bodies(kind: type[msgspec.Struct]) -> st.SearchStrategy[dict[str, Any]]:
    names = [field.name for field in msgspec.structs.fields(kind)]
    return st.fixed_dictionaries({}, optional={name: LIKELY.get(name, values) | values for name in names})


REQUESTS = st.one_of(
    st.tuples(st.just("/v1/chat/completions"), bodies(known.ChatRequest)),
    st.tuples(
        st.just("/v1/chat/completions"),
        st.fixed_dictionaries({"messages": messages, "tools": tools, "tool_choice": choices}),
    ),
    st.tuples(st.just("/v1/chat/completions"), st.fixed_dictionaries({"messages": messages, "response_format": forms})),
    st.tuples(st.just("/v1/completions"), bodies(known.CompletionRequest)),
    st.tuples(st.just("/v1/embeddings"), bodies(known.EmbeddingRequest)),
    st.tuples(st.just("/v1/score"), bodies(known.ScoreRequest)),
    st.tuples(st.just("/tokenize"), bodies(known.TokenizeRequest)),
    st.tuples(st.just("/detokenize"), bodies(known.DetokenizeRequest)),
    st.tuples(st.just("/v1/load_lora_adapter"), bodies(known.LoadAdapterRequest)),
    st.tuples(st.just("/admin/config"), st.dictionaries(st.sampled_from(["mode", "fake-metrics", "health"]), values)),
    st.tuples(st.just("/admin/faults"), st.fixed_dictionaries({"fault": values})),
)


@settings(max_examples=300)
@given(REQUESTS)
def test_whatever_comes_is_answered(request: tuple[str, dict[str, Any]]) -> None:
    path, body = request

    async def check() -> None:
        async with http(create_app(SimulatorConfig(task="any", max_model_len=256))) as client:
            answer = await client.post(path, json=body)
            assert answer.status_code in (200, 400, 404)
            if answer.status_code != 200:
                assert answer.json()["error"]["code"] == answer.status_code

    asyncio.run(check())
