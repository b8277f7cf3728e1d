"""Every way in which an engine fails has one error of ours; every way in which it answers is passed on."""

import asyncio
import json
from typing import Any

import pytest
from tests.net.upstream import SOON, Peer, Upstream, answering, chunk, response, stream_head, streamed

from quarterdeck.errors import (
    APIError,
    BadRequestError,
    EngineError,
    EngineTimeoutError,
    EngineUnavailableError,
    NotFoundError,
    RateLimitError,
)
from quarterdeck.inference.endpoints.endpoint import Endpoint, EndpointSpec
from quarterdeck.inference.engine.client import EngineClient, refusal, stream_error
from quarterdeck.net.http_client import HttpClient, Timeouts
from quarterdeck.settings.live import Live

DONE = b"data: [DONE]\n\n"


def endpoint(upstream: Upstream, **fields: Any) -> Endpoint:
    return Endpoint(EndpointSpec("e#1", "m", upstream.url, **fields))


@pytest.fixture
def engines(client: HttpClient) -> EngineClient:
    return EngineClient(client, Live(SOON))


async def failing(engines: EngineClient, upstream: Upstream) -> APIError:
    with pytest.raises(APIError) as caught:
        await engines.open(endpoint(upstream), "/v1/chat/completions", b"{}")
    return caught.value


# whole answers


async def test_a_whole_answer_is_passed_on_as_it_is(engines: EngineClient) -> None:
    body = b'{"id":"x", "odd" : [1e400], "error":null}'
    async with Upstream(answering(response(body), response(body))) as upstream:
        for _ in range(2):
            answer = await engines.open(endpoint(upstream), "/v1/chat/completions", b'{"model":"m"}')
            assert (answer.body, answer.content_type, answer.stream) == (body, b"application/json", None)
        seen = upstream.requests[0]
        assert (seen.path, seen.body, upstream.connections) == ("/v1/chat/completions", b'{"model":"m"}', 1)


async def test_the_endpoints_key_and_the_callers_headers_go_along(engines: EngineClient) -> None:
    async with Upstream(answering(response())) as upstream:
        await engines.open(endpoint(upstream, api_key="sk-up"), "/v1/x", b"{}", [(b"x-request-id", b"req_1")])
        seen = upstream.requests[0]
        assert seen.header("authorization") == "Bearer sk-up"
        assert seen.header("x-request-id") == "req_1"
        assert seen.header("content-type") == "application/json"


async def test_the_routes_of_an_endpoint_may_begin_deeper(engines: EngineClient) -> None:
    async with Upstream(answering(response())) as upstream:
        deeper = Endpoint(EndpointSpec("e", "m", upstream.url + "/base/"))
        await engines.open(deeper, "/v1/x", b"{}")
        assert upstream.requests[0].path == "/base/v1/x"


@pytest.mark.parametrize("body", [b"", b"{", b"[1]", b"<html>", b'{"a":"\xff"}', b'{"a":' + b"[" * 100_000, b"{}x"])
async def test_a_200_that_is_no_json_is_an_engines_error(engines: EngineClient, body: bytes) -> None:
    async with Upstream(answering(response(body))) as upstream:
        error = await failing(engines, upstream)
        assert (type(error), error.status, error.engine_status) == (EngineError, 502, 200)


async def test_what_is_no_json_by_its_own_word_is_passed_on(engines: EngineClient) -> None:
    async with Upstream(answering(response(b"RIFF", content_type="audio/wav"))) as upstream:
        assert (await engines.open(endpoint(upstream), "/v1/x", b"{}")).body == b"RIFF"


@pytest.mark.parametrize(
    "body",
    [
        {"object": "error", "message": "too long", "type": "BadRequestError", "param": None, "code": 400},
        {"error": {"message": "too long", "type": "BadRequestError", "code": 400}},
    ],
)
async def test_an_error_inside_a_200_is_an_error(engines: EngineClient, body: dict[str, Any]) -> None:
    async with Upstream(answering(response(json.dumps(body).encode()))) as upstream:
        error = await failing(engines, upstream)
        assert (type(error), error.message, error.engine_status) == (BadRequestError, "too long", 200)


# streams


