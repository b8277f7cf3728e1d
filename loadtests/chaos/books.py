"""The client's own books beside the ledger and the traces: rows, tokens, dollars, request by request. Pure.

Each complaint is a line for a person; an empty list is what a soak wants.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal

from loadtests.chaos.platform import PRICES
from loadtests.chaos.traffic import Asked
from tests.faults.books import NO_RECORD

from quarterdeck.record import RequestRecord

REFUSED = NO_RECORD | {"insufficient_quota", "request_timeout"}
"""Codes of requests that were never admitted: no row."""
COUNTED = frozenset({"engine", "counted", "estimated"})
KNOWN_PRICES = tuple(tuple(Decimal(price[kind]) for kind in ("input", "cached_input", "output")) for price in PRICES)


@dataclass
class Books:
    """What the comparison found. Tokens and dollars are those of answers that told their usage."""

    asked: int = 0
    rows: int = 0
    tokens_told: int = 0
    tokens_booked: int = 0
    dollars_told: Decimal = Decimal(0)
    dollars_booked: Decimal = Decimal(0)
    ledger_total: Decimal = Decimal(0)
    """Of every row."""
    traces_total: Decimal = Decimal(0)
    complaints: list[str] = field(default_factory=list)


class Auditor:
    """Takes the ledger's rows page by page: only what is needed of each is kept."""

    def __init__(self, asked: Iterable[Asked]) -> None:
        self.books = Books()
        self._waiting = {entry.tag: entry for entry in asked}
        self._tags = {entry.request_id: entry.tag for entry in self._waiting.values() if entry.request_id}
        self.books.asked = len(self._waiting)
        self._costs: dict[str, Decimal] = {}

    def take(self, rows: Sequence[RequestRecord]) -> None:
        """Rows of the ledger, each once."""
        books = self.books
        for row in rows:
            books.rows += 1
            books.ledger_total += row.cost
            self._costs[row.trace_id] = row.cost
            # What is known of a lost request is its reservation, and that has no `user`.
            entry = self._waiting.pop(row.user or self._tags.get(row.id, ""), None)
            if entry is None:
                books.complaints.append(f"ledger: row {row.id} ({row.user}) is nobody's, or a second one")
                continue
            if told := disagreement(entry, row):
                books.complaints.append(f"ledger: {entry}; its row {row.id} ({row.status}): {told}")
            if entry.outcome == "ok" and entry.usage is not None and not entry.is_hit:
                prompt, _, completion = entry.usage
                books.tokens_told += prompt + completion
                books.tokens_booked += row.input_tokens + row.output_tokens
                books.dollars_told += price(entry.usage, (row.price_input, row.price_cached, row.price_output))
                books.dollars_booked += row.cost

    def close(self, traces: Mapping[str, Decimal]) -> Books:
        """All rows were taken: who has none, and whether the traces say the same."""
        for entry in self._waiting.values():
            if not may_have_no_row(entry):
                self.books.complaints.append(f"ledger: {entry} has no row")
        self.books.traces_total = sum(traces.values(), Decimal(0))
        for trace, cost in self._costs.items():
            if trace not in traces:
                self.books.complaints.append(f"traces: the row {trace} has none")
            elif traces[trace] != cost:
                self.books.complaints.append(f"traces: {trace} costs {traces[trace]}, its row {cost}")
        strangers = traces.keys() - self._costs.keys()
        self.books.complaints += [f"traces: {trace} has no row" for trace in sorted(strangers)]
        return self.books


def may_have_no_row(entry: Asked) -> bool:
    """Refused before it was admitted, or broken off before anybody answered."""
    return entry.code in REFUSED or (entry.status == 0 and entry.outcome != "ok")


def disagreement(entry: Asked, row: RequestRecord) -> str | None:
    """What an answer and its row say differently. None: nothing."""
    if entry.code in REFUSED and entry.status != 200:  # in a stream it was admitted, and told so later
        return "it was refused, and has a row"
    if entry.request_id and row.id != entry.request_id:
        return f"another id: {row.id}"
    if (row.operation, row.model, row.stream) != (entry.operation, entry.model, entry.is_stream):
        return f"another question: {row.operation}, {row.model}"
    counts = (row.input_tokens, row.cached_tokens, row.output_tokens)
    prices = (row.price_input, row.price_cached, row.price_output)
    if prices not in KNOWN_PRICES and any(prices):
        return f"at prices that nobody set: {prices}"
    if row.cost != price(counts, prices):
        return f"{counts} tokens at {prices} do not cost {row.cost}"
    if entry.outcome == "ok":
        return _of_an_answer(entry, row, counts)
    if entry.outcome == "left":
        return None if row.status in ("cancelled", "ok") else "its caller hung up"
    if entry.status == 0:
        return None if row.status in ("lost", "cancelled", "ok", "error") else "its connection broke"
    if (row.status, row.http_status, row.error_code) != ("error", entry.status, entry.code):
        return f"{row.http_status} {row.error_code}"
    return None


def _of_an_answer(entry: Asked, row: RequestRecord, counts: tuple[int, int, int]) -> str | None:
    if (row.status, row.http_status) != ("ok", 200):
        return f"{row.http_status} {row.error_code}"
    if entry.is_hit:
        return None if row.cache == "hit" and not row.cost and not any(counts) else "a hit costs nothing"
    if entry.usage is not None:
        return None if counts == entry.usage else f"{counts} tokens, and the answer told {entry.usage}"
    if row.usage_source not in COUNTED or not row.input_tokens:
        return f"nobody counted ({row.usage_source})"
    return None


def price(counts: tuple[int, int, int], prices: tuple[Decimal, Decimal, Decimal]) -> Decimal:
    """Of prompt (cached tokens included), cached and completion tokens, at $ per 10⁶."""
    prompt, cached, completion = counts
    amounts = (prompt - cached, cached, completion)
    return sum((count * each for count, each in zip(amounts, prices, strict=True)), Decimal(0)) / 1_000_000
