"""A request from its head to its record, and every way in which it may go wrong between the two."""

import asyncio
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeVar

import pytest
from tests.inference.bench import Bench, a_config
from tests.inference.making import CHAT, DONE, a_head, a_principal, answer, as_json, delta, usage
from tests.inference.reading import Pieces, read
from tests.net.upstream import Peer, Script, Upstream, answering, chunk, response, stream_head, streamed, until
from tests.servers import RedisServer

from quarterdeck.accounting import admission
from quarterdeck.errors import (
    APIError,
    AuthenticationError,
    BadRequestError,
    EngineError,
    EngineTimeoutError,
    EngineUnavailableError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitError,
    ServiceUnavailableError,
)
from quarterdeck.inference.call import Operation
from quarterdeck.inference.routing.directory import Directory
from quarterdeck.net.http_client import HttpClient, Timeouts
from quarterdeck.net.redis import Redis
from quarterdeck.protocol import sse
from quarterdeck.settings.limits import Limits

STREAM = {**CHAT, "stream": True}
COMPLETION = {"model": "m", "prompt": "Hi"}
ERROR = b'{"error":{"message":"boom","type":"InternalServerError","code":500}}'
SAID = (delta("Hello "), delta("there"), delta(finish="stop"))


@pytest.fixture
def bench(redis: Redis, tmp_path: Path, client: HttpClient) -> Bench:
    return Bench(redis, tmp_path, client)


def counting(count: int) -> bytes:
    """What `/tokenize` answers."""
    return response(as_json({"count": count, "max_model_len": 2048, "tokens": []}))


E = TypeVar("E", bound=APIError)


async def refused(kind: type[E], bench: Bench, asked: Any = None, **changes: Any) -> E:
    with pytest.raises(kind) as caught:
        await bench.ask(asked, **changes)
    assert type(caught.value) is kind
    return caught.value


def and_wait(*events: bytes) -> Script:
    """Begin a stream, and say no more until the caller is gone."""

    async def script(peer: Peer) -> None:
        await peer.say(stream_head() + b"".join(map(chunk, events)))
        await peer.until_gone()

    return script


def and_break(*events: bytes) -> Script:
    """Begin a stream, and break it off."""

    async def script(peer: Peer) -> None:
        await peer.say(stream_head() + b"".join(map(chunk, events)))
        await asyncio.sleep(0.02)
        peer.reset()

    return script


async def hang_up(peer: Peer) -> None:
    peer.reset()


async def silence(peer: Peer) -> None:
    await peer.until_gone()


# answers


async def test_a_whole_answer_is_passed_on_and_recorded(bench: Bench) -> None:
    async with Upstream(answering(response(answer("Hello")))) as engine:
        bench.add(engine)
        head = a_head(headers=((b"traceparent", b"00-1-2-01"),))
        reply = await bench.ask(head=head)
        assert (reply.status, reply.body, reply.stream) == (200, answer("Hello"), None)
        assert dict(reply.headers) == {b"content-type": b"application/json"}
        seen = engine.requests[0]
        assert (seen.path, seen.body) == ("/v1/chat/completions", as_json(CHAT))
        assert (seen.header("x-request-id"), seen.header("traceparent")) == (head.request_id, "00-1-2-01")
        record = await bench.record()
    assert (record.id, record.status, record.http_status, record.finish_reason) == (head.request_id, "ok", 200, "stop")
    assert (record.input_tokens, record.output_tokens, record.usage_source) == (7, 3, "engine")
    assert record.cost == Decimal(7 * 1 + 3 * 2) / 1_000_000
    assert [(attempt.endpoint, attempt.status, attempt.error) for attempt in record.attempts] == [("e#1", 200, None)]
    assert record.started <= record.attempts[0].started <= record.attempts[0].ended <= record.ended