async def test_a_stream_is_open_when_its_first_event_is_in_hand(engines: EngineClient) -> None:
    more = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.say(stream_head())
        await peer.say_bytewise(chunk(b'data: {"n":1}\n\n'))
        await more.wait()
        await peer.say(chunk(b'data: {"n":2}\n'), chunk(b'\ndata: {"n":3}'), chunk(b"\n\n" + DONE), chunk(b""))

    async with Upstream(answering(script)) as upstream:
        answer = await engines.open(endpoint(upstream), "/v1/x", b"{}")
        assert answer.stream is not None
        assert answer.stream.first == b'data: {"n":1}\n\n'
        more.set()
        rest = [await answer.stream.read() for _ in range(3)]
        assert b"".join(rest) == b'data: {"n":2}\n\ndata: {"n":3}\n\n' + DONE
        assert await answer.stream.read() == b""
        answer.stream.close()
        answer.stream.close()


async def test_a_stream_read_to_its_end_leaves_its_connection(engines: EngineClient) -> None:
    async with Upstream(answering(streamed(DONE), streamed(DONE))) as upstream:
        for _ in range(2):
            answer = await engines.open(endpoint(upstream), "/v1/x", b"{}")
            assert answer.stream is not None
            while await answer.stream.read():
                pass
            answer.stream.close()
        assert upstream.connections == 1


@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n"])
async def test_the_last_blank_line_may_be_missing(engines: EngineClient, end: bytes) -> None:
    async with Upstream(answering(streamed(b'data: {"n":1}\n\n', b"data: [DONE]" + end))) as upstream:
        answer = await engines.open(endpoint(upstream), "/v1/x", b"{}")
        assert answer.stream is not None
        assert (await answer.stream.read()).startswith(DONE)
        assert await answer.stream.read() == b""
        answer.stream.close()


async def test_of_an_event_that_is_not_whole_nothing_is_made(engines: EngineClient) -> None:
    async with Upstream(answering(streamed(b'data: {"n":1}\n\n', b'data: {"half":'))) as upstream:
        answer = await engines.open(endpoint(upstream), "/v1/x", b"{}")
        assert answer.stream is not None
        assert await answer.stream.read() == b""
        answer.stream.close()


async def test_a_stream_that_breaks_off_is_an_error_after_its_first_event(engines: EngineClient) -> None:
    async def script(peer: Peer) -> None:
        await peer.say(stream_head() + chunk(b'data: {"n":1}\n\n'))
        await read.wait()
        peer.reset()

    read = asyncio.Event()
    async with Upstream(answering(script)) as upstream:
        answer = await engines.open(endpoint(upstream), "/v1/x", b"{}")
        assert answer.stream is not None
        read.set()
        with pytest.raises(EngineError, match="closed the connection"):
            await answer.stream.read()
        answer.stream.close()


async def test_an_event_without_end_is_an_error(engines: EngineClient) -> None:
    async def script(peer: Peer) -> None:
        await peer.say(stream_head() + chunk(b'data: {"n":1}\n\ndata: '))
        while True:
            await peer.say(chunk(b"x" * 65536))

    async with Upstream(answering(script)) as upstream:
        answer = await engines.open(endpoint(upstream), "/v1/x", b"{}")
        assert answer.stream is not None
        with pytest.raises(EngineError, match="stream is broken"):
            await answer.stream.read()
        answer.stream.close()
        await upstream.closed.wait()


async def test_a_stream_that_ends_before_its_first_event_may_be_tried_elsewhere(engines: EngineClient) -> None:
    async with Upstream(answering(streamed(), response())) as upstream:
        error = await failing(engines, upstream)
        assert (type(error), error.engine_status) == (EngineUnavailableError, 200)


@pytest.mark.parametrize(
    ("event", "kind", "code"),
    [
        (b'{"error":{"message":"bad","type":"BadRequestError","code":400}}', BadRequestError, None),
        (b'{"error":{"message":"busy","code":"429"}}', RateLimitError, "engine_overloaded"),
        (b'{"error":{"message":"oops","code":500}}', EngineError, "engine_error"),
        (b'{"error":{"message":"oops","code":200}}', EngineError, "engine_error"),
        (b'{"error":{"message":"oops","code":"server_error"}}', EngineError, "engine_error"),
        (b'{"error":{"message":"gone","code":503}}', EngineUnavailableError, "engine_unavailable"),
        (b'{"error":"oops"}', EngineError, "engine_error"),
    ],
)
async def test_an_error_as_first_event_is_a_status(
    engines: EngineClient, event: bytes, kind: type[APIError], code: str | None
) -> None:
    async with Upstream(answering(streamed(b"data: " + event + b"\n\n", DONE))) as upstream:
        error = await failing(engines, upstream)
        assert (type(error), error.code, error.engine_status) == (kind, code, 200)


