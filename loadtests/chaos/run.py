"""Runs a soak: the platform, the traffic, the injected faults and the final audit."""

import asyncio
import os
import random
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loadtests.chaos import faults, verdicts
from loadtests.chaos.audit import Auditor, AuditResult
from loadtests.chaos.faults import Fault, InjectedFault
from loadtests.chaos.folder import Folder
from loadtests.chaos.platform import Platform
from loadtests.chaos.traffic import Caller, Traffic
from loadtests.chaos.verdicts import Verdict
from tests.faults.stack import until

from quarterdeck import processes
from quarterdeck.load.run import profile as profiles
from quarterdeck.load.run.profile import Profile
from quarterdeck.settings.limits import Budget, Limits

PROFILE = Path(__file__).resolve().parents[1] / "profiles" / "soak.yaml"
LINE_SECONDS = 10
LEAD_SECONDS = 0.5
ENDING_PART, SETTLED_PART = 0.35, 0.5
"""Gateways and worker are ended only in the first part of a run; their memory is checked from the middle on."""
SETTLE_SECONDS = 90.0


@dataclass(frozen=True, slots=True)
class SoakOptions:
    """Settings of a soak."""

    minutes: float
    rate: float
    every: float
    seed: int
    faults: tuple[Fault, ...] = faults.FAULTS

    def profile(self) -> Profile:
        """The load profile `soak` with these settings."""
        seconds = self.minutes * 60
        values = profiles.read(PROFILE)
        values |= {
            "shape": {"kind": "soak", "level": self.rate, "ramp": min(60.0, seconds / 10)},
            "duration": seconds,
            "warmup": min(120.0, seconds / 10),
            "drain": 0,
            "seed": self.seed,
        }
        return profiles.make(values, str(PROFILE))


