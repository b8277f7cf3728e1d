"""Fixtures of the hot path's tests, and the loop that they run on."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping

import pytest
import uvloop

from quarterdeck.inference.http1 import HttpClient

ON_BOTH_LOOPS = ("test_http1.py", "test_engine_client.py")


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The gateway runs on uvloop, whose transports are not quite asyncio's: what touches them is tested on both."""
    if item.path.name in ON_BOTH_LOOPS:
        return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture
async def client() -> AsyncIterator[HttpClient]:
    subject = HttpClient(sweep_seconds=0.01)
    yield subject
    await subject.close()
