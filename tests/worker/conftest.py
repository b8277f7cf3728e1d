"""Fixtures of the worker's tests."""

from collections.abc import AsyncIterator, Iterator

import pytest
from tests.telemetry.otlp_sink import OTLPSink
from tests.worker.bench import Bench, a_bench


@pytest.fixture
async def bench(redis_url: str, sqlite_url: str) -> AsyncIterator[Bench]:
    """On SQLite, for tests that do not depend on the database."""
    async with a_bench(redis_url, sqlite_url, timeout=0.2) as subject:
        yield subject


@pytest.fixture
async def any_bench(redis_url: str, database_url: str) -> AsyncIterator[Bench]:
    """On each kind of database."""
    async with a_bench(redis_url, database_url, timeout=5.0) as subject:
        yield subject


@pytest.fixture
def sink() -> Iterator[OTLPSink]:
    subject = OTLPSink().start()
    yield subject
    subject.stop()
