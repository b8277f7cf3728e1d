"""Where a request goes, and where it goes next when that failed. Decides; asks nobody and waits for nothing.

A route's target is drawn once, by weight or by what the request belongs to. Its model's endpoints are tried first, as
often as `retries` and the route's budget allow; then the other targets and the fallbacks, each for the failures it is
meant for. All of it ends with the first event of an answer.
"""

from collections.abc import Callable, Sequence
from random import random as dice

import msgspec

from quarterdeck.errors import APIError, BadRequestError, EngineError, EngineTimeoutError, RateLimitError
from quarterdeck.inference.endpoints.circuit_breaker import begin_probe, is_offered, report_failure, report_success
from quarterdeck.inference.endpoints.sources import Endpoint, Endpoints
from quarterdeck.inference.request import InferenceRequest
from quarterdeck.inference.routing import policies
from quarterdeck.inference.routing.affinity import prefix_key, session_key
from quarterdeck.inference.routing.directory import Fallback, Route, ServedModel
from quarterdeck.inference.routing.retry_budget import RetryBudget
from quarterdeck.net.http_client import Timeouts
from quarterdeck.settings.routes import Condition, RoutingConfig

QUEUE_CODES = frozenset({"queue_full", "queue_timeout"})
MOST_KEPT = 4096
"""Names for which a ring or a budget is kept; far more than a configuration holds."""


class Choice(msgspec.Struct, frozen=True, eq=False, gc=False):
    """One attempt: where, as whom, and how long it is waited for (None: as long as for any)."""

    endpoint: Endpoint
    served: ServedModel
    timeouts: Timeouts | None
    renamed: str | None = None
    """Its name, where it is not the one that was meant at first."""


class Router:
    """Makes a Selection for each request. `random` is handed in so that a test can load the dice."""

    def __init__(self, endpoints: Endpoints, random: Callable[[], float] = dice) -> None:
        self._endpoints = endpoints
        self.random = random
        self._budgets: dict[str, RetryBudget] = {}
        self._affinities: dict[str, policies.Affinity] = {}

    def begin(
        self,
        route: Route,
        request: InferenceRequest,
        *,
        tokens: int,
        now: float,
        headers: tuple[tuple[bytes, bytes], ...] = (),
    ) -> "Selection":
        """A request of so many tokens has come."""
        budget = self._budgets.get(route.name)
        if budget is None:
            budget = self._new_budget(route.name, now)
        budget.earn()
        key = None
        if route.affinity is not None:
            if route.affinity == "session":
                key = session_key(route.routing, request.parsed, headers)
            else:
                key = prefix_key(request.members, route.routing.prefix_kb * 1024)
        served = route.targets[0] if len(route.targets) == 1 else draw(route, key, self.random)
        return Selection(self, route, served, served, budget, tokens, key, route.retries)

    def serving(self, served: ServedModel) -> Sequence[Endpoint]:
        """Those that are ready for it."""
        return self._endpoints.serving(served.name)

    def choose(
        self,
        served: ServedModel,
        routing: RoutingConfig,
        tokens: int,
        key: int | None,
        now: float,
        tried: Sequence[Endpoint],
    ) -> Endpoint | None:
        """One of its endpoints, by policy; none of those that were tried."""
        endpoints = self._endpoints.serving(served.name)
        if not endpoints:
            return None
        policy = routing.policy
        found: Endpoint | None
        if len(endpoints) == 1:  # whatever is known of it, there is no other
            found = None if endpoints[0] in tried else endpoints[0]
        elif policy == "least_load":
            found = policies.least_load(endpoints, tokens, now, tried, self.random)
        elif policy == "power_of_two":
            found = policies.power_of_two(endpoints, tokens, now, tried, self.random)
        elif policy == "weighted":
            found = policies.weighted(endpoints, tokens, now, tried, self.random)
        elif key is None:  # it belongs to no session
            found = policies.least_load(endpoints, tokens, now, tried, self.random)
        else:
            found = self._affinity(served.name, endpoints).choose(key, routing.load_bound, tokens, now, tried)
        if found is None:
            found = policies.last_resort(endpoints, tried)
        if found is not None and found.rests_until:
            begin_probe(found, now)
        return found

    def retries_denied(self) -> dict[str, int]:
        """By route (or model): how often a failure was not tried again because the retries were spent."""
        return {name: budget.denied for name, budget in self._budgets.items() if budget.denied}

    def can_serve(self, served: ServedModel, now: float) -> bool:
        """Whether one of its endpoints is offered."""
        return any(is_offered(endpoint, now) for endpoint in self._endpoints.serving(served.name))

    def _affinity(self, name: str, endpoints: Sequence[Endpoint]) -> policies.Affinity:
        found = self._affinities.get(name)
        if found is None or found.ring.endpoints is not endpoints:
            if len(self._affinities) >= MOST_KEPT:
                self._affinities.clear()
            found = self._affinities[name] = policies.Affinity(endpoints)
        return found

    def _new_budget(self, name: str, now: float) -> RetryBudget:
        if len(self._budgets) >= MOST_KEPT:
            self._budgets.clear()
        budget = self._budgets[name] = RetryBudget(now)
        return budget


