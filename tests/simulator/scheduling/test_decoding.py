import asyncio

from tests.simulator.fake_clock import FakeClock
from tests.simulator.harness import http, sdk, series, user

from quarterdeck.simulator import SimulatorConfig, create_app
from quarterdeck.simulator.app import App
from quarterdeck.simulator.engine import Engine


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


async def test_prompts_of_another_salt_are_not_cached() -> None:
    async with http(create_app(SimulatorConfig())) as client:
        cached = []
        for salt in ("a", "b", "a", None):
            body = {"messages": user("word " * 100), "max_tokens": 1, "cache_salt": salt}
            answer = (await client.post("/v1/chat/completions", json=body)).json()
            cached.append(answer["usage"]["prompt_tokens_details"]["cached_tokens"] > 0)
    assert cached == [False, False, True, False]


async def test_without_blocks_a_request_is_preempted_and_ends_all_the_same() -> None:
    config = SimulatorConfig(
        kv_cache_size=8, block_size=16, max_model_len=128, max_num_seqs=4, inter_token_latency=0.0002
    )
    app = create_app(config)
    async with http(app) as client:
        body = {"messages": user("hello"), "max_tokens": 90, "ignore_eos": True}
        answers = await asyncio.gather(*(client.post("/v1/chat/completions", json=body) for _ in range(4)))
        page = series((await client.get("/metrics")).text)
    assert len({answer.json()["choices"][0]["message"]["content"] for answer in answers}) == 1
    assert page['vllm:num_preemptions_total{model_name="simulated",engine="0"}'] > 0
    assert page['vllm:kv_cache_usage_perc{model_name="simulated",engine="0"}'] == 0


async def test_cached_tokens_shorten_the_prefill() -> None:
    clock = FakeClock()
    app = App(Engine(SimulatorConfig(prefill_time_per_token=0.001), clock=clock))
    took = []
    async with http(app) as client:
        body = {"messages": user("word " * 400), "max_tokens": 1}
        for _ in range(2):
            began = clock.now()
            await client.post("/v1/chat/completions", json=body)
            took.append(clock.now() - began)
    assert took[0] >= 0.4
    assert took[1] < took[0] / 2
