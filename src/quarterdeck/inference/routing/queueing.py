"""Holds requests at the gateway while a model's endpoints are full, or while its first endpoint starts.

Inside an engine requests are served in order of arrival, so one team's burst delays everyone. Here they are served in a
fair order (`fair_queue`) as places become free.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from quarterdeck.errors import RateLimitError, ServiceUnavailableError
from quarterdeck.inference.endpoints.endpoint import Endpoint, Endpoints
from quarterdeck.inference.routing.directory import ServedModel
from quarterdeck.inference.routing.fair_queue import FairQueue
from quarterdeck.model_lifecycle.status import ModelStatus
from quarterdeck.settings.live import Live
from quarterdeck.settings.routes import QueueConfig
from quarterdeck.store.orgs import DEFAULT_ORG

TICK_SECONDS = 0.1
"""Between two looks for new endpoints while requests wait."""


class _Wait(NamedTuple):
    """The terms of a request's wait."""

    seconds: float
    max_waiting: int
    is_cold: bool
    """Whether it waits for a model without endpoints, not for a free place."""


class _ModelQueue:
    """The requests that wait for one model."""

    __slots__ = ("give_up", "granted", "model", "tickets")

    def __init__(self, model: str, weights: Mapping[str, float]) -> None:
        self.model = model
        self.tickets = FairQueue(weights)
        self.granted = 0
        """Places granted to requests that have not been sent yet."""
        self.give_up: set[Callable[[], None]] = set()
        """Ends the wait of each request."""


