import pytest
from openai import BadRequestError
from tests.simulator.harness import sdk, sdk_on, token_ids

from quarterdeck.simulator import create_app


async def test_a_prompt_of_tokens_is_a_prompt_of_their_text() -> None:
    async with sdk() as client:
        text = await client.completions.create(model="simulated", prompt="Once upon a time")
        tokens = await client.completions.create(model="simulated", prompt=token_ids("Once upon a time"))
    assert text.choices[0].text == tokens.choices[0].text
    assert text.usage == tokens.usage
    assert text.usage is not None and text.usage.completion_tokens <= 16


async def test_prompts_times_n_choices() -> None:
    # the SDK's type has no chunk without a finish_reason, though OpenAI and vLLM send them: not strict
    async with sdk_on(create_app(), strict=False) as client:
        ask = {"model": "simulated", "prompt": ["one", "two"], "n": 2, "max_tokens": 4}
        answer = await client.completions.create(**ask)  # type: ignore[arg-type]
        alone = await client.completions.create(model="simulated", prompt="two", max_tokens=4)
        stream = await client.completions.create(
            model="simulated", prompt=["one", "two"], n=2, max_tokens=4, stream=True
        )
        texts = [""] * 4
        async for chunk in stream:
            texts[chunk.choices[0].index] += chunk.choices[0].text
    assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]
    assert answer.choices[2].text == alone.choices[0].text
    assert texts == [choice.text for choice in answer.choices]


async def test_a_longer_prompt_goes_on_where_the_answer_was_cut() -> None:
    async with sdk() as client:
        whole = await client.completions.create(model="simulated", prompt="Once", max_tokens=30)
        first = await client.completions.create(model="simulated", prompt="Once", max_tokens=3)
        rest = await client.completions.create(model="simulated", prompt="Once" + first.choices[0].text, max_tokens=27)
    assert first.choices[0].text + rest.choices[0].text == whole.choices[0].text


async def test_an_empty_prompt_is_refused() -> None:
    async with sdk() as client:
        for prompt in ("", [], [[]]):
            with pytest.raises(BadRequestError):
                await client.completions.create(model="simulated", prompt=prompt)  # type: ignore[arg-type]
