"""Requests by a route's name, through the whole pipeline: targets, fallbacks, servers elsewhere, queues, mirrors."""

import asyncio
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from tests.inference.bench import Bench
from tests.inference.making import CHAT, DONE, a_principal, answer, delta, usage
from tests.inference.reading import Pieces, read
from tests.net.upstream import Peer, Script, Upstream, answering, chunk, response, stream_head, streamed, until

from quarterdeck.errors import (
    APIError,
    BadRequestError,
    EngineUnavailableError,
    PermissionDeniedError,
    RateLimitError,
)
from quarterdeck.inference.call import Operation
from quarterdeck.inference.routing.directory import Directory
from quarterdeck.inference.streaming.heartbeats import WAITING
from quarterdeck.net.http_client import HttpClient
from quarterdeck.net.redis import Redis
from quarterdeck.protocol import sse
from quarterdeck.settings.loading import parse

MODELS = """
models:
  - {name: m, endpoints: [{url: "http://unused"}], price: {input: "1", output: "2"}}
  - {name: n, endpoints: [{url: "http://unused"}], price: {input: "10", output: "20"}}
  - {name: cold, engine: {source: ./cold}}
"""
BACKED = "routes: [{name: r, targets: [{model: m}], fallbacks: [{model: n, after: [error, context_length, queue]}]}]"
MIRRORED = "routes: [{name: r, targets: [{model: m}], mirror: {model: n, share: 1}}]"
STREAM = {**CHAT, "stream": True}
SAID = (delta("Hello "), delta("there"), delta(finish="stop"))
TOO_LONG = response(b'{"error":{"message":"This model\'s maximum context length is 8 tokens.","code":400}}', status=400)


@pytest.fixture
def bench(redis: Redis, tmp_path: Path, client: HttpClient) -> Bench:
    return Bench(redis, tmp_path, client)


def configure(bench: Bench, text: str) -> None:
    bench.directory.replace(Directory.of(parse(MODELS + text)))


def by(name: str, **more: Any) -> dict[str, Any]:
    return {**CHAT, "model": name, **more}


async def test_a_route_reaches_its_target_by_the_targets_name(bench: Bench) -> None:
    configure(bench, BACKED)
    async with Upstream(answering(response(answer()))) as engine:
        bench.add(engine)
        await bench.ask(by("r"))
        assert engine.requests[0].json["model"] == "m"
        record = await bench.record()
        assert (record.route, record.model, record.status) == ("r", "m", "ok")


async def test_a_models_own_name_is_no_route_in_the_record(bench: Bench) -> None:
    async with Upstream(answering(response(answer()))) as engine:
        bench.add(engine)
        await bench.ask()
        assert (await bench.record()).route == ""


@pytest.mark.parametrize("failure", [TOO_LONG, response(b"{}", status=500)], ids=["context", "error"])
async def test_a_fallback_answers_under_its_own_name_and_price(bench: Bench, failure: bytes) -> None:
    configure(bench, BACKED)
    async with Upstream(answering(failure)) as engine, Upstream(answering(response(answer()))) as other:
        bench.add(engine)
        bench.add(other, model="n")
        await bench.ask(by("r"))
        assert other.requests[0].json["model"] == "n"
        record = await bench.record()
        assert (record.route, record.model, record.endpoint, len(record.attempts)) == ("r", "n", "e#2", 2)
        assert record.cost == Decimal(7 * 10 + 3 * 20) / 1_000_000


async def test_a_stream_falls_back_as_well_until_its_first_event(bench: Bench) -> None:
    configure(bench, BACKED)
    async with Upstream(answering(TOO_LONG)) as engine, Upstream(answering(streamed(*SAID, usage(), DONE))) as other:
        bench.add(engine)
        bench.add(other, model="n")
        assert await bench.stream(by("r")) == b"".join(SAID) + DONE
        assert (await bench.record()).model == "n"


async def test_without_a_fallback_for_it_the_caller_is_told(bench: Bench) -> None:
    configure(bench, BACKED.replace("context_length, ", ""))
    async with Upstream(answering(TOO_LONG)) as engine:
        bench.add(engine)
        with pytest.raises(BadRequestError) as caught:
            await bench.ask(by("r"))
        assert caught.value.code == "context_length_exceeded"


