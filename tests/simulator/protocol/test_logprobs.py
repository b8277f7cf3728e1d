from tests.simulator.harness import sdk, user


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
