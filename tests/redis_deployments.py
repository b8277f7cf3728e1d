"""Redis as operators run it: a primary with a replica and Sentinels, and a Cluster, of real processes on free ports."""

import random
import shutil
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import hiredis
from tests.servers import ServerProcess, find_redis_server, short_folder, wait_until

PRIMARY_NAME = "mymaster"
SLOTS = 16384
CLUSTER_BUS = 10_000
"""A node's bus listens on its port plus this."""


def free_port() -> int:
    """A free port whose bus port is free as well."""
    while True:
        port = random.randrange(15_000, 32_000)
        with socket.socket() as first, socket.socket() as second:
            try:
                first.bind(("127.0.0.1", port))
                second.bind(("127.0.0.1", port + CLUSTER_BUS))
            except OSError:
                continue
        return port


def ask(port: int, *words: str | int, timeout: float = 5.0) -> Any:
    """One command on a connection of its own. Errors are returned, as hiredis.ReplyError."""
    with socket.create_connection(("127.0.0.1", port), timeout=timeout) as connection:
        connection.sendall(hiredis.pack_command(tuple(words)))  # type: ignore[arg-type]
        reader = hiredis.Reader(encoding="utf-8")
        while (reply := reader.gets()) is False:
            data = connection.recv(65536)
            if not data:
                raise ConnectionError("closed")
            reader.feed(data)
        return reply


