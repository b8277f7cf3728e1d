import asyncio
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai import AsyncOpenAI, BadRequestError, NotFoundError
from pydantic import BaseModel
from tests.simulator.harness import events, http, sdk, sdk_on, user

from quarterdeck.simulator import SimulatorConfig, create_app

WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "days": {"type": "integer", "minimum": 1}},
            "required": ["city", "days"],
        },
    },
}


class Weather(BaseModel):
    city: str
    days: int


async def tokens(client: AsyncOpenAI, **body: Any) -> int:
    answer = await client.with_options(base_url="http://simulator").post("/tokenize", cast_to=object, body=body)
    return answer["count"]  # type: ignore[index]


async def test_an_answer_repeats_and_a_seed_changes_it() -> None:
    async with sdk() as client:
        ask = {"model": "simulated", "messages": user("hello")}
        first = await client.chat.completions.create(**ask)  # type: ignore[arg-type]
        again = await client.chat.completions.create(**ask, temperature=0)  # type: ignore[arg-type]
        other = await client.chat.completions.create(**ask, seed=7)  # type: ignore[arg-type]
    assert first.choices[0].message.content == again.choices[0].message.content
    assert first.choices[0].message.content != other.choices[0].message.content
    assert first.choices[0].finish_reason == "stop"


async def test_another_engine_says_the_same() -> None:
    said = set()
    for _ in range(2):
        async with sdk() as client:
            answer = await client.chat.completions.create(model="simulated", messages=user("hello"))
            said.add(answer.choices[0].message.content)
    assert len(said) == 1


async def test_usage_is_what_tokenize_says() -> None:
    async with sdk() as client:
        messages = [{"role": "system", "content": "Be brief!"}, *user("What is a keel? 日本 <|im_end|>")]
        answer = await client.chat.completions.create(model="simulated", messages=messages)
        assert answer.usage is not None
        assert answer.usage.prompt_tokens == await tokens(client, messages=messages)
        assert answer.usage.completion_tokens == await tokens(client, prompt=answer.choices[0].message.content)
        assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


async def test_a_stream_says_what_the_plain_answer_says() -> None:
    async with sdk() as client:
        ask = {"model": "simulated", "messages": user("hello"), "max_tokens": 9}
        plain = await client.chat.completions.create(**ask)  # type: ignore[arg-type]
        stream = await client.chat.completions.create(**ask, stream=True, stream_options={"include_usage": True})  # type: ignore[call-overload]
        chunks = [chunk async for chunk in stream]
    assert chunks[0].choices[0].delta.role == "assistant"
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == plain.choices[0].message.content
    assert chunks[-2].choices[0].finish_reason == plain.choices[0].finish_reason == "length"
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None and plain.usage is not None
    assert chunks[-1].usage.completion_tokens == plain.usage.completion_tokens == 9


async def test_events_are_shaped_as_vllms() -> None:
    async with http(create_app()) as client:
        body = {"messages": user("hello"), "max_tokens": 3, "stream": True, "stream_options": {"include_usage": True}}
        answer = await client.post("/v1/chat/completions", json=body, headers={"x-request-id": "abc"})
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert answer.content.endswith(b"\n\ndata: [DONE]\n\n")
    head = b'data: {"id":"chatcmpl-abc","object":"chat.completion.chunk","created":'
    assert all(block.startswith(head) for block in answer.content.split(b"\n\n")[:-2])
    found = events(answer.content)
    opening = {"index": 0, "delta": {"role": "assistant", "content": ""}, "logprobs": None, "finish_reason": None}
    assert found[0]["choices"] == [opening]
    assert set(found[1]["choices"][0]) == {"index", "delta", "logprobs", "finish_reason", "token_ids"}
    assert found[3]["choices"][0]["finish_reason"] == "length"
    assert found[4]["choices"] == []
    assert found[4]["usage"]["prompt_tokens_details"] == {"cached_tokens": 0}
    assert found[5] == "[DONE]"


async def test_usage_comes_only_where_it_is_asked_for() -> None:
    async with http(create_app()) as client:
        answer = await client.post("/v1/chat/completions", json={"messages": user("hello"), "stream": True})
        each = {"include_usage": True, "continuous_usage_stats": True}
        continuous = await client.post(
            "/v1/chat/completions", json={"messages": user("hello"), "stream": True, "stream_options": each}
        )
    assert not any("usage" in event for event in events(answer.content)[:-1])
    counts = [event["usage"]["completion_tokens"] for event in events(continuous.content)[:-1]]
    assert counts == sorted(counts) and counts[0] == 0