@pytest.mark.parametrize(
    ("operation", "asked", "said"),
    [
        (Operation.CHAT, CHAT, answer()),
        (Operation.COMPLETIONS, COMPLETION, as_json({"choices": [{"text": "a"}], "usage": {"prompt_tokens": 1}})),
        (Operation.EMBEDDINGS, {"model": "m", "input": ["a"]}, as_json({"data": [], "usage": {"prompt_tokens": 1}})),
        (Operation.SCORE, {"model": "m", "text_1": "a"}, as_json({"data": [], "usage": {"prompt_tokens": 1}})),
        (Operation.TOKENIZE, {"model": "m", "prompt": "a"}, b'{"count":1,"tokens":[1]}'),
        (Operation.DETOKENIZE, {"model": "m", "tokens": [1]}, b'{"prompt":"a"}'),
    ],
)
async def test_each_operation_has_its_path_and_its_record(
    bench: Bench, operation: Operation, asked: dict[str, Any], said: bytes
) -> None:
    async with Upstream(answering(response(said))) as engine:
        bench.add(engine)
        assert (await bench.ask(asked, operation=operation)).body == said
        assert [seen.path for seen in engine.requests] == [operation.value]
        record = await bench.record()
    assert (record.operation, record.status) == (operation.word, "ok")
    assert record.usage_source == ("none" if operation.word.endswith("tokenize") else "engine")


async def test_a_stream_is_passed_on_without_the_usage_that_was_not_asked_for(bench: Bench) -> None:
    async with Upstream(answering(streamed(*SAID, usage(7, 3), DONE))) as engine:
        bench.add(engine)
        reply = await bench.ask(STREAM)
        assert dict(reply.headers)[b"content-type"].startswith(b"text/event-stream")
        assert reply.stream is not None
        assert await read(reply.stream) == b"".join(SAID) + DONE
        assert engine.requests[0].json == {**STREAM, "stream_options": {"include_usage": True}}
        record = await bench.record()
        assert (record.status, record.stream, record.finish_reason) == ("ok", True, "stop")
        assert (record.input_tokens, record.output_tokens, record.usage_source) == (7, 3, "engine")
        assert record.first_token is not None
        assert record.started <= record.first_token <= record.ended


async def test_a_usage_that_was_asked_for_is_shown(bench: Bench) -> None:
    async with Upstream(answering(streamed(*SAID, usage(7, 3), DONE))) as engine:
        bench.add(engine)
        assert usage(7, 3) in await bench.stream({"stream_options": {"include_usage": True}})


async def test_a_stream_that_ended_leaves_its_connection_to_the_next(bench: Bench) -> None:
    async with Upstream(answering(*[streamed(*SAID, usage(), DONE)] * 3)) as engine:
        bench.add(engine)
        for _ in range(3):
            assert (await bench.stream()).endswith(DONE)
            await bench.drain()
        assert engine.connections == 1


# names


async def test_an_alias_reaches_the_engine_as_the_models_name(bench: Bench) -> None:
    async with Upstream(answering(response(answer()))) as engine:
        bench.add(engine)
        await bench.ask({**CHAT, "model": "gpt-4o-mini", "top_k": 7})
        assert engine.requests[0].json == {**CHAT, "top_k": 7}
        assert (await bench.record()).model == "m"


async def test_an_endpoint_elsewhere_is_asked_by_its_own_name_for_the_model(bench: Bench) -> None:
    async with Upstream(answering(response(answer(usage=None)), counting(5), counting(2))) as engine:
        bench.add(engine, upstream_model="llama3.2")
        await bench.ask()
        await bench.record()
        assert [seen.json["model"] for seen in engine.requests] == ["llama3.2"] * 3


async def test_an_adapter_that_was_loaded_at_run_time_is_found_where_it_is(bench: Bench) -> None:
    async with Upstream(answering(response(answer()))) as one, Upstream(answering(response(answer()))) as other:
        bench.add(one, other)[1].adapters = frozenset({"pirate"})
        await bench.ask({**CHAT, "model": "pirate"})
        assert (one.requests, len(other.requests)) == ([], 1)
        record = await bench.record()
        assert (record.model, record.endpoint, record.price_input) == ("pirate", "e#2", Decimal(1))


async def test_an_unknown_model_is_not_found_and_leaves_no_record(bench: Bench) -> None:
    error = await refused(NotFoundError, bench, {**CHAT, "model": "gpt-5"})
    assert (error.param, error.code) == ("model", "model_not_found")
    assert "'gpt-5'" in error.message
    assert await bench.records() == []


