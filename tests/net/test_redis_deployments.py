"""Fail-over, Sentinel and Cluster with real servers: commands arrive, and what went away is left."""

import asyncio
import contextlib
import ssl
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from tests.net.upstream import until
from tests.redis_deployments import (
    ClusterDeployment,
    SentinelDeployment,
    TCPRedis,
    ask,
    running,
)
from tests.servers import wait_until

from quarterdeck.net.redis import Redis, RedisError, RedisRefusesError, RedisUnavailableError, Script, is_to_be_resent
from quarterdeck.net.redis_address import RedisAddress, RedisServer
from quarterdeck.net.redis_cluster import hash_slot, tag_of, tag_of_command
from quarterdeck.net.redis_pubsub import Subscription
from quarterdeck.net.redis_topology import cluster_slots, locator_of

COUNT = Script("return redis.call('INCRBY', KEYS[1], ARGV[1])")
BOTH = Script("redis.call('INCR', KEYS[1]) return redis.call('INCR', KEYS[2])")
Make = Callable[..., Redis]


@pytest.fixture
async def make() -> AsyncIterator[Make]:
    made: list[Redis] = []

    def one(url: str, **options: float) -> Redis:
        made.append(Redis(url, **({"reply_timeout": 0.5, "retry_seconds": 0.1} | options)))  # type: ignore[arg-type]
        return made[-1]

    yield one
    for client in made:
        await client.close()


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[tuple[TCPRedis, TCPRedis]]:
    """Two servers, of which a test makes one a replica."""
    servers = TCPRedis(tmp_path, "--save", ""), TCPRedis(tmp_path, "--save", "")
    for server in servers:
        server.start()
    yield servers
    for server in servers:
        server.stop()


@pytest.fixture
def sentinels() -> Iterator[SentinelDeployment]:
    with running(SentinelDeployment) as deployment:
        yield deployment


@pytest.fixture(scope="module")
def cluster() -> Iterator[ClusterDeployment]:
    with running(ClusterDeployment) as deployment:
        yield deployment


async def eventually(client: Redis, *words: str | int, seconds: float = 20.0) -> object:
    """The reply of a command, once Redis is there for it."""
    async with asyncio.timeout(seconds):
        while True:
            with contextlib.suppress(RedisUnavailableError):
                return await client.call(*words)
            await asyncio.sleep(0.02)


# a server that became a replica


async def test_a_primary_that_became_a_replica_is_left(pair: tuple[TCPRedis, TCPRedis], make: Make) -> None:
    first, second = pair
    client = make(f"redis://127.0.0.1:{first.port}")
    assert await client.run(COUNT, ["n"], [1]) == 1
    ask(first.port, "REPLICAOF", "127.0.0.1", second.port)
    # PING and reads are answered by a replica as well.
    with pytest.raises(RedisUnavailableError, match=r"READONLY|away"):
        await client.run(COUNT, ["n"], [1])
    with pytest.raises(RedisUnavailableError, match=r"READONLY|away"):
        await client.probe()
    assert await asyncio.to_thread(ask, first.port, "REPLICAOF", "NO", "ONE") == "OK"
    assert int(str(await eventually(client, "INCR", "m"))) == 1


async def test_a_primary_that_lost_its_replicas_is_left_until_it_has_them(
    pair: tuple[TCPRedis, TCPRedis], make: Make
) -> None:
    """`min-replicas-to-write`: an isolated primary refuses writes, which would be lost."""
    client = make(f"redis://127.0.0.1:{pair[0].port}")
    await client.call("SET", "n", 1)
    ask(pair[0].port, "CONFIG", "SET", "min-replicas-to-write", "1")
    with pytest.raises(RedisUnavailableError):  # Redis 6 checks this for commands, and for scripts since 7
        await client.call("INCR", "n")
    with pytest.raises(RedisUnavailableError):
        await client.probe()
    ask(pair[0].port, "CONFIG", "SET", "min-replicas-to-write", "0")
    assert await eventually(client, "INCR", "n") == 2


