"""Loss of an engine: killed before its first token, killed mid-stream, draining slowly, or its endpoint list lost."""

import asyncio
import contextlib
import signal
from collections import Counter
from collections.abc import Awaitable, Callable

import pytest
from tests.faults import ledger_check, totals
from tests.faults.client import Answer, Shape, ask
from tests.faults.stack import SHAPES, TIMEOUTS, Stack, mixed, mixed_one, signal_to, until
from tests.faults.traffic import Traffic, long_streams
from tests.platform import SimulatorProcess
from tests.telemetry.otlp_sink import OTLPSink

pytestmark = pytest.mark.faults


async def test_with_two_engines_the_death_of_one_costs_nothing(stack: Stack) -> None:
    key = await stack.key("engine-killed")
    async with (
        stack.client(key) as client,
        Traffic(client, mixed) as traffic,
        traffic.around("engine a was killed and came back"),
    ):
        stack.a.kill()
        await traffic.answered(40)
        await stack.start(stack.a)
    assert set(traffic.outcomes()) == {"ok"}
    await stack.all_settled()
    rows = ledger_check.check(traffic.answers, await stack.rows(key))
    tried_twice = sum(len(row.attempts) == 2 for row in rows.values() if not row.resumed)
    assert 0 < tried_twice <= 20, "after three failures in a row it is offered last"


async def test_with_two_engines_one_that_stands_still_is_left_after_its_time_out(stack: Stack) -> None:
    key = await stack.key("engine-paused")
    async with (
        stack.client(key) as client,
        Traffic(client, mixed) as traffic,
        traffic.around("an engine stood still and went on"),
    ):
        async with long_streams(client, "mixed-two") as streams:
            paused = busiest(stack)
            paused.pause()
        await traffic.answered(25)
        paused.resume()
    answers = [*traffic.answers, *(stream.result() for stream in streams)]
    assert {answer.outcome for answer in answers} == {"ok"}
    assert traffic.slowest < TIMEOUTS["first_token_timeout_seconds"] + 4
    await stack.all_settled()
    rows = ledger_check.check(answers, await stack.rows(key))
    assert any(row.resumed for row in rows.values()), "the long streams went on elsewhere"


async def test_a_single_engine_that_is_gone_is_a_503_to_be_retried_and_then_it_answers_again(stack: Stack) -> None:
    key = await stack.key("only-engine-killed")
    async with (
        stack.client(key) as client,
        Traffic(client, mixed_one) as traffic,
        traffic.around("the only engine was killed and came back"),
    ):
        stack.a.kill()
        await traffic.answered(15, "503 engine_unavailable")
        await stack.start(stack.a)
    assert set(traffic.outcomes()) <= {"ok", "503 engine_unavailable", "502 engine_error", "event engine_error"}
    refused = [answer for answer in traffic.answers if answer.status == 503]
    assert all(int(answer.headers["retry-after"]) >= 1 for answer in refused)
    assert max(answer.seconds for answer in refused) < 1.0
    await stack.all_settled()
    ledger_check.check(traffic.answers, await stack.rows(key))


@pytest.mark.parametrize("model", ["mixed-one", "mixed-two"])
async def test_streams_of_a_killed_engine_go_on_elsewhere_or_end_with_an_error_event(stack: Stack, model: str) -> None:
    key = await stack.key(f"killed-mid-stream {model}")
    async with stack.client(key) as client, long_streams(client, model) as streams:
        killed = busiest(stack)
        under_way = killed.running()
        killed.kill()
    answers = [stream.result() for stream in streams]
    outcomes = Counter(answer.outcome for answer in answers)
    if model == "mixed-one":
        assert outcomes == Counter({"event engine_error": under_way, "ok": len(answers) - under_way})
    else:
        assert outcomes == Counter({"ok": len(answers)})
    await stack.all_settled()
    rows = ledger_check.check(answers, await stack.rows(key))
    assert sum(row.resumed for row in rows.values()) == (0 if model == "mixed-one" else under_way)
    for answer in answers:
        if answer.outcome != "ok":
            row = rows[answer.tag]
            assert row.usage_source in ("counted", "estimated") and row.output_tokens > 0 and row.cost > 0


