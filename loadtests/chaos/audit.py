"""Compares the client's records with ledger and traces, request by request: rows, tokens, dollars. Pure.

Each complaint is one line; a correct run has none.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal

from loadtests.chaos.platform import PRICES
from loadtests.chaos.traffic import Attempt
from tests.faults.ledger_check import NO_RECORD

from quarterdeck.record import RequestRecord

REFUSED = NO_RECORD | {"insufficient_quota", "request_timeout"}
"""Error codes of requests that were not admitted and have no row."""
COUNTED = frozenset({"engine", "counted", "estimated"})
KNOWN_PRICES = tuple(tuple(Decimal(price[kind]) for kind in ("input", "cached_input", "output")) for price in PRICES)


@dataclass
class AuditResult:
    """The result of the comparison. Tokens and dollars cover answers that report usage."""

    attempts: int = 0
    rows: int = 0
    tokens_reported: int = 0
    tokens_booked: int = 0
    dollars_reported: Decimal = Decimal(0)
    dollars_booked: Decimal = Decimal(0)
    ledger_total: Decimal = Decimal(0)
    """Sum over all rows."""
    traces_total: Decimal = Decimal(0)
    complaints: list[str] = field(default_factory=list)


class Auditor:
    """Processes the ledger page by page and keeps only what is needed."""

    def __init__(self, attempts: Iterable[Attempt]) -> None:
        self.result = AuditResult()
        self._waiting = {attempt.tag: attempt for attempt in attempts}
        self._tags = {each.request_id: each.tag for each in self._waiting.values() if each.request_id}
        self.result.attempts = len(self._waiting)
        self._costs: dict[str, Decimal] = {}

    def add(self, rows: Sequence[RequestRecord]) -> None:
        """Add rows of the ledger, each once."""
        result = self.result
        for row in rows:
            result.rows += 1
            result.ledger_total += row.cost
            self._costs[row.trace_id] = row.cost
            # A lost request is known by its reservation, which has no `user`.
            entry = self._waiting.pop(row.user or self._tags.get(row.id, ""), None)
            if entry is None:
                result.complaints.append(f"ledger: row {row.id} ({row.user}) is unknown or a duplicate")
                continue
            if difference := disagreement(entry, row):
                result.complaints.append(f"ledger: {entry}; its row {row.id} ({row.status}): {difference}")
            if entry.outcome == "ok" and entry.usage is not None and not entry.is_cache_hit:
                prompt, _, completion = entry.usage
                result.tokens_reported += prompt + completion
                result.tokens_booked += row.input_tokens + row.output_tokens
                result.dollars_reported += price(entry.usage, (row.price_input, row.price_cached, row.price_output))
                result.dollars_booked += row.cost

    def close(self, traces: Mapping[str, Decimal]) -> AuditResult:
        """Check for attempts without a row, and compare the traces, after all rows."""
        for entry in self._waiting.values():
            if not may_have_no_row(entry):
                self.result.complaints.append(f"ledger: {entry} has no row")
        self.result.traces_total = sum(traces.values(), Decimal(0))
        for trace, cost in self._costs.items():
            if trace not in traces:
                self.result.complaints.append(f"traces: the row {trace} has no trace")
            elif traces[trace] != cost:
                self.result.complaints.append(f"traces: {trace} costs {traces[trace]}, its row {cost}")
        unknown = traces.keys() - self._costs.keys()
        self.result.complaints += [f"traces: {trace} has no row" for trace in sorted(unknown)]
        return self.result


def may_have_no_row(entry: Attempt) -> bool:
    """Whether it was rejected before admission, or lost its connection before a response."""
    return entry.code in REFUSED or (entry.status == 0 and entry.outcome != "ok")


def disagreement(entry: Attempt, row: RequestRecord) -> str | None:
    """The difference between an attempt and its row. None: they agree."""
    if entry.code in REFUSED and entry.status != 200:  # a stream was admitted before its error event
        return "rejected, but has a row"
    if entry.request_id and row.id != entry.request_id:
        return f"different id: {row.id}"
    if (row.operation, row.model, row.stream) != (entry.operation, entry.model, entry.is_stream):
        return f"different request: {row.operation}, {row.model}"
    counts = (row.input_tokens, row.cached_tokens, row.output_tokens)
    prices = (row.price_input, row.price_cached, row.price_output)
    if prices not in KNOWN_PRICES and any(prices):
        return f"unknown prices: {prices}"
    if row.cost != price(counts, prices):
        return f"{counts} tokens at {prices} do not cost {row.cost}"
    if entry.outcome == "ok":
        return _of_an_answer(entry, row, counts)
    if entry.outcome == "left":
        return None if row.status in ("cancelled", "ok") else "its client disconnected"
    if entry.status == 0:
        return None if row.status in ("lost", "cancelled", "ok", "error") else "its connection broke"
    if (row.status, row.http_status, row.error_code) != ("error", entry.status, entry.code):
        return f"{row.http_status} {row.error_code}"
    return None


def _of_an_answer(entry: Attempt, row: RequestRecord, counts: tuple[int, int, int]) -> str | None:
    if (row.status, row.http_status) != ("ok", 200):
        return f"{row.http_status} {row.error_code}"
    if entry.is_cache_hit:
        return None if row.cache == "hit" and not row.cost and not any(counts) else "a cache hit must cost nothing"
    if entry.usage is not None:
        return None if counts == entry.usage else f"{counts} tokens, but the answer reports {entry.usage}"
    if row.usage_source not in COUNTED or not row.input_tokens:
        return f"tokens were not counted ({row.usage_source})"
    return None


def price(counts: tuple[int, int, int], prices: tuple[Decimal, Decimal, Decimal]) -> Decimal:
    """Cost of prompt (including cached), cached and completion tokens at prices in $ per 10⁶."""
    prompt, cached, completion = counts
    amounts = (prompt - cached, cached, completion)
    return sum((count * each for count, each in zip(amounts, prices, strict=True)), Decimal(0)) / 1_000_000
