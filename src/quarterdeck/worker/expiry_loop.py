"""Settles requests of dead gateways: an expired reservation becomes a record with status `lost`."""

import logging

from quarterdeck.accounting import leases
from quarterdeck.net.redis import Redis
from quarterdeck.telemetry.worker_metrics import WorkerMetrics
from quarterdeck.worker.conditions import Condition
from quarterdeck.worker.org_loop import OrgLoop, Orgs

log = logging.getLogger(__name__)

EXPIRY_SECONDS = 5.0
"""Interval between two searches for expired reservations."""


class ExpiryLoop(OrgLoop):
    def __init__(
        self,
        redis: Redis,
        orgs: Orgs,
        condition: Condition,
        metrics: WorkerMetrics,
        *,
        grace_seconds: float = leases.GRACE_SECONDS,
    ) -> None:
        super().__init__(orgs, condition, EXPIRY_SECONDS)
        self._grace_seconds = grace_seconds
        self._redis = redis
        self._metrics = metrics

    async def _visit(self, org: str) -> None:
        # A call settles a bounded number; repeat until none is left.
        while count := await leases.settle_expired(self._redis, org, grace_seconds=self._grace_seconds):
            self._metrics.lost.add(amount=count)
            log.warning("settled %d requests of a dead gateway as lost", count, extra={"org": org})
