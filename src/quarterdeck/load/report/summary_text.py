"""A run in words: what was run, on what, what came of it, and what a reader must not take from it. Pure."""

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from quarterdeck.load.analysis import summary
from quarterdeck.load.analysis.budgets import Verdict
from quarterdeck.load.analysis.distribution import quantile
from quarterdeck.load.analysis.measures import duration, ms, ratio, share
from quarterdeck.load.analysis.results import Results
from quarterdeck.load.analysis.summary import Measured
from quarterdeck.load.report import tables

KNOWN_SHARE = 0.1
"""Prompts differ in how much of them the engine knew by more than this share: the one had warmer caches."""


def headline(side: Measured, verdicts: Sequence[Verdict]) -> tuple[str, str, str]:
    """A word, a sentence and a colour: the verdict for somebody who reads no further."""
    broken = [verdict for verdict in verdicts if verdict.outcome == "broken"]
    if not side.requests:
        return "Nothing measured.", "No request was sent after the warm-up.", "bad"
    if broken:
        more = f", and {len(broken) - 1} more" if len(broken) > 1 else ""
        return "Failed.", f"{broken[0].text[:1].upper()}{broken[0].text[1:]}{more}. {_came_of_it(side)}", "bad"
    if verdicts:
        open_ones = sum(verdict.outcome == "not judged" for verdict in verdicts)
        kept = len(verdicts) - open_ones
        said = f"{kept} of {len(verdicts)} budgets kept" + (f", {open_ones} not judged" if open_ones else "")
        return "Passed.", f"{said}. {_came_of_it(side)}", "good"
    return "Measured.", f"No budgets were asked for. {_came_of_it(side)}", "none"


def _came_of_it(side: Measured) -> str:
    """What came of the requests, in a sentence or two."""
    failed = side.errors
    first = (
        f"All {len(side.requests):,} requests ended as they should"
        if not failed
        else f"{failed:,} of {len(side.requests):,} requests failed ({share(side.error_rate)})"
    )
    if not side.answered:
        return f"{first}; none was answered."
    median, end = quantile(side.ttft, 0.5), quantile(side.ttft, 0.99)
    what = "first token" if side.ttft else "whole answer"
    if not side.ttft:
        median, end = quantile(side.total, 0.5), quantile(side.total, 0.99)
    return f"{first}. Half had their {what} within {ms(median)}, 99 of 100 within {ms(end)}."


def what_was_run(run: Results, side: Measured) -> str:
    """For somebody who was not there."""
    target = part_of(run.run.about, "target")
    rates = sorted({request.rate for request in side.requests if request.rate})
    ends = " to ".join(f"{rate:.4g}" for rate in dict.fromkeys((*rates[:1], *rates[-1:])))
    counted = Counter(request.scenario for request in side.requests)
    mix = ", ".join(f"{name} {share(number / len(side.requests))}" for name, number in counted.most_common())
    to = f"{target.get('model', 'a model')} at {target.get('url', 'an unnamed address')}"
    speed = f", {ends} a second" if ends else ""
    return (
        f"{len(side.requests):,} requests to {to} in {duration(side.seconds)}{speed}. Kinds of user: {mix or 'none'}."
    )


def honesty(side: Measured) -> str:
    """Whether the client measured the server or itself, in plain words."""
    late = summary.lag(side)
    if late is None:
        return "Nothing was answered, so nothing can be said about the client."
    if late.p99 == 0:
        return (
            "Nothing was due at a certain moment: each user asked when the answer before had come. So a slow server was"
            " asked less often, and its queue does not show; for that, give a rate."
        )
    told = f"It sent requests {ms(late.p50)} (p50) and {ms(late.p99)} (p99) after they were due"
    if late.is_bottleneck:
        where = "" if late.busy_part_of_p50 > summary.LAG_SHARE else " at p99, though not at the median"
        return (
            f"The client was the bottleneck{where}. {told}: up to {share(late.share)} of a latency above is its own."
            " Run it on a machine of its own, with more workers or a lower rate."
        )
    if late.share > summary.LAG_SHARE:
        return (
            f"The client kept up. {told}, as an idle one does; the answers came so soon that this is up to"
            f" {share(late.share)} of a latency above: look at differences, not at the figures themselves."
        )
    return f"The client kept up. {told}: at most {share(late.share)} of a latency above is its own."


