"""The simulated engine under test: in process behind the OpenAI SDK, and as a process on its own port."""

import asyncio
import contextlib
import os
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from typing import Any

import httpx2
import msgspec
from openai import AsyncOpenAI

from quarterdeck.simulator import SimulatorConfig, create_app
from quarterdeck.simulator.app import App
from quarterdeck.simulator.model.tokenizer import split, token_id

BASE = "http://simulator"


def http(app: App) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url=BASE)


@contextlib.asynccontextmanager
async def sdk(**options: Any) -> AsyncIterator[AsyncOpenAI]:
    """The official SDK on an engine in process, with strict response validation and no retries."""
    async with sdk_on(create_app(SimulatorConfig(**options))) as client:
        yield client


@contextlib.asynccontextmanager
async def sdk_on(app: App, *, strict: bool = True) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(
        api_key="none",
        base_url=f"{BASE}/v1",
        http_client=http(app),
        max_retries=0,
        _strict_response_validation=strict,
    ) as client:
        yield client


def user(text: str) -> list[Any]:
    return [{"role": "user", "content": text}]


class Process:
    """`python -m quarterdeck.simulator` on a free port."""

    def __init__(self, *options: str) -> None:
        environ = dict(os.environ) | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        command = [sys.executable, "-m", "quarterdeck.simulator", "--port", "0", *options]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environ)
        assert self._process.stdout is not None
        line = self._process.stdout.readline().decode()
        if not line.startswith("listening on "):
            _, output = self._process.communicate()
            raise AssertionError(output.decode())
        self.url = line.split()[-1]
        self.port = int(self.url.rsplit(":", 1)[1])
        self.pid = self._process.pid

    def terminate(self) -> None:
        self._process.send_signal(signal.SIGTERM)

    async def ended(self) -> int:
        """Wait for the process to end; return its exit code."""
        return await asyncio.to_thread(self._process.wait)

    def is_running(self) -> bool:
        return self._process.poll() is None

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate()


class Raw:
    """A TCP connection: shows the bytes of a broken response, which a client library hides."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def open(cls, port: int) -> "Raw":
        return cls(*await asyncio.open_connection("127.0.0.1", port))

    async def post(self, path: str, body: Mapping[str, Any], **headers: str) -> None:
        data = msgspec.json.encode(body)
        lines = [f"POST {path} HTTP/1.1", "host: simulator", "content-type: application/json"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        lines += [f"content-length: {len(data)}", "", ""]
        self.writer.write("\r\n".join(lines).encode() + data)
        await self.writer.drain()

    async def rest(self) -> bytes:
        """Read until the end. Raises ConnectionResetError if the connection is reset."""
        return await self.reader.read()

    async def close(self, *, reset: bool = False) -> None:
        if reset:
            raw = self.writer.get_extra_info("socket")
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.close()
        with contextlib.suppress(ConnectionError):
            await self.writer.wait_closed()


def token_ids(text: str) -> list[int]:
    return [token_id(piece) for piece in split(text)]


def events(stream: bytes) -> list[Any]:
    """Return the data of a stream's events, decoded; text that is not JSON as it is."""
    found: list[Any] = []
    for block in stream.decode().split("\n\n"):
        if block.startswith("data: "):
            text = block.removeprefix("data: ")
            try:
                found.append(msgspec.json.decode(text))
            except msgspec.DecodeError:
                found.append(text)
    return found


def series(page: str) -> dict[str, float]:
    """Return the samples of a Prometheus page."""
    lines = (line for line in page.splitlines() if line and not line.startswith("#"))
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines)}
