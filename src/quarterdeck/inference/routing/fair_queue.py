"""The order in which waiting requests are served. Pure: no clock and no event loop (see `queueing`).

The higher priority goes first. Within a priority, teams share by weight (start-time fair queueing), in tokens. Every
eighth place goes to the request that has waited longest, so that none starves.
"""

from collections.abc import Callable, Mapping
from heapq import heapify, heappop, heappush

LONGEST_FIRST = 8
"""One place in so many goes by waiting time alone."""
MAX_LEFT = 64
"""Tickets that have left, beyond half of a heap, before the heap is cleared of them."""


class Ticket:
    """A waiting request. It is ordered by `start`: the virtual time at which its team's turn comes."""

    __slots__ = ("cost", "grant", "has_left", "number", "priority", "start", "team")

    def __init__(self, team: str, priority: int, cost: float, number: int, start: float) -> None:
        self.team, self.priority, self.cost, self.number, self.start = team, priority, cost, number, start
        self.has_left = False
        self.grant: Callable[[], bool] = lambda: True
        """Called when its turn has come. Returns False if the request is gone."""


class _Level:
    """The tickets of one priority."""

    __slots__ = ("finished", "heap", "left", "now")

    def __init__(self) -> None:
        self.heap: list[tuple[float, int, Ticket]] = []
        self.finished: dict[str, float] = {}
        """By team: the virtual time at which everything it has queued will have been served."""
        self.now = 0.0
        """The virtual time."""
        self.left = 0
        """Tickets in the heap that have left."""

    def compact(self) -> None:
        self.heap = [entry for entry in self.heap if not entry[2].has_left]
        heapify(self.heap)
        self.left = 0


class FairQueue:
    """Joining, leaving and taking cost O(log n)."""

    def __init__(self, weights: Mapping[str, float]) -> None:
        """`weights` by team; 1 for teams that are not in it."""
        self._weights = weights
        self._levels: dict[int, _Level] = {}
        self._waiting: dict[int, Ticket] = {}
        """By number, in the order of arrival."""
        self._number = 0
        self._taken = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def join(self, team: str, priority: int, cost: float) -> Ticket:
        """Queue a request; `cost` in tokens."""
        level = self._levels.get(priority)
        if level is None:
            level = self._levels[priority] = _Level()
        self._number += 1
        start = max(level.now, level.finished.get(team, 0.0))
        level.finished[team] = start + max(cost, 1.0) / self._weights.get(team, 1.0)
        ticket = Ticket(team, priority, cost, self._number, start)
        heappush(level.heap, (start, ticket.number, ticket))
        self._waiting[ticket.number] = ticket
        return ticket

    def leave(self, ticket: Ticket) -> None:
        """Remove a request that no longer waits. Idempotent."""
        if self._waiting.pop(ticket.number, None) is None:
            return
        self._remove(ticket)

    def take(self) -> Ticket | None:
        """Remove and return the next request. None: the queue is empty."""
        if not self._waiting:
            return None
        self._taken += 1
        is_by_time = self._taken % LONGEST_FIRST == 0
        ticket = next(iter(self._waiting.values())) if is_by_time else self._first()
        del self._waiting[ticket.number]
        level = self._levels[ticket.priority]
        if not is_by_time:  # taking out of order must not advance the other teams' virtual time
            level.now = max(level.now, ticket.start)
        self._remove(ticket)
        return ticket

    def _first(self) -> Ticket:
        for priority in sorted(self._levels, reverse=True):  # at most ten priorities
            heap = self._levels[priority].heap
            while heap:
                if not heap[0][2].has_left:
                    return heap[0][2]
                heappop(heap)
                self._levels[priority].left -= 1
        raise AssertionError("every waiting ticket is in a heap")

    def _remove(self, ticket: Ticket) -> None:
        level = self._levels[ticket.priority]
        ticket.has_left = True
        level.left += 1
        if level.left == len(level.heap):  # none of this priority waits: the virtual time starts again
            del self._levels[ticket.priority]
        elif level.left > MAX_LEFT + len(level.heap) // 2:
            level.compact()
