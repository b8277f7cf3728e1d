"""Requests that wait for room, through the whole pipeline."""

import asyncio

import pytest
from tests.inference.bench import BACKED, Bench
from tests.inference.engines import Held
from tests.inference.making import DONE, SAID, STREAM, answer, by, usage
from tests.inference.reading import Pieces
from tests.net.upstream import Upstream, answering, response, streamed, until

from quarterdeck.errors import (
    EngineUnavailableError,
    RateLimitError,
)
from quarterdeck.inference.streaming.heartbeats import WAITING
from quarterdeck.protocol import sse

FULL = "queue: {max_waiting: 1, heartbeat_after_seconds: 0.001, heartbeat_seconds: 0.001}\n"


async def until_waiting(bench: Bench, count: int) -> None:
    await until(lambda: sum(bench.pipeline.queues.waiting().values()) == count)


async def test_a_request_waits_for_a_place_and_the_next_one_is_refused(bench: Bench) -> None:
    bench.configure(FULL)
    held = Held(response(answer()), response(answer()))
    async with Upstream(held.script) as engine:
        bench.add(engine, max_running=1)
        first = asyncio.create_task(bench.ask())
        await engine.arrived.wait()
        second = asyncio.create_task(bench.ask())
        await until_waiting(bench, 1)
        with pytest.raises(RateLimitError) as caught:
            await bench.ask()
        assert caught.value.code == "queue_full"
        assert len(engine.requests) == 1
        for gate in held.gates:
            gate.set()
        assert [(await task).status for task in (first, second)] == [200, 200]
        assert sorted(record.status for record in await bench.records()) == ["error", "ok", "ok"]


async def test_where_no_place_is_left_a_fallback_for_that_is_asked(bench: Bench) -> None:
    bench.configure(FULL.replace("max_waiting: 1", "max_waiting: 1, max_wait_seconds: 0") + BACKED)
    held = Held(response(answer()))
    async with Upstream(held.script) as engine, Upstream(answering(response(answer()))) as other:
        bench.add(engine, max_running=1)
        bench.add(other, model="n")
        first = asyncio.create_task(bench.ask(by("r")))
        await engine.arrived.wait()
        assert (await bench.ask(by("r"))).status == 200
        assert len(other.requests) == 1
        held.gates[0].set()
        await first


async def test_a_stream_that_waits_begins_with_comments(bench: Bench) -> None:
    bench.configure(FULL)
    held = Held(response(answer()), streamed(*SAID, usage(), DONE))
    async with Upstream(held.script) as engine:
        bench.add(engine, max_running=1)
        first = asyncio.create_task(bench.ask())
        await engine.arrived.wait()
        reply = await bench.ask(STREAM)
        assert reply.stream is not None
        async with Pieces(reply.stream) as pieces:
            assert await anext(pieces) == WAITING
            for gate in held.gates:
                gate.set()
            await first
            said = b"".join([piece async for piece in pieces]).replace(WAITING, b"")
        assert said == b"".join(SAID) + DONE
        assert {record.status for record in await bench.records()} == {"ok"}


async def test_a_caller_who_leaves_the_line_leaves_a_record_and_no_gap(bench: Bench) -> None:
    bench.configure(FULL)
    held = Held(response(answer()))
    async with Upstream(held.script) as engine:
        bench.add(engine, max_running=1)
        first = asyncio.create_task(bench.ask())
        await engine.arrived.wait()
        reply = await bench.ask(STREAM)
        assert reply.stream is not None
        await reply.stream.aclose()
        held.gates[0].set()
        await first
        assert sorted(record.status for record in await bench.records()) == ["cancelled", "ok"]
        assert bench.pipeline.queues.waiting() == {}


async def test_a_request_for_a_model_at_zero_is_held_until_an_endpoint_is_ready(bench: Bench) -> None:
    bench.configure("queue: {cold_wait_seconds: 30}")
    async with Upstream(answering(response(answer()))) as engine:
        task = asyncio.create_task(bench.ask(by("cold")))
        await until_waiting(bench, 1)
        bench.add(engine, model="cold")
        assert (await task).status == 200


async def test_when_it_was_held_for_long_enough_nobody_is_there(bench: Bench) -> None:
    bench.configure("queue: {cold_wait_seconds: 0.01, heartbeat_after_seconds: 0.001}")
    with pytest.raises(EngineUnavailableError) as caught:
        await bench.ask(by("cold"))
    assert caught.value.code == "model_not_ready"
    said = await bench.stream(by("cold"))
    assert said.startswith(WAITING)
    error = sse.parse(list(sse.events(said.replace(WAITING, b"")))[-1])
    assert error is not None
    assert error["error"]["code"] == "model_not_ready"
