"""The connection to Redis: in order, in few writes, and never a hang whatever Redis does."""

import asyncio
import gc
import logging
import socket
import time
from collections.abc import AsyncIterator

import pytest
from tests.net.upstream import Peer, Script, Upstream, until
from tests.servers import RedisServer

from quarterdeck.net.redis import Redis, RedisError, RedisUnavailableError
from quarterdeck.net.redis import Script as LuaScript

ECHO = LuaScript("return {KEYS[1], ARGV[1]}")


class States(list[bool]):
    """What `on_state` was told."""


@pytest.fixture
def states() -> States:
    return States()


@pytest.fixture
async def own(own_redis_server: RedisServer, states: States) -> AsyncIterator[Redis]:
    """A client of a server that may be stopped; it gives up soon and tries again soon."""
    client = Redis(own_redis_server.url(), reply_timeout=0.2, retry_seconds=0.05, on_state=states.append)
    yield client
    await client.close()


async def answers(client: Redis) -> None:
    """Wait until Redis is back for this client."""
    async with asyncio.timeout(10):
        while True:
            try:
                assert await client.call("PING") == b"PONG"
                return
            except RedisUnavailableError:
                await asyncio.sleep(0.01)


async def until_blocked(server: RedisServer) -> None:
    """Wait until a client of the server is blocked by BLPOP."""
    observer = Redis(server.url())
    async with asyncio.timeout(10):
        while b"blocked_clients:1" not in await observer.call("INFO", "clients"):  # noqa: ASYNC110  # another process
            await asyncio.sleep(0.01)
    await observer.close()


def fake(url_of: Upstream) -> str:
    return f"redis://127.0.0.1:{url_of.port}"


def reading(*replies: bytes, then: Script | None = None) -> Script:
    """A Redis that gives these replies, one whenever it has read something."""

    async def script(peer: Peer) -> None:
        for reply in replies:
            assert await peer._reader.read(1 << 20)
            await peer.say(reply)
        if then is not None:
            await then(peer)

    return script


async def until_gone(peer: Peer) -> None:
    await peer.until_gone()


# words and replies


async def test_replies_come_as_redis_has_them(redis: Redis) -> None:
    assert await redis.call("SET", "a", b"\x00\xff\r\n") == b"OK"
    assert await redis.call("GET", "a") == b"\x00\xff\r\n"
    assert await redis.call("GET", "b") is None
    assert await redis.call("INCRBY", "n", 41) == 41
    assert await redis.call("INCRBYFLOAT", "f", 0.5) == b"0.5"
    assert await redis.call("MGET", "a", "b", "n") == [b"\x00\xff\r\n", None, b"41"]


async def test_an_error_is_the_commands_own(redis: Redis) -> None:
    await redis.call("SET", "a", "x")
    with pytest.raises(RedisError, match="not an integer"):
        await redis.call("INCR", "a")
    assert await redis.call("GET", "a") == b"x"


async def test_every_question_gets_its_own_answer(redis: Redis) -> None:
    replies = await asyncio.gather(*[redis.call("ECHO", n) for n in range(2000)])
    assert replies == [b"%d" % n for n in range(2000)]


async def test_a_large_value_passes(redis: Redis) -> None:
    value = b"x" * 10_000_000
    await redis.call("SET", "a", value)
    assert await redis.call("GET", "a") == value


async def test_who_gives_up_waiting_confuses_nobody(redis: Redis) -> None:
    await redis.call("PING")
    asked = [asyncio.create_task(redis.call("ECHO", n)) for n in range(100)]
    await asyncio.sleep(0)
    for task in asked[::2]:
        task.cancel()
    replies = await asyncio.gather(*asked, return_exceptions=True)
    assert replies[1::2] == [b"%d" % n for n in range(1, 100, 2)]
    assert await redis.call("ECHO", "after") == b"after"


