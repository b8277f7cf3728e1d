"""What is done to the platform, and what each fault allows callers to see (docs/operations/failures.md).

A fault is over when its part serves again; what it allows is allowed for GRACE_SECONDS more. Outside of any, and for
what no fault under way allows, every request is answered right.
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
"""Breakers, pools and Redis' clients notice that a part is back within so much."""
HOLD_SECONDS = 3.0
"""So long a part that was killed stays away."""
LIES = ("429=1", "500", "503=1", "cut=3", "reset=6", "error=4", "garbage=2", "malformed", "slow=200ms", "no-usage")
ENGINE_LOST = frozenset({"502 engine_error", "503 engine_unavailable", "504 engine_timeout"})
STREAM_LOST = frozenset({"event engine_error", "event engine_timeout"})
MOVED_ON = frozenset({"503 shutting_down", "refused"})
"""What a gateway that ends answers with, or that nobody listens: the caller goes to the next one, and is answered."""

Act = Callable[[Platform, random.Random], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Fault:
    """`allows`: what callers may see beside a right answer; `allows_budgets`: those with a budget, too."""

    name: str
    act: Act
    allows: frozenset[str] = frozenset()
    allows_budgets: frozenset[str] = frozenset()
    ends_what_is_measured: bool = False
    """It ends a process whose memory is judged: only in a run's first part."""


@dataclass(slots=True)
class Happened:
    """A fault that was done. Unix seconds; `ended` None: it is under way."""

    fault: Fault
    started: float
    ended: float | None = None

    def covers(self, started: float, ended: float) -> bool:
        """Whether a request of that time may have met it."""
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
    """Another price: the next request is billed by it, one under way by the one it began with."""
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
    """One after the other, each only when the one before serves again."""
    for gateway in platform.gateways:
        process = gateway.process
        await asyncio.to_thread(gateway.stop)
        assert process is not None and process.returncode == 0, f"a gateway ended with {process and process.returncode}"
        await launched(gateway)


async def _lose_traces(platform: Platform, draw: random.Random) -> None:
    await asyncio.to_thread(platform.sink.stop)
    await asyncio.sleep(2 * HOLD_SECONDS)
    platform.sink.start()


async def _engines_lie(platform: Platform, draw: random.Random) -> None:
    """One request in five has a fault, at both engines."""
    async with httpx.AsyncClient() as admin:
        for rate in (20, 0):
            config = {"failure-injection-rate": rate, "failure-types": list(LIES)}
            for engine in platform.engines:
                (await admin.post(engine.url + "/admin/config", json=config)).raise_for_status()
            if rate:
                await asyncio.sleep(2 * HOLD_SECONDS)


FAULTS = (
    Fault("engine killed", _kill_engine, ENGINE_LOST | STREAM_LOST),
    Fault("engine restarted", _restart_engine, ENGINE_LOST | STREAM_LOST),
    Fault("Redis restarted", _restart_redis, allows_budgets=frozenset({"503 limits_unavailable"})),
    Fault("configuration changed", _reload),
    Fault("gateways rolled", _roll_gateways, MOVED_ON, ends_what_is_measured=True),
    Fault("worker killed", _kill_worker, ends_what_is_measured=True),
    Fault("trace backend away", _lose_traces),
    Fault("engines lie", _engines_lie, ENGINE_LOST | STREAM_LOST | {"429 engine_overloaded"}),
)


def order(seed: int, faults: tuple[Fault, ...] = FAULTS) -> Iterator[Fault]:
    """All of them in a random order, then again in another one: none is left out for long."""
    draw = random.Random(f"{seed}/faults")
    while True:
        yield from draw.sample(faults, len(faults))
