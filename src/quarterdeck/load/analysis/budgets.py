"""Performance budgets: limits of a run and their verdicts. Pure apart from reading and writing files.

`loadtests/budgets.yaml` holds the limits, each with its reason. Unset limits are not checked. Unknown names are errors,
because a misspelled budget would never be exceeded.
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
"""Minimum minutes after settling to check a memory slope: over two minutes one page would be gigabytes a day."""

Outcome = Literal["kept", "broken", "not judged"]


class BudgetError(ValueError):
    """The budgets file is invalid; the message says where and why."""


class Limits(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Limits for the target, not the baseline. Latencies count from when a request was due."""

    ttft_p50_ms: float | None = None
    ttft_p99_ms: float | None = None
    ttft_p50_over_baseline_ms: float | None = None
    """How much the target may add to the baseline's median, if the run has a baseline."""
    itl_p99_ms: float | None = None
    total_p99_ms: float | None = None
    error_rate: float | None = None
    goodput: float | None = None
    """Minimum share of requests that meet every objective of the profile (SLO)."""
    rss_slope_mib_per_hour: float | dict[str, float] | None = None
    """One number for all processes, or numbers by process name, with `default` for the others."""
    cost_drift: float | None = None
    """Maximum relative change of the price per token between the halves of the run."""
    ledger_drift: float | None = None
    """Maximum relative error of the platform's ledger against the usage in the answers: rows, tokens, dollars."""
    client_lag: float | None = None
    """Maximum share of the median that is the client's own lag, without the lag of an idle client."""


