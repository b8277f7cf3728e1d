"""The platform under the official SDK with strict validation, the oracle of compatibility."""

import base64
import json
import struct
from typing import Any

import openai
import pytest
from openai.types.chat import ChatCompletionChunk
from tests.contract.platform import Platform
from tests.contract.questions import ASK
from tests.servers import wait_until

from quarterdeck.record import RequestRecord


def text_of(chunks: list[ChatCompletionChunk]) -> str:
    return "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)


def test_a_chat_completion_is_typed_and_counted(client: openai.OpenAI, platform: Platform) -> None:
    answer = client.chat.completions.create(**ASK)
    assert answer.choices[0].message.content
    assert answer.usage is not None
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert answer._request_id is not None
    record = platform.record(answer._request_id)
    assert (record.status, record.http_status, record.usage_source) == ("ok", 200, "engine")
    assert (record.input_tokens, record.output_tokens) == (answer.usage.prompt_tokens, answer.usage.completion_tokens)
    assert record.cost > 0


def test_a_stream_says_what_the_plain_answer_says(client: openai.OpenAI) -> None:
    plain = client.chat.completions.create(**ASK).choices[0].message.content
    with client.chat.completions.create(**ASK, stream=True) as stream:
        chunks = list(stream)
    assert text_of(chunks) == plain
    assert chunks[-1].choices[0].finish_reason in ("stop", "length")
    assert {chunk.id for chunk in chunks} == {chunks[0].id}


async def test_the_async_client_does_the_same(async_client: openai.AsyncOpenAI) -> None:
    plain = (await async_client.chat.completions.create(**ASK)).choices[0].message.content
    stream = await async_client.chat.completions.create(**ASK, stream=True)
    assert text_of([chunk async for chunk in stream]) == plain


def test_usage_in_a_stream_comes_to_who_asks_and_to_nobody_else(client: openai.OpenAI, platform: Platform) -> None:
    with client.chat.completions.create(**ASK, stream=True, stream_options={"include_usage": True}) as stream:
        asked = list(stream)
    with client.chat.completions.create(**ASK, stream=True) as stream:
        request_id = stream.response.headers["x-request-id"]
        unasked = list(stream)
    assert asked[-1].usage is not None
    assert asked[-1].choices == []
    assert all(chunk.usage is None and chunk.choices for chunk in unasked)
    record = platform.record(request_id)
    assert record.usage_source == "engine"
    assert record.output_tokens == asked[-1].usage.completion_tokens
    assert record.first_token is not None


def test_the_sdks_own_stream_helper_accumulates(client: openai.OpenAI) -> None:
    with client.chat.completions.stream(**{**ASK, "max_tokens": 512}) as stream:
        final = stream.get_final_completion()
    assert final.choices[0].message.content


def test_completions_plain_and_streamed(client: openai.OpenAI, platform: Platform) -> None:
    plain = client.completions.create(model="chat", prompt="Once upon a time", max_tokens=8)
    # Not strict: the SDK's type requires a finish_reason in every chunk; OpenAI sends null until the last one.
    with platform.client(_strict_response_validation=False) as lenient:
        chunks = list(lenient.completions.create(model="chat", prompt="Once upon a time", max_tokens=8, stream=True))
    streamed = "".join(choice.text for chunk in chunks for choice in chunk.choices)
    assert chunks[-1].choices[0].finish_reason == plain.choices[0].finish_reason == "length"
    assert plain.choices[0].text == streamed != ""


def test_embeddings_are_the_same_as_floats_and_as_base64(client: openai.OpenAI, platform: Platform) -> None:
    asked = {"model": "org/emb", "input": ["one", "two"]}
    floats = client.embeddings.create(**asked, encoding_format="float")  # type: ignore[arg-type]
    # By default the SDK requests base64 and decodes it, but strict validation rejects the string first.
    with platform.client(_strict_response_validation=False) as lenient:
        default = lenient.embeddings.create(**asked)  # type: ignore[arg-type]
    raw = client.post("/embeddings", body={**asked, "encoding_format": "base64"}, cast_to=object)
    assert len(floats.data) == 2
    assert default.data[0].embedding == pytest.approx(floats.data[0].embedding, rel=1e-6)
    packed = base64.b64decode(raw["data"][1]["embedding"])  # type: ignore[index]
    assert struct.unpack(f"<{len(packed) // 4}f", packed) == pytest.approx(floats.data[1].embedding, rel=1e-6)
    assert floats.usage.prompt_tokens > 0