async def test_n_choices_differ_and_are_counted() -> None:
    async with sdk() as client:
        answer = await client.chat.completions.create(model="simulated", messages=user("hello"), n=3, max_tokens=8)
        assert len({choice.message.content for choice in answer.choices}) == 3
        stream = await client.chat.completions.create(
            model="simulated", messages=user("hello"), n=3, max_tokens=8, stream=True
        )
        texts = ["", "", ""]
        async for chunk in stream:
            for choice in chunk.choices:
                texts[choice.index] += choice.delta.content or ""
    assert texts == [choice.message.content for choice in answer.choices]


async def test_stop_and_bounds() -> None:
    async with sdk() as client:
        full = await client.chat.completions.create(model="simulated", messages=user("hello"), max_tokens=12)
        words = (full.choices[0].message.content or "").split()
        cut = await client.chat.completions.create(model="simulated", messages=user("hello"), stop=[words[3]])
        long = await client.chat.completions.create(
            model="simulated", messages=user("hello"), max_tokens=300, extra_body={"ignore_eos": True}
        )
    assert (cut.choices[0].message.content or "").split() == words[:3]
    assert cut.choices[0].model_extra is not None
    assert cut.choices[0].model_extra["stop_reason"] == words[3]
    assert long.usage is not None
    assert (long.usage.completion_tokens, long.choices[0].finish_reason) == (300, "length")


async def test_echo_says_the_last_user_message() -> None:
    async with sdk(mode="echo") as client:
        text = "Heave to — 停船!\n  Now."
        answer = await client.chat.completions.create(model="simulated", messages=user(text))
        stream = await client.chat.completions.create(model="simulated", messages=user(text), stream=True)
        streamed = "".join([chunk.choices[0].delta.content or "" async for chunk in stream])
    assert answer.choices[0].message.content == streamed == text


async def test_logprobs_have_the_sdks_shape() -> None:
    async with sdk() as client:
        ask = {"model": "simulated", "messages": user("hello"), "max_tokens": 5, "logprobs": True, "top_logprobs": 3}
        answer = await client.chat.completions.create(**ask)  # type: ignore[arg-type]
        stream = await client.chat.completions.create(**ask, stream=True)  # type: ignore[call-overload]
        streamed = [
            entry
            async for chunk in stream
            if chunk.choices[0].logprobs
            for entry in chunk.choices[0].logprobs.content or []
        ]
    content = answer.choices[0].logprobs.content if answer.choices[0].logprobs else None
    assert content is not None
    assert "".join(entry.token for entry in content) == answer.choices[0].message.content
    for entry in content:
        tops = [top.logprob for top in entry.top_logprobs]
        assert entry.top_logprobs[0].token == entry.token
        assert tops == sorted(tops, reverse=True) and tops[0] <= 0
    assert streamed == content


async def test_json_is_valid() -> None:
    async with sdk() as client:
        parsed = await client.chat.completions.parse(model="simulated", messages=user("hello"), response_format=Weather)
        assert isinstance(parsed.choices[0].message.parsed, Weather)
        loose = await client.chat.completions.create(
            model="simulated", messages=user("hello"), response_format={"type": "json_object"}
        )
        assert (loose.choices[0].message.content or "").startswith('{"answer":')
        chosen = await client.chat.completions.create(
            model="simulated",
            messages=user("hello"),
            extra_body={"structured_outputs": {"choice": ["port", "starboard"]}},
        )
    assert chosen.choices[0].message.content in ("port", "starboard")


@pytest.mark.parametrize(
    ("choice", "finish_reason"),
    [("required", "tool_calls"), ({"type": "function", "function": {"name": "get_weather"}}, "stop")],
)
async def test_a_tool_is_called_when_it_must_be(choice: Any, finish_reason: str) -> None:
    async with sdk() as client:
        ask = {"model": "simulated", "messages": user("hello"), "tools": [WEATHER], "tool_choice": choice}
        answer = await client.chat.completions.create(**ask)  # type: ignore[arg-type]
        stream = await client.chat.completions.create(**ask, stream=True)  # type: ignore[call-overload]
        pieces = [chunk.choices[0] async for chunk in stream]
    message = answer.choices[0].message
    assert message.tool_calls and message.tool_calls[0].type == "function"
    arguments = message.tool_calls[0].function.arguments
    Weather.model_validate_json(arguments)
    assert answer.choices[0].finish_reason == pieces[-1].finish_reason == finish_reason
    deltas = [call for piece in pieces for call in piece.delta.tool_calls or []]
    assert [call.function.name for call in deltas if call.function and call.function.name] == ["get_weather"]
    assert deltas[0].id and all(call.id is None for call in deltas[1:])
    assert "".join(call.function.arguments or "" for call in deltas if call.function) == arguments


