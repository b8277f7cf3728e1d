"""Verifies a benchmark: every response is 200, every request has a row, a trace and the correct price.

Otherwise losing rows would make a gateway look faster.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

from arms import PRICE_INPUT, PRICE_OUTPUT, Platform, fetch, series

from quarterdeck.store.usage import Usage

_MILLION = Decimal(1_000_000)


@dataclass(frozen=True)
class Proof:
    """The result; `problems` is empty if all counts agree."""

    answered: int
    """Responses counted by the drivers."""
    recorded: int
    """Requests counted by the gateways."""
    rows: int
    traces: int
    ok: int
    cancelled: int
    """Requests in flight when a driver stopped."""
    cost: str
    hits: int
    problems: tuple[str, ...]

    def __str__(self) -> str:
        text = (
            f"{self.answered:,} answers seen by the drivers, {self.recorded:,} requests counted by the gateway, "
            f"{self.rows:,} ledger rows ({self.ok:,} ok, {self.cancelled:,} cancelled as a driver stopped), "
            f"{self.traces:,} traces, ${self.cost} = tokens × price"
        )
        return text + ("" if not self.problems else "; WRONG: " + "; ".join(self.problems))


def prove(platform: Platform, *, answered: int, errors: int, most_cancelled: int) -> Proof:
    """Drain, then compare. `most_cancelled`: a driver stops with one request in flight per connection."""
    platform.drain()
    usages = platform.ledger()
    pages = [fetch(f"http://127.0.0.1:{gateway.port}/metrics") for gateway in platform.gateways]
    hits = int(sum(_hits(page) for page in pages))
    spans = platform.spans()
    return judge(
        usages,
        answered=answered,
        errors=errors,
        most_cancelled=most_cancelled,
        recorded=platform.recorded(),
        spans=spans["spans"],
        traces=spans["traces"],
        hits=hits,
    )


def judge(
    usages: Sequence[Usage],
    *,
    answered: int,
    errors: int,
    most_cancelled: int,
    recorded: int,
    spans: int,
    traces: int,
    hits: int,
) -> Proof:
    """Compare the counts. Pure."""
    by_status = {usage.group[0]: usage.requests for usage in usages}
    rows, ok, cancelled = sum(by_status.values()), by_status.get("ok", 0), by_status.get("cancelled", 0)
    cost = sum((usage.cost for usage in usages), Decimal(0))
    owed = sum((_price(usage) for usage in usages), Decimal(0))
    claims = {
        f"{errors} answers were no 200": errors == 0,
        f"{rows} rows of {recorded} requests": rows == recorded,
        f"{traces} traces of {rows} rows": traces == rows,
        f"{spans} spans of {traces} traces": spans >= traces,
        f"{rows - ok - cancelled} rows are neither ok nor cancelled": rows == ok + cancelled,
        f"{ok} rows are ok, {answered} answers were seen": answered <= ok + cancelled <= answered + most_cancelled,
        f"${cost} booked, ${owed} owed": cost == owed,
        f"{hits} answers came from the cache": hits == 0,
    }
    problems = tuple(text for text, holds in claims.items() if not holds)
    return Proof(answered, recorded, rows, traces, ok, cancelled, f"{cost.normalize():f}", hits, problems)


def _price(usage: Usage) -> Decimal:
    uncached = usage.input_tokens - usage.cached_tokens
    return (uncached * Decimal(PRICE_INPUT) + usage.output_tokens * Decimal(PRICE_OUTPUT)) / _MILLION


def _hits(page: str) -> float:
    lines = [line for line in page.splitlines() if 'state="hit"' in line]
    return series("\n".join(lines), "quarterdeck_cache_requests_total")