def test_models_are_listed_and_retrieved(client: openai.OpenAI) -> None:
    assert {"chat", "gpt-4o-mini", "org/emb"} <= {model.id for model in client.models.list()}
    assert client.models.retrieve("org/emb").id == "org/emb"


def test_an_alias_is_its_model(client: openai.OpenAI, platform: Platform) -> None:
    answer = client.chat.completions.create(**{**ASK, "model": "gpt-4o-mini"})
    assert answer._request_id is not None
    assert platform.record(answer._request_id).model == "chat"


TOOL: Any = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "get_weather"}}])
def test_a_tool_is_called_with_arguments_that_fit(choice: Any, client: openai.OpenAI) -> None:
    ask = {**ASK, "max_tokens": 256}
    answer = client.chat.completions.create(**ask, tools=[TOOL], tool_choice=choice)
    calls = answer.choices[0].message.tool_calls
    assert calls is not None
    assert calls[0].type == "function"
    assert calls[0].function.name == "get_weather"
    assert "city" in json.loads(calls[0].function.arguments)


def test_a_streamed_tool_call_adds_up(client: openai.OpenAI) -> None:
    ask = {**ASK, "max_tokens": 256}
    with client.chat.completions.stream(**ask, tools=[TOOL], tool_choice="required") as stream:
        calls = stream.get_final_completion().choices[0].message.tool_calls
    assert calls
    assert "city" in json.loads(calls[0].function.arguments)


def test_a_strict_json_schema_is_kept(client: openai.OpenAI) -> None:
    schema = TOOL["function"]["parameters"]
    answer = client.chat.completions.create(
        **{**ASK, "max_tokens": 256},
        response_format={"type": "json_schema", "json_schema": {"name": "w", "strict": True, "schema": schema}},
    )
    found = json.loads(answer.choices[0].message.content or "")
    assert set(found) <= {"city", "days"}
    assert isinstance(found["city"], str)


