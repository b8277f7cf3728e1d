"""Which server to ask, for each kind of deployment. Discovery is redis-py's: it happens when a connection is opened.

redis-py is imported in the functions that use it: it takes a quarter of a second and 28 MB, and a platform with one
server does not need it. `import_client` does so before a time-out runs.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

from quarterdeck.net.redis_address import RedisAddress, RedisServer
from quarterdeck.net.redis_connection import RedisUnavailableError

WATCH_SECONDS = 0.5
"""A Sentinel is asked for the primary this often."""
DISCOVERY_SECONDS = 0.5
"""Bounds a reply of one Sentinel or node, so that a dead one leaves time to ask another."""
SLOTS = 16384


class Locator(Protocol):
    """Finds the server for the next connection. `on_change` is called when it is another than was found last."""

    on_change: Callable[[], None]

    async def locate(self) -> RedisServer:
        """Raises RedisUnavailableError."""
        ...

    async def close(self) -> None: ...


def locator_of(address: RedisAddress) -> Locator:
    """For a connection that may go to any server that serves: of a Cluster, to each node in turn."""
    if address.kind == "sentinel":
        return Sentinels(address)
    return Servers(address.servers)


class Servers:
    """Servers at fixed addresses, in turn. (A name is resolved with each connection.)"""

    def __init__(self, servers: Sequence[RedisServer]) -> None:
        self.on_change = _nothing
        self._servers = servers
        self._next = 0

    async def locate(self) -> RedisServer:
        server = self._servers[self._next % len(self._servers)]
        self._next += 1
        return server

    async def close(self) -> None:
        return


class Sentinels:
    """The primary that Sentinels agree on.

    They are watched as well: after a planned fail-over the former primary accepts writes for up to ten seconds, until
    a Sentinel makes it a replica, and loses them then.
    """

    def __init__(self, address: RedisAddress) -> None:
        self.on_change = _nothing
        self._address = address
        self._has_own_password = False
        self._sentinels = list(address.servers)
        self._clients = self._make()
        self._stale: list[Any] = []
        self._located: RedisServer | None = None
        self._watching: asyncio.Task[None] | None = None

    async def locate(self) -> RedisServer:
        self._located = server = await self._discover()
        if self._watching is None:
            self._watching = asyncio.create_task(self._watch())
        return server

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            with suppress(RedisUnavailableError):  # a primary without Sentinels is used as long as it serves
                if await self._discover() != self._located:
                    self.on_change()

    async def _discover(self) -> RedisServer:
        """The primary, by the first Sentinel that replies and has it up. That one is asked first the next time."""
        from redis.exceptions import AuthenticationError, RedisError

        name, reasons = self._address.primary_name, []
        for number, server in enumerate(self._sentinels):
            client = self._clients[server]
            try:
                primary = (await client.sentinel_masters()).get(name)
            except AuthenticationError as error:
                reasons.append(f"Sentinel {server} refuses the password: {error}")
                if self._try_own_password():
                    return await self._discover()
                continue
            except (RedisError, OSError, ValueError) as error:  # away, or none that can be read
                reasons.append(f"Sentinel {server}: {error}")
                continue
            if primary is None:
                reasons.append(f"Sentinel {server} knows no primary {name!r}")
            elif not primary["is_master"] or primary["is_sdown"] or primary["is_odown"]:
                reasons.append(f"Sentinel {server} has the primary {name!r} as down")
            else:
                self._sentinels.insert(0, self._sentinels.pop(number))
                return RedisServer(str(primary["ip"]), int(primary["port"]))
        raise RedisUnavailableError("; ".join(reasons))

    def _try_own_password(self) -> bool:
        """Use the servers' credentials for Sentinels, where these have none in the URL: charts set one for both. (A
        Sentinel without a password would refuse any, so they are not sent at first.)"""
        if self._has_own_password or self._address.sentinel_password or not self._address.password:
            return False
        self._has_own_password = True
        self._stale += self._clients.values()
        self._clients = self._make()
        return True

    async def close(self) -> None:
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)
        for client in (*self._clients.values(), *self._stale):
            await _close(client)

    def _make(self) -> dict[RedisServer, Any]:
        from redis.asyncio import Redis

        address = self._address
        credentials: dict[str, Any] = {"username": address.sentinel_username, "password": address.sentinel_password}
        if self._has_own_password:
            credentials = {"username": address.username, "password": address.password}
        options = _client_options(address) | credentials
        return {server: Redis(host=server.host, port=server.port, **options) for server in address.servers}


@dataclass(frozen=True, slots=True)
class SlotRange:
    """Slots that a node serves, as its primary."""

    first: int
    last: int
    server: RedisServer


async def cluster_slots(address: RedisAddress, known: Sequence[RedisServer]) -> list[SlotRange]:
    """Which node serves which slots, by the first of the known nodes that replies. Raises RedisUnavailableError."""
    from redis.asyncio import Redis
    from redis.exceptions import RedisError

    reasons = []
    for server in known:
        options = _client_options(address) | {"username": address.username, "password": address.password}
        client: Any = Redis(host=server.host, port=server.port, **options)
        try:
            ranges = _ranges(await client.execute_command("CLUSTER SLOTS"), server)
            if ranges:
                return ranges
            reasons.append(f"{server} serves no slots")
        except (RedisError, OSError, ValueError) as error:
            reasons.append(f"{server}: {error}")
        finally:
            await _close(client)
    raise RedisUnavailableError(f"no node of the Redis Cluster replies: {'; '.join(reasons)}")


def import_client() -> None:
    """Import redis-py, which takes seconds on a busy machine."""
    import redis.asyncio  # noqa: F401


def _ranges(reply: Any, asked: RedisServer) -> list[SlotRange]:
    """The reply, raw ([first, last, [host, port, …], …]) or as redis-py reads it ({(first, last): {"primary": …}})."""
    found = []
    if isinstance(reply, Mapping):
        items = [(first, last, about["primary"]) for (first, last), about in reply.items()]
    else:
        items = [(each[0], each[1], each[2]) for each in reply]
    for first, last, (host, port, *_) in items:
        name = host.decode() if isinstance(host, bytes) else host
        # No host: the one that was asked. "?": it has a host name that it does not know.
        server = RedisServer(name if name and name != "?" else asked.host, int(port))
        found.append(SlotRange(int(first), int(last), server))
    return found


def _client_options(address: RedisAddress) -> dict[str, Any]:
    from redis.asyncio.retry import Retry
    from redis.backoff import NoBackoff

    options: dict[str, Any] = {
        "socket_timeout": DISCOVERY_SECONDS,
        "socket_connect_timeout": DISCOVERY_SECONDS,
        "retry": Retry(NoBackoff(), 0),
        "protocol": 2,
        "decode_responses": True,
    }
    if (tls := address.tls) is not None:
        options |= {
            "ssl": True,
            "ssl_ca_certs": tls.ca_certs,
            "ssl_cert_reqs": tls.cert_reqs,
            "ssl_check_hostname": tls.check_hostname and tls.cert_reqs == "required",
            "ssl_certfile": tls.certfile,
            "ssl_keyfile": tls.keyfile,
        }
    return options


def _nothing() -> None:
    return


async def _close(client: Any) -> None:
    with suppress(OSError):
        await client.aclose()
