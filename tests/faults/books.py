"""What each part of the platform says of the same requests: sums by team and model that must be equal.

The ledger's rows are the reference. Traces are read as Langfuse reads them, counters by a real Prometheus.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any, NamedTuple

import httpx
from tests.prometheus import Prometheus
from tests.telemetry.langfuse_oracle import Observation
from tests.telemetry.otlp_sink import ReceivedSpan

from quarterdeck.record import RequestRecord


class Sums(NamedTuple):
    requests: int = 0
    input: int = 0
    """With cached ones."""
    cached: int = 0
    output: int = 0
    cost: Decimal = Decimal(0)

    def plus(self, other: "Sums") -> "Sums":
        return Sums(*(mine + its for mine, its in zip(self, other, strict=True)))


Book = dict[tuple[str, str], Sums]
"""By team and model."""


def of_rows(rows: Iterable[RequestRecord]) -> Book:
    return _added(((r.team, r.model), Sums(1, r.input_tokens, r.cached_tokens, r.output_tokens, r.cost)) for r in rows)


def of_spans(spans: Mapping[str, ReceivedSpan]) -> Book:
    """`spans` by id. Of every trace one span is the request's and one the call's; no other has usage or cost."""
    found: list[tuple[tuple[str, str], Sums]] = []
    roots: Counter[str] = Counter()
    for span in spans.values():
        its = span.observation
        roots[span.trace_id] += span.parent_id is None
        if its.type in ("GENERATION", "EMBEDDING"):
            found.append(((its.metadata["team"], its.model or ""), _observed(its)))
        else:
            assert not its.usage and not its.cost, its
    assert set(roots.values()) <= {1}, [trace for trace, count in roots.items() if count != 1]
    assert len(found) == len(roots)
    return _added(found)


def _observed(its: Observation) -> Sums:
    cached = its.usage.get("input_cached_tokens", 0)
    output = its.usage.get("output", 0) + its.usage.get("output_reasoning_tokens", 0)
    made = Sums(1, its.usage.get("input", 0) + cached, cached, output, its.total_cost)
    assert its.total_usage == made.input + made.output, its
    return made


async def of_usage_api(admin: httpx.AsyncClient, start: int, **width: str | int) -> Book:
    """`/v1/organization/usage` and `/costs` from a Unix second on."""
    found: list[tuple[tuple[str, str], Sums]] = []
    for kind in ("completions", "embeddings"):
        asked = {"start_time": start, "group_by": ["project_id", "model"], **width}
        for row in await _buckets(admin, f"/v1/organization/usage/{kind}", asked):
            tokens = (row["input_tokens"], row.get("input_cached_tokens", 0), row.get("output_tokens", 0))
            found.append(((row["project_id"], row["model"]), Sums(row["num_model_requests"], *tokens)))
    asked = {"start_time": start, "group_by": ["project_id", "line_item"]}
    for row in await _buckets(admin, "/v1/organization/costs", asked):
        assert row["amount"]["currency"] == "usd"
        found.append(((row["project_id"], row["line_item"]), Sums(cost=Decimal(row["amount"]["value"]))))
    return _added(found)


async def _buckets(admin: httpx.AsyncClient, path: str, asked: Mapping[str, Any]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    page: str | None = None
    while True:
        body = await _get(admin, path, {**asked, **({"page": page} if page else {})})
        rows += [row for bucket in body["data"] for row in bucket["results"]]
        page = body["next_page"]
        if page is None:
            return rows


async def of_admin_usage(admin: httpx.AsyncClient, start: int) -> Book:
    body = await _get(admin, "/admin/usage", {"group_by": ["team", "model"], "start": start})
    return _added(
        (
            (row["team"], row["model"]),
            Sums(
                row["requests"], row["input_tokens"], row["cached_tokens"], row["output_tokens"], Decimal(row["cost"])
            ),
        )
        for row in body["data"]
    )


async def logged(admin: httpx.AsyncClient, **where: Any) -> list[dict[str, Any]]:
    """All pages of the request log."""
    rows: list[dict[str, Any]] = []
    after: dict[str, str] = {}
    while True:
        body = await _get(admin, "/admin/requests", {"limit": 100, **where, **after})
        rows += body["data"]
        if not body["has_more"]:
            return rows
        after = {"after": body["last_id"]}


async def _get(admin: httpx.AsyncClient, path: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
    response = await admin.get(path, params=dict(parameters), timeout=60)
    response.raise_for_status()
    body: dict[str, Any] = json.loads(response.text, parse_float=Decimal)
    return body


def of_counters(prometheus: Prometheus) -> dict[str, dict[tuple[str, ...], Decimal]]:
    """Counters of all gateways by name and labels; money to 10⁻⁶ $, as a float has it."""
    return {
        name: {
            tuple(series["metric"].get(label, "") for label in labels): round(Decimal(series["value"][1]), 6)
            for series in prometheus.query(f"sum by ({', '.join(labels)}) ({name}_total)")
            if Decimal(series["value"][1])
        }
        for name, labels in COUNTERS.items()
    }


COUNTERS: Mapping[str, tuple[str, ...]] = {
    "quarterdeck_requests": ("operation", "model", "status"),
    "quarterdeck_tokens": ("model", "kind"),
    "quarterdeck_cost_dollars": ("model",),
    "quarterdeck_team_requests": ("team", "status"),
    "quarterdeck_team_tokens": ("team", "kind"),
    "quarterdeck_team_cost_dollars": ("team",),
    "quarterdeck_prompt_requests": ("prompt", "version", "status"),
    "quarterdeck_prompt_cost_dollars": ("prompt", "version"),
    "quarterdeck_cache_requests": ("model", "state"),
    "quarterdeck_cache_saved_dollars": ("model",),
    "quarterdeck_cancelled_requests": ("model",),
    "quarterdeck_stream_resumes": ("model",),
    "quarterdeck_endpoint_attempts": ("endpoint", "outcome"),
}


def expected_counters(rows: Iterable[RequestRecord]) -> dict[str, dict[tuple[str, ...], Decimal]]:
    """What `of_counters` is for these rows."""
    found: dict[str, dict[tuple[str, ...], Decimal]] = {name: defaultdict(Decimal) for name in COUNTERS}

    def add(name: str, labels: tuple[str, ...], amount: Decimal | int = 1) -> None:
        found[f"quarterdeck_{name}"][labels] += amount

    for r in rows:
        add("requests", (r.operation, r.model, r.status))
        add("tokens", (r.model, "input"), r.input_tokens - r.cached_tokens)
        add("tokens", (r.model, "cached"), r.cached_tokens)
        add("tokens", (r.model, "output"), r.output_tokens)
        add("cost_dollars", (r.model,), r.cost)
        add("team_requests", (r.team, r.status))
        add("team_tokens", (r.team, "input"), r.input_tokens)
        add("team_tokens", (r.team, "output"), r.output_tokens)
        add("team_cost_dollars", (r.team,), r.cost)
        if r.prompt:
            add("prompt_requests", (r.prompt, r.prompt_version or "", r.status))
            add("prompt_cost_dollars", (r.prompt, r.prompt_version or ""), r.cost)
        if r.cache != "off":
            add("cache_requests", (r.model, r.cache))
        add("cache_saved_dollars", (r.model,), r.saved)
        add("cancelled_requests", (r.model,), r.status == "cancelled")
        add("stream_resumes", (r.model,), r.resumed)
        for attempt in r.attempts:
            add("endpoint_attempts", (attempt.endpoint, attempt.error or "ok"))
    return {name: {labels: round(n, 6) for labels, n in each.items() if n} for name, each in found.items()}


def _added(each: Iterable[tuple[tuple[str, str], Sums]]) -> Book:
    book: Book = {}
    for group, sums in each:
        book[group] = book.get(group, Sums()).plus(sums)
    return book
