"""The report's tables: scenarios, outcomes, objectives, caches, cost, budgets. Pure."""

from collections import Counter
from collections.abc import Iterable, Sequence

from quarterdeck.load.analysis import budgets, summary
from quarterdeck.load.analysis.budgets import Verdict
from quarterdeck.load.analysis.distribution import quantile
from quarterdeck.load.analysis.measures import NONE, beside, digits, dollars, ms, ratio, share
from quarterdeck.load.analysis.results import MAIN, Request, Results
from quarterdeck.load.analysis.summary import Measured
from quarterdeck.load.report.page import Table, by_side

OUTCOMES = {"broken": "✗\N{NO-BREAK SPACE}exceeded", "kept": "✓\N{NO-BREAK SPACE}kept"}
OUTCOMES |= {"not judged": "–\N{NO-BREAK SPACE}not\N{NO-BREAK SPACE}checked"}
"""A verdict's sign and word."""
OBJECTIVES = {"ttft_ms": "time to first token", "itl_ms": "mean gap between tokens", "total_ms": "whole request"}


def overall(sides: Sequence[Measured], caption: str) -> Table:
    """All measures, side by side."""
    head, rows = beside(sides)
    return Table(caption, head, rows)


def scenarios(sides: Sequence[Measured]) -> Table:
    """Figures by scenario; with two sides also their ratios."""
    rows: list[list[str]] = []
    names = sorted({name for side in sides for name in side.scenarios})
    if len(names) == 1:
        return Table("", (), ())  # covered by the overall table
    for name in names:
        parts = [side.of(name) for side in sides]
        for side, part in zip(sides, parts, strict=True):
            if part.requests:
                rows.append([name if len(sides) == 1 else f"{name}, {side.label}", *_scenario_cells(part)])
        if len(parts) == 2:
            both = zip(_scenario_values(parts[0]), _scenario_values(parts[1]), strict=True)
            ratios = [ratio(a, b) for a, b in both]
            if any(value != NONE for value in ratios):
                rows.append([f"{name}, ratio", "", "", "", *ratios])
    head = ("scenario", "requests", "errors", "within objectives", "TTFT p50", "TTFT p99", "gap p50", "gap p99")
    return Table("By scenario", (*head, "whole p50", "whole p99"), rows)


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
    """Outcomes, errors first, each with a request id to look up in the logs."""
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
                    _outcome_text(outcome),
                    side.label,
                    str(status) if status else "no response",
                    f"{number:,}",
                    share(number / len(side.requests)),
                    one.request_id if one and not one.is_ok else "",
                ]
            )
    head = ("outcome", "side", "status", "requests", "share", "example")
    return by_side("Outcomes, errors first", head, rows, words=(2, 5))


def _kind(outcome: str) -> int:
    return 2 if outcome == "ok" else 1 if outcome.startswith("expected:") else 0


def _outcome_text(outcome: str) -> str:
    if outcome == "ok":
        return "answered"
    meant = outcome.removeprefix("expected:")
    return f"{meant} (expected: misbehaving client)" if meant != outcome else outcome


def objectives(sides: Sequence[Measured]) -> Table:
    """Shares of requests within each objective."""
    rows: list[list[str]] = []
    for side in sides:
        for name, limit in side.slo.items():
            kept = sum(summary.keeps(request, {name: limit}) for request in side.judged)
            what = f"{OBJECTIVES.get(name, name)} at most {limit:g} ms"
            rows.append([what, side.label, _part(kept, len(side.judged))])
        if side.slo:
            rows.append(["all objectives (goodput)", side.label, _part(side.good, len(side.judged))])
    return by_side("Share of requests that met each objective; errors meet none", ("", "side", "met by"), rows)


def _part(count: int, of: int) -> str:
    return f"{share(count / of)} ({count:,} of {of:,})" if of else NONE


