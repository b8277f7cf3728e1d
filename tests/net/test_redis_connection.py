"""A connection that is closed refuses commands instead of leaving them without a reply."""

import pytest

from quarterdeck.net.redis_connection import RedisConnection, RedisUnavailableError


async def test_a_connection_that_is_gone_takes_no_command() -> None:
    lost: list[object] = []
    connection = RedisConnection(lost.append, None)
    with pytest.raises(RedisUnavailableError):
        connection.request(b"PING")
