import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai import BadRequestError
from tests.simulator.harness import http, sdk, user

from quarterdeck.simulator import SimulatorConfig, create_app


@settings(max_examples=40)
@given(
    st.text(min_size=1, max_size=30),
    st.integers(0, 400),
    st.booleans(),
    st.sampled_from(["random", "echo"]),
    st.none() | st.integers(0, 9),
)
def test_a_partial_answer_is_continued(text: str, cut: int, ignore_eos: bool, mode: str, seed: int | None) -> None:
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


async def test_a_context_too_long_has_vllms_message() -> None:
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
