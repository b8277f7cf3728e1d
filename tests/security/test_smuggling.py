"""Request smuggling and desynchronised responses, over real sockets, past ASGI and over it. See also Portkey #1507.

A message whose length is ambiguous is refused and its connection closed; a pipelined request needs its own key; one
request gets one response.
"""

import asyncio
import contextlib

import pytest
from tests.gateway.fakes import USER
from tests.gateway.http.connections import HEAD, REQUEST, Bench, Peer

from quarterdeck.gateway.http.bounded_protocol import MAX_HEAD_BYTES
from quarterdeck.settings.config import GatewayConfig

SECOND = b"GET /admin/keys HTTP/1.1\r\nhost: x\r\n\r\n"
"""A smuggled request, without a key."""
CHUNKED = HEAD + b"transfer-encoding: chunked\r\n\r\n"

TWO_WAYS_HEADS = (
    b"content-length: 2\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    b"transfer-encoding: chunked\r\ncontent-length: 2\r\n\r\n0\r\n\r\n",
    b"content-length: 2\r\ntransfer-encoding: identity\r\n\r\n{}",
    b"content-length: 2\r\ncontent-length: 2\r\n\r\n{}",
    b"content-length: 2\r\ncontent-length: 0\r\n\r\n{}",
    b"content-length: 2, 2\r\n\r\n{}",
    b"content-length: +2\r\n\r\n{}",
    b"content-length: 0x2\r\n\r\n{}",
    b"content-length: 2 2\r\n\r\n{}",
    b"content-length: 18446744073709551618\r\n\r\n{}",
    b"content-length : 2\r\n\r\n{}",
    b"content-length\t: 2\r\n\r\n{}",
    b"transfer-encoding: xchunked\r\n\r\n0\r\n\r\n",
    b"transfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    b"transfer-encoding: chunked\r\ntransfer-encoding: identity\r\n\r\n0\r\n\r\n",
    b"transfer-encoding : chunked\r\n\r\n0\r\n\r\n",
    b"transfer-encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
    b"x-a: b\r\n content-length: 2\r\n\r\n{}",
    b"x-a: b\rcontent-length: 2\r\n\r\n{}",
    b"x-a: b\ncontent-length: 2\r\n\r\n{}",
    b"x-a: b\x00\r\ncontent-length: 2\r\n\r\n{}",
    b"x\x00a: b\r\ncontent-length: 2\r\n\r\n{}",
    b"content-length: 2\n\n{}",
    b" content-length: 2\r\n\r\n{}",
)
TWO_WAYS_CHUNKS = (
    b"2 \r\n{}\r\n0\r\n\r\n",
    b"0x2\r\n{}\r\n0\r\n\r\n",
    b"-2\r\n{}\r\n0\r\n\r\n",
    b"2\n{}\n0\n\n",
    b"2\r\n{}X\r\n0\r\n\r\n",
    b"2\r\n{}0\r\n\r\n",
    b"10000000000000002\r\n{}\r\n0\r\n\r\n",
    b"2;a=\x00\r\n{}\r\n0\r\n\r\n",
    b"2;a\n{}\r\n0\r\n\r\n",
)
LINES = (
    b"POST http://evil.example/v1/chat/completions HTTP/1.1",
    b"POST http://localhost/healthz/../v1/chat/completions HTTP/1.1",
    b"GET http://x/admin/keys HTTP/1.1",
    b"GET //healthz/../admin/keys HTTP/1.1",
    b"GET /healthz%2f..%2fadmin/keys HTTP/1.1",
    b"GET /%61dmin/keys HTTP/1.1",
    b"GET /admin/keys#/healthz HTTP/1.1",
    b"GET /admin/keys?/healthz HTTP/1.1",
    b"GET /admin/keys/%00 HTTP/1.1",
    b"GET \xff HTTP/1.1",
    b"GET /\xc3\xa4 HTTP/1.1",
    b"GET http:// HTTP/1.1",
    b"GET * HTTP/1.1",
    b"OPTIONS * HTTP/1.1",
    b"CONNECT localhost:6379 HTTP/1.1",
    b"GET /admin/keys HTTP/1.0",
    b"GET /admin/keys HTTP/0.9",
    b"GET /admin/keys HTTP/2.0",
    b"GET /admin/keys",
    b"get /admin/keys HTTP/1.1",
    b"PRI * HTTP/2.0",
)


