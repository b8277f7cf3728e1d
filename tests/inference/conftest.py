"""Fixtures of the request path's tests, and the loop that they run on."""

from collections.abc import AsyncIterator

import pytest
from tests.loops import BOTH, UVLOOP, Loops

from quarterdeck.net.http_client import HttpClient


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> Loops:
    """The gateway runs on uvloop, whose transports differ from asyncio's: code that touches them is tested on both."""
    return BOTH if item.path.match("engine/test_client.py") else UVLOOP


@pytest.fixture
async def client() -> AsyncIterator[HttpClient]:
    subject = HttpClient(sweep_seconds=0.01)
    yield subject
    await subject.close()
