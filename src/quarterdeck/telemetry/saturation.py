"""How busy a process and what it depends on are: the lag of its event loop, and the round trips of its stores.

Measured once a second, and not with requests: they pay nothing for it.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from quarterdeck.telemetry.metrics import Metrics

SAMPLE_SECONDS = 1.0
TIMEOUT_SECONDS = 5.0
_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)

Probe = Callable[[], Awaitable[None]]


class SaturationMetrics:
    """Added to `metrics`."""

    def __init__(self, metrics: Metrics) -> None:
        self.lag = metrics.histogram(
            "quarterdeck_event_loop_lag_seconds",
            "How late the event loop was, sampled once a second: the time it was busy with something else.",
            _SECONDS,
        )
        self.round_trips = metrics.histogram(
            "quarterdeck_dependency_round_trip_seconds",
            "Round trip of a probe, sent to Redis and to the database once a second.",
            _SECONDS,
            ("dependency",),
        )
        self.failures = metrics.counter(
            "quarterdeck_dependency_probe_failures", "Probes that failed or got no answer in time.", ("dependency",)
        )


async def sample(
    metrics: SaturationMetrics,
    probes: Mapping[str, Probe],
    failures: tuple[type[Exception], ...],
    *,
    sample_seconds: float = SAMPLE_SECONDS,
    timeout_seconds: float = TIMEOUT_SECONDS,
) -> None:
    """Sample until cancelled. A probe fails with an error in `failures`, or by taking too long."""
    loop = asyncio.get_running_loop()
    failed: tuple[type[Exception], ...] = (*failures, TimeoutError)

    async def measure(name: str, probe: Probe) -> None:
        started = loop.time()
        try:
            async with asyncio.timeout(timeout_seconds):
                await probe()
        except failed:
            metrics.failures.add((name,))
        else:
            metrics.round_trips.observe(loop.time() - started, (name,))

    while True:
        due = loop.time() + sample_seconds
        await asyncio.sleep(sample_seconds)
        metrics.lag.observe(max(0.0, loop.time() - due))
        await asyncio.gather(*(measure(name, probe) for name, probe in probes.items()))
