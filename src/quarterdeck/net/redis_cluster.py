"""The nodes of a Redis Cluster, and which of them serves a hash tag.

Our keys carry the org in braces, and so all keys of a command are in one slot, which is computed from the tag alone.
A moved slot is learnt from the reply (MOVED) at once, and the whole map is read again beside it; it is read as well
when a node goes away.
"""

import asyncio
import binascii
import logging
import re
from collections.abc import Callable, Sequence

from quarterdeck.net.redis_address import RedisAddress, RedisServer
from quarterdeck.net.redis_connection import RedisUnavailableError, Word
from quarterdeck.net.redis_node import RedisNode
from quarterdeck.net.redis_state import ReportedState
from quarterdeck.net.redis_topology import SLOTS, SlotRange, cluster_slots, import_client

log = logging.getLogger(__name__)

MAX_TAGS = 10_000
"""Slots remembered by tag."""
_REDIRECTION = re.compile(r"(MOVED|ASK) (\d+) (.*):(\d+)")
_KEYLESS = frozenset(
    (
        *("PING", "TIME", "INFO", "SCRIPT", "CONFIG", "ECHO", "CLIENT", "PUBLISH", "FLUSHALL", "FLUSHDB", "DBSIZE"),
        *("CLUSTER", "COMMAND"),
    )
)
_SECOND = frozenset(("XGROUP", "XINFO"))
"""Commands whose key comes after a subcommand."""

MakeNode = Callable[[RedisServer, Callable[[bool], None], Callable[[], str]], RedisNode]


def hash_slot(tag: str | bytes) -> int:
    """The slot of a tag: CRC16 (XMODEM) of it."""
    return binascii.crc_hqx(tag if isinstance(tag, bytes) else tag.encode(), 0) % SLOTS


def tag_of(key: Word) -> str:
    """What decides a key's slot: its part in braces, or the whole."""
    text = key.decode() if isinstance(key, bytes) else str(key)
    start = text.find("{")
    end = text.find("}", start + 1) if start >= 0 else -1
    return text[start + 1 : end] if end > start + 1 else text


def tag_of_command(words: Sequence[Word]) -> str | None:
    """The tag of a command's first key; None: it has no key, and any node may run it."""
    name = str(words[0]).upper()
    if name in _KEYLESS:
        return None
    if name in ("XREADGROUP", "XREAD"):
        return tag_of(words[words.index("STREAMS") + 1])
    return tag_of(words[2 if name in _SECOND else 3 if name in ("EVAL", "EVALSHA") else 1])


