from openai import AsyncOpenAI
from tests.simulator.fake_clock import FakeClock
from tests.simulator.harness import http, sdk, user

from quarterdeck.simulator import SimulatorConfig, create_app
from quarterdeck.simulator.app import App
from quarterdeck.simulator.engine import Engine

CHAT = {"messages": user("hello"), "max_tokens": 3}


async def test_models_are_listed_and_retrieved() -> None:
    async with sdk(
        model="org/ship", served_model_name=["ship", "boat"], lora_modules=['{"name":"a/b","path":"/p"}']
    ) as client:
        listed = [(model.id, (model.model_extra or {})["parent"]) async for model in client.models.list()]
        assert (await client.models.retrieve("a/b")).id == "a/b"
        assert isinstance(client, AsyncOpenAI)
    assert listed == [("ship", None), ("boat", None), ("a/b", "org/ship")]


async def test_the_engine_tells_of_itself() -> None:
    app = create_app(SimulatorConfig(model="m", max_num_seqs=32, lora_modules=["pirate=/p"], embedding_model=["e"]))
    async with http(app) as client:
        endpoints = (await client.get("/endpoints")).json()["endpoints"]
        assert (await client.get("/version")).json() == {"version": "0.29.0"}
        assert (await client.get("/health")).status_code == 200
    first = {"id": "m#1", "model": "m", "adapters": {"pirate": "pirate"}, "url": "http://simulator", "state": "ready"}
    assert endpoints[0] == first | {"max_running": 32, "task": "generate", "detail": "simulated"}
    assert (endpoints[1]["model"], endpoints[1]["task"], endpoints[1]["adapters"]) == ("e", "embed", {})


async def test_a_starting_engine_refuses_and_says_so() -> None:
    clock = FakeClock()
    async with http(App(Engine(SimulatorConfig(startup_duration=3600), clock=clock))) as client:
        assert (await client.get("/health/ready")).status_code == 503
        assert (await client.post("/v1/chat/completions", json=CHAT)).status_code == 503
        assert (await client.get("/endpoints")).json()["endpoints"][0]["state"] == "starting"
        clock.time += 3601
        assert (await client.get("/health/ready")).status_code == 200
        assert (await client.post("/v1/chat/completions", json=CHAT)).status_code == 200


async def test_options_change_at_run_time_and_a_wrong_change_changes_nothing() -> None:
    async with http(create_app()) as client:
        changed = await client.post("/admin/config", json={"mode": "echo", "time-to-first-token": "1ms"})
        assert (changed.json()["mode"], changed.json()["time-to-first-token"]) == ("echo", 0.001)
        said = (await client.post("/v1/chat/completions", json=CHAT)).json()
        for wrong in ({"mode": "random", "port": 1}, {"mode": "sing"}, {"time-to-first-token": []}, {"nonsense": 1}):
            assert (await client.post("/admin/config", json=wrong)).status_code == 400
        assert (await client.get("/admin/config")).json() == changed.json()
        keep = {"inter-token-latency": 5}
        assert (await client.post("/admin/config", json=keep)).json()["time-to-first-token"] == 0.001
    assert said["choices"][0]["message"]["content"] == "hello"


async def test_a_request_id_comes_back_on_request() -> None:
    async with http(create_app(SimulatorConfig(enable_request_id_headers=True))) as client:
        answer = await client.post("/v1/chat/completions", json=CHAT, headers={"x-request-id": "r1"})
    assert answer.headers["x-request-id"] == "r1"
    assert answer.json()["id"] == "chatcmpl-r1"
