"""The HTTP client against a server that does everything a server may do, and much that it may not."""

import asyncio
import gc
import socket
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httptools
import pytest
from tests.net.upstream import SOON, Peer, Script, Upstream, answering, chunk, response, until

from quarterdeck.net.http_client import (
    HIGH_WATER,
    MAX_HEAD_BYTES,
    Connection,
    HttpClient,
    Origin,
    Timeouts,
    UpstreamError,
    request_head,
)


async def ask(client: HttpClient, origin: Origin, timeouts: Timeouts = SOON, body: bytes = b"{}") -> Connection:
    head = request_head("POST", origin, "/v1/x", []) + b"content-length: %d\r\n\r\n" % len(body)
    return await client.request(origin, head, body, timeouts)


async def fetch(client: HttpClient, origin: Origin, timeouts: Timeouts = SOON, body: bytes = b"{}") -> bytes:
    connection = await ask(client, origin, timeouts, body)
    try:
        return await connection.read_all(1024 * 1024)
    finally:
        client.release(origin, connection)


async def failure(client: HttpClient, origin: Origin, timeouts: Timeouts = SOON) -> UpstreamError:
    with pytest.raises(UpstreamError) as caught:
        await fetch(client, origin, timeouts)
    return caught.value


def bytewise(data: bytes) -> Script:
    async def script(peer: Peer) -> None:
        await peer.say_bytewise(data)

    return script


def pieces(*data: bytes) -> Script:
    async def script(peer: Peer) -> None:
        await peer.say(*data)

    return script


