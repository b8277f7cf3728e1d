"""Answers of the gateway to a job's request: whole ones, and what is said of others."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from tests.platform import free_port

from quarterdeck.protocol.job_credentials import JobClaims
from quarterdeck.store.database import Database
from quarterdeck.store.platform_secrets import PlatformSecret
from quarterdeck.worker import gateway_client
from quarterdeck.worker.gateway_client import AnswerTooLargeError, GatewayClient, GatewayUnavailableError

CLAIMS = JobClaims("key_1", "default", "job_1", "req_1", 4e9)


@pytest.fixture
async def url() -> AsyncIterator[str]:
    """Of a server: `/N` is answered with N bytes, `/cut` not to its end."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        path = (await reader.readline()).split()[1].decode().strip("/")
        size = 100 if path == "cut" else int(path)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % size)
        writer.write(b"x" * (10 if path == "cut" else size))
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    server.close()


async def test_an_answer_is_read_up_to_a_bound(url: str, database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gateway_client, "MAX_ANSWER_BYTES", 1000)
    client = GatewayClient(url, PlatformSecret(database, "jobs"))
    assert len((await client.post("/1000", b"{}", CLAIMS, timeout=30)).body) == 1000
    with pytest.raises(AnswerTooLargeError):
        await client.post("/1001", b"{}", CLAIMS, timeout=30)
    await client.close()


async def test_a_gateway_that_has_the_request_is_told_from_one_that_has_not(url: str, database: Database) -> None:
    client = GatewayClient(url, PlatformSecret(database, "jobs"))
    with pytest.raises(GatewayUnavailableError) as cut:
        await client.post("/cut", b"{}", CLAIMS, timeout=30)
    away = GatewayClient(f"http://127.0.0.1:{free_port()}", PlatformSecret(database, "jobs"))
    with pytest.raises(GatewayUnavailableError) as refused:
        await away.post("/1", b"{}", CLAIMS, timeout=30)
    assert (cut.value.was_sent, refused.value.was_sent) == (True, False)
    await client.close()
    await away.close()