async def test_the_commands_of_one_turn_leave_in_one_write() -> None:
    async def script(peer: Peer) -> None:
        await peer._reader.read(1 << 16)
        await peer.say(b"+PONG\r\n")
        read.append(await peer._reader.read(1 << 16))
        await peer.say(b"+OK\r\n" * 10)
        await peer.until_gone()

    read: list[bytes] = []
    async with Upstream(script) as upstream:
        client = Redis(fake(upstream))
        await asyncio.gather(*[client.call("SET", n, n) for n in range(10)])
        assert read[0].count(b"SET") == 10
        await client.close()


async def test_a_database_is_selected(redis_server: RedisServer, redis_url: str, redis: Redis) -> None:
    await redis.call("SET", "here", 1)
    other = Redis(redis_server.url(0))
    assert await other.call("GET", "here") is None
    again = Redis(redis_url)
    assert await again.call("GET", "here") == b"1"
    await other.close()
    await again.close()


async def test_a_password_is_given_and_never_shown(own_redis_server: RedisServer, own: Redis) -> None:
    await own.call("CONFIG", "SET", "requirepass", "canary")
    for url, is_let_in in [
        ("unix://:canary@{}", True),
        ("unix://default:canary@{}", True),
        ("unix://:wrong@{}", False),
    ]:
        client = Redis(url.format(own_redis_server.socket))
        if is_let_in:
            assert await client.call("PING") == b"PONG"
        else:
            with pytest.raises(RedisUnavailableError, match="WRONGPASS") as caught:
                await client.call("PING")
            assert "wrong@" not in str(caught.value)
        assert "canary" not in repr(client._address)
        await client.close()


# scripts


async def test_a_script_runs_and_runs_again_where_redis_forgot_it(redis: Redis) -> None:
    assert await redis.run(ECHO, ["k"], ["v"]) == [b"k", b"v"]
    await redis.call("SCRIPT", "FLUSH")
    assert await redis.run(ECHO, ["k"], ["v"]) == [b"k", b"v"]
    assert await redis.call("SCRIPT", "EXISTS", ECHO.sha) == [1]


async def test_what_a_script_refuses_is_an_error_and_it_runs_once(redis: Redis) -> None:
    script = LuaScript("redis.call('INCR', KEYS[1]); return redis.call('HGET', KEYS[1], 'x')")
    with pytest.raises(RedisError, match="WRONGTYPE"):
        await redis.run(script, ["n"], [])
    assert await redis.call("GET", "n") == b"1"


# Redis away


async def test_nobody_there_is_said_at_once_and_not_asked_each_time(
    own_redis_server: RedisServer, states: States
) -> None:
    own_redis_server.stop()
    client = Redis(own_redis_server.url(), retry_seconds=60, on_state=states.append)
    with pytest.raises(RedisUnavailableError, match="cannot be reached"):
        await client.call("PING")
    with pytest.raises(RedisUnavailableError, match="is away"):
        await client.call("PING")
    assert states == [False]
    await client.close()


async def test_a_redis_that_comes_later_is_found(own_redis_server: RedisServer, own: Redis, states: States) -> None:
    own_redis_server.stop()
    with pytest.raises(RedisUnavailableError):
        await own.call("PING")
    own_redis_server.start()
    await answers(own)
    assert states == [False, True]


async def test_a_killed_redis_fails_calls_under_way_and_comes_back(
    own_redis_server: RedisServer, own: Redis, states: States
) -> None:
    await own.call("PING")
    blocked = asyncio.create_task(own.call("BLPOP", "nothing", 0))
    await until_blocked(own_redis_server)
    own_redis_server.kill()
    with pytest.raises(RedisUnavailableError, match="lost"):
        await blocked
    own_redis_server.start()
    await answers(own)
    assert await own.run(ECHO, ["k"], ["v"]) == [b"k", b"v"]
    assert states == [False, True]


@pytest.mark.parametrize("how", ["stopped", "paused"])
async def test_a_redis_that_is_silent_is_given_up_and_found_again(
    own_redis_server: RedisServer, own: Redis, states: States, how: str
) -> None:
    await own.call("PING")
    if how == "stopped":
        own_redis_server.pause()
    else:
        await own.call("CLIENT", "PAUSE", 600, "ALL")
    started = asyncio.get_running_loop().time()
    replies = await asyncio.gather(*[own.call("GET", n) for n in range(50)], return_exceptions=True)
    assert all(isinstance(reply, RedisUnavailableError) for reply in replies)
    assert asyncio.get_running_loop().time() - started > 0.15  # not before `reply_timeout`
    assert states == [False]
    own_redis_server.resume()
    await answers(own)
    assert states == [False, True]


