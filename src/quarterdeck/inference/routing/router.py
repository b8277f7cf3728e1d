"""Starts the routing of a request: draws the route's target by weight or affinity key, and returns a `Selection`."""

from collections.abc import Callable
from random import random as unseeded

from quarterdeck.inference.endpoints.endpoint import Endpoints
from quarterdeck.inference.request import InferenceRequest
from quarterdeck.inference.routing.affinity import prefix_key, session_key
from quarterdeck.inference.routing.balancer import Balancer
from quarterdeck.inference.routing.directory import Route, ServedModel
from quarterdeck.inference.routing.retry_budget import RetryBudget
from quarterdeck.inference.routing.selection import Selection

MAX_BUDGETS = 4096
"""Routes that a retry budget is kept for; far more than a configuration holds."""


class Router:
    """`random` is a parameter so that tests can make it deterministic."""

    def __init__(self, endpoints: Endpoints, random: Callable[[], float] = unseeded) -> None:
        self.balancer = Balancer(endpoints, random)
        self.random = random
        self._budgets: dict[str, RetryBudget] = {}

    def select(
        self,
        route: Route,
        request: InferenceRequest,
        *,
        tokens: int,
        now: float,
        headers: tuple[tuple[bytes, bytes], ...] = (),
    ) -> Selection:
        """Start the selection for a request of an estimated number of tokens. `now` is the loop's time."""
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
        target = route.targets[0] if len(route.targets) == 1 else draw(route, key, self.random)
        return Selection(self.balancer, route, target, target, budget, tokens, key, route.retries)

    def retries_denied(self) -> dict[str, int]:
        """By route or model: failures that were not retried because the retry budget was spent."""
        return {name: budget.denied for name, budget in self._budgets.items() if budget.denied}

    def _new_budget(self, name: str, now: float) -> RetryBudget:
        if len(self._budgets) >= MAX_BUDGETS:
            self._budgets.clear()
        budget = self._budgets[name] = RetryBudget(now)
        return budget


def draw(route: Route, key: int | None, random: Callable[[], float]) -> ServedModel:
    """One of the targets, by weight; the same one for equal keys where the route is sticky."""
    place = random() if route.stickiness == "none" or key is None else key / 2.0**64
    for served, weight_below in zip(route.targets, route.cumulative_weights, strict=True):
        if place < weight_below:
            return served
    return route.targets[-1]