@pytest.mark.parametrize(
    ("allowed", "may"), [({"r"}, True), ({"m", "n"}, True), ({"m"}, False), ({"n"}, False), (set(), False)]
)
async def test_a_key_needs_the_routes_name_or_everybodys_who_may_answer(
    bench: Bench, allowed: set[str], may: bool
) -> None:
    configure(bench, BACKED)
    async with Upstream(answering(response(answer()))) as engine:
        bench.add(engine)
        principal = a_principal(models=frozenset(allowed))
        if may:
            await bench.ask(by("r"), principal=principal)
        else:
            with pytest.raises(PermissionDeniedError):
                await bench.ask(by("r"), principal=principal)


async def test_a_routes_time_is_its_own(bench: Bench) -> None:
    async def silence(peer: Peer) -> None:
        await peer.until_gone()

    configure(bench, BACKED.replace("name: r,", "name: r, timeouts: {total: 0.05},"))
    async with Upstream(answering(silence)) as engine:
        bench.add(engine)
        with pytest.raises(APIError) as caught:
            await bench.ask(by("r"))
        assert caught.value.code == "request_timeout"


# elsewhere


async def test_a_server_elsewhere_is_not_sent_what_only_vllm_knows(bench: Bench) -> None:
    async with Upstream(answering(response(answer()), response(answer()))) as engine:
        bench.add(engine, kind="openai", upstream_model="gpt-x", headers=(("X-Org", "o1"),), api_key="sk-up")
        await bench.ask(by("m", top_k=7, seed=3, max_completion_tokens=9))
        seen = engine.requests[0]
        assert seen.json == by("gpt-x", seed=3, max_completion_tokens=9)
        assert (seen.header("x-org"), seen.header("authorization")) == ("o1", "Bearer sk-up")
        bench.listed.endpoints[0].kind = "ollama"
        await bench.ask(by("m", max_completion_tokens=9))
        assert engine.requests[1].json == by("gpt-x", max_tokens=9)


async def test_tokens_that_a_server_elsewhere_did_not_count_are_estimated(bench: Bench) -> None:
    async with Upstream(answering(response(answer(usage=None)))) as engine:
        bench.add(engine, kind="openai")
        await bench.ask()
        assert (await bench.record()).usage_source == "estimated"
        assert len(engine.requests) == 1, "it is not asked to count"


@pytest.mark.parametrize("operation", [Operation.TOKENIZE, Operation.DETOKENIZE, Operation.SCORE])
async def test_what_only_vllm_can_is_refused_elsewhere(bench: Bench, operation: Operation) -> None:
    async with Upstream(answering()) as engine:
        bench.add(engine, kind="openai")
        with pytest.raises(BadRequestError) as caught:
            await bench.ask({"model": "m", "prompt": "a", "tokens": [1]}, operation=operation)
        assert caught.value.code == "unsupported_operation"
        assert engine.requests == []


# queues


class Held:
    """An engine that answers each request when it is told to."""

    def __init__(self, *answers: bytes) -> None:
        self.gates = [asyncio.Event() for _ in answers]
        self.script: Script = answering(*map(self._held, answers, self.gates))

    @staticmethod
    def _held(said: bytes, gate: asyncio.Event) -> Script:
        async def script(peer: Peer) -> None:
            await gate.wait()
            await peer.say(said)

        return script


FULL = "queue: {max_waiting: 1, heartbeat_after_seconds: 0.001, heartbeat_seconds: 0.001}\n"


async def until_waiting(bench: Bench, count: int) -> None:
    await until(lambda: sum(bench.pipeline.queues.waiting().values()) == count)


async def test_a_request_waits_for_a_place_and_the_next_one_is_refused(bench: Bench) -> None:
    configure(bench, FULL)
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
    configure(bench, FULL.replace("max_waiting: 1", "max_waiting: 1, max_wait_seconds: 0") + BACKED)
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
    configure(bench, FULL)
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
    configure(bench, FULL)
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
    configure(bench, "queue: {cold_wait_seconds: 30}")
    async with Upstream(answering(response(answer()))) as engine:
        task = asyncio.create_task(bench.ask(by("cold")))
        await until_waiting(bench, 1)
        bench.add(engine, model="cold")
        assert (await task).status == 200


