"""The lag of the event loop and the round trips of the stores are sampled."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping

import pytest
from tests.telemetry.scrape import value

from quarterdeck.telemetry.saturation import Probe, sample
from quarterdeck.telemetry.worker_metrics import WorkerMetrics


class Unreachable(Exception):
    pass


@contextlib.asynccontextmanager
async def sampling(probes: Mapping[str, Probe]) -> AsyncIterator[WorkerMetrics]:
    metrics = WorkerMetrics()
    work = sample(metrics.saturation, probes, (Unreachable,), sample_seconds=0.001, timeout_seconds=0.01)
    task = asyncio.create_task(work)
    try:
        yield metrics
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def test_round_trips_and_lag_are_counted() -> None:
    answered = asyncio.Event()
    calls = 0

    async def probe() -> None:
        nonlocal calls
        calls += 1
        if calls == 4:
            answered.set()

    async with sampling({"redis": probe}) as metrics:
        await answered.wait()
        assert (value(metrics, "quarterdeck_dependency_round_trip_seconds_count", dependency="redis") or 0) >= 3
        assert (value(metrics, "quarterdeck_event_loop_lag_seconds_count") or 0) >= 4


async def test_a_failed_probe_is_counted_and_the_others_go_on() -> None:
    calls = {"broken": 0, "silent": 0}
    again = asyncio.Event()

    async def broken() -> None:
        calls["broken"] += 1
        raise Unreachable

    async def silent() -> None:
        calls["silent"] += 1
        if calls["silent"] == 3:
            again.set()
        await asyncio.Event().wait()

    async with sampling({"broken": broken, "silent": silent}) as metrics:
        await again.wait()
        for name in calls:
            assert (value(metrics, "quarterdeck_dependency_probe_failures_total", dependency=name) or 0) >= 2
            assert value(metrics, "quarterdeck_dependency_round_trip_seconds_count", dependency=name) is None


async def test_another_error_ends_the_sampling() -> None:
    async def broken() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await sample(WorkerMetrics().saturation, {"redis": broken}, (Unreachable,), sample_seconds=0.001)