class Selection(msgspec.Struct, eq=False, gc=False):
    """One request's way from endpoint to endpoint."""

    router: Router
    route: Route
    first: ServedModel
    """The target that was drawn."""
    served: ServedModel
    """Who it is meant for now."""
    budget: RetryBudget
    tokens: int
    key: int | None
    """What the request belongs to, where that matters."""
    retries: int
    """Left for the model it is meant for now."""
    tried: list[Endpoint] = msgspec.field(default_factory=list)
    left: list[Fallback] | None = None
    """Who has not been asked yet; None: nobody has looked."""

    def aim(self, now: float) -> ServedModel:
        """Who it is meant for, looked at before the first attempt: nobody is asked where nobody is there."""
        if self.route.stand_ins and not self.tried and self.left is None:
            self._skip_the_dead(now)
        return self.served

    def next(self, now: float) -> Choice | None:
        """Where to go. After a failure, only where `failed` said that another may be tried. None: nobody is there."""
        route = self.route
        served = self.aim(now) if route.stand_ins else self.served
        routing = route.routing if route.is_own else served.routing
        endpoint = self.router.choose(served, routing, self.tokens, self.key, now, self.tried)
        if endpoint is None:
            return self.next(now) if route.stand_ins and self._move("error", "") else None
        self.tried.append(endpoint)
        return Choice(endpoint, served, route.timeouts, None if served is self.first else served.name)

    def failed(self, choice: Choice, error: APIError, now: float) -> bool:
        """The attempt failed before its first event. Says whether another may be tried."""
        if isinstance(error, EngineError):
            reached = bool(error.engine_status) or isinstance(error, EngineTimeoutError)
            report_failure(choice.endpoint, now, self.router.serving(choice.served), reached=reached)
        elif isinstance(error, BadRequestError):
            report_success(choice.endpoint)  # it is well: it has found the caller's mistake
        if isinstance(error, EngineError | RateLimitError) and self.retries > 0 and self._has_untried(now):
            self.retries -= 1
            if self.budget.spend(now):
                return True
        return self._move(condition_of(error), error.message)

    def succeeded(self, choice: Choice) -> None:
        """The first event, or the whole answer, is in hand."""
        report_success(choice.endpoint)

    def broke_off(self, endpoint: Endpoint, now: float) -> None:
        """It had begun to answer and did not go on."""
        report_failure(endpoint, now, self.router.serving(self.served))

    def instead(self, tried: Sequence[Endpoint], now: float) -> Choice | None:
        """Who goes on with what another endpoint of the same model has begun. Only vLLM knows how to."""
        served, route = self.served, self.route
        strangers = [endpoint for endpoint in self.router.serving(served) if endpoint.kind != "vllm"]
        routing = route.routing if route.is_own else served.routing
        endpoint = self.router.choose(served, routing, self.tokens, self.key, now, [*tried, *strangers])
        if endpoint is None:
            return None
        return Choice(endpoint, served, route.timeouts, None if served is self.first else served.name)

    def refused(self, error: APIError) -> bool:
        """No room came for it here (the queue). Says whether another model may be tried."""
        return self._move(condition_of(error), error.message)

    def _has_untried(self, now: float) -> bool:
        """Whether its model has another endpoint to try; one that rests is no better than another model."""
        is_alone = not self.route.stand_ins
        return any(
            endpoint not in self.tried and (is_alone or is_offered(endpoint, now))
            for endpoint in self.router.serving(self.served)
        )

    def _skip_the_dead(self, now: float) -> None:
        """Where nobody of the first model is offered, the request needn't fail there first."""
        while not self.router.can_serve(self.served, now):
            others = [each for each in self._others() if "error" in each.after]
            alive = next((each for each in others if self.router.can_serve(each.served, now)), None)
            if alive is None:
                return
            self._go(alive)

    def _move(self, condition: Condition | None, message: str) -> bool:
        for each in self._others():
            if condition in each.after or (each.contains is not None and each.contains in message):
                self._go(each)
                return True
        return False

    def _go(self, to: Fallback) -> None:
        self._others().remove(to)
        self.served = to.served
        self.retries = self.route.retries

    def _others(self) -> list[Fallback]:
        """Who has not been asked yet: the other targets, the heavier first, then the fallbacks."""
        if self.left is None:
            served = self.served
            self.left = [each for each in self.route.stand_ins if each.served is not served]
        return self.left


def draw(route: Route, key: int | None, random: Callable[[], float]) -> ServedModel:
    """One of the targets, by weight; for equal keys the same one, where the route is sticky."""
    place = random() if route.stickiness == "none" or key is None else key / 2.0**64
    for served, upto in zip(route.targets, route.upto, strict=True):
        if place < upto:
            return served
    return route.targets[-1]


def condition_of(error: APIError) -> Condition | None:
    """What a fallback would call this failure. None: the request itself is wrong, and would be elsewhere."""
    code = error.code or ""
    if code in QUEUE_CODES:
        return "queue"
    if isinstance(error, EngineTimeoutError):
        return None if code == "request_timeout" else "timeout"
    if isinstance(error, RateLimitError):
        return "rate_limited"
    if isinstance(error, EngineError):
        return "error"
    if code == "context_length_exceeded":
        return "context_length"
    return "content_filter" if code == "content_filter" else None