def then_close(*data: bytes) -> Script:
    """Answer, say nothing of a close, and close."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.say(*data)

    return script


CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
TO_CLOSE = b"HTTP/1.1 200 OK\r\n\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

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


async def test_an_answer_that_trickles_is_not_timed_out(client: HttpClient) -> None:
    async def script(peer: Peer) -> None:
        await peer.say(CHUNKED)
        for _ in range(8):
            await asyncio.sleep(0.05)
            await peer.say(chunk(b"x"))
        await peer.say(chunk(b""))

    async with Upstream(answering(script)) as upstream:
        assert await fetch(client, upstream.origin, Timeouts(2.0, 5.0, 0.3)) == b"x" * 8


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
        await asyncio.sleep(0.05)
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
    assert "can't be reached" in str(error)


# the pool


async def test_connections_are_kept_and_used_again(client: HttpClient) -> None:
    async with Upstream(answering(*[response()] * 4)) as upstream:
        first, second = await ask(client, upstream.origin), await ask(client, upstream.origin)
        for connection in (first, second):
            await connection.read_all(100)
            client.release(upstream.origin, connection)
            client.release(upstream.origin, connection)
        for _ in range(2):
            await fetch(client, upstream.origin)
        assert upstream.connections == 2


async def test_no_more_idle_connections_are_kept_than_allowed() -> None:
    client = HttpClient(max_idle=1)
    async with Upstream(answering(*[response()] * 3)) as upstream:
        connections = [await ask(client, upstream.origin) for _ in range(3)]
        for connection in connections:
            await connection.read_all(100)
            client.release(upstream.origin, connection)
        await until(lambda: upstream.open == 1)
        await client.close()


async def test_a_kept_connection_that_was_closed_is_replaced_unnoticed(client: HttpClient) -> None:
    """The server closes when the second request is on its way: nobody could have known."""
    served = 0

    async def script(peer: Peer) -> None:
        nonlocal served
        await peer.request()
        await peer.say(response(b"%d" % served))
        served += 1
        if served == 1:
            await peer.request()

    async with Upstream(script) as upstream:
        assert [await fetch(client, upstream.origin) for _ in range(2)] == [b"0", b"1"]
        assert upstream.connections == 2


async def test_a_connection_that_closed_while_it_was_kept_is_not_used(client: HttpClient) -> None:
    async with Upstream(then_close(response())) as upstream:
        for n in range(1, 4):
            await fetch(client, upstream.origin)
            await upstream.closed.wait()
            upstream.closed.clear()
            assert upstream.connections == n


async def test_a_fresh_connection_that_closes_is_not_tried_again(client: HttpClient) -> None:
    async with Upstream(then_close(b"")) as upstream:
        await failure(client, upstream.origin)
        assert upstream.connections == 1


@pytest.mark.parametrize(
    "surplus", [b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nbad", b"HTTP/1.1 200 OK\r\nco", b"garbage", b"\x00"]
)
async def test_what_nobody_asked_for_is_nobodys_answer(client: HttpClient, surplus: bytes) -> None:
    """Right behind the answer: another one, which the next request must not get."""
    async with Upstream(answering(response(b"good") + surplus, response(b"good"))) as upstream:
        assert [await fetch(client, upstream.origin) for _ in range(2)] == [b"good"] * 2
        assert upstream.connections == 2


async def test_what_comes_on_a_kept_connection_closes_it(client: HttpClient) -> None:
    more = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.say(response(b"good"))
        await more.wait()
        await peer.say(response(b"bad"))
        await peer.until_gone()

    async with Upstream(answering(script, response(b"good"))) as upstream:
        assert await fetch(client, upstream.origin) == b"good"
        more.set()
        await upstream.closed.wait()
        assert await fetch(client, upstream.origin) == b"good"


@pytest.mark.parametrize(
    "answer",
    [response(b"x", headers=["connection: close"]), b"HTTP/1.0 200 OK\r\ncontent-length: 1\r\n\r\nx"],
)
async def test_a_server_that_wants_to_close_is_not_used_again(client: HttpClient, answer: bytes) -> None:
    async with Upstream(answering(answer, answer)) as upstream:
        for _ in range(2):
            assert await fetch(client, upstream.origin) == b"x"
        assert upstream.connections == 2


async def test_an_answer_that_was_not_read_to_its_end_closes_the_connection(client: HttpClient) -> None:
    async def script(peer: Peer) -> None:
        await peer.say(CHUNKED + chunk(b"hello"))
        await peer.until_gone()

    async with Upstream(answering(script)) as upstream:
        connection = await ask(client, upstream.origin)
        await connection.read()
        client.release(upstream.origin, connection)
        await upstream.closed.wait()


async def test_an_answer_that_was_too_large_to_be_taken_and_is_left_spoils_nothing(client: HttpClient) -> None:
    """Reading was paused for it; a connection kept like that would never hear of its next answer."""
    large = response(b"x" * (HIGH_WATER + 1))
    async with Upstream(answering(large, response(b"next"))) as upstream:
        connection = await ask(client, upstream.origin)
        await until(lambda: connection.done or connection._paused)
        client.release(upstream.origin, connection)
        assert await fetch(client, upstream.origin) == b"next"


async def test_connections_of_servers_that_are_gone_are_forgotten(client: HttpClient) -> None:
    for _ in range(3):
        async with Upstream(answering(response())) as upstream:
            await fetch(client, upstream.origin)
    await until(lambda: not client._idle)


# the caller


async def test_a_cancelled_request_closes_its_connection(client: HttpClient) -> None:
    async with Upstream(answering()) as upstream:
        task = asyncio.create_task(fetch(client, upstream.origin))
        await upstream.arrived.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await upstream.closed.wait()


async def test_a_cancelled_read_closes_its_connection(client: HttpClient) -> None:
    read = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.say(CHUNKED + chunk(b"hello"))
        await peer.until_gone()

    async def reader(origin: Origin) -> None:
        connection = await ask(client, origin)
        try:
            await connection.read()
            read.set()
            await connection.read()
        finally:
            client.release(origin, connection)

    async with Upstream(answering(script)) as upstream:
        task = asyncio.create_task(reader(upstream.origin))
        await read.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await upstream.closed.wait()


async def test_a_slow_reader_holds_a_bounded_part(client: HttpClient) -> None:
    """Past HIGH_WATER the server's socket is left unread, so that it has to wait; and nothing is lost."""
    size = 64
    said = 0

    async def script(peer: Peer) -> None:
        nonlocal said
        await peer.say(CHUNKED)
        for n in range(size):
            await peer.say(chunk(bytes([n]) * 1024 * 1024))
            said += 1
        await peer.say(chunk(b""))

    async with Upstream(answering(script)) as upstream:
        connection = await ask(client, upstream.origin, Timeouts(2.0, 5.0, 0.2))
        before = -1
        while said != before:
            before = said
            await asyncio.sleep(0.3)  # longer than the time-out: it is the reader that is slow
        assert said < size // 2
        assert connection._size <= HIGH_WATER + 1024 * 1024
        got = [0] * size
        while piece := await connection.read():
            for n in set(piece):
                got[n] += piece.count(n)
        client.release(upstream.origin, connection)
        assert got == [1024 * 1024] * size


