"""A response is read whatever a server does, and much that it may not do is an error."""

import asyncio
import gc
import socket

import pytest
from tests.net.fetching import CHUNKED, CONTINUE, TO_CLOSE, ask, bytewise, failure, fetch, pieces, then_close
from tests.net.upstream import Peer, Upstream, answering, chunk, response, until

from quarterdeck.net.http_client import HttpClient
from quarterdeck.net.http_connection import HIGH_WATER, MAX_HEAD_BYTES, Timeouts, UpstreamError
from quarterdeck.net.http_origin import Origin

NEVER = 3600.0
"""Seconds between sweeps where a test looks at deadlines itself."""

WHOLE = {
    "a length": response(b"hello"),
    "chunks": CHUNKED + chunk(b"he") + chunk(b"llo") + chunk(b""),
    "chunks with an extension and a trailer": CHUNKED + b"5;a=b\r\nhello\r\n0\r\nx-trailer: 1\r\n\r\n",
    "a 100 first": CONTINUE + response(b"hello"),
    "two of 1xx first": CONTINUE + b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n" + response(b"hello"),
}


@pytest.mark.parametrize("answer", WHOLE.values(), ids=WHOLE.keys())
async def test_an_answer_is_whole_however_it_is_cut(client: HttpClient, answer: bytes) -> None:
    halves = pieces(answer[: len(answer) // 2], answer[len(answer) // 2 :])
    async with Upstream(answering(answer, bytewise(answer), halves)) as upstream:
        assert [await fetch(client, upstream.origin) for _ in range(3)] == [b"hello"] * 3
        assert upstream.connections == 1


@pytest.mark.parametrize("answer", [TO_CLOSE + b"hello", b"HTTP/1.0 200 OK\r\n\r\nhello"])
async def test_an_answer_may_end_with_the_connection(client: HttpClient, answer: bytes) -> None:
    async with Upstream(then_close(answer)) as upstream:
        assert [await fetch(client, upstream.origin) for _ in range(2)] == [b"hello"] * 2
        assert upstream.connections == 2


@pytest.mark.parametrize("status", [204, 304])
async def test_an_answer_may_have_no_body(client: HttpClient, status: int) -> None:
    async with Upstream(answering(b"HTTP/1.1 %d X\r\n\r\n" % status, response(b"next"))) as upstream:
        assert [await fetch(client, upstream.origin) for _ in range(2)] == [b"", b"next"]
        assert upstream.connections == 1


async def test_status_and_headers_are_there_with_the_first_of_the_body(client: HttpClient) -> None:
    head = b"HTTP/1.1 429 Busy\r\nTransfer-Encoding: chunked\r\nx-a: 1\r\nX-A: 2\r\n\r\n"
    async with Upstream(answering(pieces(head, chunk(b"first")))) as upstream:
        connection = await ask(client, upstream.origin)
        assert connection.status == 429
        assert connection.header(b"transfer-encoding") == b"chunked"
        assert connection.header(b"x-a") == b"1"
        assert connection.header(b"retry-after") is None
        assert (connection.take(), connection.take(), connection.done) == (b"first", None, False)
        client.release(upstream.origin, connection)
        await upstream.closed.wait()


async def test_an_answer_that_states_its_length_is_there_when_it_is_whole(client: HttpClient) -> None:
    answer = response(b"hello")
    async with Upstream(answering(pieces(answer[:-4], answer[-4:-2], answer[-2:]))) as upstream:
        connection = await ask(client, upstream.origin)
        assert (connection.done, connection.take(), connection.take()) == (True, b"hello", b"")
        client.release(upstream.origin, connection)


async def test_a_trailer_takes_no_headers_place(client: HttpClient) -> None:
    answer = CHUNKED.replace(b"OK\r\n", b"OK\r\nx-a: 1\r\n") + b"1\r\nx\r\n0\r\nx-a: 2\r\n\r\n"
    async with Upstream(answering(answer)) as upstream:
        connection = await ask(client, upstream.origin)
        await until(lambda: connection.done)
        assert connection.header(b"x-a") == b"1"
        client.release(upstream.origin, connection)


async def test_pieces_come_as_they_arrive(client: HttpClient) -> None:
    more = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.say(CHUNKED + chunk(b"one"))
        await more.wait()
        await peer.say(chunk(b"two") + chunk(b""))

    async with Upstream(answering(script)) as upstream:
        connection = await ask(client, upstream.origin)
        assert await connection.read() == b"one"
        more.set()
        assert [await connection.read(), await connection.read()] == [b"two", b""]
        client.release(upstream.origin, connection)


async def test_the_request_arrives_as_it_was_given(client: HttpClient) -> None:
    body = b"x" * 3_000_000
    async with Upstream(answering(response())) as upstream:
        await fetch(client, upstream.origin, body=body)
        seen = upstream.requests[0]
        assert seen.head.startswith(b"POST /v1/x HTTP/1.1\r\nhost: 127.0.0.1:%d\r\n" % upstream.port)
        assert seen.body == body


# what breaks

BROKEN = {
    "nothing": (b"", False),
    "half a head": (b"HTTP/1.1 200 OK\r\ncontent-le", False),
    "half a body": (response(b"hello")[:-2], True),
    "half a chunk": (CHUNKED + chunk(b"hello")[:-4], True),
    "chunks without an end": (CHUNKED + chunk(b"hello"), True),
    "no HTTP": (b"SSH-2.0-OpenSSH_9.2\r\n", True),
    "a chunk of no size": (CHUNKED + b"zz\r\nhello\r\n", True),
    "two lengths": (b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\na", True),
    "a negative length": (b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\na", True),
    "another protocol": (b"HTTP/1.1 101 Switching\r\nupgrade: h2c\r\nconnection: upgrade\r\n\r\nhello", True),
}


@pytest.mark.parametrize(("said", "answered"), BROKEN.values(), ids=BROKEN.keys())
async def test_a_broken_answer_is_an_error(client: HttpClient, said: bytes, answered: bool) -> None:
    async with Upstream(then_close(said)) as upstream:
        error = await failure(client, upstream.origin)
        assert (error.sent, error.answered, error.timed_out) == (True, answered, False)
        assert upstream.connections == 1


async def test_a_reset_is_an_error_after_what_came_before_it(client: HttpClient) -> None:
    read = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.say(CHUNKED + chunk(b"hello"))
        await read.wait()
        peer.reset()

    async with Upstream(answering(script)) as upstream:
        connection = await ask(client, upstream.origin)
        assert await connection.read() == b"hello"
        read.set()
        with pytest.raises(UpstreamError, match="closed the connection") as caught:
            await connection.read()
        assert caught.value.answered
        client.release(upstream.origin, connection)


async def test_headers_without_end_are_broken_off(client: HttpClient) -> None:
    async def script(peer: Peer) -> None:
        await peer.say(b"HTTP/1.1 200 OK\r\n")
        for _ in range(MAX_HEAD_BYTES // 1024 + 100):
            await peer.say(b"x: " + b"a" * 1020 + b"\r\n")
        await peer.until_gone()

    async with Upstream(answering(script)) as upstream:
        assert "headers exceed" in str(await failure(client, upstream.origin))


async def test_trailers_without_end_are_broken_off(client: HttpClient) -> None:
    async def script(peer: Peer) -> None:
        await peer.say(CHUNKED + chunk(b"hello"), b"0\r\n")
        for n in range(2 * MAX_HEAD_BYTES // 1024 + 100):
            await peer.say(b"x-%d: " % n + b"a" * 1016 + b"\r\n")
        await peer.until_gone()

    async with Upstream(answering(script)) as upstream:
        assert "headers exceed" in str(await failure(client, upstream.origin))


async def test_a_body_past_its_bound_is_broken_off(client: HttpClient) -> None:
    async def script(peer: Peer) -> None:
        await peer.say(CHUNKED)
        while True:
            await peer.say(chunk(b"x" * 65536))

    async with Upstream(answering(script)) as upstream:
        assert "exceeds 1048576 bytes" in str(await failure(client, upstream.origin))
        await upstream.closed.wait()


# time-outs


async def test_silence_before_the_answer_ends(client: HttpClient) -> None:
    async with Upstream(answering()) as upstream:
        error = await failure(client, upstream.origin, Timeouts(2.0, 0.05, 5.0))
        assert (error.sent, error.answered, error.timed_out) == (True, False, True)
        await upstream.closed.wait()


async def test_silence_within_the_answer_ends(client: HttpClient) -> None:
    async def script(peer: Peer) -> None:
        await peer.say(CHUNKED + chunk(b"hello"))
        await peer.until_gone()

    async with Upstream(answering(script)) as upstream:
        error = await failure(client, upstream.origin, Timeouts(2.0, 5.0, 0.05))
        assert (error.answered, error.timed_out) == (True, True)
        await upstream.closed.wait()


async def test_silence_is_not_the_end_of_an_answer_that_ends_with_the_connection(client: HttpClient) -> None:
    async def script(peer: Peer) -> None:
        await peer.say(TO_CLOSE + b"hello")
        await peer.until_gone()

    async with Upstream(answering(script)) as upstream:
        error = await failure(client, upstream.origin, Timeouts(2.0, 5.0, 0.05))
        assert (error.answered, error.status, error.timed_out) == (True, 200, True)


async def test_each_piece_of_an_answer_extends_the_time_out() -> None:
    more = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.say(CHUNKED + chunk(b"x"))
        await more.wait()
        await peer.say(chunk(b"y"))
        await peer.until_gone()

    client = HttpClient(sweep_seconds=NEVER)
    async with Upstream(answering(script)) as upstream:
        connection = await ask(client, upstream.origin, Timeouts(2.0, 5.0, idle=10.0))
        now = asyncio.get_running_loop().time()
        assert not connection.is_late(now)
        assert connection.is_late(now + 11)
        more.set()
        assert [await connection.read(), await connection.read()] == [b"x", b"y"]
        assert not connection.is_late(now + 11)
        assert not connection.is_late(now + 20)
        assert connection.is_late(now + 22)
        client.release(upstream.origin, connection)
    await client.close()


async def test_a_slow_reader_holds_a_bounded_part_and_is_not_timed_out() -> None:
    """Beyond HIGH_WATER the socket is not read, so the server has to wait; nothing is lost."""
    client = HttpClient(sweep_seconds=NEVER)
    size = 64
    said = 0
    peers: list[Peer] = []

    async def script(peer: Peer) -> None:
        nonlocal said
        peers.append(peer)
        await peer.say(CHUNKED)
        for n in range(size):
            await peer.say(chunk(bytes([n]) * 1024 * 1024))
            said += 1
        await peer.say(chunk(b""))

    async with Upstream(answering(script)) as upstream:
        connection = await ask(client, upstream.origin)
        await until(lambda: connection._is_paused and peers[0].is_blocked)
        assert not connection.is_late(asyncio.get_running_loop().time() + 1000), "the reader is slow, not the server"
        assert said < size // 2
        assert connection._size <= HIGH_WATER + 1024 * 1024
        got = [0] * size
        while piece := await connection.read():
            for n in set(piece):
                got[n] += piece.count(n)
        client.release(upstream.origin, connection)
        assert got == [1024 * 1024] * size
    await client.close()


async def test_a_server_that_does_not_take_the_connection_is_given_up(client: HttpClient) -> None:
    listener = socket.create_server(("127.0.0.1", 0), backlog=0)
    fillers = []
    try:
        address = listener.getsockname()
        for _ in range(3):  # the backlog is full: a further SYN is not answered
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(address)
            fillers.append(filler)
        error = await failure(client, Origin.parse(f"http://127.0.0.1:{address[1]}"), Timeouts(0.1, 5.0, 5.0))
        assert (error.sent, error.timed_out) == (False, True)
    finally:
        for filler in fillers:
            filler.close()
        listener.close()


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:1", "http://no.such.host.invalid", "http://a..b", "http://" + "x" * 70]
)
async def test_nobody_there_is_an_error(client: HttpClient, url: str) -> None:
    error = await failure(client, Origin.parse(url), Timeouts(5.0, 5.0, 5.0))
    assert (error.sent, error.answered, error.timed_out) == (False, False, False)
    assert "connection failed" in str(error)


async def test_nothing_is_left_behind(client: HttpClient) -> None:
    """Whatever the tests above left to the collector would warn now, and a warning is an error."""
    await asyncio.sleep(0)
    gc.collect()
