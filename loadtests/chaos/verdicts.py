"""The assertions of a soak. Pure."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from loadtests.chaos.audit import AuditResult
from loadtests.chaos.faults import InjectedFault
from loadtests.chaos.traffic import DEADLINE_SECONDS, Attempt

from quarterdeck.load.analysis.distribution import slope
from quarterdeck.load.analysis.results import ProcessReading

MIB = 2**20
SLOPE_MIB_PER_HOUR = 20.0
"""As in budgets.yaml: a leak of one KiB per request is 175 MiB/h at 50 requests per second; 20 detects a tenth of
it."""
SLOPE_MINUTES = 10.0
"""Minimum minutes after settling to check a slope: over one minute a page would be gigabytes a day."""
GROWTH_MIB = 24.0
"""Permitted growth over a shorter time: pools and caches fill for some minutes, and a leak of 10 KiB per request would
exceed it within a minute at 50 requests per second."""
SHOWN = 8
"""Maximum number of complaints shown per kind."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The result of one assertion. It holds if there are no complaints."""

    name: str
    summary: str
    complaints: tuple[str, ...] = ()

    @property
    def holds(self) -> bool:
        return not self.complaints


def answers(attempts: Sequence[Attempt], injected: Sequence[InjectedFault]) -> list[Verdict]:
    """Every request is answered correctly, or with an error that its key or an active fault allows."""
    wrong: Counter[str] = Counter()
    first: dict[str, str] = {}
    hung = 0
    allowed = 0
    for entry in attempts:
        if entry.outcome == "hung":
            hung += 1
            first.setdefault("hung", f"{entry}; {during(entry, injected)}")
            continue
        reason = silent_failure(entry)
        if reason is None and entry.outcome not in ("ok", "left") and not is_allowed(entry, injected):
            reason = entry.outcome
        if reason is not None:
            key = f"{reason}, {during(entry, injected)}"
            wrong[key] += 1
            first.setdefault(key, str(entry))
        elif entry.outcome not in ("ok", "left"):
            allowed += 1
    right = len(attempts) - sum(wrong.values()) - hung - allowed
    summary = f"{right:,} of {len(attempts):,} attempts correct, {allowed:,} permitted errors"
    lines = tuple(f"{count} x {key}; first: {first[key]}" for key, count in wrong.most_common(SHOWN))
    slowest = max((entry.ended - entry.started for entry in attempts), default=0.0)
    hangs = (f"{hung} hung; first: {first['hung']}",) if hung else ()
    return [
        Verdict("no silent failure", summary, lines),
        Verdict("no hang", f"the slowest took {slowest:.1f} s of {DEADLINE_SECONDS:.0f}", hangs),
    ]


def silent_failure(entry: Attempt) -> str | None:
    """Why an answer that looks successful is wrong; None: it is correct."""
    if entry.outcome != "ok" or not entry.max_tokens:
        return None
    tokens = entry.usage[2] if entry.usage else entry.pieces if entry.is_stream else entry.max_tokens
    if entry.finish == "length" and tokens != entry.max_tokens:
        return f"truncated: {tokens} of {entry.max_tokens} tokens and finish reason length"
    if entry.finish not in ("length", "stop"):
        return f"finish reason {entry.finish}"
    if entry.is_stream and not entry.is_cache_hit and entry.usage and entry.pieces > entry.usage[2]:
        return f"{entry.pieces} pieces of {entry.usage[2]} tokens"
    return None


def is_allowed(entry: Attempt, injected: Sequence[InjectedFault]) -> bool:
    if entry.outcome in entry.caller.allows:
        return True
    return any(
        entry.outcome in one.fault.allows or (entry.caller.has_budget and entry.outcome in one.fault.allows_budgets)
        for one in injected
        if one.covers(entry.started, entry.ended)
    )


def during(entry: Attempt, injected: Sequence[InjectedFault]) -> str:
    names = [one.fault.name for one in injected if one.covers(entry.started, entry.ended)]
    return f"during: {', '.join(names)}" if names else "outside of any fault"


def memory(lives: Mapping[tuple[str, int], Sequence[ProcessReading]], settled_from: float) -> list[Verdict]:
    """Memory of gateways and worker is flat over the part of the run without their restarts."""
    found = []
    for (name, _), samples in sorted(lives.items()):
        part = [(sample.at, sample.rss_bytes / MIB) for sample in samples if sample.at >= settled_from]
        if not name.startswith(("gateway", "worker")) or len(part) < 10:
            continue
        minutes = (part[-1][0] - part[0][0]) / 60
        tenth = max(1, len(part) // 10)
        grown = sum(y for _, y in part[-tenth:]) / tenth - sum(y for _, y in part[:tenth]) / tenth
        rise = (slope([part]) or 0.0) * 3600
        summary = f"{part[-1][1]:.1f} MiB, {grown:+.1f} MiB in {minutes:.1f} min ({rise:+.1f} MiB/h)"
        complaints: tuple[str, ...] = ()
        if minutes >= SLOPE_MINUTES and rise > SLOPE_MIB_PER_HOUR:
            complaints = (f"{name} grows by {rise:.1f} MiB/h; at most {SLOPE_MIB_PER_HOUR:.0f} is allowed",)
        elif minutes < SLOPE_MINUTES:
            summary += ", too short for a slope"
            if grown > GROWTH_MIB:
                complaints = (
                    f"{name} grew by {grown:.1f} MiB in {minutes:.1f} min; at most {GROWTH_MIB:.0f} is allowed",
                )
        found.append(Verdict(f"flat memory: {name}", summary, complaints))
    return found


def audit(found: AuditResult) -> list[Verdict]:
    """Ledger, client and traces agree."""
    ledger = tuple(line for line in found.complaints if line.startswith("ledger"))
    traces = tuple(line for line in found.complaints if line.startswith("traces"))
    if found.tokens_reported != found.tokens_booked or found.dollars_reported != found.dollars_booked:
        ledger = ("ledger: the sums of tokens or dollars differ", *ledger)
    if found.ledger_total != found.traces_total:
        traces = (f"traces: their sum is ${found.traces_total}, the ledger's ${found.ledger_total}", *traces)
    summary = (
        f"{found.rows:,} rows for {found.attempts:,} attempts; {found.tokens_booked:,} of"
        f" {found.tokens_reported:,} tokens, ${found.dollars_booked:.6f} of ${found.dollars_reported:.6f}"
    )
    sums = f"${found.traces_total:.6f} of ${found.ledger_total:.6f}"
    return [Verdict("ledger = client", summary, _few(ledger)), Verdict("traces = ledger", sums, _few(traces))]


def _few(lines: tuple[str, ...]) -> tuple[str, ...]:
    rest = len(lines) - SHOWN
    return (*lines[:SHOWN], f"… and {rest} more") if rest > 0 else lines


def nothing_left(left: Mapping[str, int], processes: Sequence[str], parts: int) -> list[Verdict]:
    """No reservation, pending record or process is left."""
    held = tuple(f"{count} {what} left" for what, count in left.items() if count)
    leaked = tuple(f"process {name} is still running" for name in processes)
    return [
        Verdict("nothing left behind", ", ".join(f"{what} {count}" for what, count in left.items()), held),
        Verdict("no leaked process", f"{parts} parts started and stopped", leaked),
    ]


def faults(injected: Sequence[InjectedFault], failed: Sequence[str]) -> Verdict:
    """Every faulted part recovered."""
    counts = Counter(one.fault.name for one in injected)
    summary = ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))
    return Verdict("each part recovered", f"{len(injected)} faults: {summary}", tuple(failed))
