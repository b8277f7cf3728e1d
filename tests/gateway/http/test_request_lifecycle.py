"""Requests to registered routes over ASGI: the model routes with a fake pipeline, a stream, and an upload."""

import asyncio
import json
from dataclasses import replace
from typing import Any

import pytest
from tests.gateway.fakes import NARROW, USER, Client, FakePipeline, FakeStream, config, never, parts

from quarterdeck.errors import BadRequestError, RateLimitError
from quarterdeck.gateway.app import create_app
from quarterdeck.gateway.http.access_log import AccessLog
from quarterdeck.gateway.http.request_lifecycle import RequestLifecycle
from quarterdeck.gateway.http.requests_in_flight import RequestsInFlight
from quarterdeck.inference.call import MEDIA, Operation, Reply
from quarterdeck.inference.routing.directory import Directory
from quarterdeck.telemetry.access_lines import AccessLine

CHAT = "/v1/chat/completions"
EVENTS = [b"data: 1\n\n", b"data: 2\n\n", b"data: [DONE]\n\n"]


@pytest.fixture
def pipeline() -> FakePipeline:
    return FakePipeline()


@pytest.fixture
def app(pipeline: FakePipeline) -> RequestLifecycle:
    return create_app(parts(pipeline))


def stream(pieces: list[bytes], **options: Any) -> tuple[FakeStream, Reply]:
    made = FakeStream(pieces, **options)
    return made, Reply(200, ((b"content-type", b"text/event-stream"),), stream=made)


@pytest.mark.parametrize("operation", [each for each in Operation if each not in MEDIA])
async def test_every_operation_reaches_the_pipeline_with_its_body_untouched(
    operation: Operation, app: RequestLifecycle, pipeline: FakePipeline
) -> None:
    body = b'{"model": "chat",  "odd":\t[1]}'
    answer = await Client(app).post(operation.value, body)
    head, seen = pipeline.calls[0]
    assert (answer.status, answer.json) == (200, {"ok": True})
    assert (head.operation, head.principal.key, seen) == (operation, "key_user", body)


async def test_the_answer_carries_our_request_id_and_openais_headers(
    app: RequestLifecycle, pipeline: FakePipeline
) -> None:
    pipeline.answer = Reply(200, ((b"content-type", b"application/json"), (b"x-ratelimit-limit-requests", b"5")), b"{}")
    answer = await Client(app).post(CHAT, {})
    assert answer.headers["x-request-id"] == pipeline.calls[0][0].request_id
    assert answer.headers["x-request-id"].startswith("req_")
    assert answer.headers["x-ratelimit-limit-requests"] == "5"
    assert answer.headers["openai-processing-ms"].isdecimal()
    assert answer.headers["content-length"] == "2"


async def test_a_clients_request_id_is_not_ours(app: RequestLifecycle, pipeline: FakePipeline) -> None:
    headers = [("x-request-id", "req_" + "0" * 32), ("x-client-request-id", "mine")]
    first = await Client(app).post(CHAT, {}, headers=headers)
    second = await Client(app).post(CHAT, {}, headers=headers)
    assert first.headers["x-request-id"] != second.headers["x-request-id"]
    assert "0" * 32 not in first.headers["x-request-id"]


async def test_without_a_key_the_body_is_not_even_read(app: RequestLifecycle, pipeline: FakePipeline) -> None:
    client = Client(app, key=None)
    answer = await client.post(CHAT, b"", pieces=[], body_ends=False)
    assert (answer.status, answer.error["code"]) == (401, "missing_api_key")
    assert answer.headers["www-authenticate"] == "Bearer"
    assert pipeline.calls == []


async def test_two_authorization_headers_are_none(app: RequestLifecycle) -> None:
    answer = await Client(app).post(CHAT, {}, headers=[("authorization", f"Bearer {NARROW}")])
    assert answer.status == 401


async def test_an_error_of_the_pipeline_is_an_envelope_with_its_headers(
    app: RequestLifecycle, pipeline: FakePipeline
) -> None:
    pipeline.answer = RateLimitError("too many", retry_after="7")
    answer = await Client(app).post(CHAT, {})
    assert (answer.status, answer.headers["retry-after"]) == (429, "7")
    assert answer.error == {
        "message": "too many",
        "type": "rate_limit_error",
        "param": None,
        "code": "rate_limit_exceeded",
    }
    assert answer.headers["x-request-id"].startswith("req_")


async def test_a_header_of_an_error_can_not_break_the_head(app: RequestLifecycle, pipeline: FakePipeline) -> None:
    pipeline.answer = BadRequestError("no", retry_after="1\r\nset-cookie: a=b")
    answer = await Client(app).post(CHAT, {})
    assert answer.headers["retry-after"] == "1set-cookie: a=b"


