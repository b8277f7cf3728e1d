"""The report's sentences: headline, description of the run, and caveats. Pure."""

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from quarterdeck.load.analysis import budgets, summary
from quarterdeck.load.analysis.budgets import Verdict
from quarterdeck.load.analysis.distribution import quantile
from quarterdeck.load.analysis.measures import duration, ms, ratio, share
from quarterdeck.load.analysis.results import MAIN, Results
from quarterdeck.load.analysis.summary import Measured
from quarterdeck.load.report import tables

CACHE_DIFFERENCE = 0.1
"""A difference in the share of cached prompt tokens above which one of two runs had warmer caches."""


def headline(side: Measured, verdicts: Sequence[Verdict]) -> tuple[str, str, str]:
    """The overall verdict: a word, a sentence and a colour."""
    verdicts = list(budgets.joined(verdicts))
    broken = [verdict for verdict in verdicts if verdict.outcome == "broken"]
    if not side.requests:
        return "Nothing measured.", "No request was sent after the warm-up.", "bad"
    if broken:
        more = f", and {len(broken) - 1} more" if len(broken) > 1 else ""
        return "Failed.", f"{broken[0].text[:1].upper()}{broken[0].text[1:]}{more}. {_result_sentence(side)}", "bad"
    if verdicts:
        unchecked = sum(verdict.outcome == "not judged" for verdict in verdicts)
        kept = len(verdicts) - unchecked
        text = f"{kept} of {len(verdicts)} budgets kept" + (f", {unchecked} not checked" if unchecked else "")
        return "Passed.", f"{text}. {_result_sentence(side)}", "good"
    return "Measured.", f"No budgets were checked. {_result_sentence(side)}", "none"


def _result_sentence(side: Measured) -> str:
    """The result of the requests in one or two sentences."""
    failed = side.errors
    first = (
        f"All {len(side.judged):,} requests succeeded"
        if not failed
        else f"{failed:,} of {len(side.judged):,} requests failed ({share(side.error_rate)})"
    )
    if not side.answered:
        return f"{first}; none was answered."
    median, end = quantile(side.ttft, 0.5), quantile(side.ttft, 0.99)
    what = "first token" if side.ttft else "whole answer"
    if not side.ttft:
        median, end = quantile(side.total, 0.5), quantile(side.total, 0.99)
    return f"{first}. Time to the {what}: p50 {ms(median)}, p99 {ms(end)}."


def run_sentence(run: Results, side: Measured) -> str:
    """Target, size, rate and traffic mix in one paragraph."""
    target = part_of(run.run.about, "target")
    rates = sorted({request.rate for request in side.requests if request.rate})
    ends = " to ".join(f"{rate:.4g}" for rate in dict.fromkeys((*rates[:1], *rates[-1:])))
    counted = Counter(request.scenario for request in side.requests)
    mix = ", ".join(f"{name} {share(number / len(side.requests))}" for name, number in counted.most_common())
    to = f"{target.get('model', 'a model')} at {target.get('url', 'an unknown URL')}"
    speed = f", {ends} per second" if ends else ""
    return f"{len(side.requests):,} requests to {to} in {duration(side.seconds)}{speed}. Scenarios: {mix or 'none'}."


def client_lag(side: Measured) -> str:
    """How late the client itself was, and what that means for the figures. The only place that says so."""
    late = summary.lag(side)
    if late is None:
        return "Nothing was answered, so the client's lag is unknown."
    if late.p99 == 0:
        return (
            "Closed loop: each user sent its next request after the previous answer. A slow server got fewer requests,"
            " so its queueing does not show; use a rate to see it."
        )
    lag = f"It sent requests {ms(late.p50)} (p50) and {ms(late.p99)} (p99) after they were due"
    advice = "Run it on a separate machine, with more workers or at a lower rate"
    if late.is_bottleneck:
        return f"The client was the bottleneck. {lag}: up to {share(late.share)} of a latency is its own lag. {advice}."
    if late.busy_part_of_p50 > summary.LAG_SHARE:
        return f"The client was late. {lag}: {share(late.busy_part_of_p50)} of the median is its own lag. {advice}."
    if late.is_late:
        return (
            f"The client kept up at the median and was late at p99. {lag}: up to {share(late.busy_part_of_p99)} of p99"
            f" is its own lag, so p99 is an upper bound. {advice} to measure p99."
        )
    if late.share > summary.LAG_SHARE:
        return (
            f"The client kept up. {lag}, like an idle one; the answers were so fast that this is up to"
            f" {share(late.share)} of the latencies: compare differences, not absolute figures."
        )
    return f"The client kept up. {lag}: at most {share(late.share)} of the latencies is its own lag."


def counts(run: Results, side: Measured) -> str:
    """How the counts on the page relate: sent, warm-up, measured, rejected as intended, answered, failed."""
    sent = sum(request.target == MAIN for request in run.requests)
    warm_up, expected = sent - len(side.requests), len(side.requests) - len(side.judged)
    parts = [
        f"{sent:,} requests were sent",
        f"{warm_up:,} of them in the warm-up, which only the ledger and the processes count" if warm_up else "",
        f"{len(side.requests):,} measured" if warm_up else "",
        f"{expected:,} of these by misbehaving clients, which were cut off or rejected as intended" if expected else "",
        f"{len(side.judged):,} remain that should be answered" if expected else "",
        f"{len(side.answered):,} answered and {side.errors:,} failed",
    ]
    if warm_up and (compared := part_of(run.run.about, "ledger").get("requests")):
        parts.append(f"the ledger was compared with {compared:,} answers, those of the warm-up included")
    return f"{'; '.join(part for part in parts if part)}."


