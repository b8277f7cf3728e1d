"""Until an answer begins: other endpoints, other models, and operations that an endpoint can't do."""

from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from tests.inference.bench import BACKED, Bench, refused
from tests.inference.engines import ERROR, counting, hang_up
from tests.inference.making import CHAT, COMPLETION, DONE, SAID, STREAM, answer, by, change, usage
from tests.inference.reading import read
from tests.net.upstream import Peer, Script, Upstream, answering, response, streamed

from quarterdeck.errors import (
    APIError,
    BadRequestError,
    EngineError,
    EngineUnavailableError,
    RateLimitError,
    ServiceUnavailableError,
)
from quarterdeck.inference.call import Operation
from quarterdeck.net.http_client import HttpClient
from quarterdeck.net.redis import Redis

TOO_LONG = response(b'{"error":{"message":"This model\'s maximum context length is 8 tokens.","code":400}}', status=400)

FAILS: dict[str, tuple[bytes | Script, int, str]] = {
    "it hangs up": (hang_up, 0, "engine_unavailable"),
    "it says no HTTP": (b"garbage\r\n\r\n", 0, "engine_error"),
    "it fails": (response(ERROR, status=500), 500, "engine_error"),
    "it is not ready": (response(b"{}", status=503), 503, "engine_unavailable"),
    "it is full": (response(b"{}", status=429), 429, "engine_overloaded"),
    "it refuses our key": (response(b"{}", status=401), 401, "engine_error"),
    "it is late": (response(b"{}", status=504), 504, "engine_timeout"),
    "its answer is no JSON": (response(b"<html>"), 200, "engine_error"),
    "its stream begins with an error": (streamed(b"data: " + ERROR + b"\n\n"), 200, "engine_error"),
    "its stream is empty": (streamed(), 200, "engine_unavailable"),
}


@pytest.mark.parametrize(("failure", "status", "code"), FAILS.values(), ids=FAILS.keys())
@pytest.mark.parametrize("asked", [CHAT, STREAM], ids=["plain", "stream"])
async def test_until_the_first_event_another_endpoint_is_tried(
    bench: Bench, failure: bytes | Script, status: int, code: str, asked: dict[str, Any]
) -> None:
    good = response(answer()) if asked is CHAT else streamed(*SAID, usage(), DONE)
    async with Upstream(answering(failure)) as one, Upstream(answering(good)) as other:
        endpoints = bench.add(one, other)
        reply = await bench.ask(asked)
        if reply.stream is not None:
            assert await read(reply.stream) == b"".join(SAID) + DONE
        record = await bench.record()
        assert (record.status, record.endpoint) == ("ok", "e#2")
        assert [(a.endpoint, a.status, a.error) for a in record.attempts] == [("e#1", status, code), ("e#2", 200, None)]
        assert [endpoint.breaker.failures for endpoint in endpoints] == [0 if code == "engine_overloaded" else 1, 0]


async def test_the_last_failure_is_told_where_all_fail(bench: Bench) -> None:
    async with Upstream(answering(hang_up)) as one, Upstream(answering(response(ERROR, status=500))) as other:
        bench.add(one, other)
        error = await refused(EngineError, bench)
        assert (error.status, error.message) == (502, "boom")
        record = await bench.record()
        assert (record.status, record.http_status, record.error_code) == ("error", 502, "engine_error")
        assert (record.usage_source, record.cost, len(record.attempts)) == ("none", Decimal(0), 2)


async def test_no_more_endpoints_are_tried_than_allowed(redis: Redis, tmp_path: Path, client: HttpClient) -> None:
    bench = Bench(redis, tmp_path, client, retries=1)
    async with Upstream(answering(*[response(ERROR, status=500)] * 5)) as engine:
        bench.add(engine, engine, engine, engine)
        await refused(EngineError, bench)
        assert len(engine.requests) == 2


async def test_what_the_caller_did_wrong_is_not_tried_again(bench: Bench) -> None:
    said = response(b'{"error":{"message":"temperature must be positive","code":400}}', status=400)
    async with Upstream(answering(said, said)) as engine:
        bench.add(engine, engine)
        error = await refused(BadRequestError, bench)
        assert error.message == "temperature must be positive"
        assert len(engine.requests) == 1
        record = await bench.record()
        assert (record.http_status, record.error_code) == (400, "invalid_request_error")


async def test_when_to_come_back_is_told_where_all_are_full(bench: Bench) -> None:
    async with Upstream(answering(response(b"{}", status=429, headers=["retry-after: 7"]))) as engine:
        bench.add(engine)
        error = await refused(RateLimitError, bench)
        assert (error.retry_after, error.code) == (7, "engine_overloaded")


async def test_a_model_that_nobody_serves_yet_is_not_ready(bench: Bench) -> None:
    async with Upstream(answering()) as engine:
        bench.add(engine, state="starting")
        error = await refused(EngineUnavailableError, bench)
        assert (error.status, error.code, error.retry_after) == (503, "model_not_ready", 5)
        record = await bench.record()
        assert (record.status, record.http_status, record.endpoint, record.attempts) == ("error", 503, "", ())


