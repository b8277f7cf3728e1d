"""Bounds of the server itself, over real sockets."""

import contextlib

import pytest
from tests.gateway.fakes import USER, FakeStream
from tests.gateway.http.connections import HEAD, REQUEST, Bench, serving
from tests.net.upstream import until

from quarterdeck.errors import BadRequestError
from quarterdeck.inference.call import Reply


@pytest.mark.parametrize(
    "head",
    [
        b"GET /healthz HTTP/1.1\r\nhost: x\r\nx-a: " + b"a" * 70_000 + b"\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nhost: x\r\n" + b"x-a: bbbbbbbb\r\n" * 10_000 + b"\r\n",
        b"GET /healthz?" + b"q" * 70_000 + b" HTTP/1.1\r\nhost: x\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nhost: x\r\nx-a: " + b"a" * 2_000_000,  # without an end
    ],
    ids=["one header", "many headers", "the path", "without an end"],
)
async def test_a_head_that_is_too_large_is_a_431_and_the_end(head: bytes, bench: Bench) -> None:
    peer = await bench.connect()
    await peer.send(head)
    assert await peer.code() == (431, "request_headers_too_large")
    assert await peer.is_closed()


@pytest.mark.parametrize(
    "data",
    [
        b"nonsense\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # TLS
        b"GET /healthz HTTP/1.1\r\nhost x\r\n\r\n",
        HEAD + b"content-length: -1\r\n\r\n",
        HEAD + b"content-length: 2\r\ncontent-length: 3\r\n\r\n{}",
        HEAD + b"content-length: 2\r\ntransfer-encoding: chunked\r\n\r\n{}",
        HEAD + b"transfer-encoding: chunked\r\n\r\nnot a size\r\n",
        HEAD + b"transfer-encoding: chunked\r\n\r\n3\r\nabcd\r\n0\r\n\r\n",
        HEAD + b"transfer-encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFFF\r\nabc",
        HEAD.replace(b"/v1/chat/completions", b"/admin/keys") + b"transfer-encoding: chunked\r\n\r\n-1\r\n",
    ],
)
async def test_malformed_http_is_a_400_and_closes_the_connection(data: bytes, bench: Bench) -> None:
    peer = await bench.connect()
    await peer.send(data)
    assert await peer.code() == (400, "invalid_http")
    assert await peer.is_closed()
    assert bench.pipeline.calls == []


async def test_a_chunk_that_breaks_later_is_a_400_too(bench: Bench) -> None:
    peer = await bench.connect()
    await peer.send(HEAD + b"transfer-encoding: chunked\r\n\r\n2\r\n{}\r\n")
    await until(lambda: bool(bench.parts.requests_in_flight))
    await peer.send(b"zz\r\n")
    assert await peer.code() == (400, "invalid_http")
    assert await peer.is_closed()
    assert bench.pipeline.calls == []


async def test_a_head_that_does_not_come_is_a_408(way: str) -> None:
    async with serving(way, head_seconds=0.5) as bench:  # the first line has to come within it
        peer = await bench.connect()
        await peer.send(b"GET /healthz HTTP/1.1\r\n")
        assert await peer.code() == (408, "request_timeout")
        assert await peer.is_closed()


async def test_a_silent_connection_is_closed(way: str) -> None:
    async with serving(way, head_seconds=0.05) as bench:
        assert await (await bench.connect()).is_closed()


async def test_nothing_is_written_into_an_answer_under_way(way: str) -> None:
    async with serving(way, head_seconds=0.05) as bench:
        stream = FakeStream([b"data: 1\n\n"], hangs=True)
        bench.pipeline.answer = Reply(200, (), stream=stream)
        peer = await bench.connect()
        await peer.send(REQUEST)
        await peer.reader.readuntil(b"data: 1\n\n")
        await peer.send(b"nonsense\r\n\r\n")
        peer.writer.write_eof()
        await stream.closed.wait()
        with contextlib.suppress(ConnectionError):
            assert b"error" not in await peer.reader.read()


@pytest.mark.parametrize("surplus", ["é}", "\0", "}", "GET nonsense\r\n\r\n"])
async def test_a_content_length_that_is_too_small_gets_its_answer_and_ends_the_connection(
    bench: Bench, surplus: str
) -> None:
    """A client that counts characters and sends bytes must be able to read what is wrong."""
    bench.pipeline.answer = BadRequestError("We could not parse the JSON body of your request.", code="invalid_json")
    peer = await bench.connect()
    await peer.send(REQUEST + surplus.encode())
    assert await peer.code() == (400, "invalid_json")
    assert await peer.is_closed()
    assert len(bench.pipeline.calls) == 1


async def test_requests_before_the_nonsense_are_answered(bench: Bench) -> None:
    peer = await bench.connect()
    await peer.send(REQUEST * 3 + b"nonsense\r\n\r\n" + REQUEST)
    assert [(await peer.answer())[0] for _ in range(3)] == [200] * 3
    assert await peer.is_closed()
    assert len(bench.pipeline.calls) == 3


async def test_expect_100_continue_is_answered_before_the_body(bench: Bench) -> None:
    peer = await bench.connect()
    await peer.send(HEAD + b"expect: 100-continue\r\ncontent-length: 2\r\n\r\n")
    assert (await peer.reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 100")
    await peer.send(b"{}")
    assert (await peer.answer())[0] == 200


async def test_a_head_request_has_no_body(bench: Bench) -> None:
    peer = await bench.connect()
    await peer.send(b"HEAD /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
    answer = await peer.reader.read()
    assert answer.startswith(b"HTTP/1.1 200")
    assert answer.endswith(b"\r\n\r\n")


async def test_websockets_are_not_supported(bench: Bench) -> None:
    peer = await bench.connect()
    await peer.send(
        b"GET /v1/models HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n"
        b"sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-version: 13\r\n\r\n"
    )
    assert (await peer.answer())[0] == 401


@pytest.mark.parametrize("path", ["/v1/models", "/v1/models/chat", "/healthz", "/readyz"])
async def test_head_is_get_without_the_body(bench: Bench, path: str) -> None:
    answers = []
    for method in ("GET", "HEAD"):
        peer = await bench.connect()
        head = f"{method} {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {USER}\r\nconnection: close\r\n\r\n"
        await peer.send(head.encode())
        answers.append((await peer.reader.read()).partition(b"\r\n\r\n"))
    (got, _, body), (asked, _, none) = answers
    assert got.split(b"\r\n")[0] == asked.split(b"\r\n")[0] == b"HTTP/1.1 200 OK"
    assert body and not none
    names = [[line.split(b":")[0] for line in each.split(b"\r\n")[1:]] for each in (got, asked)]
    assert names[0] == names[1]
