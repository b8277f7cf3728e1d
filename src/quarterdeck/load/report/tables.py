"""The report's tables: outcomes, scenarios, objectives, caches, cost, budgets. Pure: numbers in, rows out."""

from collections import Counter
from collections.abc import Iterable, Sequence

from quarterdeck.load.analysis import summary
from quarterdeck.load.analysis.budgets import Verdict
from quarterdeck.load.analysis.distribution import quantile
from quarterdeck.load.analysis.measures import NONE, beside, digits, dollars, ms, ratio, share
from quarterdeck.load.analysis.results import MAIN, Request, Results
from quarterdeck.load.analysis.summary import Measured
from quarterdeck.load.report.page import Table, by_side

OBJECTIVES = {"ttft_ms": "time to first token", "itl_ms": "mean gap between tokens", "total_ms": "whole request"}


def overall(sides: Sequence[Measured], caption: str) -> Table:
    """Every measure, side by side."""
    head, rows = beside(sides)
    return Table(caption, head, rows)


def scenarios(sides: Sequence[Measured]) -> Table:
    """What each kind of user saw; beside another run, how its medians and ends compare."""
    rows: list[list[str]] = []
    names = sorted({name for side in sides for name in side.scenarios})
    if len(names) == 1:
        return Table("", (), ())  # the table of all says it
    for name in names:
        parts = [side.of(name) for side in sides]
        for side, part in zip(sides, parts, strict=True):
            if part.requests:
                rows.append([name if len(sides) == 1 else f"{name}, {side.label}", *_scenario_cells(part)])
        if len(parts) == 2:
            both = zip(_scenario_values(parts[0]), _scenario_values(parts[1]), strict=True)
            ratios = [ratio(a, b) for a, b in both]
            if any(told != NONE for told in ratios):
                rows.append([f"{name}, ratio", "", "", "", *ratios])
    head = ("scenario", "requests", "errors", "within objectives", "TTFT p50", "TTFT p99", "gap p50", "gap p99")
    return Table("By kind of user", (*head, "whole p50", "whole p99"), rows)


def _scenario_values(part: Measured) -> list[float | None]:
    gaps = part.all_gaps
    return [
        quantile(part.ttft, 0.5),
        quantile(part.ttft, 0.99),
        gaps.quantile(0.5) if gaps else None,
        gaps.quantile(0.99) if gaps else None,
        quantile(part.total, 0.5),
        quantile(part.total, 0.99),
    ]


def _scenario_cells(part: Measured) -> list[str]:
    kept = share(part.goodput_share) if part.slo else NONE
    return [f"{len(part.requests):,}", f"{part.errors:,}", kept, *(ms(value) for value in _scenario_values(part))]


def outcomes(sides: Sequence[Measured]) -> Table:
    """How requests ended, the bad ones first, each with an id to look for in the logs."""
    rows: list[list[str]] = []
    for side in sides:
        counted = Counter((request.outcome, request.status) for request in side.requests)
        example: dict[tuple[str, int], Request] = {}
        for request in side.requests:
            if request.request_id:
                example.setdefault((request.outcome, request.status), request)
        for (outcome, status), number in sorted(counted.items(), key=lambda item: (_kind(item[0][0]), -item[1])):
            one = example.get((outcome, status))
            rows.append(
                [
                    _outcome_words(outcome),
                    side.label,
                    str(status) if status else "no answer",
                    f"{number:,}",
                    share(number / len(side.requests)),
                    one.request_id if one and not one.is_ok else "",
                ]
            )
    head = ("outcome", "side", "status", "requests", "of all", "for example")
    return by_side("How requests ended, those that went wrong first", head, rows, words=(2, 5))


def _kind(outcome: str) -> int:
    return 2 if outcome == "ok" else 1 if outcome.startswith("expected:") else 0


def _outcome_words(outcome: str) -> str:
    if outcome == "ok":
        return "answered"
    meant = outcome.removeprefix("expected:")
    return f"{meant} (as meant: a client that misbehaves)" if meant != outcome else outcome


def objectives(sides: Sequence[Measured]) -> Table:
    """Which objective was kept by how many."""
    rows: list[list[str]] = []
    for side in sides:
        for name, limit in side.slo.items():
            kept = sum(summary.keeps(request, {name: limit}) for request in side.judged)
            what = f"{OBJECTIVES.get(name, name)} at most {limit:g} ms"
            rows.append([what, side.label, _part(kept, len(side.judged))])
        if side.slo:
            rows.append(["all of them (goodput)", side.label, _part(side.good, len(side.judged))])
    return by_side("Share of requests that kept each objective; an error keeps none", ("", "side", "kept by"), rows)


def _part(count: int, of: int) -> str:
    return f"{share(count / of)} ({count:,} of {of:,})" if of else NONE


