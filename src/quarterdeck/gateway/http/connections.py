"""The client connections of one gateway, bounded by its file descriptors.

At the bound a new connection takes the place of one that waits for a request: first of those that never sent a valid
key, then of the others, in each case of the one that has waited longest. So silent connections do not keep clients out.
Where every connection has a request in flight, the new one is refused.
"""

import logging
from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import Protocol

log = logging.getLogger(__name__)

LOG_SECONDS = 10.0
"""Between two log lines about connections at the bound."""
GRACE_SECONDS = 0.02
"""A connection that has waited for less is not closed: its request may be on the way. Short: within it, a burst of
silent connections keeps clients out."""
RESCAN_SECONDS = GRACE_SECONDS
"""After a search that found no waiting connection, none is made for this long: it walks all connections."""
MAX_LINGERING = 16
"""Refused connections that stay open for a moment, so that their clients can read the refusal."""


class Connection(Protocol):
    """What is needed of `front.FrontProtocol`."""

    @property
    def waiting_since(self) -> tuple[bool, float] | None:
        """Whether it has had a request with a valid key, and since when it waits. None: a request is being served."""
        ...

    @property
    def has_unread(self) -> bool:
        """Whether its client has sent what was not read yet."""
        ...

    def evict(self) -> None:
        """Close it now."""
        ...


class Connections(set[Connection]):
    """At most `most`, in one event loop."""

    def __init__(self, most: int, *, clock: Callable[[], float] = monotonic, log_seconds: float = LOG_SECONDS) -> None:
        super().__init__()
        self.most = most
        self.refused = 0
        self.evicted = 0
        self.lingering = 0
        self._clock = clock
        self._log_seconds = log_seconds
        self._logged_at = float("-inf")
        self._logged = (0, 0)
        self._waiting: deque[Connection] = deque()
        """Found by the last search, in the order in which to evict them."""
        self._found_none_at = float("-inf")

    def admit(self, connection: Connection) -> bool:
        """Add an accepted connection. False: it must be refused, and is not counted."""
        if len(self) >= self.most:
            victim = self._next_waiting()
            if victim is None:
                self.refused += 1
                self._report()
                return False
            self.evicted += 1
            self.discard(victim)
            victim.evict()
            self._report()
        self.add(connection)
        return True

    def _next_waiting(self) -> Connection | None:
        while True:
            while self._waiting:
                connection = self._waiting.popleft()
                if connection in self and connection.waiting_since is not None and not connection.has_unread:
                    return connection
            now = self._clock()
            if now - self._found_none_at < RESCAN_SECONDS:
                return None
            found = [
                (since, connection)
                for connection in self
                if (since := connection.waiting_since) is not None and now - since[1] >= GRACE_SECONDS
            ]
            found.sort(key=lambda each: each[0])
            self._waiting.extend(connection for _, connection in found)
            if not found:
                self._found_none_at = now
                return None

    def _report(self) -> None:
        """One line per period, however many connections there were."""
        now = self._clock()
        if now - self._logged_at < self._log_seconds:
            return
        refused, evicted = self.refused - self._logged[0], self.evicted - self._logged[1]
        self._logged_at, self._logged = now, (self.refused, self.evicted)
        log.warning(
            "out of connections (at most %d, by the limit of file descriptors): refused %d new ones, closed %d waiting "
            "ones since the last such line",
            self.most,
            refused,
            evicted,
        )