async def until_crashed(stack: Stack, call: Callable[[], Awaitable[Answer]]) -> list[Answer]:
    """Ask until engine `a` has ended: with two engines, the other one may be chosen first."""
    process, answers = stack.a.process, list[Answer]()
    assert process is not None
    while process.poll() is None and len(answers) < 10:
        answers.append(await call())
        with contextlib.suppress(TimeoutError):
            await until(lambda: process.poll() is not None, seconds=2)
    return answers


CRASHES = [(Shape("chat"), 5), (Shape("completions", stream=True), 0), (Shape("completions", stream=True), 5)]
"""Cases of every commit; `make test-all` runs all generating shapes."""


@pytest.mark.parametrize(
    "shape, when",
    [
        pytest.param(shape, when, id=f"{shape.name}-{when}", marks=() if (shape, when) in CRASHES else pytest.mark.long)
        for shape in SHAPES
        for when in (0, 5)
        if shape.operation != "embeddings"
    ],
)
async def test_an_engine_that_runs_out_of_memory(stack: Stack, fault_sink: OTLPSink, shape: Shape, when: int) -> None:
    """An OOM kill: the process ends at token k."""
    key = await stack.key(f"crash {shape.name} {when}")
    outcomes = {}
    answers = []
    async with stack.client(key) as client:
        for count in ("one", "two"):
            await stack.fault(stack.a, f"crash={when}")
            crashed = await until_crashed(stack, lambda count=count: ask(client, shape, f"{shape.name}-{count}"))
            answers += crashed
            outcomes[count] = crashed[-1].outcome
            assert await stack.ended(stack.a) == 137
            await stack.start(stack.a)
            # Several at once: a single request would avoid the endpoint that has just failed.
            after = await asyncio.gather(*[ask(client, shape, f"{shape.name}-{count}") for _ in range(6)])
            assert {answer.outcome for answer in [*crashed[:-1], *after]} == {"ok"}
            answers += after
    if shape.stream and when > 0:
        assert outcomes == {"one": "event engine_error", "two": "ok"}
    else:
        assert outcomes["one"] in ("502 engine_error", "503 engine_unavailable")
        assert outcomes["two"] == "ok"
    await stack.all_settled()
    rows = await stack.rows(key)
    ledger_check.check(answers, rows)
    assert await totals.traced(rows, fault_sink) == totals.total(rows)


async def test_an_engine_that_drains_slowly_ends_its_streams_and_gets_no_new_request(stack: Stack) -> None:
    key = await stack.key("slow-drain")
    chat = Shape("chat", max_tokens=5)

    await until(lambda: endpoints(stack, "ready") == 2)
    async with stack.client(key) as client:
        async with long_streams(client, "polled", 4) as streams:
            assert stack.c.running() > 0, "some of them run on c"
            signal_to(stack.c, signal.SIGTERM)
            await until(lambda: endpoints(stack, "draining") == 1)
            before = stack.c.running()
            answers = [await ask(client, chat, "polled") for _ in range(6)]
            assert stack.c.running() <= before
        answers += [stream.result() for stream in streams]
        assert await stack.ended(stack.c) == 0
        await until(lambda: endpoints(stack, "draining") == 0)
        answers += [await ask(client, chat, "polled") for _ in range(6)]
    assert {answer.outcome for answer in answers} == {"ok"}
    await stack.all_settled()
    rows = ledger_check.check(answers, await stack.rows(key))
    assert all(row.endpoint.endswith(stack.b.url) for row in rows.values() if row.max_tokens == 5)


async def test_without_the_engine_door_the_last_list_holds(stack: Stack) -> None:
    key = await stack.key("door-away")
    await until(lambda: endpoints(stack, "ready") == 2)
    async with stack.client(key) as client:
        stack.door.stop()
        await until(lambda: "engine door unreachable" in stack.gateway.log.read_text())
        # Five streams at once, so that both endpoints get some.
        async with long_streams(client, "polled", 5) as streams:
            assert stack.c.running() > 0 and stack.b.running() > 0
        stack.door.start()
    answers = [stream.result() for stream in streams]
    assert {answer.outcome for answer in answers} == {"ok"}
    await stack.all_settled()
    ledger_check.check(answers, await stack.rows(key))


def busiest(stack: Stack) -> SimulatorProcess:
    """The engine with most streams; a recently failed one is avoided and may have none."""
    return max((stack.a, stack.b), key=lambda engine: engine.running())


def endpoints(stack: Stack, state: str) -> float:
    """Number of the polled model's endpoints in this state."""
    return stack.metric("quarterdeck_endpoints", model="polled", state=state)
