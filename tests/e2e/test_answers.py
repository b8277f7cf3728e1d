"""The real model through the whole platform, with the official SDK."""

import json
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.samples import CHATS, TEXTS
from tests.e2e.stack import CHAT, EMBED, Stack

QUESTION: list[Any] = [{"role": "user", "content": "What is the capital of France?"}]
TOOL: Any = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather of a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
            "required": ["city", "days"],
            "additionalProperties": False,
        },
    },
}
SCHEMA: Any = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 20},
        "age": {"type": "integer", "minimum": 0, "maximum": 120},
    },
    "required": ["name", "age"],
    "additionalProperties": False,
}


def test_it_knows_the_capital_of_france(platform: Stack) -> None:
    answer = platform.client().chat.completions.create(model=CHAT, messages=QUESTION, temperature=0, max_tokens=40)
    assert "Paris" in (answer.choices[0].message.content or "")


def test_streamed_and_plain_say_the_same(platform: Stack) -> None:
    client = platform.client()
    plain = client.chat.completions.create(model=CHAT, messages=QUESTION, temperature=0, max_tokens=40)
    with client.chat.completions.create(
        model=CHAT, messages=QUESTION, temperature=0, max_tokens=40, stream=True
    ) as stream:
        chunks = list(stream)
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == plain.choices[0].message.content
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == plain.choices[0].finish_reason
    assert all(chunk.usage is None for chunk in chunks)


def test_an_alias_is_the_model(platform: Stack) -> None:
    answer = platform.client().chat.completions.create(model="gpt-4o-mini", messages=QUESTION, max_tokens=4)
    assert answer.model == CHAT


def test_strict_json_schema_is_kept(platform: Stack) -> None:
    answer = platform.client().chat.completions.create(
        model=CHAT,
        messages=[{"role": "user", "content": "Describe a sailor as JSON."}],
        response_format={"type": "json_schema", "json_schema": {"name": "sailor", "strict": True, "schema": SCHEMA}},
        temperature=0,
        max_tokens=120,
    )
    sailor = json.loads(answer.choices[0].message.content or "")
    assert set(sailor) == {"name", "age"}
    assert isinstance(sailor["name"], str)
    assert 0 <= sailor["age"] <= 120


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "get_weather"}}])
def test_a_tool_call_that_is_asked_for_has_valid_arguments(platform: Stack, choice: Any) -> None:
    answer = platform.client().chat.completions.create(
        model=CHAT,
        messages=[{"role": "user", "content": "How will the weather be in Bergen for 3 days?"}],
        tools=[TOOL],
        tool_choice=choice,
        temperature=0,
        max_tokens=200,
    )
    calls = answer.choices[0].message.tool_calls
    assert calls, answer
    assert calls[0].type == "function"
    assert calls[0].function.name == "get_weather"
    arguments = json.loads(calls[0].function.arguments)
    assert isinstance(arguments["city"], str)
    assert isinstance(arguments["days"], int)


def test_logprobs_come_with_their_alternatives(platform: Stack) -> None:
    answer = platform.client().chat.completions.create(
        model=CHAT, messages=QUESTION, temperature=0, max_tokens=5, logprobs=True, top_logprobs=3
    )
    assert answer.choices[0].logprobs is not None
    tokens = answer.choices[0].logprobs.content or []
    assert len(tokens) == answer.usage.completion_tokens if answer.usage else False
    assert all(token.logprob <= 0 and len(token.top_logprobs) == 3 for token in tokens)


def test_n_gives_n_choices(platform: Stack) -> None:
    answer = platform.client().chat.completions.create(
        model=CHAT, messages=QUESTION, n=3, temperature=1, seed=1, max_tokens=8
    )
    assert sorted(choice.index for choice in answer.choices) == [0, 1, 2]


def test_a_seed_repeats_an_answer(platform: Stack) -> None:
    def ask(seed: int) -> str:
        answer = platform.client().chat.completions.create(
            model=CHAT, messages=[{"role": "user", "content": "Tell a story."}], seed=seed, temperature=1, max_tokens=24
        )
        return answer.choices[0].message.content or ""

    assert ask(11) == ask(11)
    assert ask(11) != ask(12)


def test_stop_ends_the_text(platform: Stack) -> None:
    answer = platform.client().chat.completions.create(
        model=CHAT, messages=QUESTION, temperature=0, max_tokens=40, stop=["Paris"]
    )
    assert answer.choices[0].finish_reason == "stop"
    assert "Paris" not in (answer.choices[0].message.content or "")


def test_completions_complete(platform: Stack) -> None:
    answer = platform.client().completions.create(model=CHAT, prompt="One, two, three,", temperature=0, max_tokens=8)
    assert "four" in answer.choices[0].text


def test_usage_equals_the_tokenizers_count(platform: Stack, reference: dict[str, Any]) -> None:
    client = platform.client()
    for messages, expected in zip(CHATS, reference["chat_tokens"], strict=True):
        answer: Any = client.chat.completions.create(model=CHAT, messages=messages, max_tokens=6, temperature=0)  # type: ignore[call-overload]  # plain dictionaries
        assert answer.usage.prompt_tokens == expected
        row = platform.row(answer._request_id)
        assert (row["input_tokens"], row["output_tokens"]) == (expected, answer.usage.completion_tokens)
        assert row["usage_source"] == "engine"