async def test_a_server_without_memory_is_there(pair: tuple[TCPRedis, TCPRedis], make: Make) -> None:
    """It refuses writes that need memory, and takes those that free it."""
    client = make(f"redis://127.0.0.1:{pair[0].port}")
    ask(pair[0].port, "CONFIG", "SET", "maxmemory", "1")
    with pytest.raises(RedisError, match="OOM"):
        await client.call("SET", "n", 1)
    with pytest.raises(RedisRefusesError) as refused:
        await client.probe()
    assert refused.value.code == "OOM"
    assert await client.call("GET", "n") is None


@pytest.mark.parametrize("script", [COUNT, Script("local r = redis.pcall('INCR', KEYS[1]) return r")])
async def test_a_scripts_refused_write_is_known_as_a_fail_over(
    pair: tuple[TCPRedis, TCPRedis], make: Make, script: Script
) -> None:
    first, second = pair
    client = make(f"redis://127.0.0.1:{first.port}")
    await client.run(script, ["n"], [1])
    node = client._node
    assert node is not None
    connection = node.connection
    assert connection is not None
    ask(first.port, "REPLICAOF", "127.0.0.1", second.port)
    with pytest.raises(RedisError) as caught:
        await connection.request(script.command(["n"], [1]))
    assert is_to_be_resent(caught.value)
    assert not connection.is_open


