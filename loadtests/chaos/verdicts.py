"""What a soak asserts, judged over what it saw. Pure: values in, verdicts out."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from loadtests.chaos.books import Books
from loadtests.chaos.faults import Happened
from loadtests.chaos.traffic import DEADLINE_SECONDS, Asked

from quarterdeck.load.analysis.distribution import slope
from quarterdeck.load.analysis.results import ProcessReading

MIB = 2**20
SLOPE_MIB_PER_HOUR = 20.0
"""As in budgets.yaml: a leak of one KiB a request is 175 MiB an hour at 50 requests a second; 20 sees
a tenth."""
SLOPE_MINUTES = 10.0
"""A slope is judged from so much settled life on: one page more or less in a minute would be gigabytes a day."""
GROWTH_MIB = 24.0
"""What a process may grow by over a settled part that is shorter: pools and caches fill for some minutes, and a leak of
10 KiB a request would take it within a minute at 50 a second."""
SHOWN = 8
"""Of each kind of complaint."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """One assertion. `complaints`: a line each; none: it holds."""

    name: str
    told: str
    complaints: tuple[str, ...] = ()

    @property
    def holds(self) -> bool:
        return not self.complaints


def answers(asked: Sequence[Asked], happened: Sequence[Happened]) -> list[Verdict]:
    """Every request was answered right, or with an error that its key or a fault under way allows."""
    wrong: Counter[str] = Counter()
    first: dict[str, str] = {}
    hung = 0
    allowed = 0
    for entry in asked:
        if entry.outcome == "hung":
            hung += 1
            first.setdefault("hung", f"{entry}; {during(entry, happened)}")
            continue
        reason = silent(entry)
        if reason is None and entry.outcome not in ("ok", "left") and not is_allowed(entry, happened):
            reason = entry.outcome
        if reason is not None:
            key = f"{reason}, {during(entry, happened)}"
            wrong[key] += 1
            first.setdefault(key, str(entry))
        elif entry.outcome not in ("ok", "left"):
            allowed += 1
    right = len(asked) - sum(wrong.values()) - hung - allowed
    told = f"{right:,} of {len(asked):,} tries right, {allowed:,} typed errors allowed"
    lines = tuple(f"{count} x {key}; first: {first[key]}" for key, count in wrong.most_common(SHOWN))
    slowest = max((entry.ended - entry.started for entry in asked), default=0.0)
    hangs = (f"{hung} hung; first: {first['hung']}",) if hung else ()
    return [
        Verdict("no silent failure", told, lines),
        Verdict("no hang", f"the slowest took {slowest:.1f} s of {DEADLINE_SECONDS:.0f}", hangs),
    ]


def silent(entry: Asked) -> str | None:
    """Why an answer that says it is right is not."""
    if entry.outcome != "ok" or not entry.max_tokens:
        return None
    tokens = entry.usage[2] if entry.usage else entry.pieces if entry.is_stream else entry.max_tokens
    if entry.finish == "length" and tokens != entry.max_tokens:
        return f"truncated: {tokens} of {entry.max_tokens} tokens and finish reason length"
    if entry.finish not in ("length", "stop"):
        return f"finish reason {entry.finish}"
    if entry.is_stream and not entry.is_hit and entry.usage and entry.pieces > entry.usage[2]:
        return f"{entry.pieces} pieces of {entry.usage[2]} tokens"
    return None


def is_allowed(entry: Asked, happened: Sequence[Happened]) -> bool:
    if entry.outcome in entry.caller.allows:
        return True
    return any(
        entry.outcome in one.fault.allows or (entry.caller.has_budget and entry.outcome in one.fault.allows_budgets)
        for one in happened
        if one.covers(entry.started, entry.ended)
    )


def during(entry: Asked, happened: Sequence[Happened]) -> str:
    names = [one.fault.name for one in happened if one.covers(entry.started, entry.ended)]
    return f"during: {', '.join(names)}" if names else "outside of any fault"


def memory(lives: Mapping[tuple[str, int], Sequence[ProcessReading]], settled_from: float) -> list[Verdict]:
    """Gateways and worker are flat over the part in which nothing of theirs was ended."""
    found = []
    for (name, _), samples in sorted(lives.items()):
        part = [(sample.at, sample.rss_bytes / MIB) for sample in samples if sample.at >= settled_from]
        if not name.startswith(("gateway", "worker")) or len(part) < 10:
            continue
        minutes = (part[-1][0] - part[0][0]) / 60
        tenth = max(1, len(part) // 10)
        grown = sum(y for _, y in part[-tenth:]) / tenth - sum(y for _, y in part[:tenth]) / tenth
        rise = (slope([part]) or 0.0) * 3600
        told = f"{part[-1][1]:.1f} MiB, {grown:+.1f} MiB in {minutes:.1f} min ({rise:+.1f} MiB/h)"
        complaints: tuple[str, ...] = ()
        if minutes >= SLOPE_MINUTES and rise > SLOPE_MIB_PER_HOUR:
            complaints = (f"{name} grows by {rise:.1f} MiB/h; {SLOPE_MIB_PER_HOUR:.0f} are allowed",)
        elif minutes < SLOPE_MINUTES:
            told += ", too short for a slope"
            if grown > GROWTH_MIB:
                complaints = (f"{name} grew by {grown:.1f} MiB in {minutes:.1f} min; {GROWTH_MIB:.0f} are allowed",)
        found.append(Verdict(f"flat memory: {name}", told, complaints))
    return found


def books(found: Books) -> list[Verdict]:
    """Ledger, client and traces say the same."""
    ledger = tuple(line for line in found.complaints if line.startswith("ledger"))
    traces = tuple(line for line in found.complaints if line.startswith("traces"))
    if found.tokens_told != found.tokens_booked or found.dollars_told != found.dollars_booked:
        ledger = ("ledger: the sums of tokens or dollars differ", *ledger)
    if found.ledger_total != found.traces_total:
        traces = (f"traces: they sum up to ${found.traces_total}, the ledger to ${found.ledger_total}", *traces)
    told = (
        f"{found.rows:,} rows for {found.asked:,} tries; {found.tokens_booked:,} of {found.tokens_told:,} tokens, "
        f"${found.dollars_booked:.6f} of ${found.dollars_told:.6f}"
    )
    sums = f"${found.traces_total:.6f} of ${found.ledger_total:.6f}"
    return [Verdict("ledger = client", told, _few(ledger)), Verdict("traces = ledger", sums, _few(traces))]


def _few(lines: tuple[str, ...]) -> tuple[str, ...]:
    rest = len(lines) - SHOWN
    return (*lines[:SHOWN], f"… and {rest} more") if rest > 0 else lines


def nothing_left(left: Mapping[str, int], processes: Sequence[str], parts: int) -> list[Verdict]:
    """No reservation, no record on its way, no process."""
    held = tuple(f"{count} {what} left" for what, count in left.items() if count)
    leaked = tuple(f"process {name} is still there" for name in processes)
    return [
        Verdict("nothing left behind", ", ".join(f"{what} {count}" for what, count in left.items()), held),
        Verdict("no leaked process", f"{parts} parts started and ended", leaked),
    ]


def faults(happened: Sequence[Happened], failed: Sequence[str]) -> Verdict:
    """Each was done, and its part came back."""
    counts = Counter(one.fault.name for one in happened)
    told = ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))
    return Verdict("each part came back", f"{len(happened)} faults: {told}", tuple(failed))