def test_logprobs_n_and_seed(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(**ASK, logprobs=True, top_logprobs=2, n=2, seed=7)
    assert len(answer.choices) == 2
    logprobs = answer.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.content
    assert len(logprobs.content[0].top_logprobs) == 2


def test_a_stop_word_ends_the_answer_before_it(client: openai.OpenAI) -> None:
    whole = client.chat.completions.create(**ASK).choices[0].message.content or ""
    word = whole.split()[2]
    cut = client.chat.completions.create(**ASK, stop=[word]).choices[0]
    assert cut.finish_reason == "stop"
    assert cut.message.content == whole[: whole.index(word)]


def test_unknown_fields_reach_the_engine(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(**ASK, extra_body={"min_tokens": 12, "ignore_eos": True, "ours": {"a": 1}})
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 16


def test_tokenize_and_detokenize_are_each_others_reverse(client: openai.OpenAI, platform: Platform) -> None:
    root = client.with_options(base_url=platform.gateway.url)
    tokens: Any = root.post("/tokenize", body={"model": "chat", "prompt": "Ahoy there"}, cast_to=object)
    text: Any = root.post("/detokenize", body={"model": "chat", "tokens": tokens["tokens"]}, cast_to=object)
    assert (tokens["count"], text["prompt"]) == (len(tokens["tokens"]), "Ahoy there")


def test_scores_come_back(client: openai.OpenAI) -> None:
    found: Any = client.post("/score", body={"model": "org/emb", "text_1": "a", "text_2": ["a", "b"]}, cast_to=object)
    assert len(found["data"]) == 2


@pytest.mark.parametrize(
    ("key", "model", "error", "status", "code"),
    [
        ("sk-qd-user", "nope", openai.NotFoundError, 404, "model_not_found"),
        ("sk-qd-nobody", "chat", openai.AuthenticationError, 401, "invalid_api_key"),
        ("sk-qd-revoked", "chat", openai.AuthenticationError, 401, "invalid_api_key"),
        ("sk-qd-expired", "chat", openai.AuthenticationError, 401, "invalid_api_key"),
        ("sk-qd-narrow", "chat", openai.NotFoundError, 404, "model_not_found"),
        ("sk-qd-user", "org/emb", openai.BadRequestError, 400, "unsupported_model"),
    ],
)
@pytest.mark.parametrize("streamed", [False, True])
def test_a_refusal_is_the_sdks_own_exception(
    key: str, model: str, error: type[openai.APIStatusError], status: int, code: str, streamed: bool, platform: Platform
) -> None:
    with platform.client(key) as client, pytest.raises(error) as caught:
        client.chat.completions.create(**{**ASK, "model": model, "stream": streamed})
    assert (caught.value.status_code, caught.value.code) == (status, code)
    assert caught.value.request_id
    assert key not in str(caught.value)


def test_a_bad_value_names_its_parameter(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(**{**ASK, "max_tokens": "many"})
    assert (caught.value.param, caught.value.code) == ("max_tokens", "invalid_type")


def test_a_rate_limit_says_when_to_come_again(platform: Platform) -> None:
    with platform.client("sk-qd-slow") as client:
        first = client.chat.completions.with_raw_response.create(**ASK)
        assert first.headers["x-ratelimit-limit-requests"] == "1"
        assert first.headers["x-ratelimit-remaining-requests"] == "0"
        with pytest.raises(openai.RateLimitError) as caught:
            client.chat.completions.create(**ASK)
    assert caught.value.code == "rate_limit_exceeded"
    assert int(caught.value.response.headers["retry-after"]) > 30


def fault(name: str) -> Any:
    return {"extra_headers": {"x-fault": name}}


@pytest.mark.parametrize(
    ("name", "error", "status"),
    [
        ("429=1", openai.RateLimitError, 429),
        ("500", openai.InternalServerError, 502),
        ("503", openai.InternalServerError, 503),
        ("401", openai.InternalServerError, 502),
        ("refused", openai.InternalServerError, 503),
        ("400-context", openai.BadRequestError, 400),
    ],
)
def test_an_engines_refusal_is_ours_in_openais_words(
    name: str, error: type[openai.APIStatusError], status: int, client: openai.OpenAI
) -> None:
    with pytest.raises(error) as caught:
        client.chat.completions.create(**ASK, **fault(name))
    assert caught.value.status_code == status
    assert isinstance(caught.value.code, str)


@pytest.mark.parametrize("name", ["cut=3", "reset=3", "error=3"])
def test_a_stream_that_breaks_raises_and_never_ends_silently(
    name: str, client: openai.OpenAI, platform: Platform
) -> None:
    with client.chat.completions.create(**ASK, stream=True, **fault(name)) as stream:
        request_id = stream.response.headers["x-request-id"]
        with pytest.raises(openai.APIError) as caught:
            list(stream)
    assert caught.value.body is not None
    assert caught.value.code
    record = platform.record(request_id)
    assert record.status == "error"
    assert record.error_code is not None
    assert record.output_tokens > 0


def test_a_cancelled_stream_stops_the_engine_and_is_recorded(client: openai.OpenAI, platform: Platform) -> None:
    many: Any = {**ASK, "max_tokens": 3000, "extra_body": {"ignore_eos": True}}
    with client.chat.completions.create(**many, stream=True) as stream:
        request_id = stream.response.headers["x-request-id"]
        seen = [next(iter(stream)) for _ in range(5)]
        assert platform.simulator.running() == 1
    record: RequestRecord = platform.record(request_id)
    assert (record.status, record.usage_source) == ("cancelled", "counted")
    assert len(seen) - 1 <= record.output_tokens < 3000
    assert record.input_tokens > 0
    wait_until(lambda: platform.simulator.running() == 0, seconds=1)


async def test_a_plain_request_that_is_given_up_stops_the_engine(
    async_client: openai.AsyncOpenAI, platform: Platform
) -> None:
    many: Any = {**ASK, "max_tokens": 3000, "extra_body": {"ignore_eos": True}}
    with pytest.raises(openai.APITimeoutError):
        await async_client.with_options(timeout=0.5).chat.completions.create(**many)
    wait_until(lambda: platform.simulator.running() == 0, seconds=1)


def test_the_request_id_is_in_the_log_beside_the_callers(client: openai.OpenAI, platform: Platform) -> None:
    headers = {"x-client-request-id": "my-own-id"}
    answer = client.chat.completions.create(**ASK, extra_headers=headers)

    def lines() -> list[dict[str, Any]]:
        return [line for line in platform.gateway.log_lines() if line.get("request_id") == answer._request_id]

    wait_until(lambda: bool(lines()), seconds=5)  # log lines are written in batches
    assert lines()[-1]["client_request_id"] == "my-own-id"
    assert lines()[-1]["status"] == 200
