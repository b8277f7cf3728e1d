"""Requests that wait for room, through the whole pipeline."""

import asyncio
from pathlib import Path

import pytest
from tests.inference.bench import BACKED, Bench, refused
from tests.inference.engines import Held
from tests.inference.making import DONE, SAID, STREAM, answer, by, usage
from tests.inference.reading import Pieces
from tests.net.upstream import Peer, Script, Upstream, answering, response, streamed, until

from quarterdeck.errors import (
    EngineUnavailableError,
    RateLimitError,
)
from quarterdeck.inference.call import Reply
from quarterdeck.inference.streaming.heartbeats import WAITING
from quarterdeck.net.http_client import HttpClient
from quarterdeck.net.redis import Redis
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


def reads_its_prompt(gate: asyncio.Event, *events: bytes) -> Script:
    """An engine that answers once the gate is open."""

    async def script(peer: Peer) -> None:
        await gate.wait()
        await peer.say(streamed(*events))

    return script


async def begun(reply: Reply, gate: asyncio.Event) -> bytes:
    """The whole stream; the gate opens after its first piece."""
    assert reply.stream is not None
    async with Pieces(reply.stream) as pieces:
        said = [await anext(aiter(pieces))]
        gate.set()
        said += [piece async for piece in pieces]
    return b"".join(said)


async def test_comments_keep_a_stream_open_while_the_engine_reads_the_prompt(
    redis: Redis, tmp_path: Path, client: HttpClient
) -> None:
    gate = asyncio.Event()
    bench = Bench(redis, tmp_path, client, prefill_heartbeat_seconds=0.01)
    async with Upstream(answering(reads_its_prompt(gate, *SAID, usage(), DONE))) as engine:
        bench.add(engine)
        said = await begun(await bench.ask(STREAM), gate)
        assert said.replace(WAITING, b"") == b"".join(SAID) + DONE
        assert said.startswith(WAITING)
        record = await bench.record()
        assert (record.status, record.output_tokens) == ("ok", 3)


async def test_after_a_comment_another_endpoint_is_still_tried_and_the_last_error_is_an_event(
    redis: Redis, tmp_path: Path, client: HttpClient
) -> None:
    gate = asyncio.Event()
    bench = Bench(redis, tmp_path, client, prefill_heartbeat_seconds=0.01)
    broken = reads_its_prompt(gate, b'data: {"error":{"message":"boom","code":500}}\n\n')
    async with Upstream(answering(broken, broken)) as bad, Upstream(answering(streamed(*SAID, usage(), DONE))) as good:
        bench.add(bad, good)
        said = await begun(await bench.ask(STREAM), gate)
        assert said.endswith(b"".join(SAID) + DONE)
        gate.clear()
        bench.listed.endpoints.pop()
        said = await begun(await bench.ask(STREAM), gate)
        assert said.startswith(WAITING)
        assert b"engine_error" in said
        assert DONE not in said
        assert [each.status for each in await bench.records()] == ["ok", "error"]


async def test_a_refusal_for_want_of_an_endpoint_is_announced(bench: Bench) -> None:
    """An operator starts a replica for it, whether the request was held before or not."""
    models: list[str] = []
    bench.pipeline.queues.on_refused = models.append
    for text in ("", "queue: {cold_wait_seconds: 0.01}"):
        bench.configure(text)
        await refused(EngineUnavailableError, bench, by("cold"))
    assert models == ["cold", "cold"]
    bench.listed.reasons["cold"] = "It is suspended."
    error = await refused(EngineUnavailableError, bench, by("cold"))
    assert "It is suspended." in error.message
    assert models == ["cold", "cold"], "no replica may come"