async def rest(peer: Peer) -> bytes:
    """Everything until the gateway closes the connection."""
    with contextlib.suppress(ConnectionError):
        return await peer.reader.read()
    return b""


async def test_a_head_that_can_be_read_in_two_ways_is_refused(bench: Bench) -> None:
    for framing in TWO_WAYS_HEADS:
        peer = await bench.connect()
        await peer.send(HEAD + framing + SECOND)
        answer = await rest(peer)
        # An error found after the head: the request had begun, so the connection is closed without a response.
        assert answer == b"" or answer.startswith(b"HTTP/1.1 400"), (framing, answer)
        assert answer.count(b"HTTP/1.1 ") <= 1, (framing, answer)
        assert bench.pipeline.calls == [], framing


async def test_a_chunk_that_can_be_read_in_two_ways_ends_the_connection(bench: Bench) -> None:
    for chunks in TWO_WAYS_CHUNKS:
        peer = await bench.connect()
        await peer.send(CHUNKED + chunks + SECOND)
        assert b"HTTP/1.1 200" not in await rest(peer), chunks
        assert bench.pipeline.calls == [], chunks


async def test_a_chunks_extension_is_no_part_of_the_body(bench: Bench) -> None:
    peer = await bench.connect()
    await peer.send(CHUNKED + b'1;a="GET /admin/keys"\r\n{\r\n1;b=c\r\n}\r\n0;d\r\n\r\n')
    assert (await peer.answer())[0] == 200
    assert [body for _, body in bench.pipeline.calls] == [b"{}"]


async def test_a_body_that_looks_like_a_request_is_a_body(bench: Bench) -> None:
    peer = await bench.connect()
    await peer.send(HEAD + b"content-length: %d\r\n\r\n" % len(REQUEST) + REQUEST)
    assert (await peer.answer())[0] == 200
    assert [body for _, body in bench.pipeline.calls] == [REQUEST]


async def test_a_request_behind_another_has_none_of_its_key(bench: Bench) -> None:
    peer = await bench.connect()
    for path in ("/admin/keys", "/v1/models", "/v1/chat/completions"):
        without = f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{{}}".encode()
        await peer.send(REQUEST + without + REQUEST)
        assert [(await peer.answer())[0] for _ in range(3)] == [200, 401, 200], f"{path}, all at once"
        for request, status in ((REQUEST, 200), (without, 401), (REQUEST, 200)):
            await peer.send(request)
            assert (await peer.answer())[0] == status, path


async def test_a_trailer_is_no_header(bench: Bench) -> None:
    """A proxy that removes a header does not look at trailers."""
    without = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
    trailers = f"authorization: Bearer {USER}\r\nx-client-request-id: 1\r\ncontent-encoding: gzip\r\n".encode()
    peer = await bench.connect()
    await peer.send(without + b"2\r\n{}\r\n0\r\n" + trailers + b"\r\n")
    assert await peer.code() == (401, "missing_api_key")
    await peer.send(CHUNKED + b"2\r\n{}\r\n0\r\n" + trailers + b"\r\n")
    assert (await peer.answer())[0] == 200
    assert [head.headers for head, _ in bench.pipeline.calls] == [()]


