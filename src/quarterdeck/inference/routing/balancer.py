"""Chooses one of a model's endpoints by the model's or route's policy, and reports outcomes to the circuit breakers."""

import logging
from collections.abc import Callable, Sequence

from quarterdeck.errors import APIError, BadRequestError, EngineError, EngineTimeoutError
from quarterdeck.inference.endpoints.endpoint import Endpoint, Endpoints
from quarterdeck.inference.routing import policies
from quarterdeck.inference.routing.directory import ServedModel
from quarterdeck.settings.routes import RoutingConfig

log = logging.getLogger(__name__)

MAX_RINGS = 4096
"""Names that a ring is kept for; far more than a configuration holds."""


class Balancer:
    """`random` is a parameter so that tests can make it deterministic."""

    def __init__(self, endpoints: Endpoints, random: Callable[[], float]) -> None:
        self._endpoints = endpoints
        self._random = random
        self._affinities: dict[str, policies.Affinity] = {}

    def serving(self, served: ServedModel) -> Sequence[Endpoint]:
        """The endpoints that are ready for a model."""
        return self._endpoints.serving(served.name)

    def can_serve(self, served: ServedModel, now: float) -> bool:
        """Whether one of the model's endpoints is offered requests."""
        return any(endpoint.breaker.is_offered(now) for endpoint in self._endpoints.serving(served.name))

    def choose(
        self,
        served: ServedModel,
        routing: RoutingConfig,
        tokens: int,
        key: int | None,
        now: float,
        tried: Sequence[Endpoint],
    ) -> Endpoint | None:
        """One of the model's endpoints, by policy, except those in `tried`. None: there is none.

        `key` is the request's affinity key; None where it has none. `now` is the loop's time.
        """
        endpoints = self._endpoints.serving(served.name)
        if not endpoints:
            return None
        found: Endpoint | None
        if len(endpoints) == 1:  # ejected or not, there is no other
            found = None if endpoints[0] in tried else endpoints[0]
        elif (policy := routing.policy) == "least_load":
            found = policies.least_load(endpoints, tokens, now, tried, self._random)
        elif policy == "power_of_two":
            found = policies.power_of_two(endpoints, tokens, now, tried, self._random)
        elif policy == "weighted":
            found = policies.weighted(endpoints, tokens, now, tried, self._random)
        elif key is None:  # the request names no session
            found = policies.least_load(endpoints, tokens, now, tried, self._random)
        else:
            found = self._affinity(served.name, endpoints).choose(key, routing.load_bound, tokens, now, tried)
        if found is None:
            found = policies.last_resort(endpoints, tried)
        if found is not None and found.breaker.open_until:
            found.breaker.begin_probe(now)
        return found

    def report_error(self, endpoint: Endpoint, served: ServedModel, error: APIError, now: float) -> None:
        """A call failed before its first event. Counts if it is the endpoint's fault."""
        if isinstance(error, EngineError) and error.code != "request_timeout":
            was_reached = bool(error.engine_status) or isinstance(error, EngineTimeoutError)
            self.report_failure(endpoint, served, now, was_reached=was_reached)
        elif isinstance(error, BadRequestError):
            endpoint.breaker.record_success()  # it works: it found the caller's mistake
        if error.is_refusal:
            self.report_refusal(endpoint, error, now)

    def report_failure(self, endpoint: Endpoint, served: ServedModel, now: float, *, was_reached: bool = True) -> None:
        """A call for the model failed by the endpoint's fault; see `CircuitBreaker.record_failure`."""
        siblings = [each.breaker for each in self._endpoints.serving(served.name)]
        endpoint.breaker.record_failure(now, siblings, was_reached=was_reached)

    def report_refusal(self, endpoint: Endpoint, error: APIError, now: float) -> None:
        """The endpoint takes no requests for now; see `CircuitBreaker.record_refusal`. So do the other models of its
        account, unless it names this one.

        Each rest is logged: where the gateway's key or account is at fault, callers don't see it.
        """
        if endpoint.breaker.record_refusal(now, error.rest_seconds):
            if endpoint.spec.kind != "vllm" and not error.is_of_model:
                self._share_rest(endpoint)
            log.warning(
                "endpoint refuses requests (status %d, %s); left alone for %.0f s while others answer",
                error.engine_status,
                error.code,
                endpoint.breaker.rests_until - now,
                extra={"endpoint": endpoint.id},
            )

    def _share_rest(self, endpoint: Endpoint) -> None:
        """Have the account's other models leave it alone, too: its limits and its money are theirs."""
        account = endpoint.spec.account
        for each in self._endpoints.all():
            if each is not endpoint and each.spec.kind != "vllm" and each.spec.account == account:
                each.breaker.share_rest(endpoint.breaker.rests_until)

    def is_resting(self, served: ServedModel, now: float) -> bool:
        """Whether one of the model's endpoints would answer if it were not full."""
        return any(endpoint.breaker.is_resting(now) for endpoint in self._endpoints.serving(served.name))

    def _affinity(self, name: str, endpoints: Sequence[Endpoint]) -> policies.Affinity:
        found = self._affinities.get(name)
        if found is None or found.ring.endpoints is not endpoints:
            if len(self._affinities) >= MAX_RINGS:
                self._affinities.clear()
            found = self._affinities[name] = policies.Affinity(endpoints)
        return found
