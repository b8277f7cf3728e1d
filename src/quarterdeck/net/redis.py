"""A Redis client for the hot path: lazily connected, reconnecting, all commands of one event-loop turn in one write.

The gateway sends two commands a request. A general client library costs more there than the rest of the gateway does,
so this one is ours (docs/adr/0005-own-http-client.md). It knows no command but those that open a connection; the words
are written by its callers (`accounting`, `inference/cache`, `worker`). A blocking command (XREADGROUP BLOCK) needs a
`Redis` of its own.

One server, a primary behind Sentinels or a Cluster: the URL decides (`redis_address`), and callers see no difference
but one. Where a packed command is sent (`execute`, `send`), its `tag` is the hash tag of its keys, which decides the
node of a Cluster.
"""

import asyncio
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from quarterdeck.net.redis_address import RedisAddress, RedisServer
from quarterdeck.net.redis_cluster import RedisCluster, tag_of, tag_of_command
from quarterdeck.net.redis_connection import (
    LENGTHS,
    Receiver,
    RedisError,
    RedisRefusesError,
    RedisSilentError,
    RedisUnavailableError,
    Word,
    is_not_serving,
    pack,
    pack_arguments,
)
from quarterdeck.net.redis_node import RedisNode
from quarterdeck.net.redis_topology import Servers, locator_of

__all__ = [
    "LENGTHS",
    "Receiver",
    "Redis",
    "RedisError",
    "RedisRefusesError",
    "RedisSilentError",
    "RedisUnavailableError",
    "Script",
    "Word",
    "is_to_be_resent",
    "pack_arguments",
    "tag_of",
]

MAX_ATTEMPTS = 20
"""How often a command is sent that was not run: script unknown, slot moved, slot on its way, fail-over."""
TRY_AGAIN_SECONDS = 0.01
"""First pause while a slot is on its way to another node (TRYAGAIN); doubled each time, 0.6 s in all."""
_ASKING = pack("ASKING")


@dataclass(frozen=True)
class Script:
    """A Lua script, run by its SHA-1 and loaded where Redis does not know it (after a restart or a fail-over)."""

    source: str
    sha: str = field(init=False)

    def __post_init__(self) -> None:
        # SHA-1 is Redis' name for a script, not a safeguard.
        object.__setattr__(self, "sha", hashlib.sha1(self.source.encode(), usedforsecurity=False).hexdigest())

    def command(self, keys: Sequence[Word], args: Sequence[Word]) -> bytes:
        """The packed EVALSHA command."""
        return pack("EVALSHA", self.sha, len(keys), *keys, *args)

    def command_prefix(self, *, keys: int, args: int) -> bytes:
        """The packed EVALSHA command up to its first key. `keys` keys and `args` arguments must follow, packed by
        `pack_arguments`."""
        return b"*%d\r\n" % (3 + keys + args) + pack_arguments("EVALSHA", self.sha, keys)


def is_unknown_script(error: BaseException) -> bool:
    """Whether Redis does not know the script (NOSCRIPT): it was not run and may be sent again."""
    return isinstance(error, RedisError) and str(error).startswith("NOSCRIPT")


def is_to_be_resent(error: BaseException) -> bool:
    """Whether the command was not run and `Redis.execute` can send it again: the script is unknown, another server
    serves by now, or the slot of a Cluster has moved."""
    return isinstance(error, RedisError) and (
        str(error).startswith(("NOSCRIPT", "MOVED", "ASK", "TRYAGAIN")) or is_not_serving(error)
    )