class Queues:
    """A queue for each model that requests wait for.

    `has_engine`: whether the platform runs an engine for a model, so that an endpoint may come.
    """

    def __init__(
        self,
        endpoints: Endpoints,
        config: Live[QueueConfig],
        has_engine: Callable[[str], bool],
        *,
        tick_seconds: float = TICK_SECONDS,
    ) -> None:
        self._endpoints = endpoints
        self._config = config
        self._is_on = config.select(lambda queue: bool(queue.max_waiting or queue.cold_wait_seconds))
        self._has_engine = has_engine
        self._tick_seconds = tick_seconds
        self.on_wait: Callable[[str, str, str, float], None] = lambda model, cause, outcome, seconds: None
        """Called at the end of each wait: with the model, the cause (busy, cold), the outcome and its duration."""
        self.on_cold: Callable[[str], None] = lambda model: None
        """Called with a model that has no endpoint when the first request begins to wait for it."""
        self.on_refused: Callable[[str], None] = lambda model: None
        """Called with a model that has no endpoint when a request for it is refused, whether it waited or not."""
        self._queues: dict[str, _ModelQueue] = {}
        """By model. An adapter that no endpoint has loaded has its own: its model's endpoints can't serve it."""
        self._tick: asyncio.TimerHandle | None = None

    def waiting(self) -> dict[str, int]:
        """The number of waiting requests, by model."""
        counts: Counter[str] = Counter()
        for each in self._queues.values():
            counts[each.model] += len(each.tickets)
        return dict(counts)

    def must_wait(self, served: ServedModel, *, is_streaming: bool = False) -> bool:
        """Whether a request for the model can't be sent now, and waits."""
        if self._is_on.current or served.cold_wait_seconds:
            return self._wait_for(served, self._config.current, is_streaming) is not None
        # The usual case: only a stream waits, and only for a model that is starting.
        return (
            is_streaming
            and not self._endpoints.serving(served.name)
            and self._wait_for(served, self._config.current, is_streaming) is not None
        )

    def starting(self, served: ServedModel) -> ModelStatus | None:
        """The status of a model that has no endpoint and is being started. None: of another."""
        status = self._endpoints.status(served.model)
        is_starting = status is not None and status.is_starting and not self._endpoints.serving(served.name)
        return status if is_starting else None

    async def enter(
        self,
        served: ServedModel,
        *,
        team: str,
        priority: int,
        tokens: int,
        until: float,
        org: str = DEFAULT_ORG,
        is_streaming: bool = False,
    ) -> None:
        """Wait for a free place. The caller must take it (`Load.begin`) before it awaits anything else.

        `until`: the loop's time at which the request ends in any case. Raises RateLimitError (`queue_full`) and
        ServiceUnavailableError (`queue_timeout`). The wait for a model without endpoints just ends after its time: the
        router then finds that none is ready.
        """
        config = self._config.current
        wait = self._wait_for(served, config, is_streaming)
        if wait is None:
            return
        cause = "cold" if wait.is_cold else "busy"
        name = served.name if wait.is_cold else served.model
        queue = self._queues.get(name)
        if queue is None:
            queue = self._queues[name] = _ModelQueue(served.model, config.weights)
            if wait.is_cold:
                self.on_cold(served.model)
        if len(queue.tickets) >= wait.max_waiting:
            self._drop_if_empty(name, queue)
            self.on_wait(served.model, cause, "full", 0.0)
            raise RateLimitError(
                f"The queue of the model '{served.name}' is full ({wait.max_waiting} requests). Try again later.",
                code="queue_full",
            )
        began, outcome = time.monotonic(), "cancelled"
        try:
            if org != DEFAULT_ORG:  # its admins name its teams and set their priorities
                team, priority = f"{org}/{team}", min(priority, config.max_org_priority)
            was_granted = await self._wait(name, queue, team, priority, tokens, wait.seconds, until)
            outcome = "served" if was_granted else "timeout"
        finally:
            self.on_wait(served.model, cause, outcome, time.monotonic() - began)
        if not was_granted and not wait.is_cold:
            waited = round(
                time.monotonic() - began, 1
            )  # less than `max_wait_seconds` where the request timed out first
            raise ServiceUnavailableError(
                f"No capacity for the model '{served.name}' within {waited:g} s.", code="queue_timeout"
            )

    def released(self, endpoint: Endpoint) -> None:
        """A request at the endpoint has ended, so a place may be free."""
        if self._queues and endpoint.spec.model in self._queues:
            self._grant(endpoint.spec.model)

    def _wait_for(self, served: ServedModel, config: QueueConfig, is_streaming: bool) -> _Wait | None:
        """How a request for the model would wait. None: it need not."""
        endpoints = self._endpoints.serving(served.name)
        if not endpoints:
            seconds = served.cold_wait_seconds
            if seconds is None:
                seconds = config.cold_wait_seconds
            if not seconds and is_streaming and self.starting(served) is not None:
                seconds = config.loading_wait_seconds
            if seconds and self._has_engine(served.model) and not self._endpoints.unavailable(served.name):
                return _Wait(seconds, config.max_cold, True)
            return None
        if not config.max_waiting:
            return None
        if served.model not in self._queues:
            for each in _usable(endpoints):
                if each.load.requests < each.spec.max_running:
                    return None
        return _Wait(config.max_wait_seconds, config.max_waiting, False)

    async def _wait(
        self, model: str, queue: _ModelQueue, team: str, priority: int, tokens: int, seconds: float, until: float
    ) -> bool:
        """Returns whether a place was granted in time."""
        loop = asyncio.get_running_loop()
        turn: asyncio.Future[bool] = loop.create_future()
        ticket = queue.tickets.join(team, priority, tokens)

        def grant() -> bool:
            if turn.done():  # cancelled just now
                return False
            queue.granted += 1
            turn.set_result(True)
            return True

        def give_up() -> None:
            if not turn.done():
                queue.tickets.leave(ticket)
                turn.set_result(False)

        ticket.grant = grant
        queue.give_up.add(give_up)
        timer = loop.call_at(min(loop.time() + seconds, until), give_up)
        self._start_tick(loop)
        self._grant(model)
        try:
            was_granted = await turn
        except BaseException:  # cancelled: a place granted already goes to the next request
            queue.tickets.leave(ticket)
            if turn.done() and not turn.cancelled() and turn.result():
                queue.granted -= 1
                self._grant(model)
            self._drop_if_empty(model, queue)
            raise
        finally:
            timer.cancel()
            queue.give_up.discard(give_up)
        if was_granted:
            queue.granted -= 1
        self._drop_if_empty(model, queue)
        return was_granted

    def _grant(self, model: str) -> None:
        """Grant the places that are free."""
        queue = self._queues[model]
        endpoints = _usable(self._endpoints.serving(model))
        free = sum([max(0, each.spec.max_running - each.load.requests) for each in endpoints]) - queue.granted
        while free > 0 and (ticket := queue.tickets.take()) is not None:
            free -= ticket.grant()

    def _is_hopeless(self, name: str, model: str) -> bool:
        """Whether no endpoint will come: the model failed, was stopped, or was removed from the configuration."""
        if self._endpoints.unavailable(name) or not self._has_engine(model):
            return True
        return name != model and bool(self._endpoints.unavailable(model))

    def _drop_if_empty(self, model: str, queue: _ModelQueue) -> None:
        if not len(queue.tickets) and not queue.granted and self._queues.get(model) is queue:
            del self._queues[model]

    def _start_tick(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._tick is None:
            self._tick = loop.call_later(self._tick_seconds, self._on_tick, loop)

    def _on_tick(self, loop: asyncio.AbstractEventLoop) -> None:
        self._tick = None
        for name, queue in list(self._queues.items()):
            self._grant(name)
            if queue.give_up and not self._endpoints.serving(name) and self._is_hopeless(name, queue.model):
                for give_up in tuple(queue.give_up):
                    give_up()
        if self._queues:
            self._start_tick(loop)


def _usable(endpoints: Sequence[Endpoint]) -> Sequence[Endpoint]:
    """The endpoints whose places count: those that are offered requests, or all if none is. The places of one that is
    ejected or rests would be filled at the others, beyond what they run at once."""
    now = time.monotonic()
    return [each for each in endpoints if each.breaker.is_offered(now)] or endpoints
