"""What the gateway's metrics read of its parts when somebody scrapes: nothing of it is counted while a request runs."""

import time
from collections import Counter
from collections.abc import Mapping, Sized

from quarterdeck.inference.endpoints.circuit_breaker import is_offered
from quarterdeck.inference.endpoints.sources import Endpoints
from quarterdeck.inference.gate import Gate
from quarterdeck.inference.routing.queueing import Queues
from quarterdeck.inference.routing.router import Router
from quarterdeck.telemetry.gateway_metrics import GatewayMetrics
from quarterdeck.telemetry.metrics import Labels


def watch(
    metrics: GatewayMetrics, *, endpoints: Endpoints, gate: Gate, router: Router, queues: Queues, callers: Sized
) -> None:
    """Have them read. Waits are told as they end: they are rare, and how they are spread is worth knowing."""
    metrics.in_flight.read = lambda: {(): len(callers)}
    metrics.endpoints.read = lambda: Counter[Labels]((each.model, each.state) for each in endpoints.all())
    metrics.ejections.read = lambda: {(each.id,): each.ejections for each in endpoints.all() if each.ejections}
    metrics.ejected.read = lambda: _ejected(endpoints)
    metrics.refused.read = lambda: gate.refused
    metrics.warned.read = lambda: gate.warned
    metrics.admitted_locally.read = lambda: {(): gate.admitted_locally}
    metrics.retries_denied.read = lambda: {(route,): count for route, count in router.retries_denied().items()}
    metrics.queue_waiting.read = lambda: {(model,): count for model, count in queues.waiting().items()}
    queues.on_wait = metrics.waited


def _ejected(endpoints: Endpoints) -> Mapping[Labels, int]:
    now = time.monotonic()  # the loop's time
    counts: dict[Labels, int] = {}
    for endpoint in endpoints.all():
        labels = (endpoint.model,)
        counts[labels] = counts.get(labels, 0) + (not is_offered(endpoint, now))
    return counts