async def test_auto_calls_a_tool_that_the_user_names() -> None:
    async with sdk() as client:
        called = await client.chat.completions.create(
            model="simulated", messages=user("please get_weather"), tools=[WEATHER]
        )
        said = await client.chat.completions.create(model="simulated", messages=user("hello"), tools=[WEATHER])
        none = await client.chat.completions.create(
            model="simulated", messages=user("please get_weather"), tools=[WEATHER], tool_choice="none"
        )
    assert called.choices[0].finish_reason == "tool_calls"
    assert said.choices[0].message.tool_calls is None and said.choices[0].message.content
    assert none.choices[0].message.tool_calls is None


@settings(max_examples=40, deadline=None)
@given(
    st.text(min_size=1, max_size=30),
    st.integers(0, 400),
    st.booleans(),
    st.sampled_from(["random", "echo"]),
    st.none() | st.integers(0, 9),
)
def test_a_half_written_answer_is_gone_on_with(
    text: str, cut: int, ignore_eos: bool, mode: str, seed: int | None
) -> None:
    async def check() -> None:
        async with http(create_app(SimulatorConfig(mode=mode))) as client:  # type: ignore[arg-type]
            ask = {"messages": user(text), "max_tokens": 60, "ignore_eos": ignore_eos, "seed": seed}
            whole = (await client.post("/v1/chat/completions", json=ask)).json()
            full = whole["choices"][0]["message"]["content"]
            half = full[:cut]
            ask["messages"] = [*user(text), {"role": "assistant", "content": half}]
            ask |= {"continue_final_message": True, "add_generation_prompt": False}
            rest = (await client.post("/v1/chat/completions", json=ask)).json()
            said = half + rest["choices"][0]["message"]["content"]
            assert said == full or (whole["choices"][0]["finish_reason"] == "length" and said.startswith(full))

    asyncio.run(check())


async def test_a_raw_completion_of_the_rendered_chat_is_the_same_answer() -> None:
    async with sdk() as client:
        chat = await client.chat.completions.create(model="simulated", messages=user("hello"), max_tokens=20)
        raw = await client.completions.create(
            model="simulated", prompt="<|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\n", max_tokens=20
        )
    assert raw.choices[0].text == chat.choices[0].message.content


async def test_cached_tokens_are_reported() -> None:
    async with sdk() as client:
        long = user("word " * 100)
        first = await client.chat.completions.create(model="simulated", messages=long)
        second = await client.chat.completions.create(model="simulated", messages=long)
        said = {"role": "assistant", "content": second.choices[0].message.content}
        third = await client.chat.completions.create(model="simulated", messages=[*long, said, *user("more")])  # type: ignore[list-item]
    cached = [
        answer.usage.prompt_tokens_details.cached_tokens
        for answer in (first, second, third)
        if answer.usage and answer.usage.prompt_tokens_details
    ]
    assert first.usage is not None
    assert cached[0] == 0
    assert cached[1] == (first.usage.prompt_tokens - 1) // 16 * 16
    assert cached[2] is not None and cached[1] is not None and cached[2] >= cached[1]


async def test_an_adapter_changes_the_answer() -> None:
    app = create_app(SimulatorConfig(lora_modules=["pirate=/adapters/pirate"]))
    async with sdk_on(app) as client, http(app) as raw:
        await raw.post("/v1/load_lora_adapter", json={"lora_name": "poet", "lora_path": "/adapters/poet"})
        names = [model.id async for model in client.models.list()]
        said = [
            (await client.chat.completions.create(model=name, messages=user("hello"))).choices[0].message.content
            for name in names
        ]
        await raw.post("/v1/unload_lora_adapter", json={"lora_name": "poet"})
        with pytest.raises(NotFoundError):
            await client.chat.completions.create(model="poet", messages=user("hello"))
    assert names == ["simulated", "pirate", "poet"]
    assert len(set(said)) == 3


async def test_a_context_too_long_is_told_as_vllm_tells_it() -> None:
    async with sdk(max_model_len=64) as client:
        with pytest.raises(BadRequestError) as caught:
            await client.chat.completions.create(model="simulated", messages=user("hello"), max_tokens=60)
    assert caught.value.body == {
        "message": "This model's maximum context length is 64 tokens. However, you requested 60 output tokens and your "
        "prompt contains 10 input tokens, for a total of 70 tokens. Please reduce the length of the input prompt or "
        "the number of requested output tokens.",
        "type": "BadRequestError",
        "param": "input_tokens",
        "code": 400,
    }
