"""Connects the gateway's metrics to the objects they are read from at scrape time, so that requests need not count."""

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sized

from quarterdeck.gateway.http.connections import Connections
from quarterdeck.inference.endpoints.circuit_breaker import CircuitBreaker
from quarterdeck.inference.endpoints.endpoint import Endpoints
from quarterdeck.inference.gate import Gate
from quarterdeck.inference.routing.queueing import Queues
from quarterdeck.inference.routing.router import Router
from quarterdeck.telemetry.gateway_metrics import GatewayMetrics
from quarterdeck.telemetry.metrics import Labels


def watch(
    metrics: GatewayMetrics,
    *,
    endpoints: Endpoints,
    gate: Gate,
    router: Router,
    queues: Queues,
    requests_in_flight: Sized,
    connections: Connections,
) -> None:
    """Set what each metric reads. Queue waits are observed as they end: they are rare, and need a histogram."""
    metrics.in_flight.read = lambda: {(): len(requests_in_flight)}
    metrics.connections.read = lambda: {(): len(connections)}
    metrics.connections_refused.read = lambda: {(): connections.refused}
    metrics.connections_evicted.read = lambda: {(): connections.evicted}
    metrics.endpoints.read = lambda: Counter[Labels](
        (each.spec.model, each.spec.state) for each in endpoints.all() if each.spec.state != "idle"
    )
    metrics.ejections.read = lambda: _ejections(endpoints)
    metrics.ejected.read = lambda: _count(endpoints, CircuitBreaker.is_ejected)
    metrics.resting.read = lambda: _count(endpoints, CircuitBreaker.is_resting)
    metrics.refused.read = lambda: gate.refused
    metrics.warned.read = lambda: gate.warned
    metrics.admitted_locally.read = lambda: {(): gate.admitted_locally}
    metrics.retries_denied.read = lambda: {(route,): count for route, count in router.retries_denied().items()}
    metrics.queue_waiting.read = lambda: {(model,): count for model, count in queues.waiting().items()}
    queues.on_wait = metrics.waited


def _ejections(endpoints: Endpoints) -> Mapping[Labels, int]:
    counts = {(endpoint.id,): endpoint.breaker.ejections for endpoint in endpoints.all()}
    return {labels: count for labels, count in counts.items() if count}


def _count(endpoints: Endpoints, is_so: Callable[[CircuitBreaker, float], bool]) -> Mapping[Labels, int]:
    """By model, how many endpoints' breakers are so now."""
    now = time.monotonic()  # the loop's clock
    counts: dict[Labels, int] = {}
    for endpoint in endpoints.all():
        labels = (endpoint.spec.model,)
        counts[labels] = counts.get(labels, 0) + is_so(endpoint.breaker, now)
    return counts
