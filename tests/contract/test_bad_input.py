"""Invalid requests: each gets the right 4xx in the error envelope, with param and code. Generated requests never cause
a 5xx or a hang."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.contract.platform import EXPIRED, NARROW, REVOKED, USER, Platform
from tests.contract.wire import Wire

CHAT, COMPLETIONS, EMBEDDINGS = "/v1/chat/completions", "/v1/completions", "/v1/embeddings"
GOOD = {
    CHAT: {"model": "chat", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 2},
    COMPLETIONS: {"model": "chat", "prompt": "hi", "max_tokens": 2},
    EMBEDDINGS: {"model": "org/emb", "input": "hi"},
    "/tokenize": {"model": "chat", "prompt": "hi"},
    "/detokenize": {"model": "chat", "tokens": [1, 2]},
    "/v1/score": {"model": "org/emb", "text_1": "a", "text_2": "b"},
    "/classify": {"model": "org/emb", "input": "hi"},
}


@pytest.fixture(scope="module")
def wire(platform: Platform) -> Iterator[Wire]:
    with Wire(platform.gateway.port, USER) as made:
        yield made


def body(path: str = CHAT, **changes: Any) -> bytes:
    return json.dumps({**GOOD[path], **changes}).encode()


def without(field: str, path: str = CHAT) -> bytes:
    return json.dumps({name: value for name, value in GOOD[path].items() if name != field}).encode()


DEEP = "invalid_json"
CASES: list[tuple[str, str, bytes, int, str | None, str]] = [
    ("malformed JSON", CHAT, b'{"model": "chat"', 400, None, "invalid_json"),
    ("no body", CHAT, b"", 400, None, "invalid_json"),
    ("two values", CHAT, body() + b"{}", 400, None, "invalid_json"),
    ("NaN", CHAT, body()[:-1] + b', "temperature": NaN}', 400, None, "invalid_json"),
    ("an array", CHAT, b"[]", 400, None, "invalid_json"),
    ("a string", CHAT, b'"chat"', 400, None, "invalid_json"),
    ("null", CHAT, b"null", 400, None, "invalid_json"),
    ("nested beyond reason", CHAT, body()[:-1] + b',"deep":' + b"[" * 10**5 + b"]" * 10**5 + b"}", 400, None, DEEP),
    ("nested without an end", CHAT, body()[:-1] + b', "deep": ' + b'[{"a":' * 10**5, 400, None, DEEP),
    ("invalid UTF-8", CHAT, body().replace(b"hi", b"\xff\xfe"), 400, None, "invalid_json"),
    ("UTF-16", CHAT, body().decode().encode("utf-16"), 400, None, "invalid_json"),
    ("a lone surrogate", CHAT, body(user="x").replace(b'"x"', b'"\\ud800"'), 400, None, "invalid_json"),
    ("a form", CHAT, b"model=chat&messages=hi", 400, None, "invalid_json"),
    ("a field given twice", CHAT, body()[:-1] + b', "model": "chat"}', 400, "model", "duplicate_parameter"),
    ("no model", CHAT, without("model"), 400, "model", "missing_required_parameter"),
    ("no messages", CHAT, without("messages"), 400, "messages", "missing_required_parameter"),
    ("no prompt", COMPLETIONS, without("prompt", COMPLETIONS), 400, "prompt", "missing_required_parameter"),
    ("no input", EMBEDDINGS, without("input", EMBEDDINGS), 400, "input", "missing_required_parameter"),
    ("a model that is a number", CHAT, body(model=1), 400, "model", "invalid_type"),
    ("messages that are text", CHAT, body(messages="hi"), 400, "messages", "invalid_type"),
    ("max_tokens that is text", CHAT, body(max_tokens="2"), 400, "max_tokens", "invalid_type"),
    ("max_tokens that is half", CHAT, body(max_tokens=1.5), 400, "max_tokens", "invalid_type"),
    ("stream that is text", CHAT, body(stream="yes"), 400, "stream", "invalid_type"),
    ("temperature that is a list", CHAT, body(temperature=[1]), 400, "temperature", "invalid_type"),
    ("an unknown model", CHAT, body(model="nope"), 404, "model", "model_not_found"),
    ("an empty model", CHAT, body(model=""), 404, "model", "model_not_found"),
    ("a model that is a path", CHAT, body(model="../../etc/passwd"), 404, "model", "model_not_found"),
    ("a model that is SQL", CHAT, body(model="' OR 1=1 --"), 404, "model", "model_not_found"),
    ("a chat model that embeds", EMBEDDINGS, body(EMBEDDINGS, model="chat"), 400, "model", "unsupported_model"),
    ("an embedding model that chats", CHAT, body(model="org/emb"), 400, "model", "unsupported_model"),
]


@pytest.mark.parametrize(
    ("path", "data", "status", "param", "code"), [case[1:] for case in CASES], ids=[case[0] for case in CASES]
)
def test_bad_input_is_told_in_the_envelope(
    path: str, data: bytes, status: int, param: str | None, code: str, wire: Wire
) -> None:
    answer = wire.post(path, data)
    assert (answer.status, answer.error["param"], answer.error["code"]) == (status, param, code)
    assert answer.error["type"] == "invalid_request_error"
    assert answer.headers["x-request-id"].startswith("req_")


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"max_tokens": -1}, "max_tokens"),
        ({"temperature": -1}, "temperature"),
        ({"temperature": 99}, "temperature"),
        ({"top_p": 2}, "top_p"),
        ({"n": 0}, "n"),
        ({"messages": []}, "messages"),
        ({"top_logprobs": 3}, "top_logprobs"),
        ({"response_format": {"type": "nonsense"}}, "response_format"),
        ({"tool_choice": "required"}, "tool_choice"),
    ],
)
def test_a_value_that_only_the_engine_can_judge_is_a_400_all_the_same(
    changes: dict[str, Any], param: str, wire: Wire
) -> None:
    answer = wire.post(CHAT, body(**changes))
    assert answer.status == 400, answer.body
    assert answer.error["type"] == "invalid_request_error"


def test_a_context_that_is_too_long_has_openais_code(wire: Wire) -> None:
    answer = wire.post(CHAT, body(messages=[{"role": "user", "content": "word " * 10_000}]))
    assert (answer.status, answer.error["code"]) == (400, "context_length_exceeded")


@pytest.mark.parametrize(
    ("key", "status", "code"),
    [
        (None, 401, "missing_api_key"),
        ("nonsense", 401, "invalid_api_key"),
        (REVOKED, 401, "invalid_api_key"),
        (EXPIRED, 401, "invalid_api_key"),
        (NARROW, 404, "model_not_found"),
    ],
)
def test_a_key_that_does_not_fit_is_refused(key: str | None, status: int, code: str, platform: Platform) -> None:
    with Wire(platform.gateway.port, key) as wire:
        answer = wire.post(CHAT, body())
    assert (answer.status, answer.error["code"]) == (status, code)


def test_ten_megabytes_are_a_413(wire: Wire) -> None:
    answer = wire.post(CHAT, body(user="x" * 10 * 1024 * 1024))
    assert (answer.status, answer.error["code"]) == (413, "request_too_large")
    assert wire.post(CHAT, body()).status == 200  # on the same connection


def test_huge_headers_are_a_431(platform: Platform) -> None:
    with Wire(platform.gateway.port, USER) as wire:
        answer = wire.post(CHAT, body(), {"x-large": "x" * 70_000})
    assert (answer.status, answer.error["code"]) == (431, "request_headers_too_large")


def test_everything_that_is_right_is_200(wire: Wire) -> None:
    assert {path: wire.post(path, body(path)).status for path in GOOD} == dict.fromkeys(GOOD, 200)


# What a machine can think of

FIELDS = (
    *("model", "messages", "prompt", "input", "max_tokens", "max_completion_tokens", "temperature", "top_p", "n"),
    *("stream", "stream_options", "stop", "seed", "user", "metadata", "logprobs", "top_logprobs", "response_format"),
    *("tools", "tool_choice", "logit_bias", "presence_penalty", "frequency_penalty", "encoding_format", "dimensions"),
    *("tokens", "text_1", "text_2", "add_generation_prompt", "continue_final_message", "echo", "best_of", "role"),
)
numbers = st.integers(-(2**70), 2**70) | st.integers(-3, 3) | st.floats() | st.just(1e308)
words = st.text(max_size=20) | st.sampled_from(["chat", "org/emb", "user", "auto", "required", "json_object", "\x00"])
scalars = st.none() | st.booleans() | numbers | words
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(words | st.sampled_from(FIELDS), inner, max_size=4),
    max_leaves=12,
)
messages = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["user", "system", "assistant", "tool", "x"]), "content": values},
        optional={"tool_calls": values, "name": values, "tool_call_id": values},
    ),
    max_size=4,
)


@st.composite
def bodies(draw: st.DrawFn) -> tuple[str, bytes]:
    """A path and a body: a valid one with changed, added or removed fields, other JSON, or bytes."""
    path = draw(st.sampled_from(sorted(GOOD)))
    kind = draw(st.integers(0, 9))
    if kind == 0:
        return path, draw(st.binary(max_size=200))
    if kind == 1:
        return path, json.dumps(draw(values)).encode("utf-8", "surrogatepass")
    made: dict[str, Any] = dict(GOOD[path])
    made |= draw(st.dictionaries(st.sampled_from(FIELDS), values, max_size=4))
    if draw(st.booleans()):
        made["messages"] = draw(messages)
    for field in draw(st.lists(st.sampled_from(sorted(made)), max_size=1)):
        del made[field]
    text = json.dumps(made, ensure_ascii=draw(st.booleans())).encode("utf-8", "surrogatepass")
    if kind == 2:
        cut = draw(st.integers(0, len(text)))
        text = text[:cut] + draw(st.binary(max_size=3)) + text[cut + 1 :]
    return path, text


def check(wire: Wire, made: tuple[str, bytes]) -> None:
    answer = wire.post(*made)
    assert answer.status < 500, answer.body
    if answer.status != 200:
        assert answer.error["type"] in ("invalid_request_error", "permission_error")
    elif answer.headers["content-type"].startswith("text/event-stream"):
        assert answer.body.endswith(b"data: [DONE]\n\n")
    else:
        json.loads(answer.body)


quick = settings(max_examples=200, derandomize=True, suppress_health_check=list(HealthCheck))


@quick
@given(made=bodies())
def test_generated_bodies_are_never_a_5xx_and_never_hang(made: tuple[str, bytes], wire: Wire) -> None:
    check(wire, made)


@pytest.mark.long
@settings(quick, max_examples=2000)
@given(made=bodies())
def test_two_thousand_generated_bodies(made: tuple[str, bytes], wire: Wire) -> None:
    check(wire, made)
