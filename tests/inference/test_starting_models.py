"""Requests for a model whose engine is being started."""

import json
from typing import Any

import pytest
from tests.inference.bench import ROUTED, Bench
from tests.inference.making import DONE, SAID, by, usage
from tests.inference.reading import Pieces, read
from tests.net.upstream import Upstream, answering, streamed, until

from quarterdeck.errors import EngineUnavailableError
from quarterdeck.inference.call import Reply
from quarterdeck.inference.routing.directory import Directory
from quarterdeck.inference.streaming.heartbeats import WAITING
from quarterdeck.model_lifecycle.status import ModelStatus
from quarterdeck.settings.loading import parse

MARK = b": model "
QUICK = "queue: {heartbeat_after_seconds: 0.001, heartbeat_seconds: 0.001}\n"


COLD_STREAM = by("cold", stream=True)


async def held(bench: Bench) -> Reply:
    reply = await bench.ask(COLD_STREAM)
    await until(lambda: bench.pipeline.queues.waiting() == {"cold": 1})
    return reply


def starting(bench: Bench, **fields: Any) -> None:
    status = ModelStatus(**{"name": "cold", "state": "loading", "detail": "loading weights", **fields})
    bench.listed.statuses = {"cold": status}


async def refusal(bench: Bench, body: dict[str, Any] | None = None) -> EngineUnavailableError:
    with pytest.raises(EngineUnavailableError) as caught:
        await bench.ask(body or by("cold"))
    assert caught.value.code == "model_not_ready"
    return caught.value


async def test_a_request_that_does_not_stream_is_told_when_to_come_again(bench: Bench) -> None:
    bench.configure(QUICK)
    starting(bench, seconds_left=40.4)
    error = await refusal(bench)
    assert (error.status, error.retry_after) == (503, 41)
    assert error.message == "The model 'cold' is being started (about 40 s): loading weights."


async def test_without_an_estimate_the_usual_retry_after_stands(bench: Bench) -> None:
    bench.configure(QUICK)
    starting(bench)
    assert (await refusal(bench)).retry_after == 5


async def test_an_estimate_of_a_day_is_not_a_retry_after_of_a_day(bench: Bench) -> None:
    bench.configure(QUICK)
    starting(bench, seconds_left=86_400.0)
    assert (await refusal(bench)).retry_after == 3600


async def test_a_stream_is_held_and_told_how_far_its_model_is(bench: Bench) -> None:
    bench.configure(QUICK)
    starting(bench, seconds_left=40.4)
    async with Upstream(answering(streamed(*SAID, usage(), DONE))) as engine:
        reply = await held(bench)
        assert reply.stream is not None
        async with Pieces(reply.stream) as pieces:
            comment = await anext(pieces)
            assert comment.startswith(MARK)
            assert json.loads(comment.removeprefix(MARK)) == {
                "model": "cold",
                "state": "loading",
                "detail": "loading weights",
                "seconds_left": 40.4,
            }
            starting(bench, state="warming_up", detail="warming up", seconds_left=3.0)
            async for piece in pieces:
                if b"warming_up" in piece:
                    break
            bench.add(engine, model="cold")
            answer = b"".join([piece async for piece in pieces if not piece.startswith((MARK, WAITING))])
        assert answer == b"".join(SAID) + DONE
    assert [record.status for record in await bench.records()] == ["ok"]


async def test_a_held_stream_ends_with_the_reason_when_its_model_fails(bench: Bench) -> None:
    bench.configure(QUICK)
    starting(bench)
    reply = await held(bench)
    bench.listed.reasons = {"cold": "Does not fit: needs 5.1 GB of memory, 2.3 GB free."}
    starting(bench, state="failed", detail="does not fit")
    assert reply.stream is not None
    said = await read(reply.stream)
    assert b"not available: Does not fit: needs 5.1 GB" in said
    assert b"[DONE]" not in said
    assert bench.pipeline.queues.waiting() == {}


async def test_a_stream_held_for_a_model_that_is_removed_ends_as_one_for_an_unknown_model(bench: Bench) -> None:
    bench.configure(QUICK)
    starting(bench)
    reply = await held(bench)
    bench.directory.replace(Directory.of(parse(ROUTED.replace("  - {name: cold, engine: {source: ./cold}}\n", ""))))
    assert reply.stream is not None
    said = await read(reply.stream)
    assert b'"code":"model_not_found"' in said
    assert [record.status for record in await bench.records()] == ["error"]


async def test_a_stopped_or_failed_model_is_refused_at_once_with_the_reason(bench: Bench) -> None:
    bench.configure(QUICK)
    bench.listed.reasons = {"cold": "It is stopped."}
    starting(bench, state="stopped")
    error = await refusal(bench, COLD_STREAM)
    assert error.message == "The model 'cold' is not available: It is stopped."
    starting(bench, state="failed", retry_seconds=14.2)
    assert (await refusal(bench)).retry_after == 15


async def test_with_no_loading_wait_a_stream_is_refused_as_others_are(bench: Bench) -> None:
    bench.configure("queue: {loading_wait_seconds: 0}")
    starting(bench, seconds_left=40.0)
    assert (await refusal(bench, COLD_STREAM)).retry_after == 40


async def test_a_held_stream_whose_caller_leaves_is_forgotten(bench: Bench) -> None:
    bench.configure(QUICK)
    starting(bench)
    reply = await held(bench)
    assert reply.stream is not None
    await reply.stream.aclose()
    assert bench.pipeline.queues.waiting() == {}
    assert [record.status for record in await bench.records()] == ["cancelled"]
