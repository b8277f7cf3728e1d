"""Whether the platform's books say what its clients were told: the ledger's rows beside the usage in the answers.

Only for the platform on this machine, whose ledger lies in its state folder (SQLite); elsewhere nothing can be read.
Opened read-only, and only here: the load door has no part in the store.
"""

import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

from quarterdeck.load.analysis.results import Request

SETTLE_SECONDS = 15.0
"""So long the worker may take to write the last rows."""
_CHUNK = 500
_QUERY = """SELECT id, input_tokens, cached_tokens, output_tokens, price_input, price_cached, price_output, cost
FROM ledger WHERE id IN ({marks})"""


@dataclass(frozen=True, slots=True)
class Entry:
    """A request as the ledger has it: its tokens, the prices of a million of them, its cost."""

    input: int
    cached: int
    output: int
    prices: tuple[Decimal, Decimal, Decimal]
    cost: Decimal


@dataclass(frozen=True, slots=True)
class Books:
    """What came of the comparison."""

    requests: int
    missing: int
    """Answered, and not in the ledger."""
    tokens: int
    """As the answers' usage told."""
    ledger_tokens: int
    cost: Decimal
    """The usage at the prices that stand in the rows."""
    ledger_cost: Decimal

    @property
    def drift(self) -> float:
        """The largest of three shares: rows missing, tokens off, dollars off. 0: the books are right."""
        shares = [self.missing / self.requests if self.requests else 0.0]
        for told, booked in ((self.tokens, self.ledger_tokens), (self.cost, self.ledger_cost)):
            if told:
                shares.append(abs(float(booked) / float(told) - 1))
        return max(shares)

    def about(self) -> dict[str, float | int]:
        """As run.json has it."""
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
        """For a person."""
        found = self.requests - self.missing
        dollars = f", ${float(self.ledger_cost):.6f} of ${float(self.cost):.6f}" if self.cost else ""
        tokens = f"{self.ledger_tokens:,} of {self.tokens:,} tokens"
        return f"Ledger: {found:,} of {self.requests:,} answers, {tokens}{dollars}; drift {self.drift:.3%}."


def compare(requests: Sequence[Request], entries: Mapping[str, Entry]) -> Books:
    """Answered requests beside their rows. Pure."""
    asked = [request for request in requests if request.is_ok and request.request_id]
    tokens = booked_tokens = missing = 0
    cost = booked = Decimal(0)
    for request in asked:
        tokens += request.input_tokens + request.output_tokens
        entry = entries.get(request.request_id)
        if entry is None:
            missing += 1
            continue
        uncached = request.input_tokens - request.cached_tokens
        counts = (uncached, request.cached_tokens, request.output_tokens)
        told = sum((count * price for count, price in zip(counts, entry.prices, strict=True)), Decimal(0)) / 1_000_000
        booked_tokens += entry.input + entry.output
        booked += entry.cost
        # A hit costs nothing whatever its tokens: what was not asked of an engine is nobody's drift.
        cost += entry.cost if request.cache.startswith("hit") else told
    return Books(len(asked), missing, tokens, booked_tokens, cost, booked)


def read(state: Path, requests: Sequence[Request], sleep: Callable[[float], None] = time.sleep) -> Books | None:
    """Wait until the worker has written what it will, and compare. None: there is no ledger that can be read here."""
    file = state / "quarterdeck.db"
    ids = [request.request_id for request in requests if request.is_ok and request.request_id]
    if not ids or not file.is_file():
        return None
    deadline = time.monotonic() + SETTLE_SECONDS
    try:
        entries = _entries(file, ids)
        while len(entries) < len(ids) and time.monotonic() < deadline:
            sleep(0.5)
            entries = _entries(file, ids)
    except sqlite3.Error:
        return None
    return compare(requests, entries)


def _entries(file: Path, ids: Sequence[str]) -> dict[str, Entry]:
    found: dict[str, Entry] = {}
    connection = sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True, timeout=10)
    try:
        for start in range(0, len(ids), _CHUNK):
            part = ids[start : start + _CHUNK]
            query = _QUERY.format(marks=",".join("?" * len(part)))
            for row in connection.execute(query, part):
                prices = (Decimal(row[4]), Decimal(row[5]), Decimal(row[6]))
                found[row[0]] = Entry(row[1], row[2], row[3], prices, Decimal(row[7]))
    finally:
        connection.close()
    return found
