"""Fixtures of the request path's tests, and the loop that they run on."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.inference.bench import Bench
from tests.loops import BOTH, UVLOOP, Loops

from quarterdeck.net.http_client import HttpClient
from quarterdeck.net.redis import Redis


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> Loops:
    """The gateway runs on uvloop, whose transports differ from asyncio's: code that touches them is tested on both."""
    return BOTH if item.path.match("inference/engine/test_*.py") else UVLOOP


@pytest.fixture
async def client() -> AsyncIterator[HttpClient]:
    subject = HttpClient(sweep_seconds=0.01)
    yield subject
    await subject.close()


@pytest.fixture
def bench(redis: Redis, tmp_path: Path, client: HttpClient) -> Bench:
    return Bench(redis, tmp_path, client)
