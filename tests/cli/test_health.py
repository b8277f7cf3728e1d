"""Health checks of processes on this machine."""

import asyncio
from pathlib import Path

import pytest
from tests.load.servers import answering

from quarterdeck.cli import health


async def test_a_response_has_its_status_and_its_json() -> None:
    with answering({"/readyz": (503, b'{"status": "starting"}'), "/healthz": (200, b"ok")}) as url:
        assert await health.get(f"{url}/readyz") == health.HealthResponse(503, {"status": "starting"})
        assert await health.get(f"{url}/healthz") == health.HealthResponse(200, None)
        assert not await health.is_serving(f"{url}/readyz")
        assert await health.is_serving(f"{url}/healthz")
        assert await health.is_serving(f"{url}/missing")


async def test_without_a_listener_there_is_no_response() -> None:
    assert await health.get("http://127.0.0.1:1/healthz") == health.HealthResponse(0)
    assert not await health.is_serving("http://127.0.0.1:1/healthz")


@pytest.mark.parametrize(("reply", "is_ready"), [(b"+PONG\r\n", True), (b"-LOADING Redis is loading\r\n", False)])
async def test_redis_is_ready_once_it_answers_pong(tmp_path: Path, reply: bytes, is_ready: bool) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(reply)
        writer.close()

    server = await asyncio.start_unix_server(serve, tmp_path / "redis.sock")
    async with server:
        assert await health.is_redis_ready(tmp_path / "redis.sock") is is_ready
    assert not await health.is_redis_ready(tmp_path / "missing.sock")
