"""The end of a call: clients that hang up, and tokens that are counted afterwards."""

import asyncio
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from tests.inference.bench import CONFIG, Bench
from tests.inference.engines import and_wait, counting, silence
from tests.inference.making import CHAT, DONE, SAID, STREAM, a_principal, answer, usage
from tests.inference.reading import Collected, Pieces
from tests.net.upstream import Peer, Upstream, answering, response, streamed, until

from quarterdeck.net.http_client import HttpClient
from quarterdeck.net.redis import Redis

# clients that hang up


@pytest.mark.parametrize("asked", [CHAT, STREAM], ids=["plain", "stream"])
async def test_a_caller_who_leaves_before_the_first_event_is_not_billed(bench: Bench, asked: dict[str, Any]) -> None:
    async with Upstream(answering(silence)) as engine:
        bench.add(engine)
        task = asyncio.create_task(bench.ask(asked))
        await engine.arrived.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await engine.closed.wait()
        record = await bench.record()
        assert (record.status, record.http_status, record.error_code) == ("cancelled", 499, None)
        assert (record.input_tokens, record.usage_source, record.cost) == (0, "none", Decimal(0))
        assert record.attempts[0].error == "cancelled"


async def test_a_caller_who_leaves_later_pays_for_what_was_generated(bench: Bench) -> None:
    async with Upstream(answering(and_wait(*SAID[:2]), counting(5), counting(2))) as engine:
        bench.add(engine)
        reply = await bench.ask(STREAM)
        assert reply.stream is not None
        said = b""
        async with Pieces(reply.stream) as pieces:
            async for piece in pieces:
                said += piece
                if b"there" in said:
                    break
        await reply.stream.aclose()
        await engine.closed.wait()
        record = await bench.record()
        assert (record.status, record.http_status, record.attempts[0].error) == ("cancelled", 200, "cancelled")
        assert (record.input_tokens, record.output_tokens, record.usage_source) == (5, 2, "counted")
        assert record.cost == Decimal(5 * 1 + 2 * 2) / 1_000_000
        prompt, output = (seen.json for seen in engine.requests[1:])
        assert prompt == {"model": "m", "messages": CHAT["messages"]}
        assert output == {"model": "m", "prompt": "Hello there", "add_special_tokens": False}


async def test_a_caller_who_leaves_before_the_first_step_is_settled_as_well(bench: Bench) -> None:
    async with Upstream(answering(and_wait(SAID[0]), counting(5))) as engine:
        bench.add(engine)
        reply = await bench.ask(STREAM)
        assert reply.stream is not None
        await reply.stream.aclose()
        await engine.closed.wait()
        record = await bench.record()
        assert (record.status, record.input_tokens, record.output_tokens) == ("cancelled", 5, 0)


async def test_a_task_that_is_cancelled_while_it_reads_is_settled(bench: Bench) -> None:
    sink = Collected()

    async def call() -> None:
        reply = await bench.ask(STREAM)
        assert reply.stream is not None
        try:
            await reply.stream.pump(sink)
        finally:
            await reply.stream.aclose()

    async with Upstream(answering(and_wait(*SAID[:2]), counting(5), counting(2))) as engine:
        bench.add(engine)
        task = asyncio.create_task(call())
        await until(lambda: b"there" in b"".join(sink.pieces))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await engine.closed.wait()
        assert (await bench.record()).status == "cancelled"


async def test_a_caller_who_leaves_after_the_end_changes_nothing(bench: Bench) -> None:
    async with Upstream(answering(streamed(*SAID, usage(), DONE))) as engine:
        bench.add(engine)
        reply = await bench.ask(STREAM)
        assert reply.stream is not None
        async with Pieces(reply.stream) as pieces:
            async for piece in pieces:
                if piece.endswith(DONE):
                    break
        assert (await bench.record()).status == "ok"


# tokens counted afterwards


async def test_where_too_many_wait_to_be_counted_the_next_is_estimated(
    redis: Redis, tmp_path: Path, client: HttpClient
) -> None:
    bench = Bench(redis, tmp_path, client, max_to_count=0)
    async with Upstream(answering(streamed(*SAID))) as engine:
        bench.add(engine)
        await bench.stream()
        assert (await bench.record()).usage_source == "estimated"
        assert len(engine.requests) == 1


