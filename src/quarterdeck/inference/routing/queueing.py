"""Who waits at the gateway when a model's endpoints are full, or not there yet, and who goes first.

Inside an engine the first come are the first served, so one team's burst is everybody's wait. Here the higher priority
goes first, among equals each team gets tokens by its weight (start-time fair queueing), and every eighth place goes to
whoever has waited longest, so that nobody starves. `FairQueue` decides and knows no clock; `Queues` waits.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from heapq import heapify, heappop, heappush

from quarterdeck.errors import RateLimitError, ServiceUnavailableError
from quarterdeck.inference.endpoints.endpoint import Endpoint, Endpoints
from quarterdeck.inference.routing.directory import ServedModel
from quarterdeck.settings.live import Live
from quarterdeck.settings.routes import QueueConfig

LONGEST_FIRST = 8
"""One place in so many goes by time waited alone."""
MOST_GONE = 64
"""Of those who left, how many may still lie in a heap before it is cleared of them, beside as many as wait."""
LOOK_SECONDS = 0.1
"""Between two looks for endpoints that became ready while somebody waits. Nobody waits: nobody looks."""


class Ticket:
    """A request that waits. Its place: `start`, the virtual time at which its team's turn comes."""

    __slots__ = ("cost", "grant", "is_gone", "number", "priority", "start", "team")

    def __init__(self, team: str, priority: int, cost: float, number: int, start: float) -> None:
        self.team, self.priority, self.cost, self.number, self.start = team, priority, cost, number, start
        self.is_gone = False
        self.grant: Callable[[], bool] = lambda: True
        """Called when its turn has come; says whether anybody is there to take it."""


class _Level:
    """Those of one priority."""

    __slots__ = ("finished", "gone", "heap", "now")

    def __init__(self) -> None:
        self.heap: list[tuple[float, int, Ticket]] = []
        self.finished: dict[str, float] = {}
        """By team: the virtual time at which what it has asked for will have been served."""
        self.now = 0.0
        self.gone = 0

    def clear_out(self) -> None:
        self.heap = [entry for entry in self.heap if not entry[2].is_gone]
        heapify(self.heap)
        self.gone = 0


class FairQueue:
    """The order in which those who wait go. Joining, leaving and taking cost O(log n)."""

    def __init__(self, weights: Mapping[str, float]) -> None:
        self._weights = weights
        self._levels: dict[int, _Level] = {}
        self._waiting: dict[int, Ticket] = {}
        """In the order in which they came."""
        self._number = 0
        self._taken = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def join(self, team: str, priority: int, cost: float) -> Ticket:
        """Wait for one's turn; `cost` in tokens."""
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
        """It waits no more. Repeatable."""
        if self._waiting.pop(ticket.number, None) is None:
            return
        self._forget(ticket)

    def take(self) -> Ticket | None:
        """Whose turn it is; it waits no more. None: nobody waits."""
        if not self._waiting:
            return None
        self._taken += 1
        by_time = self._taken % LONGEST_FIRST == 0
        ticket = next(iter(self._waiting.values())) if by_time else self._first()
        del self._waiting[ticket.number]
        level = self._levels[ticket.priority]
        if not by_time:  # else the others would lose what they have coming to them
            level.now = max(level.now, ticket.start)
        self._forget(ticket)
        return ticket

    def _first(self) -> Ticket:
        for priority in sorted(self._levels, reverse=True):  # ten at most
            heap = self._levels[priority].heap
            while heap:
                if not heap[0][2].is_gone:
                    return heap[0][2]
                heappop(heap)
                self._levels[priority].gone -= 1
        raise AssertionError("those who wait are in a heap")

    def _forget(self, ticket: Ticket) -> None:
        level = self._levels[ticket.priority]
        ticket.is_gone = True
        level.gone += 1
        if level.gone == len(level.heap):  # nobody of this priority is left: who comes next begins anew
            del self._levels[ticket.priority]
        elif level.gone > MOST_GONE + len(level.heap) // 2:
            level.clear_out()


class _Line:
    """Those who wait for one model, and the places that were given to those who are about to go."""

    __slots__ = ("granted", "queue")

    def __init__(self, weights: Mapping[str, float]) -> None:
        self.queue = FairQueue(weights)
        self.granted = 0


