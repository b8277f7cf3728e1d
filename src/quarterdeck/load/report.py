"""A run's folder as one page: `report.html`, written from the files alone, so that it can be made anew at any time.

For a reader who was not there: first what was run and what came of it in a sentence, then the plots, each with what to
look for. Plots are inline SVG of our own (`plots.py` says why); the page needs no network and no script.
"""

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from quarterdeck.load import budgets, charts, comparison, page, process_charts, results, summary, tables
from quarterdeck.load.budgets import Verdict
from quarterdeck.load.distribution import quantile
from quarterdeck.load.measures import digits, duration, ms, share
from quarterdeck.load.page import Page
from quarterdeck.load.results import Results
from quarterdeck.load.summary import Measured

FILENAME = "report.html"
FILES = {
    "run.json": "what was run, on which machine, by which seed",
    "requests.csv": "a row for each request: times, tokens, outcome, request id",
    "itl.json": "gaps between tokens, as histograms",
    "processes.csv": "memory and processor time of each process, each second",
    "metrics.csv": "the gateway's own metrics, each second",
    "budgets.json": "the verdicts",
}
GLOSSARY = (
    "TTFT is the time to first token: from when the schedule wanted a request until its answer began. A gap (ITL,"
    " inter-token latency) is the time between two pieces of a stream. p99 is what 99 of 100 stayed below. Goodput"
    " counts only answers within the objectives. Arrivals are an open loop unless it says closed: a slow"
    " server does not get fewer requests, as it would if each user waited for an answer first; and a request that was"
    " sent late counts from when it was due (coordinated omission)."
)


def write(folder: Path, other: Path | None = None) -> Path:
    """Write the page of a run, or of two side by side, into the first one's folder.

    Raises ResultsError or BudgetError where a folder can't be read.
    """
    run = results.read(folder)
    if other is None:
        file, html = folder / FILENAME, render(run, budgets.read(folder))
    else:
        beside = results.read(other)
        file, html = folder / f"against-{beside.name}.html", comparison.render(run, beside)
    file.write_text(html, encoding="utf-8")
    return file


def render(run: Results, verdicts: Sequence[Verdict] = ()) -> str:
    """The page of one run."""
    sides = summary.sides(run)
    document = Page(_title(run))
    document.section("Budgets", page.table(tables.verdicts(verdicts)))
    document.section(
        "Latency",
        page.table(tables.overall(sides, _overall_caption(sides, run))),
        document.chart(charts.latency_over_time(sides)),
        document.chart(charts.latency_by_rate(sides)),
        document.chart(charts.first_token_distribution(sides)),
        document.chart(charts.gap_distribution(sides)),
        page.table(tables.scenarios(sides)),
    )
    document.section(
        "Throughput",
        document.chart(charts.throughput(sides)),
        document.chart(charts.token_throughput(sides)),
        document.chart(charts.knee(sides)),
    )
    document.section("Objectives", page.table(tables.objectives(sides)))
    document.section("Outcomes", page.table(tables.outcomes(sides)))
    document.section("Caches", page.table(tables.caches(sides)))
    document.section(
        "Cost", page.table(tables.costs([("this run", run)])), page.paragraph(tables.counted_tokens(run), "soft")
    )
    document.section(
        "Processes",
        document.chart(process_charts.memory([(run.name, run)])),
        document.chart(process_charts.processors([(run.name, run)])),
    )
    document.section("The client", page.paragraph(honesty(sides[0])), page.table(tables.lag(sides)))
    document.section("Raw data", page.links(_raw(run)), page.paragraph(GLOSSARY, "soft"))
    return document.render(_head(run, sides, verdicts))


def _title(run: Results) -> str:
    """By the profile's name; a run that has none is known by its model."""
    if run.run.profile != "command-line":
        return f"Load test: {run.run.profile}"
    return f"Load test of {_part(run.run.about, 'target').get('model', 'a model')}"


def _head(run: Results, sides: Sequence[Measured], verdicts: Sequence[Verdict]) -> Iterator[str]:
    word, sentence, kind = headline(sides[0], verdicts)
    yield page.verdict(word, sentence, kind)
    if len(sides) == 2:
        yield page.verdict("Beside the baseline:", comparison.in_short(sides), "none")
    late = summary.lag(sides[0])
    if late and late.is_bottleneck:
        yield page.verdict("Careful:", honesty(sides[0]), "bad")
    yield page.paragraph(what_was_run(run, sides[0]))
    yield page.tiles(_tiles(sides[0]))
    yield page.facts(facts(run))
    for note in run.run.about.get("notes") or ():
        yield page.paragraph(str(note), "soft")


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
    target = _part(run.run.about, "target")
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


def _tiles(side: Measured) -> list[tuple[str, str]]:
    gaps = side.all_gaps
    pairs: list[tuple[str, str | None]] = [
        ("first token, p50", ms(quantile(side.ttft, 0.5)) if side.ttft else None),
        ("first token, p99", ms(quantile(side.ttft, 0.99)) if side.ttft else None),
        ("token gap, p50", ms(gaps.quantile(0.5)) if gaps and gaps.total else None),
        ("token gap, p99", ms(gaps.quantile(0.99)) if gaps and gaps.total else None),
        ("whole request, p50", ms(quantile(side.total, 0.5))),
        ("answered", f"{digits(side.answered_per_second)}/s" if side.answered_per_second is not None else None),
        ("output tokens", f"{digits(side.tokens_per_second)}/s" if side.tokens_per_second else None),
        ("within the objectives", share(side.goodput_share) if side.slo else None),
        ("errors", share(side.error_rate)),
    ]
    return [(name, value) for name, value in pairs if value is not None]


def facts(run: Results) -> list[tuple[str, str]]:
    """What was run, against what, where."""
    about = run.run.about
    target, baseline, machine = (_part(about, name) for name in ("target", "baseline", "machine"))
    when = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(run.run.started))
    rounds = f", {run.rounds} rounds" if run.rounds > 1 else ""
    warmup = f", after {duration(run.run.warmup_seconds)} of warm-up" if run.run.warmup_seconds else ""
    commit = about.get("commit")
    return [
        ("Target", _who(target)),
        ("Baseline", f"{_who(baseline)}; the same schedule" if baseline else ""),
        ("Schedule", schedule_line(_part(about, "schedule"))),
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


def _part(about: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    told = about.get(name)
    return told if isinstance(told, dict) else {}


def _who(server: Mapping[str, Any]) -> str:
    kind = f" ({server['kind']})" if server.get("kind") else ""
    return f"{server.get('model', 'a model')} at {server.get('url', 'an unnamed address')}{kind}"


def schedule_line(told: Mapping[str, Any]) -> str:
    """How the load came, in a line; `run.json` has all of it."""
    shape, scenarios = _part(told, "shape"), _part(told, "scenarios")
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


def _overall_caption(sides: Sequence[Measured], run: Results) -> str:
    if len(sides) < 2:
        return "In numbers"
    rounds = "one after the other" if run.rounds == 1 else f"{run.rounds} rounds each, in alternating order"
    return f"In numbers: the target beside the baseline, on the same schedule ({rounds})"


def _raw(run: Results) -> list[tuple[str, str, str]]:
    """The files there are, beside the page or in its rounds' folders."""
    rounds = sorted(file.parent for file in (run.folder / "rounds").glob("*/run.json"))
    folders = [run.folder] if (run.folder / "run.json").exists() else rounds
    found = []
    for folder in folders:
        for name, what in FILES.items():
            if (folder / name).exists():
                href = (folder / name).relative_to(run.folder).as_posix()
                found.append((href, href, what))
    return found
