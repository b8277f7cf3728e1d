"""Requests through the HTTP client, and scripts of answers."""

import pytest
from tests.net.upstream import SOON, Peer, Script

from quarterdeck.net.http_client import HttpClient
from quarterdeck.net.http_connection import HttpConnection, Timeouts, UpstreamError
from quarterdeck.net.http_origin import Origin, request_head


async def ask(client: HttpClient, origin: Origin, timeouts: Timeouts = SOON, body: bytes = b"{}") -> HttpConnection:
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
