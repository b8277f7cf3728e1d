"""What a server that refuses commands is called: away, busy, or there and refusing."""

import asyncio
import logging
from collections.abc import AsyncIterator

import pytest
from tests.redis_deployments import MEMORY_ONLY, TCPRedis, ask, running
from tests.servers import RedisServer

from quarterdeck.net.redis import Redis, RedisRefusesError, RedisUnavailableError

INFINITE = "while true do end"


@pytest.fixture
async def own(own_redis_server: RedisServer) -> AsyncIterator[Redis]:
    client = Redis(own_redis_server.url(), retry_seconds=0.01)
    yield client
    await client.close()


async def test_a_server_that_takes_no_writes_is_there_and_refuses(own_redis_server: RedisServer, own: Redis) -> None:
    admin = Redis(own_redis_server.url())
    try:
        await own.probe()
        await admin.call("CONFIG", "SET", "maxmemory", "1mb")
        with pytest.raises(RedisRefusesError, match="OOM") as refused:
            await own.probe()
        assert refused.value.code == "OOM"
        assert await own.call("PING") == b"PONG"
        await admin.call("CONFIG", "SET", "maxmemory", "0")
        await own.probe()
    finally:
        await admin.close()


async def test_probes_leave_nothing_in_the_append_only_file(own: Redis) -> None:
    await own.probe()  # and that of the connection
    before = await _changes(own)
    for _ in range(3):
        await own.probe()
    assert await _changes(own) == before


async def _changes(client: Redis) -> str:
    """Redis' count of writes that have changed something."""
    reply = await client.call("INFO", "persistence")
    assert isinstance(reply, bytes)
    return next(line for line in reply.decode().splitlines() if line.startswith("rdb_changes_since_last_save:"))


@pytest.mark.parametrize("missing", ["-@scripting", "resetkeys"])
async def test_a_user_without_the_rights_is_refused(own_redis_server: RedisServer, missing: str) -> None:
    admin = Redis(own_redis_server.url())
    poor = Redis(own_redis_server.url().replace("unix://", "unix://poor:pw@"), retry_seconds=0.01)
    try:
        await admin.call("ACL", "SETUSER", "poor", "on", ">pw", "~*", "&*", "+@all", missing)
        with pytest.raises(RedisRefusesError) as refused:
            await poor.probe()
        assert refused.value.code == "NOPERM"
    finally:
        await poor.close()
        await admin.close()


async def test_a_server_that_is_busy_with_a_script_is_away_until_it_ends(own_redis_server: RedisServer) -> None:
    states: list[bool] = []
    admin, client = (
        Redis(own_redis_server.url()),
        Redis(own_redis_server.url(), on_state=states.append, retry_seconds=0),
    )
    script = Redis(own_redis_server.url(), reply_timeout=None)
    try:
        await admin.call("CONFIG", "SET", "lua-time-limit", "50")
        await client.call("PING")
        running_script = asyncio.create_task(script.call("EVAL", INFINITE, 0))
        with pytest.raises(RedisUnavailableError, match="BUSY") as busy:
            while True:
                await client.call("PING")
        assert (busy.value.code, states) == ("BUSY", [False])
        # A connection of its own that is not opened with a write.
        reader, writer = await asyncio.open_unix_connection(own_redis_server.socket)
        writer.write(b"SCRIPT KILL\r\n")
        assert await reader.readline() == b"+OK\r\n"
        writer.close()
        await asyncio.gather(running_script, return_exceptions=True)
        await client.call("PING")
        assert states == [False, True]
    finally:
        for each in (admin, client, script):
            await each.close()


async def test_while_it_is_away_each_refusal_says_why(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)

    def start(folder: object) -> TCPRedis:
        return TCPRedis(folder, *MEMORY_ONLY)  # type: ignore[arg-type]

    with running(start) as server:
        ask(server.port, "CONFIG", "SET", "requirepass", "secret")
        client = Redis(f"redis://:wrong@127.0.0.1:{server.port}", retry_seconds=60)
        for _ in range(3):
            with pytest.raises(RedisUnavailableError, match="WRONGPASS") as away:
                await client.call("PING")
            assert away.value.code == "WRONGPASS"
        assert str(away.value).startswith("Redis is away: WRONGPASS")
        assert [record.message.split(".")[0] for record in caplog.records] == [
            "Redis cannot be reached: WRONGPASS invalid username-password pair or user is disabled"
        ]
        await client.close()


async def test_a_server_that_is_no_cluster_is_named_as_such(caplog: pytest.LogCaptureFixture) -> None:
    def start(folder: object) -> TCPRedis:
        return TCPRedis(folder, *MEMORY_ONLY)  # type: ignore[arg-type]

    with running(start) as server:
        client = Redis(f"redis+cluster://127.0.0.1:{server.port}", retry_seconds=60)
        for _ in range(2):
            with pytest.raises(RedisUnavailableError, match="cluster support disabled"):
                await client.call("PING")
        assert len([each for each in caplog.records if "cluster support disabled" in each.message]) == 1
        await client.close()


async def test_a_server_that_closes_without_a_word_may_need_tls() -> None:
    server = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0)
    async with server:
        client = Redis(f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        with pytest.raises(RedisUnavailableError, match="rediss://"):
            await client.call("PING")
        await client.close()
