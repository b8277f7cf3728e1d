import asyncio

from tests.simulator.harness import http, series, user

from quarterdeck.simulator import SimulatorConfig, create_app
from quarterdeck.simulator.scheduling.scheduler import ScheduledRequest, Scheduler

ENDLESS = {"messages": user("hello"), "max_tokens": 1000, "ignore_eos": True}
SLOW = {"time_to_first_token": 3600.0}


async def test_one_more_than_may_wait_is_a_429() -> None:
    app = create_app(SimulatorConfig(max_num_seqs=1, max_waiting_queue_length=1, **SLOW))
    async with http(app) as client:
        asked = [asyncio.create_task(client.post("/v1/chat/completions", json=ENDLESS)) for _ in range(2)]
        while app.engine.scheduler.waiting < 1:  # noqa: ASYNC110  (the engine has no event for tests)
            await asyncio.sleep(0)
        refused = await client.post("/v1/chat/completions", json=ENDLESS)
        page = series((await client.get("/metrics")).text)
        assert (await client.get("/load")).json() == {"server_load": 2}
        for task in asked:
            task.cancel()
        await asyncio.gather(*asked, return_exceptions=True)
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
    labels = '{model_name="simulated",engine="0"'
    assert page[f"vllm:num_requests_running{labels}}}"] == 1
    assert page[f"vllm:num_requests_waiting{labels}}}"] == 1
    assert page[f'vllm:num_requests_waiting_by_reason{labels},reason="capacity"}}'] == 1
    assert app.engine.scheduler.running == app.engine.scheduler.waiting == app.engine.load == 0


def scheduler(**options: int) -> Scheduler:
    config = SimulatorConfig(**options)  # type: ignore[arg-type]
    return Scheduler(lambda: config, None)


def test_who_waits_runs_in_order() -> None:
    places = scheduler(max_num_seqs=1)
    first, second, third = ScheduledRequest(1), ScheduledRequest(1), ScheduledRequest(1)
    for ticket in (first, second, third):
        places.enqueue(ticket)
    places.release(first)
    assert (second.is_running, third.is_running) == (True, False)
    places.release(third)
    assert places.waiting == 0


def test_an_adapter_without_a_place_is_stepped_over() -> None:
    places = scheduler(max_num_seqs=8, max_loras=1)
    one, other, plain = ScheduledRequest(1, adapter="one"), ScheduledRequest(1, adapter="other"), ScheduledRequest(1)
    for ticket in (one, other, plain):
        places.enqueue(ticket)
    assert (one.is_running, other.is_running) == (True, False)
    places.advance()
    assert plain.is_running
    assert places.deferred == 1
    assert places.adapters() == (["one"], ["other"])
    places.release(one)
    assert other.is_running
