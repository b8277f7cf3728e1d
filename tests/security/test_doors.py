"""Access control: the Host header, admin routes with a user's key, bodies before authorization.

CVE-2026-48710 and CVE-2026-49468 (authorization by Host header), CVE-2026-35029 (an admin route without a role check),
Portkey #1718 and Bifrost #937 (an unprotected route). Over real sockets, on the fast path and through ASGI.
"""

import asyncio
import contextlib

import pytest
from tests.gateway.fakes import USER
from tests.gateway.http.connections import Bench, serving
from tests.gateway.route_table import every_route

from quarterdeck.gateway.http.middleware import CRUD_BODY, PUBLIC
from quarterdeck.gateway.http.registry import BodyPolicy

HOSTS = (
    b"localhost/healthz",
    b"/healthz?",
    b"x/healthz#",
    b"a:b@c/metrics",
    b"localhost:0/readyz\\",
    b"",
    b"admin.internal",
)
REWRITES = (
    b"x-forwarded-host: localhost/healthz\r\nx-forwarded-prefix: /healthz\r\nx-original-url: /healthz\r\n"
    b"x-rewrite-url: /healthz\r\nx-forwarded-for: 127.0.0.1\r\nx-real-ip: 127.0.0.1\r\nforwarded: for=127.0.0.1\r\n"
    b"x-http-method-override: GET\r\nx-original-method: GET\r\nx-forwarded-proto: https\r\n"
)
KEY = b"authorization: Bearer " + USER.encode() + b"\r\n"


async def test_no_host_and_no_proxys_header_opens_a_route(bench: Bench) -> None:
    """CVE-2026-48710, CVE-2026-49468."""
    for host in HOSTS:
        peer = await bench.connect()
        for path in (b"/admin/keys", b"/v1/models", b"/v1/chat/completions"):
            head = b"POST " + path + b" HTTP/1.1\r\nhost: " + host + b"\r\n" + REWRITES
            await peer.send(head + b"content-length: 2\r\n\r\n{}")
            assert (await peer.answer())[0] == 401, (host, path)
    assert bench.pipeline.calls == []


async def test_a_key_in_another_place_is_none(bench: Bench) -> None:
    """A key in a query string appears in proxy logs; a key in a cookie is sent by browsers automatically."""
    secret = USER.encode()
    peer = await bench.connect()
    for path, header in (
        (b"/v1/models?api_key=" + secret + b"&key=" + secret, b""),
        (b"/v1/models", b"cookie: authorization=Bearer " + secret + b"\r\n"),
        (b"/v1/models", b"proxy-authorization: Bearer " + secret + b"\r\n"),
        (b"/v1/models", b"authorization: Basic " + secret + b"\r\n"),
        (b"/v1/models", b"authorization: " + secret + b"\r\n"),
        (b"/v1/models", b"authorization: Bearer " + secret + b", Bearer x\r\n"),
    ):
        await peer.send(b"GET " + path + b" HTTP/1.1\r\nhost: x\r\n" + header + b"\r\n")
        assert (await peer.answer())[0] == 401, (path, header)


async def test_no_admin_route_knows_a_users_key(bench: Bench) -> None:
    """CVE-2026-35029: all routes except public and model routes reject an ordinary key with 403."""
    shut = [(method, path) for method, path in every_route() if path not in PUBLIC and not _is_for_users(path)]
    assert len({path for _, path in shut}) > 5
    for method, path in shut:
        for body in (b"{}", b'{"name":"x","admin":true}', b""):
            peer = await bench.connect()
            length = b"content-length: %d\r\n" % len(body)
            json = b"content-type: application/json\r\n"
            await peer.send(f"{method} {path} HTTP/1.1\r\nhost: x\r\n".encode() + KEY + json + length + b"\r\n" + body)
            if method == "HEAD":  # without a body
                assert (await peer.reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 403")
            else:
                assert await peer.code() == (403, "admin_key_required"), (method, path, body)


def _is_for_users(path: str) -> bool:
    engines = ("/tokenize", "/detokenize", "/classify", "/rerank", "/v2/rerank")
    return path.startswith(("/v1/", "/openai/")) or path in engines


@pytest.mark.parametrize("path", ["/admin/keys", "/v1/models", "/nowhere"])
async def test_a_body_that_a_route_has_no_use_for_is_bounded(path: str, bench: Bench) -> None:
    """FastAPI reads the whole body before authorization, so any key could exhaust memory."""
    head = f"POST {path} HTTP/1.1\r\nhost: x\r\n".encode() + KEY + b"content-type: application/json\r\n"
    peer = await bench.connect()
    await peer.send(head + b"content-length: 99999999999\r\n\r\n")
    assert await peer.code() == (413, "request_too_large")
    assert await peer.is_closed()
    peer = await bench.connect()
    await peer.send(head + b"transfer-encoding: chunked\r\n\r\n")
    chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
    with contextlib.suppress(ConnectionError):
        for _ in range(18 * (CRUD_BODY.max_bytes or 0) // 0x10000):
            peer.writer.write(chunk)
            await peer.writer.drain()
    with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):  # the connection was closed while it wrote
        assert await peer.code() == (413, "request_too_large")
    assert await peer.is_closed()


async def test_a_body_that_does_not_come_is_a_408_on_every_route(way: str) -> None:
    async with serving(way, crud_body=BodyPolicy(seconds=0.05)) as bench:
        peer = await bench.connect()
        await peer.send(b"POST /admin/keys HTTP/1.1\r\nhost: x\r\n" + KEY + b"content-length: 10\r\n\r\n{")
        assert await peer.code() == (408, "request_timeout")
        assert await peer.is_closed()