async def test_a_try_that_takes_long_holds_up_one_caller_only() -> None:
    """A host that drops packets: one caller waits for it, the others know already."""

    async def silent(peer: Peer) -> None:
        await peer.until_gone()

    async with Upstream(silent) as upstream:
        client = Redis(fake(upstream), connect_timeout=0.3, reply_timeout=60, retry_seconds=0)
        with pytest.raises(RedisUnavailableError, match="no reply in time"):
            await client.call("PING")
        trying = asyncio.create_task(client.call("PING"))
        await until(lambda: upstream.connections == 2)
        for _ in range(100):
            with pytest.raises(RedisUnavailableError, match="is away"):
                await client.call("PING")
        assert not trying.done()
        with pytest.raises(RedisUnavailableError, match="no reply in time"):
            await trying
        await client.close()


async def test_before_anything_is_known_all_wait_for_the_first_try(own: Redis) -> None:
    assert await asyncio.gather(*[own.call("PING") for _ in range(100)]) == [b"PONG"] * 100


async def test_the_first_caller_giving_up_does_not_end_the_try_for_the_others(redis_server: RedisServer) -> None:
    client = Redis(redis_server.url())
    first, second = asyncio.create_task(client.call("PING")), asyncio.create_task(client.call("PING"))
    await asyncio.sleep(0)
    first.cancel()
    assert await second == b"PONG"
    await client.close()


async def test_a_slow_answer_is_waited_for_as_long_as_others_come() -> None:
    """The time-out is for silence: a queue that moves is no reason to hang up."""

    async def trickling(peer: Peer) -> None:
        for _ in range(5):
            await asyncio.sleep(0.1)
            await peer.say(b"+OK\r\n")
        await peer.until_gone()

    async with Upstream(reading(b"+PONG\r\n", b"+OK\r\n", then=trickling)) as upstream:
        client = Redis(fake(upstream), reply_timeout=0.3)
        replies = await asyncio.gather(*[client.call("GET", n) for n in range(6)])
        assert replies == [b"OK"] * 6
        await client.close()


async def test_a_process_that_stood_still_does_not_blame_redis(own: Redis, states: States) -> None:
    """On a busy machine a loop may stand longer than the time-out; the answers lie in the socket then."""
    await own.call("PING")
    asked = [asyncio.create_task(own.call("ECHO", n)) for n in range(10)]
    ours, theirs = socket.socketpair()

    def stand_still() -> None:
        ours.recv(1)
        time.sleep(0.5)

    with ours, theirs:
        loop = asyncio.get_running_loop()
        loop.add_reader(ours, stand_still)
        theirs.send(b"x")
        assert await asyncio.gather(*asked) == [b"%d" % n for n in range(10)]
        loop.remove_reader(ours)
    assert states == []


async def test_a_blocking_client_waits_without_end(own_redis_server: RedisServer, own: Redis) -> None:
    blocking = Redis(own_redis_server.url(), reply_timeout=None)
    waiting = asyncio.create_task(blocking.call("BLPOP", "list", 0))
    await until_blocked(own_redis_server)
    await own.call("PING")
    assert not waiting.done()
    await own.call("RPUSH", "list", "x")
    assert await waiting == [b"list", b"x"]
    await blocking.close()


async def test_a_connection_that_was_closed_while_idle_costs_no_call(
    own_redis_server: RedisServer, states: States
) -> None:
    """As a managed Redis or a load balancer does after some minutes."""
    client = Redis(own_redis_server.url(), reply_timeout=5, retry_seconds=0.01, on_state=states.append)
    other = Redis(own_redis_server.url())
    await client.call("PING")
    await asyncio.sleep(0.02)  # older than a retry
    await other.call("CLIENT", "KILL", "TYPE", "normal")
    await until(lambda: states == [False])
    assert await asyncio.gather(*[client.call("ECHO", n) for n in range(50)]) == [b"%d" % n for n in range(50)]
    assert states == [False, True]
    await client.close()
    await other.close()


