"""Connections are pooled, replaced when a server closes them, and encrypted."""

import asyncio
import errno
import gc
import ssl
from pathlib import Path

import pytest
from tests.net.fetching import CHUNKED, ask, failure, fetch, pieces, then_close
from tests.net.upstream import Peer, Upstream, answering, chunk, response, until

from quarterdeck.net.http_client import LARGE_BYTES, HttpClient
from quarterdeck.net.http_connection import HIGH_WATER
from quarterdeck.net.http_origin import Origin


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


async def test_at_the_bound_idle_connections_of_another_server_make_room() -> None:
    client = HttpClient(max_connections=2)
    async with Upstream(answering(*[response()] * 3)) as first, Upstream(answering(*[response()] * 3)) as second:
        await fetch(client, first.origin)
        held = [await ask(client, second.origin) for _ in range(2)]
        await until(lambda: first.open == 0)
        error = await failure(client, first.origin)
        assert error.is_local and not error.sent and "2 connections" in str(error)
        for connection in held:
            client.release(second.origin, connection)
        await client.close()


async def test_without_a_descriptor_the_failure_is_our_own(client: HttpClient, monkeypatch: pytest.MonkeyPatch) -> None:
    async def full(*_: object, **__: object) -> object:
        raise OSError(errno.EMFILE, "Too many open files")

    async with Upstream(answering(response())) as upstream:
        with monkeypatch.context() as patch:
            patch.setattr(client, "_open", full)
            assert (await failure(client, upstream.origin)).is_local
        await fetch(client, upstream.origin)
    assert not (await failure(client, upstream.origin)).is_local, "refused, by the server's machine"


async def test_a_kept_connection_that_was_closed_is_replaced_unnoticed(client: HttpClient) -> None:
    """The server closes while the second request is on its way."""
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


@pytest.mark.parametrize("size", [LARGE_BYTES, LARGE_BYTES + 1, 3_000_000])
async def test_a_large_body_is_sent_whole_on_every_connection(client: HttpClient, size: int) -> None:
    body = bytes(range(251)) * (size // 251 + 1)
    body = body[:size]

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.say(response())
        if upstream.connections == 1:
            await peer.request()  # and closes without an answer

    async with Upstream(script) as upstream:
        for _ in range(2):
            await fetch(client, upstream.origin, body=body)
        assert [seen.body == body for seen in upstream.requests] == [True] * 3
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
        await until(lambda: connection.done or connection._is_paused)
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


async def test_addresses_that_are_resolved_elsewhere_are_tried_in_order_and_the_name_is_what_a_certificate_must_have(
    certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate[1]))
    asked: list[tuple[str, int]] = []

    async def resolve(host: str, port: int) -> list[str]:
        asked.append((host, port))
        return ["127.0.0.2", "127.0.0.1"]  # nothing listens on the first

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate[1], certificate[0])
    async with Upstream(answering(response(b"a")), tls=context) as upstream:
        client = HttpClient(resolve=resolve)
        assert await fetch(client, upstream.origin) == b"a"
        assert asked == [("127.0.0.1", upstream.port)]
        error = await failure(client, upstream.origin._replace(host="other.example"))
        assert "mismatch" in str(error) or "doesn't match" in str(error)
        await client.close()


async def test_plain_http_on_a_tls_port_is_an_error(client: HttpClient) -> None:
    async with Upstream(pieces(b"HTTP/1.1 400 Bad Request\r\n\r\n")) as upstream:
        error = await failure(client, Origin.parse(f"https://127.0.0.1:{upstream.port}"))
        assert not error.answered


async def test_nothing_is_left_behind(client: HttpClient) -> None:
    """Whatever the tests above left to the collector would warn now, and a warning is an error."""
    await asyncio.sleep(0)
    gc.collect()
