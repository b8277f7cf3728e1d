"""Fixtures of the transport's tests, and the loops that they run on."""

from collections.abc import AsyncIterator

import pytest
from tests.loops import ASYNCIO, BOTH, UVLOOP, Loops

from quarterdeck.net.http_client import HttpClient


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> Loops:
    """Clients that read from transports run on both loops: the gateway's is uvloop, the worker's is asyncio's own."""
    if item.path.name in ("test_http_client.py", "test_http_connection.py", "test_redis.py"):
        return BOTH
    return UVLOOP if item.path.name == "test_write_batching.py" else ASYNCIO


@pytest.fixture
async def client() -> AsyncIterator[HttpClient]:
    subject = HttpClient(sweep_seconds=0.01)
    yield subject
    await subject.close()