def caches(sides: Sequence[Measured]) -> Table:
    """Answers from the gateway's cache (header x-cache), and prompt tokens from the engines' prefix caches."""
    rows: list[list[str]] = []
    for side in sides:
        for name in side.scenarios:
            part = side.of(name)
            hits = [request for request in part.answered if request.cache.startswith("hit")]
            reported = sum(bool(request.cache) for request in part.answered)
            cached = sum(request.cached_tokens for request in part.answered)
            prompt = sum(request.input_tokens for request in part.answered)
            if not (hits or cached):
                continue
            others = [request for request in part.answered if not request.cache.startswith("hit")]
            rows.append(
                [
                    name,
                    side.label,
                    _part(len(hits), reported),
                    _median_answer(hits),
                    _median_answer(others),
                    share(cached / prompt) if prompt else NONE,
                ]
            )
    head = ("scenario", "side", "from the cache", "first answer, p50, hits", "others", "prompt tokens cached")
    return by_side("Answers from the gateway's cache, and prompt tokens from the engines' prefix caches", head, rows)


def _median_answer(requests: Iterable[Request]) -> str:
    return ms(quantile(sorted(request.answer_ms for request in requests), 0.5))


def costs(runs: Sequence[tuple[str, Results]]) -> Table:
    """The cost of the traffic, and the drift of the price per token."""
    rows: list[list[str]] = []
    for label, results in runs:
        total = summary.cost(results)
        if not total:
            continue
        answered = [r for r in results.requests if r.is_ok and r.target == MAIN]
        token_count = summary.tokens(answered)
        drift = summary.cost_drift(results)
        rows.append(
            [
                label,
                dollars(total),
                dollars(1000 * total / len(answered)) if answered else NONE,
                dollars(1e6 * total / token_count) if token_count else NONE,
                NONE if drift is None else f"{drift * 100:+.3g} %",
            ]
        )
    head = ("", "total", "per 1,000 answers", "per 1,000,000 tokens", "second half vs first")
    return Table("Cost of the traffic, as counted by the gateway", head, rows)


def counted_tokens(results: Results) -> str:
    """Compare the gateway's token count with the client's; "" without gateway metrics."""
    points = summary.metric(results, "quarterdeck_tokens")
    if len(points) < 2:
        return ""
    mine = summary.tokens(r for r in results.requests if r.target == MAIN)
    return (
        f"The gateway counted {summary.rise(points):,.0f} tokens during the run; the usage in the answers sums to"
        f" {mine:,}. The difference comes from disconnected clients, and from the first and the last second."
    )


def verdicts(judged: Sequence[Verdict]) -> Table:
    """Budget verdicts: exceeded ones, then kept ones, then those that were not checked."""
    order = {"broken": 0, "kept": 1, "not judged": 2}
    ordered = sorted(budgets.joined(judged), key=lambda verdict: order[verdict.outcome])
    rows = [[v.name, OUTCOMES[v.outcome], v.text] for v in ordered]
    head = ("budget", "verdict", "reason")
    return Table(
        "Budgets (reasons: loadtests/budgets.yaml; for a soak docs/loadtests.md)",
        head,
        rows,
        ALL_WORDS,
        kinds={OUTCOMES["broken"]: "bad", OUTCOMES["kept"]: "good", OUTCOMES["not judged"]: "soft"},
    )


def lag(sides: Sequence[Measured]) -> Table:
    """The client's lag and the measured latencies."""
    rows: list[list[str]] = []
    for side in sides:
        late = summary.lag(side)
        if late:
            cells = (late.p50, late.p99, late.answer_p50, late.answer_p99)
            rows.append([f"client of {side.label}", *(ms(value) for value in cells), share(late.share)])
    head = ("", "lag, p50", "lag, p99", "first answer, p50", "first answer, p99", "client's share, at most")
    return Table("The client's lag and the measured latencies", head, rows)


def differences(a: Results, b: Results) -> Table:
    """Differences in the setup of two runs, any of which may explain a ratio."""
    rows = []
    left, right = (dict(_flat("", results.run.about)) for results in (a, b))
    for name in sorted(left.keys() | right.keys()):
        if name.partition(".")[0] in ("started", "ended", "notes", "baseline"):
            continue
        if left.get(name) != right.get(name):
            rows.append([name, left.get(name, NONE), right.get(name, NONE)])
    return Table("Differences", ("", "A", "B"), rows, ALL_WORDS)


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