class RedisCluster:
    """Nodes by address. `make_node` builds one.

    `on_state` is called with False when the first node with slots goes away, and with True when all are back.
    """

    def __init__(
        self,
        address: RedisAddress,
        make_node: MakeNode,
        *,
        connect_timeout: float,
        retry_seconds: float,
        on_state: Callable[[bool], None],
    ) -> None:
        import_client()
        self._address = address
        self._make_node = make_node
        self._connect_timeout = connect_timeout
        self._retry_seconds = retry_seconds
        self._state = ReportedState(on_state)
        self._failure = "the Redis Cluster is away"
        """Why the map could not be read."""
        self._nodes: dict[RedisServer, RedisNode] = {}
        self._owners: list[RedisNode | None] = [None] * SLOTS
        self._slots: dict[str, int] = {}
        self._probe_tags: dict[RedisServer, str] = {}
        self._served: set[RedisServer] = set()
        """Nodes that serve slots."""
        self._idle: set[RedisServer] = set()
        """Nodes that served none in the map before: a slot may be on its way to them (ASK)."""
        self._away: set[RedisServer] = set()
        self._refreshing: asyncio.Task[None] | None = None
        self._retry_at = 0.0
        self._has_map = False
        self._is_closed = False

    def owner(self, tag: str) -> RedisNode | None:
        """The node that serves a tag. None: the map is not known yet, or has no node for it."""
        slot = self._slots.get(tag)
        if slot is None:
            if len(self._slots) >= MAX_TAGS:
                self._slots.clear()
            slot = self._slots[tag] = hash_slot(tag)
        return self._owners[slot]

    async def node(self, tag: str | None) -> RedisNode:
        """The node that serves a tag, or any. Reads the map where it is not known. Raises RedisUnavailableError."""
        if not self._has_map:
            await self._refresh()
        node = self.owner(tag) if tag is not None else self._any()
        if node is None:
            self.refresh_soon()
            raise RedisUnavailableError("no node of the Redis Cluster serves this slot")
        return node

    def redirected(self, error: Exception) -> tuple[str, RedisNode] | None:
        """MOVED or ASK, and the node that it names; None: the error is neither. MOVED changes the map."""
        found = _REDIRECTION.match(str(error))
        if found is None:
            return None
        kind, slot, host, port = found.groups()
        server = RedisServer(host.strip("[]") or self._address.servers[0].host, int(port))
        node = self._nodes.get(server) or self._add(server)
        if kind == "MOVED":
            self._owners[int(slot)] = node
            self.refresh_soon()
        return kind, node

    def refresh_soon(self) -> None:
        """Read the map again, not more often than every `retry_seconds`. Calls need not wait for it."""
        if self._is_closed or self._refreshing is not None:
            return
        loop = asyncio.get_running_loop()
        if loop.time() < self._retry_at:
            return
        self._retry_at = loop.time() + self._retry_seconds
        self._refreshing = loop.create_task(self._read_map())
        self._refreshing.add_done_callback(self._refreshed)

    async def probe(self) -> None:
        """Raises RedisUnavailableError where a node with slots cannot be reached or does not serve."""
        if not self._has_map:
            await self._refresh()
        nodes = {node for node in self._owners if node is not None}
        if any(owner is None for owner in self._owners):
            self.refresh_soon()
            raise RedisUnavailableError("slots of the Redis Cluster are served by no node")
        for result in await asyncio.gather(*(node.probe() for node in nodes), return_exceptions=True):
            if isinstance(result, BaseException):
                self.refresh_soon()
                raise result

    def set_reply_timeout(self, seconds: float | None) -> None:
        for node in self._nodes.values():
            node.set_reply_timeout(seconds)

    async def close(self) -> None:
        self._is_closed = True
        if self._refreshing is not None:
            self._refreshing.cancel()
            await asyncio.gather(self._refreshing, return_exceptions=True)
        for node in self._nodes.values():
            await node.close()

    def _any(self) -> RedisNode | None:
        return next((node for server, node in self._nodes.items() if server not in self._away), None) or next(
            iter(self._nodes.values()), None
        )

    async def _refresh(self) -> None:
        loop = asyncio.get_running_loop()
        if self._refreshing is None:
            if self._state.is_up is False and loop.time() < self._retry_at:
                raise RedisUnavailableError(self._failure)
            self._retry_at = 0.0
            self.refresh_soon()
        if self._refreshing is not None:
            await asyncio.shield(self._refreshing)

    def _refreshed(self, task: "asyncio.Task[None]") -> None:
        self._refreshing = None
        if not task.cancelled() and (error := task.exception()) is not None:
            log.debug("the map of the Redis Cluster could not be read: %s", error)

    async def _read_map(self) -> None:
        known = [*(s for s in self._nodes if s not in self._away), *self._address.servers, *self._away]
        try:
            async with asyncio.timeout(self._connect_timeout):
                ranges = await cluster_slots(self._address, list(dict.fromkeys(known)))
        except (RedisUnavailableError, TimeoutError) as error:
            reason = str(error) or "no reply in time"
            if not self._has_map:
                if self._state.is_up is not False:  # logged once, not with each retry
                    log.warning("Redis cannot be reached: %s", reason)
                self._failure = f"Redis is away: {reason}"
                self._state.set(up=False)
            raise RedisUnavailableError(f"Redis cannot be reached: {reason}") from error
        self._apply(ranges)

    def _apply(self, ranges: Sequence[SlotRange]) -> None:
        owners: list[RedisNode | None] = [None] * SLOTS
        served: set[RedisServer] = set()
        for each in ranges:
            if each.server not in served:
                self._probe_tags[each.server] = _tag_within(each.first, each.last)
            served.add(each.server)
            node = self._nodes.get(each.server) or self._add(each.server)
            owners[each.first : each.last + 1] = [node] * (each.last + 1 - each.first)
        self._owners, self._served, self._has_map = owners, served, True
        idle = self._nodes.keys() - served
        for server in idle & self._idle:
            self._nodes.pop(server).retire()
            self._away.discard(server)
        self._idle = idle - self._idle
        self._tell_state()

    def _add(self, server: RedisServer) -> RedisNode:
        node = self._nodes[server] = self._make_node(
            server,
            lambda up: self._node_state(server, up),
            lambda: "{" + self._probe_tags.get(server, "") + "}quarterdeck:probe",
        )
        return node

    def _node_state(self, server: RedisServer, up: bool) -> None:
        if self._is_closed or server not in self._nodes:
            return
        if up:
            self._away.discard(server)
        else:
            self._away.add(server)
            self.refresh_soon()
        self._tell_state()

    def _tell_state(self) -> None:
        self._state.set(up=not self._away & self._served)


def _tag_within(first: int, last: int) -> str:
    """A tag whose slot is in this range: a few attempts for a node with many slots."""
    number = 0
    while not first <= hash_slot(str(number)) <= last:
        number += 1
    return str(number)
