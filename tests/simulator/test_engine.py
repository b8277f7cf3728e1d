from tests.simulator.harness import http, user

from quarterdeck.simulator import SimulatorConfig, create_app

CHAT = {"messages": user("hello")}


async def test_a_model_is_refused_what_it_is_not_for() -> None:
    config = SimulatorConfig(model="talker", embedding_model=["reader"])
    async with http(create_app(config)) as client:
        answer = await client.post("/v1/chat/completions", json=CHAT | {"model": "reader"})
        assert answer.status_code == 400
        assert answer.json()["error"]["message"] == "The model does not support Chat Completions API"
        assert (await client.post("/v1/embeddings", json={"input": "x"})).json()["model"] == "reader"
        assert (await client.post("/v1/chat/completions", json=CHAT)).json()["model"] == "talker"