def caches(sides: Sequence[Measured]) -> Table:
    """Whole answers from the gateway's cache (the header x-cache), and prompts the engines knew (cached tokens)."""
    rows: list[list[str]] = []
    for side in sides:
        for name in side.scenarios:
            part = side.of(name)
            hits = [request for request in part.answered if request.cache.startswith("hit")]
            told = sum(bool(request.cache) for request in part.answered)
            known = sum(request.cached_tokens for request in part.answered)
            asked = sum(request.input_tokens for request in part.answered)
            if not (hits or known):
                continue
            others = [request for request in part.answered if not request.cache.startswith("hit")]
            rows.append(
                [
                    name,
                    side.label,
                    _part(len(hits), told),
                    _median_answer(hits),
                    _median_answer(others),
                    share(known / asked) if asked else NONE,
                ]
            )
    head = ("scenario", "side", "from the cache", "its answer begins, p50", "without it", "prompt tokens known")
    return by_side("Answers from the cache, and prompt tokens the engines had computed before", head, rows)


def _median_answer(requests: Iterable[Request]) -> str:
    return ms(quantile(sorted(request.answer_ms for request in requests), 0.5))


def costs(runs: Sequence[tuple[str, Results]]) -> Table:
    """What the traffic cost, and whether a token's price stayed."""
    rows: list[list[str]] = []
    for label, results in runs:
        total = summary.cost(results)
        if not total:
            continue
        answered = [r for r in results.requests if r.is_ok and r.target == MAIN]
        spoken = summary.tokens(answered)
        drift = summary.cost_drift(results)
        rows.append(
            [
                label,
                dollars(total),
                dollars(1000 * total / len(answered)) if answered else NONE,
                dollars(1e6 * total / spoken) if spoken else NONE,
                NONE if drift is None else f"{drift * 100:+.3g} %",
            ]
        )
    head = ("", "in all", "for 1,000 answers", "for 1,000,000 tokens", "second half against first")
    return Table("What the traffic cost, as the gateway counted it", head, rows)


def counted_tokens(results: Results) -> str:
    """The gateway's count beside the client's, in a sentence. Empty: the gateway was not asked."""
    points = summary.metric(results, "quarterdeck_tokens")
    if len(points) < 2:
        return ""
    mine = summary.tokens(r for r in results.requests if r.target == MAIN)
    return (
        f"The gateway counted {summary.rise(points):,.0f} tokens while it was watched; the answers told the client of"
        f" {mine:,}. They differ by what hung-up clients never saw, and by the first and the last second."
    )


def verdicts(judged: Sequence[Verdict]) -> Table:
    """Broken ones first."""
    order = {"broken": 0, "not judged": 1, "kept": 2}
    ordered = sorted(judged, key=lambda verdict: order[verdict.outcome])
    rows = [[v.name, v.outcome.replace(" ", "\N{NO-BREAK SPACE}"), v.text] for v in ordered]
    head = ("budget", "verdict", "because")
    return Table(
        "Budgets (loadtests/budgets.yaml, and for a soak docs/loadtests.md, say why each is what it is)",
        head,
        rows,
        ALL_WORDS,
    )


def lag(sides: Sequence[Measured]) -> Table:
    """How late the client was, beside what it measured."""
    rows: list[list[str]] = []
    for side in sides:
        late = summary.lag(side)
        if late:
            cells = (late.p50, late.p99, late.answer_p50, late.answer_p99)
            rows.append([f"client of {side.label}", *(ms(value) for value in cells), share(late.share)])
    head = ("", "late by, p50", "late by, p99", "answer began, p50", "answer began, p99", "client's part, at most")
    return Table("The client's own lateness beside what it measured", head, rows)


def differences(a: Results, b: Results) -> Table:
    """What was not the same in two runs: each of these may be the reason for any ratio."""
    rows = []
    left, right = (dict(_flat("", results.run.about)) for results in (a, b))
    for name in sorted(left.keys() | right.keys()):
        if name.partition(".")[0] in ("started", "ended", "notes", "baseline"):
            continue
        if left.get(name) != right.get(name):
            rows.append([name, left.get(name, NONE), right.get(name, NONE)])
    return Table("What was not the same", ("", "A", "B"), rows, ALL_WORDS)


def _flat(prefix: str, value: object) -> Iterable[tuple[str, str]]:
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _flat(f"{prefix}.{name}" if prefix else str(name), inner)
    elif isinstance(value, float):
        yield prefix, f"{value:g}" if value < 1e6 else digits(value)
    elif isinstance(value, list) and len(value) > 6:
        yield prefix, f"{value[:6]} and {len(value) - 6} more"
    else:
        yield prefix, str(value)


ALL_WORDS = frozenset(range(1, 8))