async def test_a_bug_is_a_500_with_the_request_id_and_nothing_else(
    app: RequestLifecycle, pipeline: FakePipeline, caplog: pytest.LogCaptureFixture
) -> None:
    pipeline.answer = ZeroDivisionError("sk-qd-secret-in-a-bug")
    answer = await Client(app).post(CHAT, {})
    assert (answer.status, answer.error["code"]) == (500, "internal_error")
    assert answer.headers["x-request-id"] in answer.error["message"]
    assert "secret" not in answer.body.decode()
    assert "ZeroDivisionError" in caplog.text


async def test_a_stream_is_passed_on_piece_by_piece_and_closed(app: RequestLifecycle, pipeline: FakePipeline) -> None:
    made, pipeline.answer = stream(list(EVENTS))
    answer = await Client(app).post(CHAT, {})
    assert [piece for piece in answer.pieces if piece] == EVENTS
    assert answer.is_whole
    assert made.closed.is_set()
    assert "content-length" not in answer.headers


async def test_a_hang_up_cancels_the_pipeline(app: RequestLifecycle, pipeline: FakePipeline) -> None:
    pipeline.answer = never
    client = Client(app)
    task = asyncio.create_task(client.post(CHAT, {}))
    await pipeline.was_called.wait()
    client.hang_up()
    answer = await task
    assert pipeline.was_cancelled.is_set()
    assert answer.status == 0


async def test_a_hang_up_in_mid_stream_closes_it(app: RequestLifecycle, pipeline: FakePipeline) -> None:
    made, pipeline.answer = stream([EVENTS[0]], hangs=True)
    client = Client(app)
    task = asyncio.create_task(client.post(CHAT, {}))
    await client.has_piece.wait()
    client.hang_up()
    answer = await task
    assert made.closed.is_set()
    assert not answer.is_whole


async def test_a_hang_up_in_mid_body_is_not_answered(app: RequestLifecycle, pipeline: FakePipeline) -> None:
    client = Client(app)
    client.hang_up()
    answer = await client.post(CHAT, b"", pieces=[b'{"a"'], body_ends=False)
    assert (answer.status, pipeline.calls) == (0, [])


async def test_a_client_that_does_not_read_holds_one_piece_and_is_cut_off(pipeline: FakePipeline) -> None:
    pipeline.directory.replace(Directory.of(config(client_write_timeout_seconds=0.05)))
    made, pipeline.answer = stream(EVENTS * 100)
    client = Client(create_app(parts(pipeline, requests_in_flight=RequestsInFlight(sweep_seconds=0.01))))
    client.stop_reading_after(2)
    await client.post(CHAT, {})
    assert client.was_aborted
    assert made.closed.is_set()
    assert made.given == 3


async def test_a_body_that_does_not_come_is_a_408(pipeline: FakePipeline) -> None:
    pipeline.directory.replace(Directory.of(config(client_body_timeout_seconds=0.05)))
    app = create_app(parts(pipeline, requests_in_flight=RequestsInFlight(sweep_seconds=0.01)))
    answer = await Client(app).post(CHAT, b"", pieces=[b"{"], body_ends=False)
    assert (answer.status, answer.error["code"]) == (408, "request_timeout")
    assert answer.headers["connection"] == "close"


@pytest.mark.parametrize("said", [True, False])
@pytest.mark.parametrize(("path", "mib"), [(CHAT, 51), ("/v1/completions", 5), ("/v1/embeddings", 5)])
async def test_a_body_that_is_too_large_is_a_413(
    said: bool, path: str, mib: int, app: RequestLifecycle, pipeline: FakePipeline
) -> None:
    pieces = [b"x" * 1024 * 1024] * mib
    headers = [("content-length", str(mib * 1024 * 1024))] if said else []
    answer = await Client(app).post(path, b"", pieces=pieces, headers=headers)
    assert (answer.status, answer.error["code"]) == (413, "request_too_large")
    assert "connection" not in answer.headers  # all of it was read
    assert pipeline.calls == []


async def test_a_body_far_too_large_is_refused_unread(app: RequestLifecycle) -> None:
    answer = await Client(app).post(CHAT, b"", pieces=[], body_ends=False, headers=[("content-length", str(10**10))])
    assert (answer.status, answer.headers["connection"]) == (413, "close")


async def test_a_body_that_is_as_large_as_allowed_passes(app: RequestLifecycle, pipeline: FakePipeline) -> None:
    pieces = [b"x" * 1024 * 1024] * 4
    assert (await Client(app).post(CHAT, b"", pieces=pieces)).status == 200
    assert pipeline.calls[0][1] == b"".join(pieces)


