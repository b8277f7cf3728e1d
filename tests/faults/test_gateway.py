"""Gateway killed or terminated: what callers see, and how requests in flight are settled."""

import signal

import pytest
from tests.faults import ledger_check
from tests.faults.client import Answer, Shape, ask
from tests.faults.stack import Stack, mixed, signal_to, until
from tests.faults.traffic import Traffic, long_streams
from tests.telemetry.otlp_sink import OTLPSink

pytestmark = pytest.mark.faults

SHORT = Shape("chat", max_tokens=3)


async def test_what_a_killed_gateway_had_under_way_becomes_lost_and_is_billed(stack: Stack) -> None:
    key = await stack.key("gateway-killed")
    async with stack.client(key) as client, Traffic(client, mixed) as traffic:
        async with long_streams(client, "mixed-two", max_tokens=3000) as streams:
            await traffic.answered(25)  # long enough for a renewal, so that reservations hold the streams' progress
            stack.gateway.kill()
        await traffic.answered(5, "broken")
        await until(lambda: stack.a.running() + stack.b.running() == 0)  # the engines stop
        await stack.start(stack.gateway)
        await traffic.answered(12)
    cut_off = [stream.result() for stream in streams]
    assert {answer.outcome for answer in cut_off} == {"broken"}
    assert set(traffic.outcomes()) == {"ok", "broken"}, "a restarted gateway serves at once"
    await stack.all_settled(seconds=30)
    rows = ledger_check.check([*traffic.answers, *cut_off], await stack.rows(key))
    for answer in cut_off:
        row = rows[answer.tag]
        assert (row.status, row.usage_source) == ("lost", "estimated"), row
        assert row.input_tokens > 0 and 0 < row.output_tokens <= answer.pieces and row.cost > 0, "the tokens last seen"


@pytest.mark.parametrize("is_late", [False, pytest.param(True, marks=pytest.mark.long)], ids=["soon", "late"])
async def test_records_that_a_killed_gateway_left_on_disk_are_brought_in_by_the_next(
    stack: Stack, is_late: bool
) -> None:
    """Redis is killed, then the gateway. If the next gateway starts late, its reservations count as lost until it
    replays the spool."""
    key = await stack.key(f"gateway-and-redis-killed {is_late}")
    async with stack.client(key) as client:
        async with long_streams(client, "mixed-two", 3) as streams:
            stack.redis.kill()
            async with Traffic(client, mixed) as traffic:
                await traffic.answered(20)
        answers = [*traffic.answers, *(stream.result() for stream in streams)]
        await until(lambda: stack.spooled() == len(answers))
        stack.gateway.kill()
        lost = stack.metric("quarterdeck_lost_requests_total", stack.worker)
        await stack.start(stack.redis)
        if is_late:
            await until(lambda: stack.metric("quarterdeck_lost_requests_total", stack.worker) == lost + 3)
        await stack.start(stack.gateway)
    assert {answer.outcome for answer in answers} == {"ok"}
    await stack.all_settled(seconds=30)
    ledger_check.check(answers, await stack.rows(key))


async def test_a_gateway_that_is_told_to_end_lets_streams_end_and_exits_with_0(stack: Stack) -> None:
    key = await stack.key("gateway-drained")
    async with stack.client(key) as client:
        async with long_streams(client, "mixed-two") as streams:
            signal_to(stack.gateway, signal.SIGTERM)
            await until(lambda: stack.gateway.get("/readyz")[0] == 503)
            assert stack.ready()["status"] == "draining"
            assert not any(stream.done() for stream in streams), "readiness goes first"
            late = await ask(client, SHORT, "mixed-two")
            assert late.outcome == "503 shutting_down" and late.headers["connection"] == "close"
        answers = [stream.result() for stream in streams]
    assert {answer.outcome for answer in answers} == {"ok"}
    assert await stack.ended(stack.gateway) == 0
    assert await reservations(stack) == 0, "every record was committed before it ended"
    await stack.all_settled()
    ledger_check.check([*answers, late], await stack.rows(key))


async def test_a_drain_that_takes_too_long_tells_the_callers_and_ends(stack: Stack) -> None:
    key = await stack.key("gateway-drain-over")
    await stack.configure(stack.configuration(drain_seconds=0.3))
    async with stack.client(key) as client, long_streams(client, "mixed-two") as streams:
        signal_to(stack.gateway, signal.SIGTERM)
        assert await stack.ended(stack.gateway) == 0
    answers = [stream.result() for stream in streams]
    assert {answer.outcome for answer in answers} == {"event shutting_down"}
    assert await reservations(stack) == 0
    await stack.all_settled()
    rows = {row.user: row for row in await stack.rows(key)}
    for answer in answers:
        row = rows[answer.tag]
        assert (row.status, row.usage_source) == ("cancelled", "counted"), row
        assert row.output_tokens >= answer.pieces > 0


async def test_a_gateway_ends_in_time_though_redis_is_paused(stack: Stack) -> None:
    """SIGTERM while Redis is unavailable: every record goes to disk, and the next gateway replays it."""
    key = await stack.key("gateway-drained-without-redis")
    async with stack.client(key) as client:
        async with long_streams(client, "mixed-two", 3) as streams:
            stack.redis.pause()
            signal_to(stack.gateway, signal.SIGTERM)
        answers: list[Answer] = [stream.result() for stream in streams]
        assert await stack.ended(stack.gateway) == 0
        assert stack.spooled() == 3
        stack.redis.resume()
        await stack.start(stack.gateway)
    assert {answer.outcome for answer in answers} == {"ok"}
    await stack.all_settled()
    ledger_check.check(answers, await stack.rows(key))


@pytest.mark.long
async def test_a_gateway_that_freezes_for_longer_than_its_lease_is_believed_when_it_wakes(
    stack: Stack, fault_sink: OTLPSink
) -> None:
    """Requests settled as lost meanwhile are corrected to their actual usage."""
    key = await stack.key("gateway-frozen")
    lost = stack.metric("quarterdeck_lost_requests_total", stack.worker)
    async with stack.client(key) as client, long_streams(client, "mixed-two", 3) as streams:
        stack.gateway.pause()
        await until(lambda: stack.metric("quarterdeck_lost_requests_total", stack.worker) == lost + 3)
        stack.gateway.resume()
    answers = [stream.result() for stream in streams]
    await stack.all_settled()
    rows = ledger_check.check(answers, await stack.rows(key))
    assert "lost" not in {row.status for row in rows.values()}
    # The trace backend gets both under one id, and the later one replaces the first.
    costs = {row.trace_id: row.cost for row in rows.values()}
    await until(lambda: all(fault_sink.observations[trace].total_cost == cost for trace, cost in costs.items()))
    calls = [span for span in fault_sink.spans if span.trace_id in costs and span.observation.type == "GENERATION"]
    assert len(calls) == 2 * len(costs)
    assert len({span.span_id for span in calls}) == len(costs)


async def reservations(stack: Stack) -> int:
    return (await stack.left())["reservations"]