def comparison_sentence(sides: Sequence[Measured]) -> str:
    """Compare two runs in one sentence."""
    a, b = sides
    name, values = (
        ("time to first token", (a.ttft, b.ttft)) if a.ttft and b.ttft else ("whole request", (a.total, b.total))
    )
    parts = []
    for label, q in (("p50", 0.5), ("p99", 0.99)):
        x, y = (quantile(ordered, q) for ordered in values)
        if x is not None and y is not None:
            parts.append(f"{label} {ms(x)} against {ms(y)} ({ratio(x, y)})")
    latencies = f"{name}: {', '.join(parts)}" if parts else "One of the runs has no answers"
    return f"{latencies}; errors {a.errors:,} of {len(a.judged):,} against {b.errors:,} of {len(b.judged):,}."


def cache_note(sides: Sequence[Measured]) -> str:
    """A caveat if one of two sides had warmer prefix caches; "" otherwise."""
    a, b = (_cached_share(side) for side in sides)
    if a is None or b is None or abs(a - b) <= CACHE_DIFFERENCE:
        return ""
    return (
        f"{share(a)} of {sides[0].label}'s prompt tokens and {share(b)} of {sides[1].label}'s were in the"
        " engines' prefix caches: prompts were repeated, or one side does not report it. Latencies are comparable"
        " only with equal caches: run both in rounds (`quarterdeck bench --baseline`), or each with an unused seed."
    )


def _cached_share(side: Measured) -> float | None:
    prompt_tokens = sum(request.input_tokens for request in side.answered)
    return sum(request.cached_tokens for request in side.answered) / prompt_tokens if prompt_tokens else None


def facts(run: Results) -> list[tuple[str, str]]:
    """Facts of the run as (name, value) pairs."""
    about = run.run.about
    target, baseline, machine = (part_of(about, name) for name in ("target", "baseline", "machine"))
    when = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(run.run.started))
    rounds = f", {run.rounds} rounds" if run.rounds > 1 else ""
    warmup = f", after {duration(run.run.warmup_seconds)} of warm-up" if run.run.warmup_seconds else ""
    commit = about.get("commit")
    return [
        ("Target", server_line(target)),
        ("Baseline", f"{server_line(baseline)}; same schedule" if baseline else ""),
        ("Schedule", schedule_line(part_of(about, "schedule"))),
        (
            "Seed",
            "" if run.run.seed is None else f"{run.run.seed}{', plus one for each further round' * (run.rounds > 1)}",
        ),
        ("When", f"{when}, {duration(run.run.seconds)} measured{rounds}{warmup}"),
        ("Machine", machine_line(machine)),
        ("Quarterdeck", f"{about.get('quarterdeck', '')}{f' at {str(commit)[:12]}' if commit else ''}"),
        ("Objectives", ", ".join(f"{tables.OBJECTIVES.get(n, n)} ≤ {v:g} ms" for n, v in run.run.slo.items())),
    ]


def machine_line(machine: Mapping[str, Any]) -> str:
    """The client's machine in one line."""
    parts = [
        machine.get("cpu"),
        f"{machine['cores']} cores" if machine.get("cores") else None,
        f"{float(machine['memory_gib']):.0f} GiB" if machine.get("memory_gib") else None,
        f"Linux {machine['kernel']}" if machine.get("kernel") else None,
        f"Python {machine['python']}" if machine.get("python") else None,
        f"locust {machine['locust']}" if machine.get("locust") else None,
    ]
    return ", ".join(str(part) for part in parts if part)


def part_of(about: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = about.get(name)
    return value if isinstance(value, dict) else {}


def server_line(server: Mapping[str, Any]) -> str:
    kind = f" ({server['kind']})" if server.get("kind") else ""
    return f"{server.get('model', 'a model')} at {server.get('url', 'an unknown URL')}{kind}"


def schedule_line(schedule: Mapping[str, Any]) -> str:
    """The schedule in one line; `run.json` has all of it."""
    shape, scenarios = part_of(schedule, "shape"), part_of(schedule, "scenarios")
    is_closed = schedule.get("arrivals") == "users"
    if shape.get("kind") == "constant":
        level = f"{shape.get('level', 0):g} {'at a time' if is_closed else 'per second'}"
    else:
        level = f"{shape.get('kind', '')} {_fields({n: v for n, v in shape.items() if n != 'kind'})}".strip()
    parts = {name: part for name, part in scenarios.items() if isinstance(part, dict)}
    mix = ", ".join(f"{name} ({_fields(part)})" if len(parts) < 3 else name for name, part in parts.items())
    seconds = schedule.get("duration")
    parts_of_line = [
        "closed loop" if is_closed else f"{schedule['arrivals']} arrivals" if "arrivals" in schedule else "",
        level,
        duration(float(seconds)) if isinstance(seconds, int | float) and shape.get("kind") != "steps" else "",
        mix,
        f"{schedule['processes']} processes" if schedule.get("processes", 1) != 1 else "",
    ]
    return "; ".join(part for part in parts_of_line if part)


def _fields(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {_short(value)}" for name, value in values.items() if value not in (None, "", [], {}))


def _short(value: object) -> str:
    if isinstance(value, dict):
        return "(" + _fields(value) + ")"
    if isinstance(value, list):
        shown = ", ".join(_short(item) for item in value[:6])
        return f"[{shown}{', …' if len(value) > 6 else ''}]"
    return f"{value:g}" if isinstance(value, float) else str(value)