def in_short(sides: Sequence[Measured]) -> str:
    """The two runs in a sentence."""
    a, b = sides
    name, values = (
        ("time to first token", (a.ttft, b.ttft)) if a.ttft and b.ttft else ("whole request", (a.total, b.total))
    )
    parts = []
    for label, q in (("p50", 0.5), ("p99", 0.99)):
        x, y = (quantile(told, q) for told in values)
        if x is not None and y is not None:
            parts.append(f"{label} {ms(x)} against {ms(y)} ({ratio(x, y)})")
    said = f"{name}: {', '.join(parts)}" if parts else "One of the runs has no answers"
    return f"{said}; errors {a.errors:,} of {len(a.judged):,} against {b.errors:,} of {len(b.judged):,}."


def cache_note(sides: Sequence[Measured]) -> str:
    """Whether one of two sides found warmer prefix caches. Empty: neither did."""
    a, b = (_known(side) for side in sides)
    if a is None or b is None or abs(a - b) <= KNOWN_SHARE:
        return ""
    return (
        f"The engines knew {share(a)} of {sides[0].label}'s prompt tokens and {share(b)} of {sides[1].label}'s already:"
        " the same questions came before, or one does not tell. Latencies compare only where caches are alike: run both"
        " by rounds (`quarterdeck bench --baseline`), or each with a seed that was not used yet."
    )


def _known(side: Measured) -> float | None:
    asked = sum(request.input_tokens for request in side.answered)
    return sum(request.cached_tokens for request in side.answered) / asked if asked else None


def facts(run: Results) -> list[tuple[str, str]]:
    """What was run, against what, where."""
    about = run.run.about
    target, baseline, machine = (part_of(about, name) for name in ("target", "baseline", "machine"))
    when = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(run.run.started))
    rounds = f", {run.rounds} rounds" if run.rounds > 1 else ""
    warmup = f", after {duration(run.run.warmup_seconds)} of warm-up" if run.run.warmup_seconds else ""
    commit = about.get("commit")
    return [
        ("Target", who(target)),
        ("Baseline", f"{who(baseline)}; the same schedule" if baseline else ""),
        ("Schedule", schedule_line(part_of(about, "schedule"))),
        ("Seed", "" if run.run.seed is None else f"{run.run.seed}{', one more for each round' * (run.rounds > 1)}"),
        ("When", f"{when}, {duration(run.run.seconds)} measured{rounds}{warmup}"),
        ("Machine", machine_line(machine)),
        ("Quarterdeck", f"{about.get('quarterdeck', '')}{f' at {str(commit)[:12]}' if commit else ''}"),
        ("Objectives", ", ".join(f"{tables.OBJECTIVES.get(n, n)} ≤ {v:g} ms" for n, v in run.run.slo.items())),
    ]


def machine_line(machine: Mapping[str, Any]) -> str:
    """Without it no figure means anything."""
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
    told = about.get(name)
    return told if isinstance(told, dict) else {}


def who(server: Mapping[str, Any]) -> str:
    kind = f" ({server['kind']})" if server.get("kind") else ""
    return f"{server.get('model', 'a model')} at {server.get('url', 'an unnamed address')}{kind}"


def schedule_line(told: Mapping[str, Any]) -> str:
    """How the load came, in a line; `run.json` has all of it."""
    shape, scenarios = part_of(told, "shape"), part_of(told, "scenarios")
    is_closed = told.get("arrivals") == "users"
    if shape.get("kind") == "constant":
        level = f"{shape.get('level', 0):g} {'at a time' if is_closed else 'a second'}"
    else:
        level = f"{shape.get('kind', '')} {_words({n: v for n, v in shape.items() if n != 'kind'})}".strip()
    parts = {name: part for name, part in scenarios.items() if isinstance(part, dict)}
    asked = ", ".join(f"{name} ({_words(part)})" if len(parts) < 3 else name for name, part in parts.items())
    seconds = told.get("duration")
    said = [
        "closed loop" if is_closed else f"{told['arrivals']} arrivals" if "arrivals" in told else "",
        level,
        duration(float(seconds)) if isinstance(seconds, int | float) and shape.get("kind") != "steps" else "",
        asked,
        f"{told['processes']} processes" if told.get("processes", 1) != 1 else "",
    ]
    return "; ".join(part for part in said if part)


def _words(told: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {_short(value)}" for name, value in told.items() if value not in (None, "", [], {}))


def _short(value: object) -> str:
    if isinstance(value, dict):
        return "(" + _words(value) + ")"
    if isinstance(value, list):
        shown = ", ".join(_short(item) for item in value[:6])
        return f"[{shown}{', …' if len(value) > 6 else ''}]"
    return f"{value:g}" if isinstance(value, float) else str(value)
