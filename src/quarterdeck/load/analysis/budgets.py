"""What a run may cost, and whether it kept to it. Pure but for reading the file: numbers in, verdicts out.

`loadtests/budgets.yaml` holds the limits, each with its reason. A limit that is not named is not judged; a name that is
not known is refused, because a budget with a slip of the pen would be kept for ever.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec
import yaml

from quarterdeck.load.analysis import measures, summary
from quarterdeck.load.analysis.distribution import quantile
from quarterdeck.load.analysis.results import BASELINE, Results
from quarterdeck.load.analysis.summary import Measured

GROWTH_MINUTES = 10.0
"""A slope is judged over at least so much settled life: a page more or less in two minutes would be gigabytes a day."""

Outcome = Literal["kept", "broken", "not judged"]


class BudgetError(ValueError):
    """The file can't be used; the message says where and why."""


class Limits(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The limits. All are of the target, never of the baseline; latencies count from when a request was due."""

    ttft_p50_ms: float | None = None
    ttft_p99_ms: float | None = None
    ttft_p50_over_baseline_ms: float | None = None
    """What the target may add to the baseline's median, where the run has one."""
    itl_p99_ms: float | None = None
    total_p99_ms: float | None = None
    error_rate: float | None = None
    goodput: float | None = None
    """The least share of requests that keep every objective of the profile (SLO)."""
    rss_slope_mib_per_hour: float | dict[str, float] | None = None
    """One number for each process, or numbers by the processes' names with `default` for the others."""
    cost_drift: float | None = None
    """By what share a token's price may change between the run's halves."""
    ledger_drift: float | None = None
    """How far the platform's ledger may be from what the answers themselves told: rows, tokens, dollars."""
    client_lag: float | None = None
    """Which share of the median may be the client's own lateness, but for what an idle client is late by."""


class Budgets(Limits, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The file: limits of every run, and by profile what replaces them."""

    profiles: dict[str, Limits] = {}

    def of(self, profile: str) -> Limits:
        """The limits that hold for this profile."""
        own = self.profiles.get(profile, Limits())
        names = Limits.__struct_fields__
        return Limits(**{n: getattr(self, n) if getattr(own, n) is None else getattr(own, n) for n in names})


class Verdict(msgspec.Struct, frozen=True):
    """One limit and how the run stood to it."""

    name: str
    """The limit's name in the file; with the process's name in brackets where there is one for each."""
    outcome: Outcome
    limit: float
    value: float | None
    text: str
    """For a person, in one line."""


def load(file: Path) -> Budgets:
    """Read budgets.yaml. Raises BudgetError."""
    try:
        told = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise BudgetError(f"{file}: {error}") from None
    return parse(told if told is not None else {}, str(file))


def parse(told: Any, name: str = "budgets") -> Budgets:
    """The file's content as limits. Raises BudgetError."""
    try:
        budgets = msgspec.convert(told, Budgets)
    except msgspec.ValidationError as error:
        hint = f"; known are {', '.join(Limits.__struct_fields__)}, profiles" if "unknown field" in str(error) else ""
        raise BudgetError(f"{name}: {error}{hint}") from None
    for limits in (budgets, *budgets.profiles.values()):
        for field in Limits.__struct_fields__:
            value = getattr(limits, field)
            for number in value.values() if isinstance(value, dict) else [value]:
                if number is not None and not number >= 0:
                    raise BudgetError(f"{name}: {field} must be 0 or more, not {number}")
    return budgets


def check(budgets: Budgets, results: Results) -> list[Verdict]:
    """Judge a run by the limits of its profile."""
    limits = budgets.of(results.run.profile)
    side = summary.measured(results)
    return [
        *_latencies(limits, side, results),
        *_answers(limits, side),
        *_growth(limits, results),
        *_money(limits, results),
        *_client(limits, side),
    ]


def write(folder: Path, verdicts: Sequence[Verdict]) -> None:
    """`budgets.json`, from which the report takes them."""
    body = {"kept": is_kept(verdicts), "verdicts": [msgspec.to_builtins(verdict) for verdict in verdicts]}
    (folder / "budgets.json").write_text(json.dumps(body, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def read(folder: Path) -> list[Verdict]:
    """The verdicts of a run. Empty: none were asked for. Raises BudgetError."""
    file = folder / "budgets.json"
    if not file.exists():
        return []
    try:
        return msgspec.convert(json.loads(file.read_text(encoding="utf-8"))["verdicts"], list[Verdict])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BudgetError(f"{file}: {error}") from None


def is_kept(verdicts: Sequence[Verdict]) -> bool:
    """A limit that could not be judged is not broken; that it was not judged is said beside it."""
    return not any(verdict.outcome == "broken" for verdict in verdicts)


# ---- one function a group of limits ----------------------------------------------------------------------------------


def _latencies(limits: Limits, side: Measured, results: Results) -> Iterator[Verdict]:
    gaps = side.all_gaps
    values = {
        "ttft_p50_ms": (quantile(side.ttft, 0.5), "the median time to first token"),
        "ttft_p99_ms": (quantile(side.ttft, 0.99), "the time to first token at p99"),
        "itl_p99_ms": (gaps.quantile(0.99) if gaps else None, "the gap between tokens at p99"),
        "total_p99_ms": (quantile(side.total, 0.99), "the whole request at p99"),
    }
    for name, (value, what) in values.items():
        yield from _at_most(name, getattr(limits, name), value, what, "ms", "no answered stream told one")
    median = values["ttft_p50_ms"][0]
    bare = quantile(summary.measured(results, BASELINE).ttft, 0.5)
    added = None if median is None or bare is None else median - bare
    name = "ttft_p50_over_baseline_ms"
    what = "the median time to first token above the baseline's"
    yield from _at_most(name, getattr(limits, name), added, what, "ms", "the run has no baseline")


def _answers(limits: Limits, side: Measured) -> Iterator[Verdict]:
    if limits.error_rate is not None:
        if side.error_rate is None:
            yield Verdict("error_rate", "broken", limits.error_rate, None, "no request was sent: nothing was measured")
        else:
            what = f"the share of errors ({side.errors} of {len(side.judged)} requests)"
            yield from _at_most("error_rate", limits.error_rate, side.error_rate, what, "share", "")
    if limits.goodput is not None:
        share = side.goodput_share
        if share is None or not side.slo:
            why = "no request was sent" if share is None else "the profile sets no objective (SLO)"
            yield Verdict("goodput", "not judged", limits.goodput, share, f"the goodput was not judged: {why}")
        else:
            is_broken = share < limits.goodput
            wanted = _limit(limits.goodput, "share")
            text = f"{_shown(share, 'share')} of requests kept the objectives; at least {wanted} must"
            yield Verdict("goodput", "broken" if is_broken else "kept", limits.goodput, share, text)


def _growth(limits: Limits, results: Results) -> Iterator[Verdict]:
    told = limits.rss_slope_mib_per_hour
    if told is None:
        return
    by_name = told if isinstance(told, dict) else {"default": told}
    grown = summary.growth(results)
    if not grown:
        why = "the memory's growth was not judged: no process was watched"
        yield Verdict("rss_slope_mib_per_hour", "not judged", by_name.get("default", 0.0), None, why)
    for process in grown:
        limit = by_name.get(process.name, by_name.get("default"))
        name, what = f"rss_slope_mib_per_hour[{process.name}]", f"the growth of {process.name}"
        value = process.mib_per_hour if process.minutes >= GROWTH_MINUTES else None
        why = f"{process.minutes:.1f} min of settled life, {GROWTH_MINUTES:.0f} are needed"
        yield from _at_most(name, limit, value, what, "MiB/h", why)


def _money(limits: Limits, results: Results) -> Iterator[Verdict]:
    drift = summary.cost_drift(results)
    size = None if drift is None else abs(drift)
    what = "the change of a token's price between the halves"
    yield from _at_most("cost_drift", limits.cost_drift, size, what, "share", "nobody told a cost, or it was 0")
    books = results.run.about.get("ledger")
    missed = float(books["drift"]) if isinstance(books, dict) and "drift" in books else None
    what = "the ledger's distance from the answers' own usage"
    yield from _at_most("ledger_drift", limits.ledger_drift, missed, what, "share", "no ledger could be read")


def _client(limits: Limits, side: Measured) -> Iterator[Verdict]:
    late = summary.lag(side)
    what = "the client's own part of the median, but for what an idle one is late by,"
    value = late.busy_part_of_p50 if late else None
    yield from _at_most("client_lag", limits.client_lag, value, what, "share", "no answer")


def _at_most(
    name: str, limit: float | None, value: float | None, what: str, unit: str, why_not: str
) -> Iterator[Verdict]:
    if limit is None:
        return
    if value is None:
        yield Verdict(name, "not judged", limit, None, f"{what} was not judged: {why_not}")
        return
    text = f"{what} was {_shown(value, unit)}; at most {_limit(limit, unit)} is allowed"
    yield Verdict(name, "kept" if value <= limit else "broken", limit, value, text)


def _shown(value: float, unit: str) -> str:
    return measures.share(value) if unit == "share" else f"{measures.digits(value)} {unit}"


def _limit(value: float, unit: str) -> str:
    """As the file has it."""
    return f"{value * 100:g} %" if unit == "share" else f"{value:g} {unit}"
