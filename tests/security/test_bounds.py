"""Memory is bounded by the settings: bodies that arrive slowly or without end, clients that do not read.

Bounds on a head, an idle connection and a drain: tests/gateway (`http/test_bounded_protocol`, `test_lifecycle`) and
tests/faults.
"""

import contextlib
import json
import socket

from tests.faults.stack import resident_mib
from tests.gateway.http.connections import HEAD, Bench
from tests.security.engine import chat, delta, events, http
from tests.security.stack import BODIES, USER, Platform
from tests.servers import wait_until

MIB = 1024 * 1024


async def test_a_body_may_come_byte_by_byte(bench: Bench) -> None:
    body = b'{"model":"chat"}'
    for head in (b"content-length: %d\r\n\r\n" % len(body), b"transfer-encoding: chunked\r\n\r\n"):
        peer = await bench.connect()
        await peer.send(HEAD + head)
        for at in range(len(body)):
            byte = body[at : at + 1]
            await peer.send(b"1\r\n" + byte + b"\r\n" if b"chunked" in head else byte)
        await peer.send(b"0\r\n\r\n" if b"chunked" in head else b"")
        assert (await peer.answer())[0] == 200
    assert [sent for _, sent in bench.pipeline.calls] == [body, body]


async def test_a_body_that_comes_too_slowly_is_a_408_and_the_end(bench: Bench) -> None:
    bench.configure(client_body_timeout_seconds=0.05)
    peer = await bench.connect()
    await peer.send(HEAD + b"content-length: 10\r\n\r\n{")
    assert await peer.code() == (408, "request_timeout")
    assert await peer.is_closed()
    assert bench.pipeline.calls == []


async def test_a_body_past_the_limit_is_a_413(bench: Bench) -> None:
    bench.configure(max_body_mb=1, max_media_body_mb=1)
    peer = await bench.connect()
    await peer.send(HEAD + b"content-length: %d\r\n\r\n" % (2 * MIB) + b" " * 2 * MIB)
    assert await peer.code() == (413, "request_too_large")
    await peer.send(HEAD + b"transfer-encoding: chunked\r\n\r\n" + (b"80000\r\n" + b" " * 0x80000 + b"\r\n") * 4)
    await peer.send(b"0\r\n\r\n")
    assert await peer.code() == (413, "request_too_large")
    await peer.send(HEAD + b"content-length: 2\r\n\r\n{}")
    assert (await peer.answer())[0] == 200, "the refused bodies were read to their end"


def test_readers_that_take_nothing_stop_the_fastest_engine(platform: Platform) -> None:
    """Past ASGI, where pieces go into the connection without waking a task, and over it."""
    event = f"data: {delta('x' * 4000)}\n\n".encode()
    platform.engine.answer = events(delta("hi"), ends=False)
    platform.engine.endless = (b"%x\r\n" % len(event) + event + b"\r\n") * 16
    body = json.dumps({**BODIES["/v1/chat/completions"], "stream": True}).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {USER}\r\n".encode()
    ways = [
        head + b"content-length: %d\r\n\r\n" % len(body) + body,
        head + b"transfer-encoding: chunked\r\n\r\n%x\r\n" % len(body) + body + b"\r\n0\r\n\r\n",
    ]
    platform.ask("/v1/models", method="GET")  # puts the key into memory
    before = most = resident_mib(platform.gateway)
    with contextlib.ExitStack() as callers:
        for request in ways:
            caller = callers.enter_context(socket.socket())
            caller.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            caller.connect(("127.0.0.1", platform.gateway.port))
            caller.sendall(request)

        def are_hung_up_on() -> bool:
            nonlocal most
            most = max(most, resident_mib(platform.gateway))
            return len(platform.engine.taken) == len(ways)

        wait_until(are_hung_up_on, what=lambda: f"taken: {platform.engine.taken}")
    # Four sockets have kernel buffers of some MiB each; nothing else grows.
    assert sum(platform.engine.taken) < 40 * MIB
    assert most - before < 8, f"{most - before:.1f} MiB for two clients that read nothing"


def test_unread_whole_answers_hold_their_slots_and_bounded_memory(platform: Platform) -> None:
    """Until the client has taken the answer, or is disconnected after `client_write_timeout_seconds`."""
    size, count = 4 * MIB, 8
    platform.engine.answer = http(200, chat("x" * size))
    body = json.dumps(BODIES["/v1/chat/completions"]).encode()
    request = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {USER}\r\n".encode()
    request += b"content-length: %d\r\n\r\n" % len(body) + body
    platform.ask("/v1/models", method="GET")  # puts the key into memory
    before = most = resident_mib(platform.gateway)
    held = 0
    with contextlib.ExitStack() as callers:
        for _ in range(count):
            caller = callers.enter_context(socket.socket())
            caller.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            caller.connect(("127.0.0.1", platform.gateway.port))
            caller.sendall(request)

        def are_hung_up_on() -> bool:
            nonlocal most, held
            most = max(most, resident_mib(platform.gateway))
            held = max(held, platform.reservations())
            return held == count and platform.reservations() == 0

        wait_until(are_hung_up_on, what=lambda: f"held at most: {held}")
    assert most - before < 2 * count * size / MIB, f"{most - before:.1f} MiB for {count} answers of {size / MIB} MiB"