class Redis:
    """A client of one deployment, with one connection to each server.

    `reply_timeout` bounds every call, in seconds; None for blocking commands. `on_state` is called once with False when
    Redis goes away and once with True when it is back. Meanwhile calls fail at once, except one every `retry_seconds`
    that tries to reconnect: a request does not wait for a Redis that is known to be down.
    """

    def __init__(
        self,
        url: str,
        *,
        connect_timeout: float = 2.0,
        reply_timeout: float | None = 5.0,
        retry_seconds: float = 0.5,
        on_state: Callable[[bool], None] = lambda up: None,
    ) -> None:
        self._address = address = RedisAddress.parse(url)
        self._connect_timeout = connect_timeout
        self._reply_timeout = reply_timeout
        self._retry_seconds = retry_seconds
        self._locator = locator_of(address)
        self._node: RedisNode | None = None
        """The only server; None: there are several."""
        self._cluster: RedisCluster | None = None
        if address.kind == "cluster":
            self._cluster = RedisCluster(
                address,
                self._make_node,
                connect_timeout=connect_timeout,
                retry_seconds=retry_seconds,
                on_state=on_state,
            )
        else:
            self._node = self._new_node(self._locator.locate, on_state)
            self._locator.on_change = self._node.retire

    @property
    def is_cluster(self) -> bool:
        """Whether a command may only have keys of one hash tag."""
        return self._cluster is not None

    async def call(self, *words: Word, tag: str | None = None) -> Any:
        """Run one command. Strings in the reply are bytes. `tag` chooses the node for a command without keys.

        Raises RedisError, or RedisUnavailableError if there is no connection or no reply in time.
        """
        if self._cluster is not None and tag is None:
            tag = tag_of_command(words)
        return await self._request(pack(*words), tag, None)

    async def run(self, script: Script, keys: Sequence[Word], args: Sequence[Word]) -> Any:
        """Run a script by its SHA-1; load it first where Redis does not know it. Raises as `call`."""
        tag = tag_of(keys[0]) if self._cluster is not None and keys else None
        return await self._request(script.command(keys, args), tag, script)

    async def execute(self, script: Script, command: bytes, tag: str) -> Any:
        """Run a script by a command that is packed already. Raises as `call`."""
        return await self._request(command, tag, script)

    def send(self, command: bytes, receiver: Receiver, tag: str) -> bool:
        """Send a packed command without a coroutine. False: no connection is open; use `execute`, which opens one.

        The receiver may get a RedisError that `is_to_be_resent` recognises; `execute` helps then as well.
        """
        node = self._node
        if node is None:
            node = self._cluster.owner(tag)  # type: ignore[union-attr]  # one of the two is set
            if node is None:
                return False
        connection = node.connection
        if connection is None or not connection.is_open:
            return False
        connection.send(command, receiver)
        return True

    def call_before_flush(self, callback: Callable[[], None], *, first: bool = False) -> None:
        """Call `callback` once at the end of this turn of the loop, before its commands are written, so that what was
        collected until then leaves as one command. `first`: ahead of other callbacks; a request waits for the reply."""
        connection = self._node.connection if self._node is not None else None
        if connection is not None and connection.is_open:
            connection.call_before_flush(callback, first=first)
        else:
            asyncio.get_running_loop().call_soon(callback)

    async def probe(self) -> None:
        """Raises RedisUnavailableError, with the reason, where a script that writes could not be run now; its subclass
        RedisRefusesError where the server is there."""
        if self._node is not None:
            await self._node.probe()
        elif self._cluster is not None:
            await self._cluster.probe()

    def set_reply_timeout(self, seconds: float | None) -> None:
        """Bound replies by `seconds` from now on, those of open connections included."""
        self._reply_timeout = seconds
        if self._node is not None:
            self._node.set_reply_timeout(seconds)
        elif self._cluster is not None:
            self._cluster.set_reply_timeout(seconds)

    async def close(self) -> None:
        """Close the connections. Calls in flight fail."""
        if self._node is not None:
            await self._node.close()
        if self._cluster is not None:
            await self._cluster.close()
        await self._locator.close()

    async def _request(self, command: bytes, tag: str | None, script: Script | None) -> Any:
        """Send a command, and again where it was not run for a reason that passes."""
        cluster = self._cluster
        asking: RedisNode | None = None
        last: RedisError | None = None
        pause = TRY_AGAIN_SECONDS
        for _ in range(MAX_ATTEMPTS):
            node = asking or self._node or await cluster.node(tag)  # type: ignore[union-attr]  # one of the two is set
            try:
                connection = node.connection
                if connection is None or not connection.is_open:
                    connection = await node.connected()
                if asking is not None:
                    _ignore(connection.request(_ASKING))
                return await connection.request(command)
            except RedisUnavailableError:
                if cluster is not None:
                    cluster.refresh_soon()
                raise
            except RedisError as error:
                last = error
                if script is not None and is_unknown_script(error):
                    await (await node.connected()).request(pack("SCRIPT", "LOAD", script.source))
                    continue  # at the same node
                asking = None
                if is_not_serving(error):
                    if cluster is not None:
                        cluster.refresh_soon()
                elif cluster is None:
                    raise
                elif (redirected := cluster.redirected(error)) is not None:
                    kind, target = redirected
                    asking = target if kind == "ASK" else None
                elif str(error).startswith("TRYAGAIN"):
                    if pause == TRY_AGAIN_SECONDS * 2**6:
                        break
                    await asyncio.sleep(pause)
                    pause *= 2
                else:
                    raise
        raise RedisUnavailableError(f"Redis does not serve: {last}") from last

    def _make_node(
        self, server: RedisServer, on_state: Callable[[bool], None], probe_key: Callable[[], str]
    ) -> RedisNode:
        """A node of a Cluster."""
        return self._new_node(Servers((server,)).locate, on_state, probe_key=probe_key)

    def _new_node(self, locate: Any, on_state: Callable[[bool], None], **options: Any) -> RedisNode:
        return RedisNode(
            self._address,
            locate,
            connect_timeout=self._connect_timeout,
            reply_timeout=self._reply_timeout,
            retry_seconds=self._retry_seconds,
            on_state=on_state,
            **options,
        )


def _ignore(reply: "asyncio.Future[Any]") -> None:
    """The reply to ASKING is OK, and a connection that is lost fails the command after it."""
    reply.add_done_callback(lambda done: done.cancelled() or done.exception())