@pytest.mark.parametrize("filler", [b"x-a: b\r\n", b"a"], ids=["trailers without an end", "one trailer without an end"])
async def test_what_is_no_body_behind_a_head_is_bounded(filler: bytes, bench: Bench) -> None:
    """Trailers can't fill the memory, with or without a key."""
    peer = await bench.connect()
    await peer.send(b"POST /nowhere HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n0\r\nx-b: ")
    with contextlib.suppress(ConnectionError):
        for _ in range(20):
            peer.writer.write(filler * (MAX_HEAD_BYTES // len(filler)))
            await peer.writer.drain()
    assert (await rest(peer)).count(b"HTTP/1.1 ") <= 1


async def test_to_a_request_refused_before_its_body_there_is_one_answer(bench: Bench) -> None:
    """A second response would be taken for that of the next request, which may be another client's."""
    bench.configure(max_in_flight=1)
    task = asyncio.create_task(asyncio.Event().wait())
    other = bench.parts.requests_in_flight.enter(task)
    bench.parts.requests_in_flight.take_place(other, "another", None, GatewayConfig())
    peer = await bench.connect()
    await peer.send(HEAD + b"content-length: 6\r\n\r\n")
    assert await peer.code() == (503, "overloaded")
    bench.parts.requests_in_flight.leave(other)
    task.cancel()
    await peer.send(b'{"a":')
    await asyncio.sleep(0)  # the first part is read by itself
    await peer.send(b"1}"[:1])
    await peer.send(b"GET /nowhere HTTP/1.1\r\nhost: x\r\nauthorization: Bearer " + USER.encode() + b"\r\n\r\n")
    assert await peer.code() == (404, "unknown_url")
    assert bench.pipeline.calls == []


async def test_an_upgrade_opens_nothing(bench: Bench) -> None:
    for upgrade in (b"h2c", b"websocket", b"TLS/1.3"):
        peer = await bench.connect()
        head = (
            HEAD + b"connection: upgrade, http2-settings\r\nupgrade: " + upgrade + b"\r\nhttp2-settings: AAMAAABk\r\n"
        )
        await peer.send(head + b"content-length: 2\r\n\r\n{}" + SECOND)
        peer.writer.write_eof()
        answers = (await rest(peer)).split(b"HTTP/1.1 ")[1:]
        assert all(answer[:3] in (b"200", b"400", b"401") for answer in answers), (upgrade, answers)
        assert sum(answer.startswith(b"200") for answer in answers) <= 1, (upgrade, answers)


async def test_no_request_line_is_a_way_past_the_key(bench: Bench) -> None:
    for line in LINES:
        peer = await bench.connect()
        await peer.send(line + b"\r\nhost: localhost\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")
        peer.writer.write_eof()
        answer = await rest(peer)
        assert answer == b"" or answer.split(b" ")[1] in (b"400", b"401"), (line, answer)
        assert bench.pipeline.calls == [], line


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/admin/keys", "/v1/models", "/healthz"])
async def test_a_length_of_thousands_of_zeros_is_no_error_of_ours(bench: Bench, path: str) -> None:
    for key in (b"", f"authorization: Bearer {USER}\r\n".encode()):
        for length, body in ((b"0" * 5_000, b""), (b"0" * 5_000 + b"2", b"{}")):
            peer = await bench.connect()
            head = f"POST {path} HTTP/1.1\r\nhost: x\r\n".encode() + key
            await peer.send(head + b"content-length: " + length + b"\r\n\r\n" + body + REQUEST)
            status, _ = await peer.answer()
            assert status < 500, (path, length[-1:])
            assert await peer.answer() == (200, {"ok": True})


@pytest.mark.parametrize(
    "coding",
    [b"gzip, chunked", b"gzip,chunked", b"gzip\r\ntransfer-encoding: chunked", b"chunked, chunked", b"x, Chunked"],
)
async def test_a_body_in_another_transfer_coding_is_refused(bench: Bench, coding: bytes) -> None:
    peer = await bench.connect()
    await peer.send(HEAD + b"transfer-encoding: " + coding + b"\r\n\r\n2\r\n{}\r\n0\r\n\r\n" + SECOND)
    answer = await rest(peer)
    assert answer.startswith(b"HTTP/1.1 400")
    assert answer.count(b"HTTP/1.1 ") == 1
    assert bench.pipeline.calls == []


async def test_http_1_0_knows_no_chunks(bench: Bench) -> None:
    peer = await bench.connect()
    await peer.send(CHUNKED.replace(b"HTTP/1.1", b"HTTP/1.0") + b"2\r\n{}\r\n0\r\n\r\n" + SECOND)
    answer = await rest(peer)
    assert answer.startswith(b"HTTP/1.1 400")
    assert bench.pipeline.calls == []
