"""The settlement as a gateway runs it: its lease and bounds follow the configuration, its spool is counted."""

import asyncio

from quarterdeck.accounting.settlement import Settlement
from quarterdeck.net.redis import Redis
from quarterdeck.settings.config import Config
from quarterdeck.settings.live import Live
from quarterdeck.store.spool import Spool
from quarterdeck.telemetry.gateway_metrics import GatewayMetrics

SPOOL_POLL_SECONDS = 5.0
"""Between two counts of the records in the spool, for the metrics."""


def make_settlement(redis: Redis, spool: Spool, config: Live[Config], metrics: GatewayMetrics) -> Settlement:
    """The settlement. Its lease follows the configuration."""

    def on_spooled(count: int) -> None:
        metrics.spooled.add((), count)
        metrics.spool_waiting.set(metrics.spool_waiting.values.get((), 0) + count)  # until the next count

    settlement = Settlement(
        redis,
        spool,
        lease_seconds=config.current.gateway.reservation_lease_seconds,
        on_spooled=on_spooled,
    )
    settlement.max_waiting_contents = config.current.content.max_waiting
    config.subscribe(lambda new: settlement.set_lease(new.gateway.reservation_lease_seconds))
    config.subscribe(lambda new: setattr(settlement, "max_waiting_contents", new.content.max_waiting))
    return settlement


async def watch_spool(spool: Spool, settlement: Settlement, metrics: GatewayMetrics) -> None:
    """A job: count what waits in the spool and in memory."""
    failures = 0
    while True:
        metrics.spool_waiting.set(await asyncio.to_thread(spool.waiting) + settlement.in_memory)
        metrics.spool_failures.add((), settlement.spool_failures - failures)
        failures = settlement.spool_failures
        await asyncio.sleep(SPOOL_POLL_SECONDS)
