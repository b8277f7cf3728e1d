from typing import Any

import pytest
from openai import AsyncOpenAI, NotFoundError
from tests.simulator.harness import http, sdk, sdk_on, user

from quarterdeck.simulator import SimulatorConfig, create_app


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
