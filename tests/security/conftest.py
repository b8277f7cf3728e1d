"""Both ways into the gateway over a real socket, and one platform with a recording engine for all tests."""

from collections.abc import Iterator

import pytest
from tests.gateway.http.connections import bench as bench
from tests.gateway.http.connections import way as way
from tests.security.engine import chat, http
from tests.security.stack import Platform, started
from tests.servers import SECURITY, RedisServer


@pytest.fixture(scope="session")
def security_platform(redis_server: RedisServer) -> Iterator[Platform]:
    with started(redis_server.url(SECURITY)) as made:
        yield made


@pytest.fixture
def platform(security_platform: Platform) -> Platform:
    """The platform, with its engine reset."""
    engine = security_platform.engine
    engine.seen.clear()
    engine.taken.clear()
    engine.answer, engine.endless, engine.holds = http(200, chat()), b"", False
    return security_platform