async def test_an_address_that_names_another_server_by_now_is_resolved_anew(
    pair: tuple[TCPRedis, TCPRedis], make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A managed Redis behind a name: the name moves to the server that was promoted. No request notices."""
    first, second = pair
    client = make("redis://primary.example:6379")
    node = client._node
    assert node is not None
    current = [first]

    async def locate() -> RedisServer:
        return RedisServer("127.0.0.1", current[0].port)

    monkeypatch.setattr(node, "_locate", locate)
    assert await client.run(COUNT, ["n"], [1]) == 1
    await asyncio.sleep(0.15)  # the connection is older than a retry
    ask(first.port, "REPLICAOF", "127.0.0.1", second.port)
    await asyncio.to_thread(wait_until, lambda: first.info("replication").get("master_link_status") == "up")
    current[0] = second
    assert await asyncio.gather(*[client.run(COUNT, ["n"], [1]) for _ in range(20)]) == list(range(1, 21))


# TLS


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A certificate of localhost, which is its own authority, with its key beside it."""
    path = tmp_path / "cert.pem"
    request = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    request += ["-keyout", str(path.with_suffix(".key")), "-out", str(path), "-days", "2", "-subj", "/CN=localhost"]
    subprocess.run([*request, "-addext", "subjectAltName=DNS:localhost"], check=True, capture_output=True)
    return path


@asynccontextmanager
async def behind_tls(port: int, certificate: Path) -> AsyncIterator[int]:
    """A port on which TLS ends in front of a server."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, certificate.with_suffix(".key"))

    forwarded: set[asyncio.Task[None]] = set()

    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        forwarded.add(task)
        to, back = await asyncio.open_connection("127.0.0.1", port)

        async def pipe(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
            try:
                while data := await source.read(65536):
                    sink.write(data)
            except OSError:
                return
            finally:
                sink.close()

        await asyncio.gather(pipe(reader, back), pipe(to, writer))

    server = await asyncio.start_server(forward, "127.0.0.1", 0, ssl=context)
    yield server.sockets[0].getsockname()[1]
    server.close()
    for task in forwarded:
        task.cancel()
    await asyncio.gather(*forwarded, return_exceptions=True)


async def test_certificates_are_verified(pair: tuple[TCPRedis, TCPRedis], certificate: Path, make: Make) -> None:
    async with behind_tls(pair[0].port, certificate) as port:
        assert await make(f"rediss://localhost:{port}?ssl_ca_certs={certificate}").call("PING") == b"PONG"
        assert await make(f"rediss://127.0.0.1:{port}?ssl_cert_reqs=none").call("PING") == b"PONG"
        unchecked = f"rediss://127.0.0.1:{port}?ssl_ca_certs={certificate}&ssl_check_hostname=false"
        assert await make(unchecked).call("PING") == b"PONG"
        for refused in (f"rediss://localhost:{port}", f"rediss://127.0.0.1:{port}?ssl_ca_certs={certificate}"):
            with pytest.raises(RedisUnavailableError, match="certificate verify failed"):
                await make(refused).call("PING")
        with pytest.raises(RedisUnavailableError, match="No such file"):
            await make(f"rediss://localhost:{port}?ssl_ca_certs=/no/such.pem").call("PING")


async def test_sentinels_and_nodes_are_asked_by_tls(
    tmp_path: Path, certificate: Path, cluster: ClusterDeployment
) -> None:
    config = "sentinel monitor mymaster 127.0.0.1 7777 1\nsentinel down-after-milliseconds mymaster 60000\n"
    sentinel = TCPRedis(tmp_path, "--sentinel", config=config)
    sentinel.start()
    words = f"ssl_ca_certs={certificate}"
    try:
        async with behind_tls(sentinel.port, certificate) as port:
            found = locator_of(RedisAddress.parse(f"rediss+sentinel://localhost:{port}/mymaster?{words}"))
            assert await found.locate() == RedisServer("127.0.0.1", 7777)
            await found.close()
            strange = locator_of(RedisAddress.parse(f"rediss+sentinel://localhost:{port}/mymaster"))
            with pytest.raises(RedisUnavailableError, match="certificate verify failed"):
                await strange.locate()
            await strange.close()
    finally:
        sentinel.stop()
    async with behind_tls(cluster.nodes[0].port, certificate) as port:
        address = RedisAddress.parse(f"rediss+cluster://localhost:{port}?{words}")
        ranges = await cluster_slots(address, address.servers)
        assert {each.server.port for each in ranges} == {node.port for node in cluster.nodes}
        with pytest.raises(RedisUnavailableError, match="certificate verify failed"):
            await cluster_slots(RedisAddress.parse(f"rediss+cluster://localhost:{port}"), address.servers)


# Sentinel


async def test_a_primary_is_found_through_sentinels_and_followed_when_they_fail_over(
    sentinels: SentinelDeployment, make: Make
) -> None:
    client = make(sentinels.url)
    assert await client.run(COUNT, ["n"], [1]) == 1
    heard: list[bytes] = []
    states: list[bool] = []
    subscription = Subscription(
        sentinels.url, "news", on_state=states.append, on_message=heard.append, retry_seconds=0.05
    )
    listening = asyncio.create_task(subscription.run())
    await until(lambda: states == [True])
    before = await asyncio.to_thread(sentinels.primary_port)
    await asyncio.to_thread(sentinels.fail_over)
    after = await asyncio.to_thread(sentinels.primary_port)
    assert after != before
    # The former primary accepts writes until a Sentinel makes it a replica, after some ten seconds: it is left before.
    async with asyncio.timeout(5):
        while await asyncio.to_thread(ask, after, "GET", "written") is None:
            await eventually(client, "SET", "written", "1")
            await asyncio.sleep(0.05)
    async with asyncio.timeout(20):
        while b"hello" not in heard:
            with contextlib.suppress(RedisUnavailableError):
                await client.call("PUBLISH", "news", "hello")
            await asyncio.sleep(0.05)
    listening.cancel()
    await asyncio.gather(listening, return_exceptions=True)


@pytest.mark.long
async def test_a_primary_that_is_killed_is_replaced(sentinels: SentinelDeployment, make: Make) -> None:
    states: list[bool] = []
    client = Redis(sentinels.url, reply_timeout=0.5, retry_seconds=0.1, on_state=states.append)
    await client.call("SET", "n", 1)
    sentinels.sentinels[0].kill()  # one of three may be away as well
    sentinels.primary.kill()
    assert await eventually(client, "INCR", "m", seconds=60) == 1
    assert states == [False, True]
    await client.close()


async def test_sentinels_that_know_no_such_primary_are_named_in_the_error(
    sentinels: SentinelDeployment, make: Make
) -> None:
    client = make(sentinels.url.replace("mymaster", "another"))
    with pytest.raises(RedisUnavailableError, match="knows no primary 'another'"):
        await client.call("PING")
    wrong = make(f"redis://127.0.0.1:{sentinels.sentinels[0].port}")
    with pytest.raises(RedisUnavailableError, match="unknown command"):
        await wrong.call("PING")


async def test_sentinels_have_no_password_the_servers_or_one_of_their_own(tmp_path: Path, make: Make) -> None:
    primary = TCPRedis(tmp_path, "--save", "", "--requirepass", "secret")
    config = f"sentinel monitor mymaster 127.0.0.1 {primary.port} 1\nsentinel auth-pass mymaster secret\n"
    opened = TCPRedis(tmp_path, "--sentinel", config=config)
    locked = TCPRedis(tmp_path, "--sentinel", config=config + "requirepass secret\n")
    for server in (primary, opened, locked):
        server.launch()
    try:
        for server in (primary, locked):
            await asyncio.to_thread(wait_until, server.wants_password)
        await asyncio.to_thread(wait_until, opened.answers)
        for sentinel, query in ((opened, ""), (locked, ""), (locked, "?sentinel_password=secret")):
            url = f"redis+sentinel://:secret@127.0.0.1:{sentinel.port}/mymaster{query}"
            assert await make(url).call("GET", "a") is None
        with pytest.raises(RedisUnavailableError, match="refuses the password") as caught:
            await make(f"{url.partition('?')[0]}?sentinel_password=canary").call("PING")
        assert "canary" not in str(caught.value)
    finally:
        for server in (opened, locked, primary):
            server.stop()


# Cluster


def test_slots_are_those_of_redis(cluster: ClusterDeployment) -> None:
    for tag in ("default", "acme", "a-b.c_d", "ä", "0"):
        assert hash_slot(tag) == ask(cluster.nodes[0].port, "CLUSTER", "KEYSLOT", tag)
        assert hash_slot(tag_of(f"money:{{{tag}}}:key:1")) == hash_slot(tag)
    for key in ("plain", "{}x", "a{b", "{a}{b}"):
        assert hash_slot(tag_of(key)) == ask(cluster.nodes[0].port, "CLUSTER", "KEYSLOT", key)


@pytest.mark.parametrize(
    ("words", "tag"),
    [
        (("GET", "x:{a}"), "a"),
        (("xgroup", "CREATE", "x:{a}", "g", "0"), "a"),
        (("XREADGROUP", "GROUP", "g", "n", "COUNT", 1, "STREAMS", b"x:{a}", ">"), "a"),
        (("XREAD", "COUNT", "200", "STREAMS", b"x:{a}", b"0-0"), "a"),
        (("EVALSHA", "sha", 1, "x:{a}"), "a"),
        (("PING",), None),
    ],
)
def test_a_commands_tag_is_its_first_keys(words: tuple[str, ...], tag: str | None) -> None:
    assert tag_of_command(words) == tag


async def test_commands_go_to_the_node_of_their_key(cluster: ClusterDeployment, make: Make) -> None:
    client = make(cluster.url)
    orgs = [f"org{number}" for number in range(60)]
    assert {cluster.owner(hash_slot(org)).port for org in orgs} == {node.port for node in cluster.nodes}
    assert await asyncio.gather(*[client.run(COUNT, [f"n:{{{org}}}"], [7]) for org in orgs]) == [7] * 60
    assert await asyncio.gather(*[client.call("GET", f"n:{{{org}}}") for org in orgs]) == [b"7"] * 60
    await client.probe()
    received = [asyncio.get_running_loop().create_future() for _ in orgs]
    for org, future in zip(orgs, received, strict=True):
        assert client.send(COUNT.command([f"n:{{{org}}}"], [1]), future, org)
    assert await asyncio.gather(*received) == [8] * 60


async def test_one_node_is_enough_to_find_the_others(cluster: ClusterDeployment, make: Make) -> None:
    client = make(f"redis+cluster://127.0.0.1:1,127.0.0.1:{cluster.nodes[2].port}")
    for number in range(20):
        assert await client.call("SET", f"s:{{{number}}}", 1) == b"OK"


async def test_a_server_url_that_leads_to_a_cluster_says_so(cluster: ClusterDeployment, make: Make) -> None:
    for node in cluster.nodes:
        client = make(f"redis://127.0.0.1:{node.port}")
        if node is cluster.owner(hash_slot("quarterdeck:probe")):
            continue
        with pytest.raises(RedisUnavailableError, match=r"redis\+cluster://"):
            await client.call("PING")


async def test_a_slot_that_moves_is_followed(cluster: ClusterDeployment, make: Make) -> None:
    client, other = make(cluster.url), make(cluster.url)
    slot = hash_slot("moving")
    for number in range(50):
        await client.call("SET", f"k{number}:{{moving}}", number)
    await other.call("GET", "k0:{moving}")
    source, target = cluster.begin_move(slot)
    # A key that is not at the source is asked for at the target (ASK), one that is there is answered by it.
    assert await client.run(COUNT, ["new:{moving}"], [1]) == 1
    assert ask(source.port, "EXISTS", "k1:{moving}") == 1
    assert await client.call("GET", "k1:{moving}") == b"1"
    # Keys of one script at two nodes: tried until the slot has moved.
    script = asyncio.create_task(client.run(BOTH, ["k2:{moving}", "new:{moving}"], []))
    await asyncio.sleep(0.02)
    assert not script.done()
    await asyncio.to_thread(cluster.finish_move, slot, source, target)
    assert await script == 2
    # Both learn of the move by MOVED, once.
    assert await client.run(COUNT, ["new:{moving}"], [1]) == 3
    received = asyncio.get_running_loop().create_future()
    assert other.send(COUNT.command(["new:{moving}"], [1]), received, "moving")
    with pytest.raises(RedisError, match="MOVED") as caught:
        await received
    assert is_to_be_resent(caught.value)
    assert await other.execute(COUNT, COUNT.command(["new:{moving}"], [1]), "moving") == 4
    assert other._cluster is not None
    assert other._cluster.owner("moving") is not None


async def test_news_are_heard_on_every_node(cluster: ClusterDeployment, make: Make) -> None:
    client = make(cluster.url)
    heard: list[list[bytes]] = [[], [], []]
    states: list[bool] = []
    tasks = []
    for node, messages in zip(cluster.nodes, heard, strict=True):
        url = f"redis+cluster://127.0.0.1:{node.port}"
        subscription = Subscription(url, "news", on_state=states.append, on_message=messages.append)
        tasks.append(asyncio.create_task(subscription.run()))
    await until(lambda: states == [True] * 3)
    publish = Script("return redis.call('PUBLISH', ARGV[1], ARGV[2])")
    await client.run(publish, ["revision:{acme}"], ["news", "x"])
    await until(lambda: heard == [[b"x"]] * 3)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


@pytest.mark.long
async def test_a_node_that_is_killed_is_replaced_by_its_replica() -> None:
    with running(ClusterDeployment, has_replicas=True) as deployment:
        states: list[bool] = []
        client = Redis(deployment.url, reply_timeout=0.5, retry_seconds=0.1, on_state=states.append)
        tags = [str(number) for number in range(30)]
        for tag in tags:
            await client.call("SET", f"k:{{{tag}}}", tag)
        await asyncio.sleep(0.5)  # replicated
        dead = deployment.nodes[0]
        mine = [tag for tag in tags if deployment.owner(hash_slot(tag)) is dead]
        others = [tag for tag in tags if tag not in mine]
        dead.kill()
        with pytest.raises(RedisUnavailableError):
            await client.call("GET", f"k:{{{mine[0]}}}")
        with pytest.raises(RedisUnavailableError):
            await client.probe()
        assert await client.call("GET", f"k:{{{others[0]}}}") == others[0].encode()
        for tag in tags:
            assert await eventually(client, "GET", f"k:{{{tag}}}", seconds=60) == tag.encode()
        await client.probe()
        assert states == [False, True]
        await client.close()