async def test_a_name_without_end_is_not_repeated_whole(bench: Bench) -> None:
    error = await refused(NotFoundError, bench, {**CHAT, "model": "x" * 1_000_000})
    assert len(error.message) < 1000


@pytest.mark.parametrize("allowed", [{"m"}, {"gpt-4o-mini"}, {"other", "m"}])
async def test_a_key_may_use_what_it_is_allowed_to(bench: Bench, allowed: set[str]) -> None:
    async with Upstream(answering(response(answer()))) as engine:
        bench.add(engine)
        await bench.ask({**CHAT, "model": "gpt-4o-mini"}, principal=a_principal(models=frozenset(allowed)))


@pytest.mark.parametrize("allowed", [set(), {"other"}])
async def test_a_key_may_not_use_another_model(bench: Bench, allowed: set[str]) -> None:
    error = await refused(PermissionDeniedError, bench, principal=a_principal(models=frozenset(allowed)))
    assert (error.param, error.code) == ("model", "model_not_allowed")


@pytest.mark.parametrize("operation", [Operation.CHAT, Operation.COMPLETIONS])
async def test_a_model_that_makes_embeddings_does_not_chat(bench: Bench, operation: Operation) -> None:
    async with Upstream(answering()) as engine:
        bench.add(engine, task="embed")
        error = await refused(BadRequestError, bench, {**CHAT, **COMPLETION}, operation=operation)
        assert (error.param, error.code) == ("model", "unsupported_model")
        assert engine.requests == []
        assert (await bench.record()).http_status == 400


@pytest.mark.parametrize("body", [b"", b"{", b'{"model":"m"}', b'{"model":"m","model":"m","messages":[]}', b"\xff"])
async def test_a_bad_body_is_refused_before_anything_is_taken(bench: Bench, body: bytes) -> None:
    await refused(BadRequestError, bench, body)
    assert await bench.records() == []


# other endpoints

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
        assert [endpoint.failures for endpoint in endpoints] == [0 if code == "engine_overloaded" else 1, 0]


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
        assert (error.retry_after, error.code) == ("7", "engine_overloaded")


async def test_a_model_that_nobody_serves_yet_is_not_ready(bench: Bench) -> None:
    async with Upstream(answering()) as engine:
        bench.add(engine, state="starting")
        error = await refused(EngineUnavailableError, bench)
        assert (error.status, error.code, error.retry_after) == (503, "model_not_ready", 5)
        record = await bench.record()
        assert (record.status, record.http_status, record.endpoint, record.attempts) == ("error", 503, "", ())


BREAKS: dict[str, tuple[Script | bytes, str]] = {
    "it breaks off": (and_break(*SAID[:2]), "engine_error"),
    "it ends without a word": (streamed(*SAID[:2]), "engine_error"),
    "it ends after the reason": (streamed(*SAID), "engine_error"),
    "it says that it is done, and was not": (streamed(*SAID[:2], DONE), "engine_error"),
    "it sends an error": (streamed(*SAID[:2], b"data: " + ERROR + b"\n\n", DONE), "engine_error"),
    "it sends an error in the same breath": (
        stream_head() + chunk(b"".join(SAID[:2]) + b"data: " + ERROR + b"\n\n" + DONE) + chunk(b""),
        "engine_error",
    ),
    "it sends what is no JSON": (streamed(*SAID[:2], b"data: {oops\n\n", DONE), "engine_error"),
    "it stops in the middle of an event": (streamed(*SAID[:2], b'data: {"choices":'), "engine_error"),
}


@pytest.mark.parametrize(("failure", "code"), BREAKS.values(), ids=BREAKS.keys())
async def test_after_the_first_event_a_failure_is_an_event_and_nobody_else_is_asked(
    bench: Bench, failure: Script | bytes, code: str
) -> None:
    async with Upstream(answering(failure, counting(5), counting(2))) as engine, Upstream(answering()) as other:
        bench.add(engine, other)
        said = await bench.stream({"response_format": {"type": "json_object"}})  # no half of it can be gone on with
        assert said.startswith(b"".join(SAID[:2]))
        assert DONE not in said
        last = sse.parse(list(sse.events(said))[-1])
        assert last is not None
        assert last["error"]["type"] == "engine_error"
        assert other.requests == []
        record = await bench.record()
        assert (record.status, record.http_status, record.error_code) == ("error", 200, code)
        assert (record.input_tokens, record.output_tokens, record.usage_source) == (5, 2, "counted")
        assert [(a.endpoint, a.error) for a in record.attempts] == [("e#1", code)]


