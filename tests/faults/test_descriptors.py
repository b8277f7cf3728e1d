"""A gateway that may open few files: it refuses connections itself, stays up, and blames no engine."""

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator

import pytest
from tests.faults.client import Shape, ask
from tests.faults.stack import Key, Stack, until
from tests.platform import GatewayProcess

pytestmark = pytest.mark.faults


class Limited(GatewayProcess):
    """A gateway whose limit of file descriptors is `files`, soft and hard."""

    files = 1024

    def command(self) -> list[str]:
        return ["prlimit", f"--nofile={self.files}:{self.files}", *super().command()]


@contextlib.asynccontextmanager
async def limited(stack: Stack, files: int) -> AsyncIterator[Limited]:
    environ = {"QUARTERDECK_REDIS_URL": stack.redis_url, "QUARTERDECK_DATABASE_URL": stack.database_url}
    gateway = Limited(stack.folder, stack.configuration(), environ, f"gateway-{files}")
    gateway.files = files
    gateway.start()
    try:
        yield gateway
        assert gateway.process is not None and gateway.process.poll() is None, "it has ended"
    finally:
        gateway.stop()


async def test_silent_connections_keep_nobody_out(stack: Stack) -> None:
    key = await stack.key("among-silent")
    async with limited(stack, 1024) as gateway:
        with contextlib.ExitStack() as silent:
            for _ in range(1100):
                silent.enter_context(socket.create_connection(("127.0.0.1", gateway.port), timeout=5))
            async with stack.client(key) as client:
                client.base_url = gateway.url  # type: ignore[assignment]  # httpx converts it
                for _ in range(10):
                    assert (await ask(client, Shape("chat"), "mixed-two")).outcome == "ok"
                    assert (await ask(client, Shape("chat", stream=True), "mixed-two")).outcome == "ok"
            lines = [line for line in gateway.log_lines() if "out of connections" in line["message"]]
            assert 1 <= len(lines) <= 3, lines
            assert not [line for line in gateway.log_lines() if "job failed" in line["message"]]


async def test_more_streams_than_descriptors_are_answered_or_refused_by_us(stack: Stack) -> None:
    key = await stack.key("many-streams")
    async with limited(stack, 256) as gateway:
        answers = await asyncio.gather(*[_stream(gateway, key) for _ in range(200)])
        assert {status for status, _ in answers} == {200, 503}, answers
        assert {code for status, code in answers if status == 503} == {"overloaded"}
        assert sum(status == 200 for status, _ in answers) >= 80
        await until(lambda: "quarterdeck_requests_in_flight 0" in gateway.get("/metrics")[1])
        text = gateway.get("/metrics")[1]
        assert "quarterdeck_endpoint_ejections_total{" not in text, "no endpoint is blamed"
        assert (await _stream(gateway, key))[0] == 200


async def _stream(gateway: Limited, key: Key) -> tuple[int, str]:
    """A stream of half a second. Returns its status, and the code of an error."""
    asked = {"model": "mixed-two", "stream": True, "max_tokens": 120, "ignore_eos": True}
    body = json.dumps(asked | {"messages": [{"role": "user", "content": "hi"}]}).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key.secret}\r\n"
    head += f"content-type: application/json\r\nconnection: close\r\ncontent-length: {len(body)}\r\n\r\n"
    # Sent as soon as it is connected: a connection that is silent for longer may have to make room for others.
    connected = socket.create_connection(("127.0.0.1", gateway.port), timeout=5)
    connected.sendall(head.encode() + body)
    reader, writer = await asyncio.open_connection(sock=connected)
    try:
        answer = await reader.read()
        while more := await reader.read():
            answer += more
    finally:
        writer.close()
    status = int(answer.split(b" ", 2)[1])
    code = json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["code"] if status != 200 else ""
    assert status != 200 or answer.rstrip().endswith(b"0"), answer[-200:]
    return status, code