class Queues:
    """A line for each model that somebody waits for; none where nobody does.

    `has_engine`: whether a model's endpoints may yet come.
    """

    def __init__(self, endpoints: Endpoints, config: Live[QueueConfig], has_engine: Callable[[str], bool]) -> None:
        self._endpoints = endpoints
        self._config = config
        self._has_engine = has_engine
        self.on_wait: Callable[[str, str, str, float], None] = lambda model, cause, outcome, seconds: None
        """Told of each wait that is over: by model, cause (busy, cold), outcome, and how long it was."""
        self._lines: dict[str, _Line] = {}
        self._look: asyncio.TimerHandle | None = None

    def waiting(self) -> dict[str, int]:
        """How many wait, by model."""
        return {model: len(line.queue) for model, line in self._lines.items()}

    def must_wait(self, served: ServedModel) -> bool:
        """Whether a request can't go at once."""
        config = self._config.current
        if not config.max_waiting and not config.cold_wait_seconds:
            return False
        return self._patience(served, config) is not None

    async def enter(self, served: ServedModel, *, team: str, priority: int, tokens: int, until: float) -> None:
        """Return when there is room; whoever returns must begin before it waits for anything else.

        `until` is the loop's time at which the request is over in any case. Raises RateLimitError (`queue_full`) and
        ServiceUnavailableError (`queue_timeout`). For a model that is at zero it returns when its time is up: it is for
        the router to say that nobody is there.
        """
        config = self._config.current
        patience = self._patience(served, config)
        if patience is None:
            return
        seconds, most, is_cold = patience
        cause = "cold" if is_cold else "busy"
        line = self._lines.get(served.model)
        if line is None:
            line = self._lines[served.model] = _Line(config.weights)
        if len(line.queue) >= most:
            self._clean(served.model, line)
            self.on_wait(served.model, cause, "full", 0.0)
            raise _full(served, most)
        began, outcome = time.monotonic(), "cancelled"
        try:
            came = await self._wait(served.model, line, team, priority, tokens, seconds, until)
            outcome = "served" if came else "timeout"
        finally:
            self.on_wait(served.model, cause, outcome, time.monotonic() - began)
        if not came and not is_cold:
            raise _timed_out(served, seconds)

    def left(self, endpoint: Endpoint) -> None:
        """A request there is over: somebody may go."""
        if self._lines and endpoint.spec.model in self._lines:
            self._grant(endpoint.spec.model)

    def _patience(self, served: ServedModel, config: QueueConfig) -> tuple[float, int, bool] | None:
        """How long, among how many, and whether because nobody is there; None: it need not wait."""
        endpoints = self._endpoints.serving(served.name)
        if not endpoints:
            if config.cold_wait_seconds and self._has_engine(served.model):
                return config.cold_wait_seconds, config.max_cold, True
            return None
        if not config.max_waiting:
            return None
        if served.model not in self._lines:
            for each in endpoints:
                if each.load.requests < each.spec.max_running:
                    return None
        return config.max_wait_seconds, config.max_waiting, False

    async def _wait(
        self, model: str, line: _Line, team: str, priority: int, tokens: int, seconds: float, until: float
    ) -> bool:
        """Whether its turn came in time."""
        loop = asyncio.get_running_loop()
        turn: asyncio.Future[bool] = loop.create_future()
        ticket = line.queue.join(team, priority, tokens)

        def grant() -> bool:
            if turn.done():  # cancelled just now
                return False
            line.granted += 1
            turn.set_result(True)
            return True

        def give_up() -> None:
            if not turn.done():
                line.queue.leave(ticket)
                turn.set_result(False)

        ticket.grant = grant
        timer = loop.call_at(min(loop.time() + seconds, until), give_up)
        self._watch(loop)
        self._grant(model)
        try:
            came = await turn
        except BaseException:  # cancelled: the place is the next one's
            line.queue.leave(ticket)
            if turn.done() and not turn.cancelled() and turn.result():
                line.granted -= 1
                self._grant(model)
            self._clean(model, line)
            raise
        finally:
            timer.cancel()
        if came:
            line.granted -= 1
        self._clean(model, line)
        return came

    def _grant(self, model: str) -> None:
        """Let as many go as there are places."""
        line = self._lines[model]
        endpoints = self._endpoints.serving(model)
        free = sum([max(0, each.spec.max_running - each.load.requests) for each in endpoints]) - line.granted
        while free > 0 and (ticket := line.queue.take()) is not None:
            free -= ticket.grant()

    def _clean(self, model: str, line: _Line) -> None:
        if not len(line.queue) and not line.granted and self._lines.get(model) is line:
            del self._lines[model]

    def _watch(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._look is None:
            self._look = loop.call_later(LOOK_SECONDS, self._look_around, loop)

    def _look_around(self, loop: asyncio.AbstractEventLoop) -> None:
        self._look = None
        for model in list(self._lines):
            self._grant(model)
        if self._lines:
            self._watch(loop)


def _full(served: ServedModel, most: int) -> RateLimitError:
    return RateLimitError(
        f"{most} requests wait for the model '{served.name}' already. Try again later.",
        code="queue_full",
    )


def _timed_out(served: ServedModel, seconds: float) -> ServiceUnavailableError:
    return ServiceUnavailableError(f"The model '{served.name}' had no room in {seconds:g} s.", code="queue_timeout")
