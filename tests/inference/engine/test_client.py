"""Whole answers are passed on; what is none is an error, and so is a call that fails on the way."""

import asyncio
import json
import socket
from typing import Any

import pytest
from tests.inference.engine.opening import endpoint, failing
from tests.net.upstream import Peer, Script, Upstream, answering, response, stream_head, streamed, until

from quarterdeck.errors import (
    BadRequestError,
    EngineError,
    EngineTimeoutError,
    EngineUnavailableError,
)
from quarterdeck.inference.endpoints.endpoint import Endpoint, EndpointSpec
from quarterdeck.inference.engine.client import EngineClient
from quarterdeck.net.http_client import HttpClient
from quarterdeck.net.http_connection import FOREVER, Timeouts
from quarterdeck.settings.live import Live


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


@pytest.mark.parametrize("content_type", ["text/html", "text/plain", "application/octet-stream", "audio/wav", ""])
async def test_the_content_of_a_200_decides_and_not_its_content_type(engines: EngineClient, content_type: str) -> None:
    answers = (b"<!doctype html><form>Log in</form>", b"", b'{"usage":{"prompt_tokens":1}}', b"RIFF")
    async with Upstream(answering(*[response(each, content_type=content_type) for each in answers])) as upstream:
        for body in answers:
            if body[:1] == b"{":
                answer = await engines.open(endpoint(upstream), "/v1/x", b"{}")
                assert (answer.content_type, answer.body) == (b"application/json", body)
                assert answer.parsed is not None
                assert answer.parsed.usage is not None
            else:
                error = await failing(engines, upstream)
                assert (type(error), error.status, error.engine_status) == (EngineError, 502, 200)


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


def taking(seconds: float, *pieces: bytes) -> Script:
    """An engine that sends the pieces with a pause before each."""

    async def script(peer: Peer) -> None:
        for piece in pieces:
            await asyncio.sleep(seconds)
            await peer.say(piece)

    return script


WHOLE = response(b'{"id":"x"}')
HEAD_FIRST = WHOLE.partition(b"\r\n\r\n")


@pytest.mark.parametrize("pieces", [(WHOLE,), (HEAD_FIRST[0] + HEAD_FIRST[1], HEAD_FIRST[2])])
async def test_a_whole_answer_may_take_longer_than_a_first_token(client: HttpClient, pieces: tuple[bytes, ...]) -> None:
    timeouts = Timeouts(1.0, 0.05, 0.05, Timeouts(1.0, FOREVER, FOREVER))
    async with Upstream(answering(taking(0.3, *pieces), taking(0.3, *pieces))) as upstream:
        engines = EngineClient(client, Live(timeouts))
        answer = await engines.open(endpoint(upstream), "/v1/x", b"{}", is_stream=False)
        assert answer.body == b'{"id":"x"}'
        with pytest.raises(EngineTimeoutError) as caught:
            await engines.open(endpoint(upstream), "/v1/x", b"{}", is_stream=True)
        assert caught.value.code == "engine_timeout"


async def test_a_whole_answer_has_a_liveness_time_out_of_its_own(client: HttpClient) -> None:
    timeouts = Timeouts(1.0, 60.0, 60.0, Timeouts(1.0, 0.05, 0.05))
    async with Upstream(answering()) as upstream:
        with pytest.raises(EngineTimeoutError) as caught:
            await EngineClient(client, Live(timeouts)).open(endpoint(upstream), "/v1/x", b"{}", is_stream=False)
        assert caught.value.code == "engine_timeout"


async def test_a_server_that_vanishes_is_noticed_by_the_operating_system(
    engines: EngineClient, client: HttpClient
) -> None:
    async with Upstream(answering(response())) as upstream:
        await engines.open(endpoint(upstream), "/v1/x", b"{}")
        ((connection,),) = client._idle.values()
        assert connection.socket.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        assert connection.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 30


async def test_a_caller_who_is_gone_before_the_first_event_stops_the_engine(
    engines: EngineClient, client: HttpClient
) -> None:
    async def script(peer: Peer) -> None:
        await peer.say(stream_head())
        await peer.until_gone()

    async with Upstream(answering(script)) as upstream:
        task = asyncio.create_task(engines.open(endpoint(upstream), "/v1/x", b"{}"))
        await upstream.arrived.wait()
        await until(lambda: any(connection.status for connection in client._busy))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await upstream.closed.wait()


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