class TCPRedis(ServerProcess):
    """A redis-server on a port of 127.0.0.1."""

    def __init__(self, folder: Path, *options: str, config: str | None = None) -> None:
        super().__init__()
        self.port = free_port()
        self.folder = folder / str(self.port)
        self.folder.mkdir()
        self.log = self.folder / "redis.log"
        self._options = options
        self._config = config

    def command(self) -> list[str]:
        words = [find_redis_server()]
        if self._config is not None:
            words.append(str(self.folder / "redis.conf"))
        common = ("--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder), "--loglevel", "notice")
        return [*words, *common, *self._options]

    def launch(self) -> None:
        if self._config is not None and not (self.folder / "redis.conf").exists():
            (self.folder / "redis.conf").write_text(self._config)
        super().launch()

    def answers(self) -> bool:
        try:
            return bool(ask(self.port, "PING", timeout=1.0) == "PONG")
        except OSError:
            return False

    def wants_password(self) -> bool:
        try:
            return str(ask(self.port, "PING", timeout=1.0)).startswith("NOAUTH")
        except OSError:
            return False

    def info(self, section: str) -> dict[str, str]:
        lines = (line.partition(":") for line in str(ask(self.port, "INFO", section)).splitlines())
        return {name: value for name, _, value in lines if value}


MEMORY_ONLY = ("--appendonly", "no", "--save", "", "--repl-diskless-sync", "yes", "--repl-diskless-sync-delay", "0")


class SentinelDeployment:
    """A primary, a replica, three Sentinels."""

    def __init__(self, folder: Path) -> None:
        self.servers = [TCPRedis(folder, *MEMORY_ONLY) for _ in range(2)]
        self.primary, self.replica = self.servers
        config = (
            f"sentinel monitor {PRIMARY_NAME} 127.0.0.1 {self.primary.port} 2\n"
            f"sentinel down-after-milliseconds {PRIMARY_NAME} 1000\n"
            f"sentinel failover-timeout {PRIMARY_NAME} 3000\n"
        )
        self.sentinels = [TCPRedis(folder, "--sentinel", config=config) for _ in range(3)]

    @property
    def url(self) -> str:
        hosts = ",".join(f"127.0.0.1:{each.port}" for each in self.sentinels)
        return f"redis+sentinel://{hosts}/{PRIMARY_NAME}"

    def start(self) -> None:
        for server in self.servers:
            server.start()
        ask(self.replica.port, "REPLICAOF", "127.0.0.1", self.primary.port)
        wait_until(lambda: self.replica.info("replication").get("master_link_status") == "up")
        for sentinel in self.sentinels:
            sentinel.start()
        wait_until(lambda: all(self._is_complete(each) for each in self.sentinels))

    def _is_complete(self, sentinel: TCPRedis) -> bool:
        replicas = ask(sentinel.port, "SENTINEL", "REPLICAS", PRIMARY_NAME)
        others = ask(sentinel.port, "SENTINEL", "SENTINELS", PRIMARY_NAME)
        return len(replicas) == 1 and len(others) == 2

    def primary_port(self) -> int:
        """As the first Sentinel knows it."""
        return int(ask(self.sentinels[0].port, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", PRIMARY_NAME)[1])

    def fail_over(self) -> None:
        """Ask for a fail-over, as before maintenance: the primary lives and becomes a replica."""
        before = self.primary_port()

        def is_begun() -> bool:
            return bool(ask(self.sentinels[0].port, "SENTINEL", "FAILOVER", PRIMARY_NAME) == "OK")

        wait_until(is_begun)
        wait_until(lambda: self.primary_port() != before)

    def stop(self) -> None:
        for server in (*self.sentinels, *self.servers):
            server.stop()


class ClusterDeployment:
    """A Cluster of primaries, each with its share of the slots; with replicas, one for each."""

    def __init__(self, folder: Path, *, nodes: int = 3, has_replicas: bool = False) -> None:
        options = ("--cluster-enabled", "yes", "--cluster-node-timeout", "1500", *MEMORY_ONLY)
        self.nodes = [TCPRedis(folder, *options) for _ in range(nodes)]
        self.replicas = [TCPRedis(folder, *options) for _ in range(nodes if has_replicas else 0)]

    @property
    def all(self) -> list[TCPRedis]:
        return [*self.nodes, *self.replicas]

    @property
    def url(self) -> str:
        return "redis+cluster://" + ",".join(f"127.0.0.1:{node.port}" for node in self.nodes)

    def start(self) -> None:
        for node in self.all:
            node.start()
        for number, node in enumerate(self.nodes):
            slots = range(number * SLOTS // len(self.nodes), (number + 1) * SLOTS // len(self.nodes))
            assert ask(node.port, "CLUSTER", "ADDSLOTS", *slots) == "OK"
        for node in self.all[1:]:
            ask(node.port, "CLUSTER", "MEET", "127.0.0.1", self.nodes[0].port)
        wait_until(lambda: all(len(self._known(node)) == len(self.all) for node in self.all))
        for node, replica in zip(self.nodes, self.replicas, strict=False):
            wait_until(lambda n=node, r=replica: ask(r.port, "CLUSTER", "REPLICATE", self.id_of(n)) == "OK")  # type: ignore[misc]
        wait_until(lambda: all("cluster_state:ok" in ask(node.port, "CLUSTER", "INFO") for node in self.all))
        for replica in self.replicas:
            wait_until(lambda r=replica: r.info("replication").get("master_link_status") == "up")  # type: ignore[misc]

    def _known(self, node: TCPRedis) -> Sequence[str]:
        lines = str(ask(node.port, "CLUSTER", "NODES")).splitlines()
        return [line for line in lines if "handshake" not in line]

    def id_of(self, node: TCPRedis) -> str:
        return str(ask(node.port, "CLUSTER", "MYID"))

    def owner(self, slot: int) -> TCPRedis:
        port = next(each[2][1] for each in ask(self.nodes[0].port, "CLUSTER", "SLOTS") if each[0] <= slot <= each[1])
        return next(node for node in self.all if node.port == port)

    def begin_move(self, slot: int) -> tuple[TCPRedis, TCPRedis]:
        """Mark a slot as migrating, to a node that has it not. Returns source and target."""
        source = self.owner(slot)
        target = next(node for node in self.nodes if node is not source)
        assert ask(target.port, "CLUSTER", "SETSLOT", slot, "IMPORTING", self.id_of(source)) == "OK"
        assert ask(source.port, "CLUSTER", "SETSLOT", slot, "MIGRATING", self.id_of(target)) == "OK"
        return source, target

    def finish_move(self, slot: int, source: TCPRedis, target: TCPRedis) -> None:
        """Move the keys of a slot, and give it to the target."""
        while keys := ask(source.port, "CLUSTER", "GETKEYSINSLOT", slot, 100):
            reply = ask(source.port, "MIGRATE", "127.0.0.1", target.port, "", 0, 5000, "KEYS", *keys)
            assert reply in ("OK", "NOKEY"), reply
        for node in (target, source, *self.nodes):
            ask(node.port, "CLUSTER", "SETSLOT", slot, "NODE", self.id_of(target))

    def stop(self) -> None:
        for node in self.all:
            node.stop()


@contextmanager
def running(deployment_of: Any, **options: Any) -> Iterator[Any]:
    """Build and start a deployment in a folder of its own; end it and remove the folder."""
    folder = short_folder()
    deployment = deployment_of(folder, **options)
    try:
        deployment.start()
        yield deployment
    finally:
        deployment.stop()
        shutil.rmtree(folder, ignore_errors=True)