# a Redis that is none

ODD = {
    "it loads its file": b"-LOADING Redis is loading the dataset in memory\r\n",
    "it has too many clients": b"-ERR max number of clients reached\r\n",
    "it wants a password": b"-NOAUTH Authentication required.\r\n",
    "it is a web server": b"HTTP/1.1 400 Bad Request\r\n\r\n",
    "it closes": b"",
}


@pytest.mark.parametrize("said", ODD.values(), ids=ODD.keys())
async def test_one_that_does_not_answer_a_ping_is_not_there(
    said: bytes, states: States, caplog: pytest.LogCaptureFixture
) -> None:
    async with Upstream(reading(said)) as upstream:
        client = Redis(fake(upstream), on_state=states.append)
        with pytest.raises(RedisUnavailableError):
            await client.call("GET", "a")
        assert states == [False]
        await client.close()
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


async def test_words_that_nobody_asked_for_end_the_connection(states: States, caplog: pytest.LogCaptureFixture) -> None:
    async with Upstream(reading(b"+PONG\r\n", b"$1\r\na\r\n", then=until_gone)) as upstream:
        client = Redis(fake(upstream), on_state=states.append)
        assert await client.call("GET", "a") == b"a"
    async with Upstream(reading(b"+PONG\r\n", b"$1\r\na\r\n$1\r\nb\r\n", then=until_gone)) as upstream:
        other = Redis(fake(upstream), on_state=states.append)
        assert await other.call("GET", "a") == b"a"
        await upstream.closed.wait()
        await until(lambda: states[-1:] == [False])
        await other.close()
    await client.close()
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


async def test_garbage_ends_the_connection() -> None:
    async with Upstream(reading(b"+PONG\r\n", b"garbage\r\n", then=until_gone)) as upstream:
        client = Redis(fake(upstream))
        with pytest.raises(RedisUnavailableError, match="lost"):
            await client.call("GET", "a")
        await client.close()


async def test_one_that_closes_right_after_its_greeting_hangs_nobody() -> None:
    async with Upstream(reading(b"+PONG\r\n")) as upstream:
        client = Redis(fake(upstream), reply_timeout=60)
        async with asyncio.timeout(5):
            replies = await asyncio.gather(*[client.call("GET", n) for n in range(20)], return_exceptions=True)
        assert all(isinstance(reply, RedisUnavailableError) for reply in replies)
        await client.close()


# the end


async def test_a_command_of_the_turn_in_which_the_connection_ends_fails_quietly(
    redis: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    await redis.call("PING")
    assert redis._node is not None
    assert redis._node.connection is not None
    asked = asyncio.create_task(redis.call("PING"))
    await asyncio.sleep(0)
    redis._node.connection.abort()
    with pytest.raises(RedisUnavailableError):
        await asked
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


async def test_closing_fails_what_is_under_way_and_is_no_outage(redis_server: RedisServer, states: States) -> None:
    client = Redis(redis_server.url(), on_state=states.append)
    await client.call("PING")
    blocked = asyncio.create_task(client.call("BLPOP", "nothing", 0))
    await asyncio.sleep(0)
    await client.close()
    with pytest.raises(RedisUnavailableError):
        await blocked
    assert states == []


async def test_closing_while_it_connects_leaves_nothing() -> None:
    async with Upstream(until_gone) as upstream:
        client = Redis(fake(upstream))
        trying = asyncio.create_task(client.call("PING"))
        await until(lambda: upstream.connections == 1)
        await client.close()
        with pytest.raises(RedisUnavailableError):
            await trying
        await upstream.closed.wait()
    gc.collect()


async def test_a_changed_reply_timeout_holds_for_the_open_connection(own_redis_server: RedisServer) -> None:
    client = Redis(own_redis_server.url(), reply_timeout=60)
    await client.call("PING")
    client.set_reply_timeout(0.05)
    with pytest.raises(RedisUnavailableError):
        async with asyncio.timeout(10):
            await client.call("BLPOP", "nothing", "0")
    await client.close()