class Budgets(Limits, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The file: limits for every run, and overrides by profile."""

    profiles: dict[str, Limits] = {}

    def of(self, profile: str) -> Limits:
        """The limits that apply to a profile."""
        own = self.profiles.get(profile, Limits())
        names = Limits.__struct_fields__
        return Limits(**{n: getattr(self, n) if getattr(own, n) is None else getattr(own, n) for n in names})


class Verdict(msgspec.Struct, frozen=True):
    """The verdict on one limit."""

    name: str
    """The limit's name in the file; per process with its name in brackets."""
    outcome: Outcome
    limit: float
    value: float | None
    text: str
    """The verdict as one line of text."""


def load(file: Path) -> Budgets:
    """Read budgets.yaml. Raises BudgetError."""
    try:
        values = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise BudgetError(f"{file}: {error}") from None
    return parse(values if values is not None else {}, str(file))


def parse(values: Any, name: str = "budgets") -> Budgets:
    """Validate the file's content. Raises BudgetError."""
    try:
        budgets = msgspec.convert(values, Budgets)
    except msgspec.ValidationError as error:
        hint = (
            f"; known fields: {', '.join(Limits.__struct_fields__)}, profiles" if "unknown field" in str(error) else ""
        )
        raise BudgetError(f"{name}: {error}{hint}") from None
    for limits in (budgets, *budgets.profiles.values()):
        for field in Limits.__struct_fields__:
            value = getattr(limits, field)
            for number in value.values() if isinstance(value, dict) else [value]:
                if number is not None and not number >= 0:
                    raise BudgetError(f"{name}: {field} must be 0 or more, not {number}")
    return budgets


def check(budgets: Budgets, results: Results) -> list[Verdict]:
    """Check a run against the limits of its profile."""
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
    """Write `budgets.json`, which the report reads."""
    body = {"kept": is_kept(verdicts), "verdicts": [msgspec.to_builtins(verdict) for verdict in verdicts]}
    (folder / "budgets.json").write_text(json.dumps(body, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def read(folder: Path) -> list[Verdict]:
    """Read the verdicts of a run. Empty: none were checked. Raises BudgetError."""
    file = folder / "budgets.json"
    if not file.exists():
        return []
    try:
        return msgspec.convert(json.loads(file.read_text(encoding="utf-8"))["verdicts"], list[Verdict])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BudgetError(f"{file}: {error}") from None


def is_kept(verdicts: Sequence[Verdict]) -> bool:
    """Whether no limit is exceeded. A limit that could not be checked does not count."""
    return not any(verdict.outcome == "broken" for verdict in verdicts)


def joined(verdicts: Sequence[Verdict]) -> Iterator[Verdict]:
    """The verdicts, with those of a limit that was checked for none of several processes as one."""
    groups: dict[tuple[str, str], list[Verdict]] = {}
    for verdict in verdicts:
        name, bracket, _ = verdict.name.partition("[")
        why = verdict.text.rpartition(": ")[2]
        if verdict.outcome == "not judged" and bracket:
            groups.setdefault((name, why), []).append(verdict)
        else:
            yield verdict
    for (name, why), group in groups.items():
        if len(group) == 1:
            yield group[0]
        else:
            yield Verdict(name, "not judged", group[0].limit, None, f"{len(group)} processes were not checked: {why}")


# ---- one function per group of limits --------------------------------------------------------------------------------


def _latencies(limits: Limits, side: Measured, results: Results) -> Iterator[Verdict]:
    gaps = side.all_gaps
    values = {
        "ttft_p50_ms": (quantile(side.ttft, 0.5), "the median time to first token"),
        "ttft_p99_ms": (quantile(side.ttft, 0.99), "the time to first token at p99"),
        "itl_p99_ms": (gaps.quantile(0.99) if gaps else None, "the gap between tokens at p99"),
        "total_p99_ms": (quantile(side.total, 0.99), "the whole request at p99"),
    }
    for name, (value, what) in values.items():
        yield from _at_most(name, getattr(limits, name), value, what, "ms", "no answered stream has one")
    median = values["ttft_p50_ms"][0]
    bare = quantile(summary.measured(results, BASELINE).ttft, 0.5)
    added = None if median is None or bare is None else median - bare
    name = "ttft_p50_over_baseline_ms"
    what = "the median time to first token above the baseline's"
    yield from _at_most(name, getattr(limits, name), added, what, "ms", "the run has no baseline")


def _answers(limits: Limits, side: Measured) -> Iterator[Verdict]:
    if limits.error_rate is not None:
        if side.error_rate is None:
            yield Verdict("error_rate", "broken", limits.error_rate, None, "no request was sent")
        else:
            what = f"the share of errors ({side.errors} of {len(side.judged)} requests)"
            yield from _at_most("error_rate", limits.error_rate, side.error_rate, what, "share", "")
    if limits.goodput is not None:
        share = side.goodput_share
        if share is None or not side.slo:
            why = "no request was sent" if share is None else "the profile sets no objective (SLO)"
            yield Verdict("goodput", "not judged", limits.goodput, share, f"goodput was not checked: {why}")
        else:
            is_broken = share < limits.goodput
            wanted = _limit(limits.goodput, "share")
            text = f"{_shown(share, 'share')} of requests met the objectives; at least {wanted} must"
            yield Verdict("goodput", "broken" if is_broken else "kept", limits.goodput, share, text)


def _growth(limits: Limits, results: Results) -> Iterator[Verdict]:
    slopes = limits.rss_slope_mib_per_hour
    if slopes is None:
        return
    by_name = slopes if isinstance(slopes, dict) else {"default": slopes}
    grown = summary.growth(results)
    if not grown:
        why = "memory growth was not checked: no process was watched"
        yield Verdict("rss_slope_mib_per_hour", "not judged", by_name.get("default", 0.0), None, why)
    for process in grown:
        limit = by_name.get(process.name, by_name.get("default"))
        name, what = f"rss_slope_mib_per_hour[{process.name}]", f"the growth of {process.name}"
        value = process.mib_per_hour if process.minutes >= GROWTH_MINUTES else None
        why = f"only {process.minutes:.1f} of {GROWTH_MINUTES:.0f} min after settling"
        yield from _at_most(name, limit, value, what, "MiB/h", why)


def _money(limits: Limits, results: Results) -> Iterator[Verdict]:
    drift = summary.cost_drift(results)
    size = None if drift is None else abs(drift)
    what = "the change of the price per token between the halves"
    yield from _at_most("cost_drift", limits.cost_drift, size, what, "share", "no cost was reported, or it was 0")
    ledger = results.run.about.get("ledger")
    missed = float(ledger["drift"]) if isinstance(ledger, dict) and "drift" in ledger else None
    what = "the difference between the ledger and the usage in the answers"
    yield from _at_most("ledger_drift", limits.ledger_drift, missed, what, "share", "no readable ledger")


def _client(limits: Limits, side: Measured) -> Iterator[Verdict]:
    late = summary.lag(side)
    what = "the client's own share of the median, without the lag of an idle client,"
    value = late.busy_part_of_p50 if late else None
    yield from _at_most("client_lag", limits.client_lag, value, what, "share", "no answer")


def _at_most(
    name: str, limit: float | None, value: float | None, what: str, unit: str, why_not: str
) -> Iterator[Verdict]:
    if limit is None:
        return
    if value is None:
        yield Verdict(name, "not judged", limit, None, f"{what} was not checked: {why_not}")
        return
    text = f"{what} was {_shown(value, unit)}; at most {_limit(limit, unit)} is allowed"
    yield Verdict(name, "kept" if value <= limit else "broken", limit, value, text)


def _shown(value: float, unit: str) -> str:
    return measures.share(value) if unit == "share" else f"{measures.digits(value)} {unit}"


def _limit(value: float, unit: str) -> str:
    """Format a limit as it is written in the file."""
    return f"{value * 100:g} %" if unit == "share" else f"{value:g} {unit}"