async def test_counting_that_fails_settles_all_the_same(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(*_: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(bench.engines, "count", broken)
    async with Upstream(answering(streamed(*SAID))) as engine:
        bench.add(engine)
        await bench.stream()
        record = await bench.record()
        assert (record.status, record.usage_source) == ("error", "estimated")
    assert "a bug" in caplog.text


async def test_at_the_end_nobody_waits_long_to_be_counted(bench: Bench) -> None:
    bench.work_seconds = 0.1

    async def script(peer: Peer) -> None:
        while (await peer.request()).path != "/tokenize":
            await peer.say(streamed(*SAID))
        await peer.until_gone()

    async with Upstream(script) as engine:
        bench.add(engine)
        for _ in range(20):
            await bench.stream()
        async with asyncio.timeout(3):
            records = await bench.records()
        assert {record.usage_source for record in records} == {"estimated"}
        assert len(records) == 20


@pytest.mark.parametrize("has_usage", [True, False])
async def test_a_large_whole_answer_holds_its_slot_until_it_is_taken(bench: Bench, has_usage: bool) -> None:
    large = answer("x" * 100_000)
    if not has_usage:
        large = large.replace(b'"usage"', b'"other"')
    async with Upstream(answering(response(large), counting(3), counting(3))) as engine:
        (endpoint,) = bench.add(engine)
        reply = await bench.ask()
        assert reply.on_end is not None and reply.body == large
        assert endpoint.load.requests == 0, "the endpoint is done with it"
        await bench.settlement.drain()
        assert await bench.reservations() == 1 and bench.seen == []
        reply.on_end()
        reply.on_end()
        assert (await bench.record()).status == "ok"


async def test_a_small_whole_answer_is_settled_at_once(bench: Bench) -> None:
    async with Upstream(answering(response(answer()))) as engine:
        bench.add(engine)
        assert (await bench.ask()).on_end is None
        assert (await bench.record()).status == "ok"


# requests of jobs


async def test_a_request_that_its_worker_sends_again_is_settled_as_lost_until_then(bench: Bench) -> None:
    async with Upstream(answering(silence, response(answer()))) as engine:
        bench.add(engine)
        task = asyncio.create_task(bench.ask(CHAT, request_id="req_line", repeats=lambda: True))
        await engine.arrived.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        lost = await bench.record()
        assert (lost.id, lost.status, lost.cost) == ("req_line", "lost", Decimal(0))
        await bench.ask(CHAT, request_id="req_line", repeats=lambda: True)
        (_, facts) = await bench.records()
        assert (facts.id, facts.status, facts.output_tokens) == ("req_line", "ok", 3)


@pytest.mark.parametrize(
    ("is_repeated", "status", "source"), [(True, "lost", "estimated"), (False, "cancelled", "counted")]
)
async def test_a_stream_that_is_cut_off_is_an_estimate_where_it_is_sent_again_and_counted_where_it_is_not(
    bench: Bench, *, is_repeated: bool, status: str, source: str
) -> None:
    script = answering(and_wait(*SAID[:2]), *([] if is_repeated else [counting(5), counting(2)]))
    async with Upstream(script) as engine:
        bench.add(engine)
        reply = await bench.ask(STREAM, repeats=lambda: is_repeated)
        assert reply.stream is not None
        await reply.stream.aclose()
        await engine.closed.wait()
        record = await bench.record()
        assert (record.status, record.usage_source) == (status, source)


async def test_a_request_of_a_batch_costs_its_share_of_the_price(
    redis: Redis, tmp_path: Path, client: HttpClient
) -> None:
    bench = Bench(redis, tmp_path, client, config=CONFIG + 'batches: {price_share: "0.5"}\n')
    async with Upstream(answering(response(answer()), response(answer()))) as engine:
        bench.add(engine)
        await bench.ask(CHAT)
        await bench.ask(CHAT, principal=a_principal(priority=-1))
        full, half = await bench.records()
        assert full.cost > 0 and half.cost == full.cost / 2