async def test_a_body_that_is_not_compressed_as_it_says_is_a_400(app: RequestLifecycle) -> None:
    answer = await Client(app).post(CHAT, {}, headers=[("content-encoding", "gzip")])
    assert (answer.status, answer.error["code"]) == (400, "invalid_content_encoding")


async def test_only_listed_headers_are_forwarded(pipeline: FakePipeline) -> None:
    sent = [("x-fault", "429"), ("x-secret", "s"), ("cookie", "c"), ("host", "evil")]
    await Client(create_app(parts(pipeline))).post(CHAT, {}, headers=sent)
    pipeline.directory.replace(Directory.of(config(forward_headers=("x-fault",))))
    await Client(create_app(parts(pipeline))).post(CHAT, {}, headers=sent)
    assert [head.headers for head, _ in pipeline.calls] == [(), ((b"x-fault", b"429"),)]


async def test_cache_control_headers_are_joined(pipeline: FakePipeline) -> None:
    sent = [("Cache-Control", "no-cache"), ("cache-control", "max-age=5")]
    await Client(create_app(parts(pipeline))).post(CHAT, {}, headers=sent)
    await Client(create_app(parts(pipeline))).post(CHAT, {})
    assert [head.cache_control for head, _ in pipeline.calls] == [b"no-cache,max-age=5", b""]


async def test_one_more_than_max_in_flight_is_refused_before_its_body(pipeline: FakePipeline) -> None:
    pipeline.directory.replace(Directory.of(config(max_in_flight=1)))
    app = create_app(parts(pipeline))
    pipeline.answer = never
    first = Client(app)
    task = asyncio.create_task(first.post(CHAT, {}))
    await pipeline.was_called.wait()
    answer = await Client(app).post(CHAT, b"", pieces=[], body_ends=False)
    assert (answer.status, answer.error["code"], answer.headers["retry-after"]) == (503, "overloaded", "1")
    first.hang_up()
    await task


async def test_a_draining_gateway_admits_no_requests(pipeline: FakePipeline) -> None:
    made = parts(pipeline)
    made.requests_in_flight.is_leaving = made.requests_in_flight.is_draining = True
    answer = await Client(create_app(made)).post(CHAT, {})
    assert (answer.status, answer.error["code"], answer.headers["connection"]) == (503, "shutting_down", "close")
    assert pipeline.calls == []


async def test_requests_cancelled_at_shutdown_get_an_error(pipeline: FakePipeline) -> None:
    made = parts(pipeline)
    app = create_app(made)
    cut, pipeline.answer = stream([EVENTS[0]], hangs=True)
    streamed = Client(app)
    streaming = asyncio.create_task(streamed.post(CHAT, {}))
    await streamed.has_piece.wait()
    pipeline.answer = never
    pipeline.was_called.clear()
    plain = asyncio.create_task(Client(app).post(CHAT, {}))
    await pipeline.was_called.wait()
    made.requests_in_flight.stop_all()
    await made.requests_in_flight.empty()
    assert (await plain).error["code"] == "shutting_down"
    last = (await streaming).body.removeprefix(EVENTS[0])
    assert json.loads(last.removeprefix(b"data: "))["error"]["code"] == "shutting_down"
    assert b"[DONE]" not in (await streaming).body
    assert cut.closed.is_set()


async def test_a_cancel_from_outside_is_raised(app: RequestLifecycle, pipeline: FakePipeline) -> None:
    pipeline.answer = never
    task = asyncio.create_task(Client(app).post(CHAT, {}))
    await pipeline.was_called.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_no_task_and_no_caller_is_left_behind(pipeline: FakePipeline) -> None:
    made = parts(pipeline)
    app = create_app(made)
    before = len(asyncio.all_tasks())
    for _ in range(20):
        await Client(app).post(CHAT, {})
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert len(made.requests_in_flight) == 0
    assert len(asyncio.all_tasks()) == before


async def test_each_request_is_counted_once_by_route_and_status(pipeline: FakePipeline) -> None:
    made = parts(pipeline)
    app = create_app(made)
    await Client(app).post(CHAT, {})
    await Client(app, key=None).post(CHAT, {})
    await Client(app, key=USER).get("/nowhere")
    assert made.metrics.http_requests.values == {
        (CHAT, "200"): 1,
        (CHAT, "401"): 1,
        ("unmatched", "404"): 1,
    }


async def test_a_request_to_a_model_is_logged(pipeline: FakePipeline) -> None:
    made = parts(pipeline)
    lines: list[AccessLine] = []
    access = AccessLog(made.metrics, lines.extend)
    await Client(create_app(replace(made, access=access))).post("/v1/chat/completions", {})
    access.flush()
    assert [(line.message, line.key) for line in lines] == [("POST /v1/chat/completions 200", "key_user")]
