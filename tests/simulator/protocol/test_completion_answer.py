from tests.simulator.harness import events, http, sdk_on, token_ids

from quarterdeck.simulator import create_app


async def test_echo_and_logprobs() -> None:
    # an echoed first token has no log-probability: null, as with OpenAI, which the SDK's type doesn't know
    async with sdk_on(create_app(), strict=False) as client:
        answer = await client.completions.create(
            model="simulated", prompt="Once upon", echo=True, logprobs=2, max_tokens=3
        )
        choice = answer.choices[0]
        assert choice.text.startswith("Once upon")
        assert choice.logprobs is not None and choice.logprobs.tokens is not None
        assert choice.logprobs.top_logprobs is not None and choice.logprobs.text_offset is not None
        assert "".join(choice.logprobs.tokens) == choice.text
        assert choice.logprobs.text_offset[1] == len(choice.logprobs.tokens[0])
        assert all(len(top) == 2 for top in choice.logprobs.top_logprobs[1:])
        only = await client.completions.create(model="simulated", prompt="Once upon", echo=True, max_tokens=0)
    assert only.choices[0].text == "Once upon"


async def test_token_ids_are_given_on_request() -> None:
    async with http(create_app()) as client:
        body = {"prompt": "Once", "max_tokens": 4, "return_token_ids": True}
        plain = (await client.post("/v1/completions", json=body)).json()["choices"][0]
        stream = events((await client.post("/v1/completions", json=body | {"stream": True})).content)[:-1]
    assert plain["token_ids"] == token_ids(plain["text"]) and plain["prompt_token_ids"] == token_ids("Once")
    assert [token for event in stream for token in event["choices"][0]["token_ids"]] == plain["token_ids"]