async def test_a_stream_that_falls_silent_is_ended(redis: Redis, tmp_path: Path, client: HttpClient) -> None:
    bench = Bench(redis, tmp_path, client, timeouts=Timeouts(2.0, 5.0, 0.1))
    async with Upstream(answering(and_wait(*SAID[:2]), counting(5), counting(2))) as engine:
        bench.add(engine)
        said = await bench.stream()
        assert b'"engine_timeout"' in said
        assert DONE not in said
        assert (await bench.record()).error_code == "engine_timeout"


async def test_an_engine_that_never_begins_is_ended(redis: Redis, tmp_path: Path, client: HttpClient) -> None:
    bench = Bench(redis, tmp_path, client, timeouts=Timeouts(2.0, 0.05, 5.0))
    async with Upstream(answering(silence)) as engine:
        bench.add(engine)
        assert (await refused(EngineTimeoutError, bench)).status == 504
        record = await bench.record()
        assert (record.status, record.input_tokens, record.attempts[0].status) == ("error", 0, 0)


async def test_a_request_has_an_end_before_its_first_event(redis: Redis, tmp_path: Path, client: HttpClient) -> None:
    bench = Bench(redis, tmp_path, client, total_timeout_seconds=0.1)
    async with Upstream(answering(silence)) as engine:
        bench.add(engine)
        assert (await refused(EngineTimeoutError, bench)).code == "request_timeout"
        await engine.closed.wait()
        assert (await bench.record()).error_code == "request_timeout"


async def test_a_stream_has_an_end_however_much_it_says(redis: Redis, tmp_path: Path, client: HttpClient) -> None:
    async def chatter(peer: Peer) -> None:
        await peer.say(stream_head())
        while True:
            await peer.say(chunk(delta("blah ")))
            await asyncio.sleep(0.01)

    bench = Bench(redis, tmp_path, client, total_timeout_seconds=0.2)
    async with Upstream(answering(chatter, counting(5), counting(2))) as engine:
        bench.add(engine)
        said = await bench.stream()
        assert b'"request_timeout"' in said
        assert DONE not in said
        await engine.closed.wait()
        assert (await bench.record()).error_code == "request_timeout"


# callers who leave


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
    async with Upstream(answering(and_wait(*SAID[:2]), counting(5), counting(2))) as engine:
        bench.add(engine)
        task = asyncio.create_task(bench.stream())
        await until(lambda: bench.listed.endpoints[0].in_flight == 1 and engine.arrived.is_set())
        await asyncio.sleep(0.05)
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


# counting


