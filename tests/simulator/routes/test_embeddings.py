import math

import pytest
from openai import BadRequestError
from tests.simulator.harness import http, sdk, sdk_on, token_ids

from quarterdeck.simulator import SimulatorConfig, create_app


async def test_all_inputs_and_both_formats() -> None:
    # the SDK asks for base64 and decodes it, but its strict validation looks before that
    async with sdk_on(create_app(SimulatorConfig(task="embed")), strict=False) as client:
        texts = await client.embeddings.create(model="simulated", input=["a ship", "a keel"])
        tokens = await client.embeddings.create(model="simulated", input=[token_ids("a ship"), token_ids("a keel")])
        floats = await client.embeddings.create(
            model="simulated", input="a ship", encoding_format="float", dimensions=8
        )
    assert [len(each.embedding) for each in texts.data] == [384, 384]
    assert texts.data == tokens.data
    assert texts.usage.prompt_tokens == len(token_ids("a ship")) + len(token_ids("a keel"))
    assert len(floats.data[0].embedding) == 8
    assert math.isclose(sum(value**2 for value in floats.data[0].embedding), 1, rel_tol=1e-6)


async def test_what_is_wrong_is_refused() -> None:
    async with sdk(task="embed", max_model_len=32) as client:
        for wrong in ({"input": "x " * 100}, {"input": ""}, {"input": "x", "dimensions": 0}):
            with pytest.raises(BadRequestError):
                await client.embeddings.create(model="simulated", **wrong)  # type: ignore[arg-type]


async def test_scores() -> None:
    async with http(create_app(SimulatorConfig(task="embed"))) as client:
        body = {"text_1": "the ship sails", "text_2": ["the ship sails", "bake a cake"]}
        answer = (await client.post("/v1/score", json=body)).json()
        wrong = await client.post("/v1/score", json={"text_1": ["a", "b", "c"], "text_2": ["a", "b"]})
    assert [each["index"] for each in answer["data"]] == [0, 1]
    assert answer["data"][0]["score"] == pytest.approx(1) and answer["data"][1]["score"] < 0.5
    assert wrong.status_code == 400


async def test_a_long_input_is_truncated_where_the_request_says_so() -> None:
    async with http(create_app(SimulatorConfig(task="embed", max_model_len=32))) as client:
        long = "x " * 100
        for path, body in (("embeddings", {"input": long}), ("score", {"text_1": long, "text_2": "y"})):
            assert (await client.post(f"/v1/{path}", json=body)).status_code == 400
            answer = (await client.post(f"/v1/{path}", json=body | {"truncate_prompt_tokens": -1})).json()
            assert answer["usage"]["prompt_tokens"] == 32
