"""A gateway with a fake pipeline on a real socket, and raw connections to it."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import Any, cast

import pytest
from tests.gateway.fakes import USER, FakePipeline, config, parts

from quarterdeck.gateway.app import create_app
from quarterdeck.gateway.auth.authenticator import Authenticator
from quarterdeck.gateway.dependencies import Parts
from quarterdeck.gateway.http.bounded_protocol import HEAD_SECONDS
from quarterdeck.gateway.http.connections import Connections
from quarterdeck.gateway.http.middleware import CRUD_BODY
from quarterdeck.gateway.http.registry import BodyPolicy, Route
from quarterdeck.gateway.http.requests_in_flight import RequestsInFlight
from quarterdeck.gateway.http.server import create_server
from quarterdeck.inference.routing.directory import Directory
from quarterdeck.net.sockets import listen

HEAD = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {USER}\r\n".encode()
REQUEST = HEAD + b"content-length: 2\r\n\r\n{}"
WAYS = ("before ASGI", "over ASGI")
"""Both ways of a request to a registered route: a key in memory goes past ASGI, one that must be looked up does not."""


class Peer:
    """A raw connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        with contextlib.suppress(ConnectionError):
            await self.writer.drain()

    async def answer(self) -> tuple[int, dict[str, Any]]:
        """Status and JSON of one answer with a content-length."""
        head = await self.reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        return int(head.split(b" ")[1]), json.loads(await self.reader.readexactly(length))

    async def code(self) -> tuple[int, str]:
        status, body = await self.answer()
        return status, body["error"]["code"]

    async def is_closed(self) -> bool:
        try:
            return await self.reader.read() == b""
        except ConnectionError:
            return True


class Bench:
    """The gateway's port and parts. `configure` replaces settings in force."""

    def __init__(self, port: int, made_of: Parts, pipeline: FakePipeline) -> None:
        self.port, self.parts, self.pipeline = port, made_of, pipeline
        self._peers: list[Peer] = []

    def configure(self, **settings: Any) -> None:
        self.pipeline.directory.replace(Directory.of(config(**settings)))

    async def connect(self, **options: Any) -> Peer:
        place: dict[str, Any] = {} if "sock" in options else {"host": "127.0.0.1", "port": self.port}
        peer = Peer(*await asyncio.open_connection(**place, **options))
        self._peers.append(peer)
        return peer

    async def close(self) -> None:
        for peer in self._peers:
            peer.writer.close()
            with contextlib.suppress(ConnectionError):
                await peer.writer.wait_closed()


class KnowsNoKey:
    """An authenticator that has no key in memory."""

    def __init__(self, authenticator: Authenticator) -> None:
        self._authenticator = authenticator

    def known(self, authorization: bytes | None) -> None:
        return None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._authenticator, name)


@contextlib.asynccontextmanager
async def serving(
    way: str,
    routes: Sequence[Route] = (),
    *,
    head_seconds: float = HEAD_SECONDS,
    connections: Connections | None = None,
    crud_body: BodyPolicy = CRUD_BODY,
    **settings: Any,
) -> AsyncIterator[Bench]:
    """`settings` are those of the gateway."""
    pipeline = FakePipeline(config(**{"client_write_timeout_seconds": 0.2, **settings}))
    made_of = parts(pipeline, requests_in_flight=RequestsInFlight(sweep_seconds=0.01))
    if way == "before ASGI":
        await made_of.authenticator.authenticate(f"Bearer {USER}".encode())
    else:
        made_of = replace(made_of, authenticator=cast(Authenticator, KnowsNoKey(made_of.authenticator)))
    listener = listen("127.0.0.1", 0)
    app = create_app(made_of, more=routes, crud_body=crud_body)
    subject = create_server(app, "127.0.0.1", 0, head_seconds=head_seconds, connections=connections)
    task = asyncio.create_task(subject.serve([listener]))
    bench = Bench(listener.getsockname()[1], made_of, pipeline)
    try:
        yield bench
    finally:
        await bench.close()
        subject.should_exit = True
        await task
        listener.close()


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def bench(way: str) -> AsyncIterator[Bench]:
    async with serving(way) as made:
        yield made