@pytest.mark.parametrize("said", [response(b'{"detail":"Not Found"}', status=404), response(b"{}"), b"garbage"])
async def test_where_the_engine_can_not_count_tokens_are_estimated(bench: Bench, said: bytes) -> None:
    async with Upstream(answering(streamed(*SAID), said, said)) as engine:
        bench.add(engine)
        await bench.stream()
        record = await bench.record()
        sent = len(engine.requests[0].body)
        assert (record.input_tokens, record.output_tokens) == (-(-sent // 4), -(-len("Hello there") // 4))
        assert record.usage_source == "estimated"


async def test_an_engine_that_does_not_come_to_count_is_not_waited_for(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("quarterdeck.inference.metering.token_counting.COUNT_SECONDS", 0.05)
    async with Upstream(answering(streamed(*SAID), silence)) as engine:
        bench.add(engine)
        await bench.stream()
        assert (await bench.record()).usage_source == "estimated"
        await engine.closed.wait()


async def test_where_too_many_wait_to_be_counted_the_next_is_estimated(
    redis: Redis, tmp_path: Path, client: HttpClient
) -> None:
    bench = Bench(redis, tmp_path, client, max_to_count=0)
    async with Upstream(answering(streamed(*SAID))) as engine:
        bench.add(engine)
        await bench.stream()
        assert (await bench.record()).usage_source == "estimated"
        assert len(engine.requests) == 1


async def test_a_whole_answer_that_says_no_usage_is_counted(bench: Bench) -> None:
    async with Upstream(answering(response(answer("Hello there", usage=None)), counting(5), counting(2))) as engine:
        bench.add(engine)
        await bench.ask()
        record = await bench.record()
        assert (record.status, record.input_tokens, record.output_tokens) == ("ok", 5, 2)
        assert record.usage_source == "counted"
        assert engine.requests[2].json["prompt"] == "Hello there"


@pytest.mark.parametrize(
    ("prompt", "asked", "tokens"),
    [
        ("Hi", ["Hi"], 5),
        (["a", "b"], ["a", "b"], 10),
        ([1, 2, 3], [], 3),
        ([[1, 2], [3]], [], 3),
        (["a", [1, 2]], ["a"], 7),
        ([10**30] * 2, [], 2),
    ],
)
async def test_every_kind_of_prompt_is_counted(bench: Bench, prompt: Any, asked: list[str], tokens: int) -> None:
    said = [counting(5)] * (len(asked) + 1)
    async with Upstream(answering(response(as_json({"choices": [{"text": "Yo"}]})), *said)) as engine:
        bench.add(engine)
        await bench.ask({**COMPLETION, "prompt": prompt}, operation=Operation.COMPLETIONS)
        record = await bench.record()
        assert (record.input_tokens, record.output_tokens, record.usage_source) == (tokens, 5, "counted")
        assert [seen.json["prompt"] for seen in engine.requests[1:]] == [*asked, "Yo"]


async def test_a_request_with_a_thousand_prompts_is_estimated(bench: Bench) -> None:
    async with Upstream(answering(response(as_json({"choices": []})))) as engine:
        bench.add(engine)
        await bench.ask({**COMPLETION, "prompt": ["a"] * 1000}, operation=Operation.COMPLETIONS)
        assert (await bench.record()).usage_source == "estimated"
        assert len(engine.requests) == 1


async def test_what_is_not_understood_of_a_request_is_no_reason_not_to_settle(bench: Bench) -> None:
    async with Upstream(answering(response(as_json({"choices": []})))) as engine:
        bench.add(engine)
        await bench.ask({**COMPLETION, "prompt": [{"a": 10**30}]}, operation=Operation.COMPLETIONS)
        assert (await bench.record()).status == "ok"


# limits


async def test_what_is_left_is_told_with_the_answer(bench: Bench) -> None:
    async with Upstream(answering(response(answer()), streamed(*SAID, usage(), DONE))) as engine:
        bench.add(engine)
        principal = a_principal(limits=Limits(requests_per_minute=60, tokens_per_minute=10_000))
        reply = await bench.ask(principal=principal)
        assert dict(reply.headers)[b"x-ratelimit-remaining-requests"] == b"59"
        reply = await bench.ask(STREAM, principal=principal)
        assert dict(reply.headers)[b"x-ratelimit-remaining-requests"] == b"58"
        assert reply.stream is not None
        await reply.stream.aclose()


@pytest.mark.parametrize(
    ("limits", "says"),
    [
        (Limits(requests_per_minute=1), "1 requests per minute"),
        (Limits(tokens_per_minute=100), "100 tokens per minute"),
        (Limits(concurrent_requests=1), "1 requests at once"),
    ],
)
async def test_a_key_that_is_at_its_limit_is_refused_and_leaves_no_record(
    bench: Bench, limits: Limits, says: str
) -> None:
    async with Upstream(answering(and_wait(SAID[0]), counting(5))) as engine:
        bench.add(engine)
        principal = a_principal(limits=limits)
        reply = await bench.ask(STREAM, principal=principal)
        error = await refused(RateLimitError, bench, principal=principal)
        assert (error.status, error.code) == (429, "rate_limit_exceeded")
        assert says in error.message
        assert int(error.retry_after or 0) >= 1
        assert int(error.headers["retry-after-ms"]) >= 1
        assert await bench.reservations() == 1
        assert reply.stream is not None
        await reply.stream.aclose()
        assert (await bench.record()).status == "cancelled"


async def test_a_key_whose_limit_was_lifted_a_moment_ago_is_not_refused_by_it(bench: Bench) -> None:
    async with Upstream(answering(*[response(answer())] * 3)) as engine:
        bench.add(engine)
        narrow = a_principal(limits=Limits(requests_per_minute=1))
        await bench.ask(principal=narrow)
        await refused(RateLimitError, bench, principal=narrow)
        bench.fresh = a_principal(revision=1)
        await bench.redis.call("INCR", admission.revision_key("default"))
        assert (await bench.ask(principal=narrow)).status == 200
        assert bench.reread_by == [("key_1", 1)]
        assert len(await bench.records()) == 2


async def test_a_place_is_free_again_when_the_stream_is_over(bench: Bench) -> None:
    async with Upstream(answering(*[streamed(*SAID, usage(), DONE)] * 5)) as engine:
        bench.add(engine)
        principal = a_principal(limits=Limits(concurrent_requests=1))
        for _ in range(5):
            await bench.stream(principal=principal)
            await bench.drain()
        assert len(await bench.records()) == 5


async def test_a_request_is_held_to_its_keys_max_tokens(bench: Bench) -> None:
    async with Upstream(answering(response(answer()))) as engine:
        bench.add(engine)
        principal = a_principal(limits=Limits(max_tokens=50))
        error = await refused(BadRequestError, bench, {**CHAT, "max_tokens": 51}, principal=principal)
        assert error.code == "max_tokens_exceeded"
        await bench.ask(principal=principal)
        assert engine.requests[0].json["max_completion_tokens"] == 50


# a key that changed


async def test_a_key_whose_org_has_changed_is_read_again(bench: Bench) -> None:
    async with Upstream(answering(response(answer()), response(answer()))) as engine:
        bench.add(engine)
        await bench.ask()
        await bench.redis.call("SET", admission.revision_key("default"), 7)
        await bench.ask()
        assert bench.reread_by == [("key_1", 7)]


async def test_a_key_that_was_revoked_takes_nothing(bench: Bench) -> None:
    await bench.redis.call("INCR", admission.revision_key("default"))
    bench.reread_error = AuthenticationError("revoked")
    principal = a_principal(limits=Limits(concurrent_requests=1))
    for _ in range(3):
        await refused(AuthenticationError, bench, principal=principal)
        await bench.drain()
    assert await bench.records() == []


async def test_a_caller_who_leaves_while_its_key_is_read_takes_nothing(bench: Bench) -> None:
    await bench.redis.call("INCR", admission.revision_key("default"))
    bench.reread_gate.clear()
    task = asyncio.create_task(bench.ask())
    await until(lambda: bench.reread_by != [])
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await bench.records() == []


async def test_a_caller_who_leaves_while_it_is_admitted_takes_nothing(bench: Bench) -> None:
    await bench.redis.call("PING")
    task = asyncio.create_task(bench.ask())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await bench.records() == []


# Redis away


@pytest.fixture
async def own(own_redis_server: RedisServer) -> AsyncIterator[Redis]:
    client = Redis(own_redis_server.url(), reply_timeout=0.2, retry_seconds=0.02)
    yield client
    await client.close()


async def test_with_redis_away_requests_go_on_and_are_recorded_later(
    own_redis_server: RedisServer, own: Redis, tmp_path: Path, client: HttpClient
) -> None:
    bench = Bench(own, tmp_path, client)
    own_redis_server.stop()
    async with Upstream(answering(response(answer()), streamed(*SAID, usage(), DONE))) as engine:
        bench.add(engine)
        principal = a_principal(limits=Limits(requests_per_minute=20))
        assert (await bench.ask(principal=principal)).status == 200
        assert (await bench.stream(principal=principal)).endswith(DONE)
        await bench.drain()
        assert bench.spool.waiting() == 2
        own_redis_server.start()
        running = asyncio.create_task(bench.settlement.run())
        await until(lambda: bench.spool.waiting() == 0)
        running.cancel()
        assert len(await bench.records()) == 2


async def test_a_file_may_say_that_without_redis_nothing_goes_on(
    own_redis_server: RedisServer, own: Redis, tmp_path: Path, client: HttpClient
) -> None:
    bench = Bench(own, tmp_path, client, on_redis_down="deny")
    own_redis_server.stop()
    error = await refused(ServiceUnavailableError, bench)
    assert (error.status, error.code, error.retry_after) == (503, "limits_unavailable", 1)
    assert (bench.seen, bench.spool.waiting()) == ([], 0)


async def test_a_redis_that_is_silent_holds_a_request_up_for_its_time_out_only(
    own_redis_server: RedisServer, own: Redis, tmp_path: Path, client: HttpClient
) -> None:
    """It wakes up and reads the reservation that was sent to it: that must not stay behind."""
    bench = Bench(own, tmp_path, client)
    await own.call("PING")
    own_redis_server.pause()
    async with Upstream(answering(*[response(answer())] * 20)) as engine:
        bench.add(engine)
        async with asyncio.timeout(2):
            await asyncio.gather(
                *[bench.ask(principal=a_principal(limits=Limits(concurrent_requests=200))) for _ in range(20)]
            )
        await bench.drain()
        own_redis_server.resume()
        running = asyncio.create_task(bench.settlement.run())
        await until(lambda: bench.spool.waiting() == 0)
        running.cancel()
        records = await own.call("XLEN", admission.stream_key("default"))
        assert records == 20
        assert await own.call("HLEN", admission.reservations_key("default")) == 0
        bucket = await admission.read_bucket(own, "default", "key:key_1")
        assert bucket is None or bucket.running == 0


# what nobody expected


async def test_a_bug_of_ours_leaves_a_record_and_no_place_taken(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(*_: object, **__: object) -> None:
        raise RuntimeError("a bug")

    async with Upstream(answering()) as engine:
        bench.add(engine)
        monkeypatch.setattr(bench.engines, "open", broken)
        with pytest.raises(RuntimeError, match="a bug"):
            await bench.ask()
        record = await bench.record()
        assert (record.status, record.http_status, record.error_code) == ("error", 500, "internal_error")


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


async def test_a_configuration_that_changes_meanwhile_is_for_those_who_come_later(bench: Bench) -> None:
    go_on = asyncio.Event()

    async def script(peer: Peer) -> None:
        await go_on.wait()
        await peer.say(response(answer()))

    async with Upstream(answering(script)) as engine:
        bench.add(engine)
        task = asyncio.create_task(bench.ask())
        await engine.arrived.wait()
        bench.directory.replace(Directory.of(a_config("models: []")))
        await refused(NotFoundError, bench)
        go_on.set()
        assert (await task).status == 200
        assert (await bench.record()).price_input == 1


async def test_what_is_noted_of_a_stream_under_way_is_what_was_seen(bench: Bench) -> None:
    async with Upstream(answering(and_wait(*SAID[:2]), counting(5), counting(2))) as engine:
        bench.add(engine)
        reply = await bench.ask(STREAM)
        assert reply.stream is not None
        said = b""
        async with Pieces(reply.stream) as pieces:
            while b"there" not in said:
                said += await anext(pieces)
            assert await bench.settlement._renew()
            (data,) = await bench.redis.call("HVALS", admission.reservations_key("default"))
            assert b'"status":"lost"' in data
            assert b'"output_tokens":2' in data
            assert b'"usage_source":"estimated"' in data
        await bench.record()


async def test_many_at_once_come_and_go_and_leave_nothing(bench: Bench) -> None:
    """Half of them leave, at any moment; the other half is answered. Every one is in the ledger, once."""

    async def engine_script(peer: Peer) -> None:
        while True:
            seen = await peer.request()
            if seen.path == "/tokenize":
                await peer.say(counting(2))
                continue
            await peer.say(stream_head())
            for event in (*SAID, usage(), DONE):
                await asyncio.sleep(0.002)
                await peer.say(chunk(event))
            await peer.say(chunk(b""))

    async with Upstream(engine_script) as engine:
        bench.add(engine)
        tasks = [asyncio.create_task(bench.stream()) for _ in range(120)]
        for n, task in enumerate(tasks[::2]):
            await asyncio.sleep(0.001 if n % 4 else 0)
            task.cancel()
        replies = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(reply, bytes) and reply.endswith(DONE) for reply in replies[1::2])
        records = await bench.records()
        assert len({record.id for record in records}) == len(records)
        assert sum(record.status == "ok" for record in records) >= 60
        assert {record.status for record in records} <= {"ok", "cancelled"}
