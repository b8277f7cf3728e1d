"""The endpoints and models that one request is sent to, one after the other. Decides; sends nothing, waits for nothing.

First come the endpoints of the route's target, as often as `retries` and the route's retry budget allow; then the other
targets and the fallbacks, each after the failures it is configured for. After the first event of an answer only
`replacement` is left.
"""

from collections.abc import Sequence

import msgspec

from quarterdeck.errors import APIError, EngineError, EngineTimeoutError, RateLimitError
from quarterdeck.inference.endpoints.endpoint import Endpoint
from quarterdeck.inference.routing.balancer import Balancer
from quarterdeck.inference.routing.directory import Fallback, Route, ServedModel
from quarterdeck.inference.routing.retry_budget import RetryBudget
from quarterdeck.net.http_connection import Timeouts
from quarterdeck.settings.routes import Condition

MAX_REFUSED = 8
"""Endpoints that one request may be refused by. Each of them is then left alone, so few requests meet more than one."""
QUEUE_CODES = frozenset({"queue_full", "queue_timeout"})


class Choice(msgspec.Struct, frozen=True, eq=False, gc=False):
    """One attempt: at which endpoint, for which model."""

    endpoint: Endpoint
    served: ServedModel
    timeouts: Timeouts | None
    """The route's own. None: the gateway's."""
    renamed: str | None = None
    """The model's name where it is not the request's target."""


class Selection(msgspec.Struct, eq=False, gc=False):
    """The state of one request's routing."""

    balancer: Balancer
    route: Route
    target: ServedModel
    """The target that was drawn."""
    served: ServedModel
    """The model it is sent to now: the target, or one that replaces it."""
    budget: RetryBudget
    tokens: int
    """Estimated, prompt and output."""
    key: int | None
    """The affinity key, where the route or its policy uses one."""
    retries: int
    """Left for the current model."""
    tried: list[Endpoint] = msgspec.field(default_factory=list)
    remaining: list[Fallback] | None = None
    """Targets and fallbacks not used yet. None: not computed yet."""

    def current(self, now: float) -> ServedModel:
        """The model that the next attempt goes to. Before the first attempt, a model without an available endpoint is
        skipped where a fallback has one."""
        if self.route.alternatives and not self.tried and self.remaining is None:
            self._skip_unavailable(now)
        return self.served

    def next(self, now: float) -> Choice | None:
        """The next attempt. After a failure, only where `failed` returned True. None: no endpoint is ready."""
        route = self.route
        served = self.current(now) if route.alternatives else self.served
        routing = route.routing if route.overrides_routing else served.routing
        endpoint = self.balancer.choose(served, routing, self.tokens, self.key, now, self.tried)
        if endpoint is None:
            return self.next(now) if route.alternatives and self._fall_back("error", "") else None
        self.tried.append(endpoint)
        return Choice(endpoint, served, route.timeouts, None if served is self.target else served.name)

    def replacement(self, tried: Sequence[Endpoint], weights: str, now: float) -> Choice | None:
        """An endpoint of the current model that can resume an answer another one has begun. Only vLLM can, and only
        with the same `weights`, where they are known."""
        served, route = self.served, self.route
        unable = [
            endpoint
            for endpoint in self.balancer.serving(served)
            if endpoint.spec.kind != "vllm" or (weights and endpoint.spec.weights_of(served.name) not in (weights, ""))
        ]
        routing = route.routing if route.overrides_routing else served.routing
        endpoint = self.balancer.choose(served, routing, self.tokens, self.key, now, [*tried, *unable])
        if endpoint is None:
            return None
        return Choice(endpoint, served, route.timeouts, None if served is self.target else served.name)

    def succeeded(self, choice: Choice) -> None:
        """The first event, or the whole answer, has arrived."""
        choice.endpoint.breaker.record_success()

    def failed(self, choice: Choice, error: APIError, now: float) -> bool:
        """An attempt failed before its first event. Returns whether another may follow."""
        self.balancer.report_error(choice.endpoint, choice.served, error, now)
        if error.is_refusal:
            # It did no work, so asking another one that isn't resting costs no retry. Those that rest are left alone.
            if self.route.retries > 0 and len(self.tried) < MAX_REFUSED and self._has_offered(now):
                return True
        elif isinstance(error, EngineError | RateLimitError) and self.retries > 0 and self._has_untried(now):
            self.retries -= 1
            if self.budget.spend(now):
                return True
        return self._fall_back(condition_of(error), error.message)

    def interrupted(self, endpoint: Endpoint, now: float) -> None:
        """An attempt failed after its first event."""
        self.balancer.report_failure(endpoint, self.served, now)

    def not_admitted(self, error: APIError) -> bool:
        """The current model's queue did not let the request in. Returns whether another model may be tried."""
        return self._fall_back(condition_of(error), error.message)

    def _has_untried(self, now: float) -> bool:
        """Whether the current model has another endpoint to try; an ejected one is no better than another model."""
        is_alone = not self.route.alternatives
        return any(
            endpoint not in self.tried and (is_alone or endpoint.breaker.is_offered(now))
            for endpoint in self.balancer.serving(self.served)
        )

    def _has_offered(self, now: float) -> bool:
        """Whether the current model has another endpoint that is offered requests."""
        return any(
            endpoint not in self.tried and endpoint.breaker.is_offered(now)
            for endpoint in self.balancer.serving(self.served)
        )

    def _skip_unavailable(self, now: float) -> None:
        """If the current model has no available endpoint, switch to the first fallback that has one and is meant for
        errors or, where the endpoints are only full, for that."""
        if self.balancer.can_serve(self.served, now):
            return
        condition: Condition = "rate_limited" if self.balancer.is_resting(self.served, now) else "error"
        for each in self._remaining():
            if condition in each.after and self.balancer.can_serve(each.served, now):
                self._switch(each)
                return

    def _fall_back(self, condition: Condition | None, message: str) -> bool:
        """Switch to the first model configured for this failure. Returns whether there is one."""
        for each in self._remaining():
            if condition in each.after or (each.contains is not None and each.contains in message):
                self._switch(each)
                return True
        return False

    def _switch(self, to: Fallback) -> None:
        self._remaining().remove(to)
        self.served = to.served
        self.retries = self.route.retries

    def _remaining(self) -> list[Fallback]:
        if self.remaining is None:
            served = self.served
            self.remaining = [each for each in self.route.alternatives if each.served is not served]
        return self.remaining


def condition_of(error: APIError) -> Condition | None:
    """The fallback condition that an error meets. None: the request itself is wrong and would fail elsewhere, too."""
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