class Soak:
    """One soak."""

    def __init__(self, options: SoakOptions, out: Path) -> None:
        self._options = options
        self._profile = options.profile()
        self._platform = Platform()
        self._folder = Folder(out)
        self._injected: list[InjectedFault] = []
        self._failed: list[str] = []
        self._last_outcomes: Counter[str] = Counter()

    async def run(self) -> list[Verdict]:
        """Run and return the verdicts. Raises if a part does not start initially."""
        platform = self._platform
        try:
            await platform.start()
            callers = await self._callers()
            traffic = Traffic(self._profile, callers, [gateway.url for gateway in platform.gateways])
            for caller in callers:
                await traffic.warm(caller)
            start = time.time() + LEAD_SECONDS
            left = await self._drive(traffic, start)
            ended = min(time.time(), start + self._profile.length)
            self._folder.record(traffic)
        except asyncio.CancelledError:  # Ctrl-C
            await asyncio.to_thread(platform.stop)
            platform.remove()  # last: Redis does not exit without its folder
            raise
        finally:
            await asyncio.to_thread(platform.stop)
        leaked = [f"{process.name} ({process.pid})" for process in processes.descendants(os.getpid())]
        audit = await self._audit(traffic)
        self._folder.close(self._profile, platform.gateways[0].url, start, ended, self._injected)
        found = [
            *verdicts.answers(traffic.attempts, self._injected),
            *verdicts.audit(audit),
            *verdicts.nothing_left(left, leaked, len(platform.parts)),
            *verdicts.memory(self._folder.lives(start), SETTLED_PART * self._profile.length),
            verdicts.faults(self._injected, self._failed),
        ]
        self._folder.write_verdicts(found)
        if all(verdict.holds for verdict in found):
            platform.remove()
        else:
            print(f"logs and data of the parts: {platform.folder}", flush=True)
        return found

    async def _drive(self, traffic: Traffic, start: float) -> dict[str, int]:
        """Run the schedule and the faults, wait for pending records, and return what is left."""
        sampling = asyncio.create_task(self._each_second(traffic, start))
        working = asyncio.gather(traffic.run(start), self._inject_faults(start))
        tasks: set[asyncio.Future[Any]] = {sampling, working}
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                await task  # raise errors of the soak itself
            return await self._settled()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _callers(self) -> Sequence[Caller]:
        """Create keys: unlimited, rate-limited, with a large budget, and with a small one."""
        platform, most = self._platform, max(1, round(self._options.rate * 0.15 * 60 * 0.5))
        limits, wide = Limits(requests_per_minute=most), Budget(amount="1000", period="total")
        narrow = Budget(amount="0.02", period="total")
        keys: list[tuple[str, float, dict[str, Any], str | None]] = [
            ("free", 0.6, {}, None),
            ("limited", 0.15, {"limits": limits}, "429 rate_limit_exceeded"),
            ("rich", 0.2, {"budget": wide}, None),
            ("poor", 0.05, {"budget": narrow}, "429 insufficient_quota"),
        ]
        made = []
        for name, share, fields, refusal in keys:
            key = await platform.key(name, **fields)
            allows = frozenset({refusal} if refusal else ())
            made.append(Caller(name, key.secret, share, allows, has_budget="budget" in fields))
        return made

    # ---- while it runs ----

    async def _inject_faults(self, start: float) -> None:
        """Inject a fault every `every` seconds; a long fault delays the next one."""
        length, every = self._profile.length, self._options.every
        draw = random.Random(f"{self._options.seed}/victims")
        upcoming = faults.order(self._options.seed, self._options.faults)
        at = every
        while at < length - min(10.0, every / 2):
            await asyncio.sleep(max(0.0, start + at - time.time()))
            elapsed = time.time() - start
            if elapsed > length:
                return
            may_end = elapsed < ENDING_PART * length
            await self._inject(next(fault for fault in upcoming if may_end or not fault.ends_measured_process), draw)
            at = max(at + every, time.time() - start)

    async def _inject(self, fault: Fault, draw: random.Random) -> None:
        one = InjectedFault(fault, time.time())
        self._injected.append(one)
        try:
            await fault.act(self._platform, draw)
        except (TimeoutError, RuntimeError, OSError, AssertionError) as error:  # raised by a part that does not recover
            self._failed.append(f"{fault.name}: {' '.join(str(error).split())[:300] or type(error).__name__}")
        one.ended = time.time()

    async def _each_second(self, traffic: Traffic, start: float) -> None:
        second = 0
        while True:
            self._folder.sample(self._platform.pids())
            self._folder.record(traffic)
            second += 1
            if second % LINE_SECONDS == 0:
                print(self._line(traffic, start), flush=True)
            await asyncio.sleep(max(0.0, start - LEAD_SECONDS + second - time.time()))

    def _line(self, traffic: Traffic, start: float) -> str:
        new = traffic.outcomes - self._last_outcomes
        self._last_outcomes = Counter(traffic.outcomes)
        right = new.pop("ok", 0) + new.pop("left", 0)
        others = ", ".join(f"{count} {outcome}" for outcome, count in new.most_common())
        since = time.time() - LINE_SECONDS
        names = [one.fault.name for one in self._injected if one.ended is None or one.ended > since]
        memory = " ".join(f"{name} {mib:.0f}" for name, mib in self._folder.memory().items())
        progress = f"{time.time() - start:5.0f} s  {right:4d} correct, {traffic.in_flight} in flight"
        return (
            f"{progress}  [{memory} MiB]{'  ' + others if others else ''}{'  <- ' + ', '.join(names) if names else ''}"
        )

    # ---- the end ----

    async def _settled(self) -> dict[str, int]:
        """Wait until nothing is pending, and return what is left."""
        left: dict[str, int] = {}

        async def is_nothing_left() -> bool:
            left.clear()
            left.update(await self._platform.left())
            return not any(left.values())

        try:
            await until(is_nothing_left, seconds=SETTLE_SECONDS)
            rows = 0
            async for page in self._platform.rows():
                rows += len(page)
            await until(lambda: len(self._platform.sink.costs) >= rows, seconds=SETTLE_SECONDS)
        except TimeoutError:
            pass  # the verdicts report what is left and which traces are missing
        return left

    async def _audit(self, traffic: Traffic) -> AuditResult:
        auditor = Auditor(traffic.attempts)
        async for page in self._platform.rows():
            auditor.add(page)
        return auditor.close(self._platform.sink.costs)