async def test_when_it_was_held_for_long_enough_nobody_is_there(bench: Bench) -> None:
    configure(bench, "queue: {cold_wait_seconds: 0.01, heartbeat_after_seconds: 0.001}")
    with pytest.raises(EngineUnavailableError) as caught:
        await bench.ask(by("cold"))
    assert caught.value.code == "model_not_ready"
    said = await bench.stream(by("cold"))
    assert said.startswith(WAITING)
    error = sse.parse(list(sse.events(said.replace(WAITING, b"")))[-1])
    assert error is not None
    assert error["error"]["code"] == "model_not_ready"


# mirrors


@pytest.mark.parametrize("asked", [by("r"), by("r", stream=True)], ids=["plain", "stream"])
async def test_a_mirrored_request_is_one_of_its_own_and_on_nobodys_account(bench: Bench, asked: dict[str, Any]) -> None:
    configure(bench, MIRRORED)
    said = streamed(*SAID, usage(), DONE) if asked.get("stream") else response(answer())
    async with Upstream(answering(said)) as engine, Upstream(answering(said)) as other:
        bench.add(engine)
        bench.add(other, model="n")
        reply = await bench.ask(asked)
        if reply.stream is not None:
            assert await read(reply.stream) == b"".join(SAID) + DONE
        await until(lambda: len(bench.seen) == 2)
        records = {record.model: record for record in await bench.records()}
        own, copy = records["m"], records["n"]
        assert other.requests[0].json["model"] == "n"
        assert (copy.key, copy.team, copy.tags, copy.route) == ("mirror", "mirror", ("mirror",), "r")
        assert (copy.status, copy.cost) == ("ok", Decimal(7 * 10 + 3 * 20) / 1_000_000)
        assert (own.key, own.tags) == ("key_1", ())
        assert own.id != copy.id
        assert other.requests[0].header("x-request-id") == copy.id


async def test_a_mirror_that_fails_is_recorded_and_nobody_notices(bench: Bench) -> None:
    configure(bench, MIRRORED)
    async with Upstream(answering(response(answer()))) as engine, Upstream(answering(response(b"", status=500))) as bad:
        bench.add(engine)
        bench.add(bad, model="n")
        assert (await bench.ask(by("r"))).status == 200
        await until(lambda: len(bench.seen) == 2)
        records = {record.model: record for record in await bench.records()}
        assert (records["m"].status, records["n"].status, records["n"].http_status) == ("ok", "error", 502)


async def test_where_nobody_serves_the_mirror_nothing_is_sent(bench: Bench) -> None:
    configure(bench, MIRRORED)
    async with Upstream(answering(response(answer()))) as engine:
        bench.add(engine)
        await bench.ask(by("r"))
        assert (await bench.record()).model == "m"


async def test_a_mirror_that_is_slow_is_sent_no_more(redis: Redis, tmp_path: Path, client: HttpClient) -> None:
    bench = Bench(redis, tmp_path, client, max_mirrored=1)
    configure(bench, MIRRORED)
    held = Held(response(answer()))
    async with Upstream(answering(*[response(answer())] * 3)) as engine, Upstream(held.script) as slow:
        bench.add(engine)
        bench.add(slow, model="n")
        for _ in range(3):
            await bench.ask(by("r"))
        await slow.arrived.wait()
        assert len(slow.requests) == 1
        held.gates[0].set()
        await until(lambda: len(bench.seen) == 4)
        await bench.records()


async def test_a_mirrored_stream_that_breaks_off_is_recorded_once(bench: Bench) -> None:
    configure(bench, MIRRORED)

    async def breaks(peer: Peer) -> None:
        await peer.say(stream_head() + chunk(SAID[0]))
        peer.reset()

    good = streamed(*SAID, usage(), DONE)
    async with Upstream(answering(good)) as engine, Upstream(answering(breaks)) as other:
        bench.add(engine)
        bench.add(other, model="n")
        await bench.stream(by("r"))
        await until(lambda: len(bench.seen) == 2)
        records = {record.model: record for record in await bench.records()}
        assert (records["n"].status, records["n"].usage_source) == ("error", "estimated")
