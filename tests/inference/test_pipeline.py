"""A request from its head to its record."""

import asyncio
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from tests.inference.bench import Bench, a_config, refused
from tests.inference.engines import BREAKS, and_wait, counting, silence
from tests.inference.making import (
    CHAT,
    COMPLETION,
    DONE,
    SAID,
    STREAM,
    a_head,
    a_principal,
    answer,
    as_json,
    delta,
    salted,
    usage,
)
from tests.inference.reading import read
from tests.net.upstream import Peer, Script, Upstream, answering, chunk, response, stream_head, streamed

from quarterdeck.errors import (
    BadRequestError,
    EngineTimeoutError,
    NotFoundError,
    RequestTooLargeError,
)
from quarterdeck.inference.call import Operation
from quarterdeck.inference.routing.directory import Directory
from quarterdeck.net.http_client import HttpClient
from quarterdeck.net.http_connection import Timeouts
from quarterdeck.net.redis import Redis
from quarterdeck.protocol import sse
from quarterdeck.protocol.trace_context import TraceContext
from quarterdeck.record import CallerTrace
from quarterdeck.settings.limits import Limits
from quarterdeck.settings.telemetry import TelemetryConfig
from quarterdeck.telemetry.traces.span_ids import FIRST_ATTEMPT, span_id, span_seed


async def test_a_whole_answer_is_passed_on_and_recorded(bench: Bench) -> None:
    async with Upstream(answering(response(answer("Hello")))) as engine:
        bench.add(engine)
        head = a_head(headers=((b"traceparent", b"00-1-2-01"),))
        reply = await bench.ask(head=head)
        assert (reply.status, reply.body, reply.stream) == (200, answer("Hello"), None)
        assert dict(reply.headers) == {b"content-type": b"application/json"}
        seen = engine.requests[0]
        salt = as_json({"cache_salt": salted({})["cache_salt"]})
        assert (seen.path, seen.body) == ("/v1/chat/completions", salt[:-1] + b"," + as_json(CHAT)[1:])
        assert (seen.header("x-request-id"), seen.header("traceparent")) == (head.request_id, "00-1-2-01")
        record = await bench.record()
    assert (record.id, record.status, record.http_status, record.finish_reason) == (head.request_id, "ok", 200, "stop")
    assert (record.input_tokens, record.output_tokens, record.usage_source) == (7, 3, "engine")
    assert record.cost == Decimal(7 * 1 + 3 * 2) / 1_000_000
    assert [(attempt.endpoint, attempt.status, attempt.error) for attempt in record.attempts] == [("e#1", 200, None)]
    assert record.started <= record.attempts[0].started <= record.attempts[0].ended <= record.ended


async def test_a_callers_trace_goes_on_at_the_engine_and_in_the_record(bench: Bench) -> None:
    async with Upstream(answering(response(answer("Hello")))) as engine:
        bench.add(engine)
        trace = TraceContext("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7", False, "vendor=1")
        await bench.ask(head=a_head(trace=trace, headers=((b"traceparent", b"as the client sent it"), (b"x-a", b"b"))))
        (seen,) = engine.requests
        record = await bench.record()
    span = span_id(span_seed(record.id), FIRST_ATTEMPT).hex()
    assert seen.header("traceparent") == f"00-{trace.trace_id}-{span}-00"
    assert (seen.header("tracestate"), seen.header("x-a")) == ("vendor=1", "b")
    assert record.trace == CallerTrace(trace.trace_id, trace.span_id, False, "vendor=1")
    assert record.trace_id == trace.trace_id
    assert record.admitted is not None
    assert record.started <= record.admitted <= record.attempts[0].started


async def test_an_engine_is_told_of_a_request_without_a_callers_trace_only_where_it_traces(bench: Bench) -> None:
    async with Upstream(answering(response(answer("Hello")), response(answer("Hello")))) as engine:
        bench.add(engine)
        await bench.ask()
        assert engine.requests[-1].header("traceparent") is None
        assert (await bench.record()).trace is None
        config = bench.directory.current.config
        traced = config.model_copy(update={"telemetry": TelemetryConfig(engine_traceparent=True)})
        bench.directory.replace(Directory.of(traced))
        await bench.ask()
        record = (await bench.records())[-1]
    version, trace, span, flags = (engine.requests[-1].header("traceparent") or "").split("-")
    assert (version, trace, flags) == ("00", record.trace_id, "01")
    assert span == span_id(span_seed(record.id), FIRST_ATTEMPT).hex()
    assert record.trace is None


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
        assert engine.requests[0].json == salted({**STREAM, "stream_options": {"include_usage": True}})
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


async def test_an_alias_reaches_the_engine_as_the_models_name(bench: Bench) -> None:
    async with Upstream(answering(response(answer()))) as engine:
        bench.add(engine)
        await bench.ask({**CHAT, "model": "gpt-4o-mini", "top_k": 7})
        assert engine.requests[0].json == salted({**CHAT, "top_k": 7})
        assert (await bench.record()).model == "m"


@pytest.mark.parametrize("body", [b"", b"{", b'{"model":"m"}', b'{"model":"m","model":"m","messages":[]}', b"\xff"])
async def test_a_bad_body_is_refused_before_anything_is_taken(bench: Bench, body: bytes) -> None:
    await refused(BadRequestError, bench, body)
    assert await bench.records() == []


async def test_a_request_is_held_to_its_keys_max_tokens(bench: Bench) -> None:
    async with Upstream(answering(response(answer()))) as engine:
        bench.add(engine)
        principal = a_principal(limits=Limits(max_tokens=50))
        error = await refused(BadRequestError, bench, {**CHAT, "max_tokens": 51}, principal=principal)
        assert error.code == "max_tokens_exceeded"
        await bench.ask(principal=principal)
        assert engine.requests[0].json["max_completion_tokens"] == 50


# after the first event


@pytest.mark.parametrize(("failure", "code"), BREAKS.values(), ids=BREAKS.keys())
async def test_after_the_first_event_a_failure_is_an_event_and_nobody_else_is_asked(
    bench: Bench, failure: Script | bytes, code: str
) -> None:
    async with Upstream(answering(failure, counting(5), counting(2))) as engine, Upstream(answering()) as other:
        bench.add(engine, other)
        said = await bench.stream({"response_format": {"type": "json_object"}})  # such an answer can't be resumed
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


# bugs, reloads, many at once


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


async def test_many_at_once_come_and_go_and_leave_nothing(bench: Bench) -> None:
    """Half of the clients hang up at any moment, the other half is answered. Each call is in the ledger once."""

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


async def test_a_body_that_is_more_structure_than_text_may_be_is_refused_before_it_is_decoded(bench: Bench) -> None:
    with pytest.raises(RequestTooLargeError):
        await bench.pipeline.call(a_head(), b"[" * (4 * 2**20 + 1))  # decoded, it would be a 400


async def test_a_picture_is_larger_than_a_text_may_be(bench: Bench) -> None:
    async with Upstream(answering(response(answer("Hello")))) as engine:
        bench.add(engine)
        picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * (5 * 2**20)}}
        reply = await bench.ask(as_json({**CHAT, "messages": [{"role": "user", "content": [picture]}]}))
        assert reply.status == 200