def test_embeddings_equal_sentence_transformers(platform: Stack, reference: dict[str, Any]) -> None:
    for encoding in ("float", "base64"):
        answer = platform.client().embeddings.create(model=EMBED, input=TEXTS, encoding_format=encoding)  # type: ignore[arg-type]  # a literal of two
        for item, expected in zip(answer.data, reference["embeddings"], strict=True):
            vector = item.embedding
            if isinstance(vector, str):
                import array
                import base64

                vector = array.array("f", base64.b64decode(vector)).tolist()
            assert len(vector) == 384
            assert max(abs(a - b) for a, b in zip(vector, expected, strict=True)) < 1e-3


def test_an_adapter_loaded_at_run_time_changes_the_answer(platform: Stack, reference: dict[str, Any]) -> None:
    client = platform.client()

    def say(model: str) -> str:
        answer = client.chat.completions.create(model=model, messages=QUESTION, temperature=0, max_tokens=16)
        return answer.choices[0].message.content or ""

    before = say(CHAT)
    with platform.http() as http:
        order = {"model": CHAT, "name": "loud", "path": reference["adapter"]}
        loaded = http.post(f"{platform.engine_url}/adapters", json=order)
        assert loaded.status_code == 200, loaded.text
        platform.wait(lambda: True if "loud" in {model.id for model in client.models.list()} else None)
        assert say("loud") != before
        assert say(CHAT) == before
        assert http.delete(f"{platform.engine_url}/adapters/{CHAT}/loud").status_code == 200


def test_an_adapter_is_its_content_whatever_becomes_of_its_folder(platform: Stack, reference: dict[str, Any]) -> None:
    """Replaced, it answers by its new weights, from no block of the old ones; moved away, it answers on."""
    client = platform.client()
    system: Any = {
        "role": "system",
        "content": "You are a helpful assistant. " * 20,
    }  # fills blocks of the prefix cache

    def ask(model: str) -> tuple[str, str, int]:
        answer = client.chat.completions.create(
            model=model,
            messages=[system, *QUESTION],
            temperature=0,
            max_tokens=16,
        )
        assert answer.usage is not None
        details = answer.usage.prompt_tokens_details
        cached = details.cached_tokens if details else None
        return answer.choices[0].message.content or "", answer.model, cached or 0

    loud, folder = Path(reference["adapter"]), Path(reference["adapter"]).with_name("changing")
    shutil.copytree(loud, folder)
    with platform.http() as http:

        def load() -> None:
            order = {"model": CHAT, "name": "changing", "path": str(folder)}
            loaded = http.post(f"{platform.engine_url}/adapters", json=order)
            assert loaded.status_code == 200, loaded.text

        load()
        platform.wait(lambda: True if "changing" in {model.id for model in client.models.list()} else None)
        first = ask("changing")
        assert first[1] == "changing"
        assert ask("changing")[2] > 0
        config = folder / "adapter_config.json"
        config.write_text(json.dumps(json.loads(config.read_text()) | {"lora_alpha": 0}))  # no effect at all
        load()
        time.sleep(3)  # gateways poll the engine's list once a second
        text, model, cached = ask("changing")
        assert (model, cached) == ("changing", 0)
        assert text == ask(CHAT)[0] != first[0]
        shutil.rmtree(folder)
        assert ask("changing")[0] == text
        assert ask(CHAT)[1] == CHAT
        assert http.delete(f"{platform.engine_url}/adapters/{CHAT}/changing").status_code == 200


def test_an_embedding_of_more_than_the_model_reads_is_that_of_its_beginning(platform: Stack) -> None:
    client = platform.client()
    words = [f"word{number}" for number in range(400)]
    long, longer = (client.embeddings.create(model=EMBED, input=" ".join(words[:count])) for count in (350, 400))
    assert long.usage.prompt_tokens == longer.usage.prompt_tokens == 256
    assert long.data[0].embedding == pytest.approx(longer.data[0].embedding, abs=1e-5)


def test_a_cancelled_stream_stops_the_engine_and_is_counted(platform: Stack) -> None:
    stream = platform.client().chat.completions.create(
        model=CHAT,
        messages=[{"role": "user", "content": "Write a very long story about the sea."}],
        max_tokens=1500,
        temperature=0.8,
        stream=True,
        extra_body={"ignore_eos": True},
    )
    seen = 0
    for chunk in stream:
        seen += bool(chunk.choices and chunk.choices[0].delta.content)
        if seen == 8:
            break
    request_id = stream.response.headers["x-request-id"]
    assert platform.running(CHAT) == 1
    stream.close()
    platform.wait(lambda: True if platform.running(CHAT) == 0 else None, 30)
    row = platform.row(request_id)
    assert row["status"] == "cancelled"
    assert row["usage_source"] == "counted"
    assert seen <= row["output_tokens"] < 1500
    assert row["input_tokens"] > 0


def test_a_cancelled_plain_request_stops_the_engine(platform: Stack) -> None:
    import httpx

    body = {
        "model": CHAT,
        "messages": [{"role": "user", "content": "Write a very long story about a storm."}],
        "max_tokens": 1500,
        "ignore_eos": True,
    }
    with platform.http() as http, pytest.raises(httpx.ReadTimeout):
        http.post("/v1/chat/completions", json=body, timeout=1.5)
    platform.wait(lambda: True if platform.running(CHAT) == 0 else None, 30)


def test_a_prompt_that_is_too_long_is_a_400_with_its_code(platform: Stack) -> None:
    with platform.http() as http:
        answer = http.post(
            "/v1/chat/completions", json={"model": CHAT, "messages": [{"role": "user", "content": "ship " * 5000}]}
        )
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "context_length_exceeded"