async def test_a_text_that_speaks_of_errors_is_none(engines: EngineClient) -> None:
    event = b'data: {"choices":[{"delta":{"content":"\\"error\\":{\\"message\\":1}"}}],"error":null}\n\n'
    async with Upstream(answering(streamed(event))) as upstream:
        answer = await engines.open(endpoint(upstream), "/v1/x", b"{}")
        assert answer.stream is not None
        assert answer.stream.first == event
        answer.stream.close()


# refusals

VLLM = {
    "a bad request": (
        400,
        {
            "error": {
                "message": "temperature must be ≥ 0",
                "type": "BadRequestError",
                "param": "temperature",
                "code": 400,
            }
        },
        (BadRequestError, "temperature must be ≥ 0", "temperature", None),
    ),
    "a prompt that is too long": (
        400,
        {
            "error": {
                "message": "This model's maximum context length is 2048 tokens. However, you requested 9000 tokens.",
                "type": "BadRequestError",
                "param": None,
                "code": 400,
            }
        },
        (
            BadRequestError,
            "This model's maximum context length is 2048 tokens. However, you requested 9000 tokens.",
            None,
            "context_length_exceeded",
        ),
    ),
    "its old flat shape": (
        400,
        {"object": "error", "message": "no", "type": "BadRequestError", "param": "n", "code": 400},
        (BadRequestError, "no", "n", None),
    ),
    "a model that is not there": (
        404,
        {"error": {"message": "The model `x` does not exist.", "type": "NotFoundError", "param": "model", "code": 404}},
        (NotFoundError, "The model `x` does not exist.", "model", "model_not_found"),
    ),
    "FastAPI's words": (404, {"detail": "Not Found"}, (NotFoundError, "Not Found", None, "model_not_found")),
    "FastAPI's list": (
        422,
        {"detail": [{"loc": ["body", "n"], "msg": "not an int", "type": "int"}, "odd", {"msg": 7}]},
        (BadRequestError, "body.n: not an int", None, None),
    ),
    "no words": (500, {}, (EngineError, "The engine answered with status 500.", None, "engine_error")),
    "Ollama's shape": (400, {"error": "model is required"}, (BadRequestError, "model is required", None, None)),
    "OpenAI's code": (
        429,
        {"error": {"message": "No money.", "type": "x", "param": None, "code": "insufficient_quota"}},
        (RateLimitError, "No money.", None, "insufficient_quota"),
    ),
    "too many": (429, {"error": {"message": "busy", "code": 429}}, (RateLimitError, "busy", None, "engine_overloaded")),
    "too large": (413, {"error": {"message": "large"}}, (BadRequestError, "large", None, None)),
    "our key is refused": (
        401,
        {"error": {"message": "Incorrect API key provided: sk-canary.", "code": "invalid_api_key"}},
        (EngineError, "The engine answered with status 401.", None, "engine_error"),
    ),
    "our key may not": (
        403,
        {"error": {"message": "sk-canary may not", "code": "x"}},
        (EngineError, "The engine answered with status 403.", None, "engine_error"),
    ),
    "not now": (
        503,
        {"error": {"message": "warming up"}},
        (EngineUnavailableError, "warming up", None, "engine_unavailable"),
    ),
    "too late": (504, {}, (EngineTimeoutError, "The engine answered with status 504.", None, "engine_timeout")),
    "elsewhere": (302, {}, (EngineError, "The engine answered with status 302.", None, "engine_error")),
    "a wrong method": (
        405,
        {"detail": "Method Not Allowed"},
        (EngineError, "Method Not Allowed", None, "engine_error"),
    ),
    "fields of odd types": (
        400,
        {"error": {"message": "no", "param": 7, "code": {"a": 1}, "type": []}},
        (BadRequestError, "no", None, None),
    ),
    "no message": (
        400,
        {"error": {"message": None, "code": 400}},
        (BadRequestError, "The engine answered with status 400.", None, None),
    ),
}