# routes and fallbacks


async def test_a_route_reaches_its_target_by_the_targets_name(bench: Bench) -> None:
    bench.configure(BACKED)
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
    bench.configure(BACKED)
    async with Upstream(answering(failure)) as engine, Upstream(answering(response(answer()))) as other:
        bench.add(engine)
        bench.add(other, model="n")
        await bench.ask(by("r"))
        assert other.requests[0].json["model"] == "n"
        record = await bench.record()
        assert (record.route, record.model, record.endpoint, len(record.attempts)) == ("r", "n", "e#2", 2)
        assert record.cost == Decimal(7 * 10 + 3 * 20) / 1_000_000


async def test_a_stream_falls_back_as_well_until_its_first_event(bench: Bench) -> None:
    bench.configure(BACKED)
    async with Upstream(answering(TOO_LONG)) as engine, Upstream(answering(streamed(*SAID, usage(), DONE))) as other:
        bench.add(engine)
        bench.add(other, model="n")
        assert await bench.stream(by("r")) == b"".join(SAID) + DONE
        assert (await bench.record()).model == "n"


async def test_without_a_fallback_for_it_the_caller_is_told(bench: Bench) -> None:
    bench.configure(BACKED.replace("context_length, ", ""))
    async with Upstream(answering(TOO_LONG)) as engine:
        bench.add(engine)
        with pytest.raises(BadRequestError) as caught:
            await bench.ask(by("r"))
        assert caught.value.code == "context_length_exceeded"


async def test_a_routes_time_is_its_own(bench: Bench) -> None:
    async def silence(peer: Peer) -> None:
        await peer.until_gone()

    bench.configure(BACKED.replace("name: r,", "name: r, timeouts: {total: 0.05},"))
    async with Upstream(answering(silence)) as engine:
        bench.add(engine)
        with pytest.raises(APIError) as caught:
            await bench.ask(by("r"))
        assert caught.value.code == "request_timeout"


# endpoints that are not vLLM, or embed


async def test_an_endpoint_elsewhere_is_asked_by_its_own_name_for_the_model(bench: Bench) -> None:
    async with Upstream(answering(response(answer(usage=None)), counting(5), counting(2))) as engine:
        bench.add(engine, upstream_model="llama3.2")
        await bench.ask()
        await bench.record()
        assert [seen.json["model"] for seen in engine.requests] == ["llama3.2"] * 3


@pytest.mark.parametrize("operation", [Operation.CHAT, Operation.COMPLETIONS])
async def test_a_model_that_makes_embeddings_does_not_chat(bench: Bench, operation: Operation) -> None:
    async with Upstream(answering()) as engine:
        bench.add(engine, task="embed")
        asked = CHAT if operation is Operation.CHAT else COMPLETION
        error = await refused(BadRequestError, bench, asked, operation=operation)
        assert (error.param, error.code) == ("model", "unsupported_model")
        assert engine.requests == []
        assert (await bench.record()).http_status == 400


async def test_a_server_elsewhere_is_not_sent_what_only_vllm_knows(bench: Bench) -> None:
    async with Upstream(answering(response(answer()), response(answer()))) as engine:
        bench.add(engine, kind="openai", upstream_model="gpt-x", headers=(("X-Org", "o1"),), api_key="sk-up")
        await bench.ask(by("m", top_k=7, seed=3, max_completion_tokens=9))
        seen = engine.requests[0]
        assert seen.json == by("gpt-x", seed=3, max_tokens=9)
        assert (seen.header("x-org"), seen.header("authorization")) == ("o1", "Bearer sk-up")
        change(bench.listed.endpoints[0], kind="ollama")
        await bench.ask(by("m", max_completion_tokens=9))
        assert engine.requests[1].json == by("gpt-x", max_tokens=9)


@pytest.mark.parametrize("operation", [Operation.TOKENIZE, Operation.DETOKENIZE, Operation.SCORE])
async def test_what_only_vllm_can_is_refused_elsewhere(bench: Bench, operation: Operation) -> None:
    async with Upstream(answering()) as engine:
        bench.add(engine, kind="openai")
        with pytest.raises(BadRequestError) as caught:
            await bench.ask({"model": "m", "prompt": "a", "tokens": [1]}, operation=operation)
        assert caught.value.code == "unsupported_operation"
        assert engine.requests == []


@pytest.mark.parametrize("asked", [CHAT, STREAM], ids=["plain", "stream"])
async def test_a_gateway_without_a_free_connection_blames_no_endpoint(
    redis: Redis, tmp_path: Path, asked: dict[str, Any]
) -> None:
    full = HttpClient(max_connections=0)
    bench = Bench(redis, tmp_path, full)
    async with Upstream(answering()) as one, Upstream(answering()) as other:
        endpoints = bench.add(one, other)
        for _ in range(10):
            error = await refused(ServiceUnavailableError, bench, asked)
            assert (error.status, error.code) == (503, "overloaded")
        assert not any(endpoint.breaker.ejections for endpoint in endpoints)
        assert {record.error_code for record in await bench.records()} == {"overloaded"}
    await full.close()
