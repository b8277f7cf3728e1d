"""Events come whole, a stream that fails says so, and its connection is kept only where it was read to its end."""

import asyncio

import pytest
from tests.inference.engine.opening import DONE, endpoint, failing
from tests.net.upstream import Peer, Upstream, answering, chunk, response, stream_head, streamed

from quarterdeck.errors import (
    APIError,
    BadRequestError,
    EngineError,
    EngineUnavailableError,
    RateLimitError,
)
from quarterdeck.inference.engine.client import EngineClient


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
        (b'{"object":"error","message":"bad","type":"BadRequestError","code":400}', BadRequestError, None),
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
