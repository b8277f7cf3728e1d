"""Compares the platform's ledger with the usage that the answers reported.

Only for the platform on this machine, whose ledger is in its state folder (SQLite). The file is opened read-only:
`load` does not depend on `store`.
"""

import json
import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

from quarterdeck.load.analysis.results import Request

SETTLE_SECONDS = 15.0
"""How long to wait for the worker to write the last rows."""
_CHUNK = 500
_QUERY = """SELECT id, input_tokens, cached_tokens, output_tokens, price_input, price_cached, price_output, cost
FROM ledger WHERE id IN ({marks})"""


@dataclass(frozen=True, slots=True)
class LedgerRow:
    """A request in the ledger: its tokens, prices per million tokens, and cost in dollars."""

    input: int
    cached: int
    output: int
    prices: tuple[Decimal, Decimal, Decimal]
    cost: Decimal


@dataclass(frozen=True, slots=True)
class LedgerComparison:
    """The result of comparing answers with the ledger."""

    requests: int
    missing: int
    """Answered requests that are not in the ledger."""
    tokens: int
    """Sum of the usage in the answers."""
    ledger_tokens: int
    cost: Decimal
    """That usage at the prices in the ledger's rows."""
    ledger_cost: Decimal

    @property
    def drift(self) -> float:
        """The largest relative error among missing rows, tokens and dollars. 0: the ledger is right."""
        shares = [self.missing / self.requests if self.requests else 0.0]
        for expected, booked in ((self.tokens, self.ledger_tokens), (self.cost, self.ledger_cost)):
            if expected:
                shares.append(abs(float(booked) / float(expected) - 1))
        return max(shares)

    def about(self) -> dict[str, float | int]:
        """The value stored in run.json."""
        return {
            "requests": self.requests,
            "missing": self.missing,
            "tokens": self.tokens,
            "ledger_tokens": self.ledger_tokens,
            "cost": float(self.cost),
            "ledger_cost": float(self.ledger_cost),
            "drift": self.drift,
        }

    def line(self) -> str:
        """One line for the terminal and the report."""
        found = self.requests - self.missing
        dollars = f", ${float(self.ledger_cost):.6f} of ${float(self.cost):.6f}" if self.cost else ""
        tokens = f"{self.ledger_tokens:,} of {self.tokens:,} tokens"
        return (
            f"Ledger: {found:,} of {self.requests:,} answers, {tokens}{dollars}; drift {self.drift:.3%}."
            " (Answers of the warm-up included.)"
        )


def compare(requests: Sequence[Request], rows: Mapping[str, LedgerRow]) -> LedgerComparison:
    """Compare answered requests with their rows. Pure."""
    answered = [request for request in requests if request.is_ok and request.request_id]
    tokens = booked_tokens = missing = 0
    cost = booked = Decimal(0)
    for request in answered:
        tokens += request.input_tokens + request.output_tokens
        row = rows.get(request.request_id)
        if row is None:
            missing += 1
            continue
        uncached = request.input_tokens - request.cached_tokens
        counts = (uncached, request.cached_tokens, request.output_tokens)
        expected = sum((count * price for count, price in zip(counts, row.prices, strict=True)), Decimal(0)) / 1_000_000
        booked_tokens += row.input + row.output
        booked += row.cost
        # A cache hit costs nothing regardless of its tokens.
        cost += row.cost if request.cache.startswith("hit") else expected
    return LedgerComparison(len(answered), missing, tokens, booked_tokens, cost, booked)


def read(
    state: Path, requests: Sequence[Request], sleep: Callable[[float], None] = time.sleep
) -> LedgerComparison | None:
    """Wait up to SETTLE_SECONDS for missing rows, then compare. None: there is no readable ledger here."""
    file = state / "quarterdeck.db"
    ids = [request.request_id for request in requests if request.is_ok and request.request_id]
    if not ids or not file.is_file():
        return None
    deadline = time.monotonic() + SETTLE_SECONDS
    try:
        rows = _rows(file, ids)
        while len(rows) < len(ids) and time.monotonic() < deadline:
            sleep(0.5)
            rows = _rows(file, ids)
    except sqlite3.Error:
        return None
    return compare(requests, rows)


def write(folder: Path, comparison: LedgerComparison) -> None:
    """Add the comparison to run.json."""
    file = folder / "run.json"
    about = json.loads(file.read_text(encoding="utf-8"))
    about |= {"ledger": comparison.about(), "notes": [*about["notes"], comparison.line()]}
    fresh = file.with_suffix(".tmp")
    fresh.write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
    fresh.replace(file)


def _rows(file: Path, ids: Sequence[str]) -> dict[str, LedgerRow]:
    found: dict[str, LedgerRow] = {}
    connection = sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True, timeout=10)
    try:
        for start in range(0, len(ids), _CHUNK):
            part = ids[start : start + _CHUNK]
            query = _QUERY.format(marks=",".join("?" * len(part)))
            for row in connection.execute(query, part):
                prices = (Decimal(row[4]), Decimal(row[5]), Decimal(row[6]))
                found[row[0]] = LedgerRow(row[1], row[2], row[3], prices, Decimal(row[7]))
    finally:
        connection.close()
    return found