@pytest.mark.parametrize(("status", "body", "expected"), VLLM.values(), ids=VLLM.keys())
async def test_an_engines_refusal_is_ours(
    engines: EngineClient,
    status: int,
    body: dict[str, Any],
    expected: tuple[type[APIError], str, str | None, str | None],
) -> None:
    answer = response(json.dumps(body).encode(), status=status)
    async with Upstream(answering(answer)) as upstream:
        error = await failing(engines, upstream)
    assert (type(error), error.message, error.param, error.code) == expected
    assert error.engine_status == status
    assert "canary" not in str(error)


@pytest.mark.parametrize("body", [b"Internal Server Error", b"\xff\xfe", b"[" * 100_000, b"", b"<html>" * 10_000])
def test_an_engine_that_has_no_words_of_json_is_quoted_in_part(body: bytes) -> None:
    error = refusal(500, body)
    assert type(error) is EngineError
    assert 0 < len(error.message) <= 2000


@pytest.mark.parametrize("status", [429, 503])
async def test_when_to_try_again_is_passed_on(engines: EngineClient, status: int) -> None:
    answer = response(b'{"error":{"message":"busy"}}', status=status, headers=["Retry-After: 7"])
    async with Upstream(answering(answer)) as upstream:
        assert (await failing(engines, upstream)).retry_after == "7"


@pytest.mark.parametrize(
    "data", [b"", b"\xff", b"[" * 100_000, b'{"error":{"code":1e300}}', b'{"error":{"code":true}}']
)
def test_an_error_inside_a_stream_is_an_error_whatever_it_says(data: bytes) -> None:
    assert stream_error(data).status == 502


# what breaks on the way


async def test_a_refused_connection_may_be_tried_elsewhere(engines: EngineClient) -> None:
    async with Upstream(answering()) as upstream:
        pass
    error = await failing(engines, upstream)
    assert (type(error), error.engine_status) == (EngineUnavailableError, 0)


async def test_an_engine_that_hangs_up_at_once_may_be_tried_elsewhere(engines: EngineClient) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()

    async with Upstream(script) as upstream:
        error = await failing(engines, upstream)
        assert (type(error), error.engine_status) == (EngineUnavailableError, 0)


async def test_an_engine_that_breaks_off_its_whole_answer_failed(engines: EngineClient) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.say(response(b"{}" * 10)[:-4])

    async with Upstream(script) as upstream:
        error = await failing(engines, upstream)
        assert (type(error), error.engine_status) == (EngineError, 200)


async def test_an_engine_that_stays_silent_is_a_time_out(client: HttpClient) -> None:
    async with Upstream(answering()) as upstream:
        error = await failing(EngineClient(client, Live(Timeouts(1.0, 0.05, 5.0))), upstream)
        assert (type(error), error.status, error.engine_status) == (EngineTimeoutError, 504, 0)
        await upstream.closed.wait()


async def test_a_caller_who_is_gone_before_the_first_event_stops_the_engine(engines: EngineClient) -> None:
    async def script(peer: Peer) -> None:
        await peer.say(stream_head())
        await peer.until_gone()

    async with Upstream(answering(script)) as upstream:
        task = asyncio.create_task(engines.open(endpoint(upstream), "/v1/x", b"{}"))
        await upstream.arrived.wait()
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await upstream.closed.wait()


# counting


@pytest.mark.parametrize(
    ("answer", "count"),
    [
        (response(b'{"count":7,"max_model_len":2048,"tokens":[1,2]}'), 7),
        (response(b'{"tokens":[1,2]}'), None),
        (response(b'{"count":"7"}'), None),
        (response(b'{"detail":"Not Found"}', status=404), None),
        (response(b"\xff", content_type="text/plain"), None),
        (streamed(b'data: {"count":7}\n\n'), None),
        (b"garbage", None),
    ],
)
async def test_tokens_are_counted_or_not_known(engines: EngineClient, answer: bytes, count: int | None) -> None:
    async with Upstream(answering(answer)) as upstream:
        assert await engines.count(endpoint(upstream), {"model": "m", "prompt": "Hi"}) == count
        assert upstream.requests[0].path == "/tokenize"
        assert upstream.requests[0].json == {"model": "m", "prompt": "Hi"}