async def test_closing_the_client_closes_every_connection() -> None:
    client = HttpClient()
    async with Upstream(answering(response(), b"HTTP/1.1 200 OK\r\n")) as upstream:
        await fetch(client, upstream.origin)
        waiting = asyncio.create_task(failure(client, upstream.origin))
        upstream.arrived.clear()
        await upstream.arrived.wait()
        await client.close()
        assert not (await waiting).timed_out
        await until(lambda: not upstream.open)
        assert not (await failure(client, upstream.origin)).sent


# TLS


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Path]]:
    folder = tmp_path_factory.mktemp("tls")
    key, made = folder / "key.pem", folder / "certificate.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-keyout", str(key), "-out", str(made), "-days", "1", "-subj", "/CN=localhost"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run(command, check=True, capture_output=True)
    yield key, made


async def test_a_certificate_that_nobody_vouches_for_is_refused_in_one_line(
    client: HttpClient, certificate: tuple[Path, Path]
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate[1], certificate[0])
    async with Upstream(answering(response()), tls=context) as upstream:
        error = await failure(client, upstream.origin)
        assert not error.sent
        assert "certificate verify failed" in str(error)
        assert "\n" not in str(error)
        assert upstream.requests == []


async def test_a_certificate_that_is_trusted_is_spoken_to(
    client: HttpClient, certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate[1]))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate[1], certificate[0])
    async with Upstream(answering(response(b"a"), response(b"b")), tls=context) as upstream:
        assert [await fetch(client, upstream.origin) for _ in range(2)] == [b"a", b"b"]
        assert upstream.connections == 1


async def test_plain_http_on_a_tls_port_is_an_error(client: HttpClient) -> None:
    async with Upstream(pieces(b"HTTP/1.1 400 Bad Request\r\n\r\n")) as upstream:
        error = await failure(client, Origin.parse(f"https://127.0.0.1:{upstream.port}"))
        assert not error.answered


# origins


@pytest.mark.parametrize(
    ("url", "origin", "authority"),
    [
        ("http://h", Origin("h", 80, tls=False), "h"),
        ("http://h:80/", Origin("h", 80, tls=False), "h"),
        ("http://h:8000/a/b/", Origin("h", 8000, tls=False, prefix="/a/b"), "h:8000"),
        ("https://h", Origin("h", 443, tls=True), "h"),
        ("http://[::1]:9", Origin("::1", 9, tls=False), "[::1]:9"),
    ],
)
def test_an_origin_is_read_from_a_url(url: str, origin: Origin, authority: str) -> None:
    assert Origin.parse(url) == origin
    assert origin.authority == authority


def test_a_request_head_is_http() -> None:
    head = request_head("POST", Origin.parse("http://h:1/base"), "/v1/x", [(b"a", b"b")])

    class Read:
        def __init__(self) -> None:
            self.headers: dict[bytes, bytes] = {}
            self.url = b""

        def on_url(self, url: bytes) -> None:
            self.url = url

        def on_header(self, name: bytes, value: bytes) -> None:
            self.headers[name] = value

    read = Read()
    httptools.HttpRequestParser(read).feed_data(head + b"\r\n")
    assert (read.url, read.headers) == (b"/base/v1/x", {b"host": b"h:1", b"a": b"b"})


async def test_nothing_is_left_behind(client: HttpClient) -> None:
    """Whatever the tests above left to the collector would warn now, and a warning is an error."""
    await asyncio.sleep(0)
    gc.collect()
