"""The injected faults and the errors that each one allows (docs/operations/failures.md).

A fault ends when its part serves again; its errors are allowed for GRACE_SECONDS more. All other requests must be
answered correctly.
"""

import asyncio
import random
import signal
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass

import httpx
from loadtests.chaos.platform import PRICES, Platform, launched, metric
from tests.faults.stack import signal_to, until

GRACE_SECONDS = 5.0
"""Within this time circuit breakers, pools and Redis clients notice that a part is back."""
HOLD_SECONDS = 3.0
"""How long a killed part stays down."""
ENGINE_FAULTS = (
    "429=1",
    "500",
    "503=1",
    "cut=3",
    "reset=6",
    "error=4",
    "garbage=2",
    "malformed",
    "slow=200ms",
    "no-usage",
)
ENGINE_LOST = frozenset({"502 engine_error", "503 engine_unavailable", "504 engine_timeout"})
STREAM_LOST = frozenset({"event engine_error", "event engine_timeout"})
MOVED_ON = frozenset({"503 shutting_down", "refused"})
"""Results of a stopping or stopped gateway, after which the client tries the next one."""

Act = Callable[[Platform, random.Random], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Fault:
    """`allows`: outcomes permitted for all callers; `allows_budgets`: also permitted for callers with a budget."""

    name: str
    act: Act
    allows: frozenset[str] = frozenset()
    allows_budgets: frozenset[str] = frozenset()
    ends_measured_process: bool = False
    """It ends a process whose memory is checked, so it is injected only in the first part of a run."""


@dataclass(slots=True)
class InjectedFault:
    """An injected fault. Times are Unix seconds; `ended` None: still active."""

    fault: Fault
    started: float
    ended: float | None = None

    def covers(self, started: float, ended: float) -> bool:
        """Whether it may have affected a request of that time."""
        return ended >= self.started and (self.ended is None or started <= self.ended + GRACE_SECONDS)


async def _kill_engine(platform: Platform, draw: random.Random) -> None:
    engine = draw.choice(platform.engines)
    engine.kill()
    await asyncio.sleep(HOLD_SECONDS)
    await launched(engine)


async def _restart_engine(platform: Platform, draw: random.Random) -> None:
    engine = draw.choice(platform.engines)
    await asyncio.to_thread(engine.stop)
    await launched(engine)


async def _restart_redis(platform: Platform, draw: random.Random) -> None:
    await asyncio.to_thread(platform.redis.stop)
    await asyncio.sleep(HOLD_SECONDS)
    await launched(platform.redis)


async def _kill_worker(platform: Platform, draw: random.Random) -> None:
    platform.worker.kill()
    await asyncio.sleep(HOLD_SECONDS)
    await launched(platform.worker)


async def _reload(platform: Platform, draw: random.Random) -> None:
    """Change the prices. New requests use the new ones, requests in flight the old ones."""
    platform.price = (platform.price + 1) % len(PRICES)
    name, applied = "quarterdeck_config_reloads_total", 'outcome="applied"'
    for gateway in platform.gateways:
        before = await asyncio.to_thread(metric, gateway, name, applied)
        written = gateway.config.with_suffix(".new")
        written.write_text(platform.configuration())
        written.rename(gateway.config)
        signal_to(gateway, signal.SIGHUP)
        await until(lambda g=gateway, b=before: metric(g, name, applied) > b, what=gateway.log)


async def _roll_gateways(platform: Platform, draw: random.Random) -> None:
    """Restart the gateways one after another, each when the previous one serves again."""
    for gateway in platform.gateways:
        process = gateway.process
        await asyncio.to_thread(gateway.stop)
        assert process is not None and process.returncode == 0, (
            f"a gateway exited with {process and process.returncode}"
        )
        await launched(gateway)


async def _lose_traces(platform: Platform, draw: random.Random) -> None:
    await asyncio.to_thread(platform.sink.stop)
    await asyncio.sleep(2 * HOLD_SECONDS)
    platform.sink.start()


async def _engines_fail(platform: Platform, draw: random.Random) -> None:
    """Make one request in five fail at both engines."""
    async with httpx.AsyncClient() as admin:
        for rate in (20, 0):
            config = {"failure-injection-rate": rate, "failure-types": list(ENGINE_FAULTS)}
            for engine in platform.engines:
                (await admin.post(engine.url + "/admin/config", json=config)).raise_for_status()
            if rate:
                await asyncio.sleep(2 * HOLD_SECONDS)


FAULTS = (
    Fault("engine killed", _kill_engine, ENGINE_LOST | STREAM_LOST),
    Fault("engine restarted", _restart_engine, ENGINE_LOST | STREAM_LOST),
    Fault("Redis restarted", _restart_redis, allows_budgets=frozenset({"503 limits_unavailable"})),
    Fault("configuration changed", _reload),
    Fault("gateways rolled", _roll_gateways, MOVED_ON, ends_measured_process=True),
    Fault("worker killed", _kill_worker, ends_measured_process=True),
    Fault("trace backend away", _lose_traces),
    Fault("engines misbehave", _engines_fail, ENGINE_LOST | STREAM_LOST | {"429 engine_overloaded"}),
)


def order(seed: int, faults: tuple[Fault, ...] = FAULTS) -> Iterator[Fault]:
    """Yield all faults in random order, then again in another order, so that none is absent for long."""
    draw = random.Random(f"{seed}/faults")
    while True:
        yield from draw.sample(faults, len(faults))
