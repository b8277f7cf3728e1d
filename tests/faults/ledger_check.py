"""Compares the ledger with the answers: every request once, with its tokens, status and cost."""

from collections import defaultdict
from collections.abc import Sequence
from decimal import Decimal

from tests.faults.client import Answer
from tests.faults.stack import PRICE

from quarterdeck.record import RequestRecord

NO_RECORD = {
    "limits_unavailable",
    "auth_unavailable",
    "shutting_down",
    "overloaded",
    "rate_limit_exceeded",
    "invalid_api_key",
}
"""Error codes of requests rejected before admission, which leave no record."""


def check(
    answers: Sequence[Answer], rows: Sequence[RequestRecord], *, counters_fail: bool = False
) -> dict[str, RequestRecord]:
    """Assert that they agree. Returns the rows by the answers' tags.

    A broken answer (its gateway was killed) may have a row; or none, if it was not admitted; or one with little more
    than its key and no cost, if it was lost before the first renewal. Every other admitted request has exactly one row.
    `counters_fail`: the engine may fail to count unreported tokens, which are then estimated.
    """
    by_tag: dict[str, list[RequestRecord]] = defaultdict(list)
    for row in rows:
        by_tag[row.user or ""].append(row)
    found: dict[str, RequestRecord] = {}
    nameless, broken = by_tag.pop("", []), 0
    for answer in answers:
        its = by_tag.pop(answer.tag, [])
        if answer.error is not None and answer.error["code"] in NO_RECORD:
            assert not its, f"{answer} was rejected, but has a row"
            continue
        if answer.outcome == "broken" and not its:
            broken += 1
            continue
        assert len(its) == 1, f"{answer} has {len(its)} rows"
        found[answer.tag] = its[0]
        if not (counters_fail and answer.outcome == "ok" and its[0].usage_source == "estimated"):
            _agree(answer, its[0])
    assert len(nameless) <= broken, f"more rows than broken requests: {nameless}"
    assert all((row.status, row.input_tokens, row.output_tokens, row.cost) == ("lost", 0, 0, 0) for row in nameless)
    assert not by_tag, f"rows without a request: {sorted(by_tag)}"
    seen = [a for a in answers if a.usage is not None]
    used = sum(a.usage["total_tokens"] for a in seen if a.usage)
    assert used == sum(found[a.tag].input_tokens + found[a.tag].output_tokens for a in seen)
    return found


def _agree(answer: Answer, row: RequestRecord) -> None:
    told = f"{answer} and its row {row}"
    shape = answer.shape
    assert (row.operation, row.model, row.stream) == (shape.operation, answer.model, shape.stream), told
    assert row.cost == price_of(row), told
    if "x-request-id" in answer.headers:
        assert row.id == answer.headers["x-request-id"], told
    if answer.outcome == "ok":
        assert (row.status, row.http_status, row.error_code) == ("ok", 200, None), told
        assert row.finish_reason == answer.finish, told
        if answer.usage is not None:
            _agree_on_tokens(answer, row)
        else:
            assert row.usage_source in ("engine", "counted"), told
            assert row.output_tokens == (0 if shape.operation == "embeddings" else shape.max_tokens), told
            assert row.input_tokens > 0, told
    elif answer.outcome == "broken":
        assert row.status in ("lost", "cancelled", "ok"), told
    elif answer.status == 200:
        assert answer.error is not None
        assert (row.status, row.http_status, row.error_code) == ("error", 200, answer.error["code"]), told
        assert row.usage_source in ("counted", "estimated") and row.input_tokens > 0, told
        if row.usage_source == "counted":
            assert row.output_tokens == answer.pieces, told
    else:
        assert answer.error is not None
        code = answer.error["code"] or answer.error["type"]
        assert (row.status, row.http_status, row.error_code) == ("error", answer.status, code), told
        assert (row.usage_source, row.input_tokens, row.output_tokens) == ("none", 0, 0), told


def _agree_on_tokens(answer: Answer, row: RequestRecord) -> None:
    usage = answer.usage
    assert usage is not None
    details = usage.get("prompt_tokens_details") or {}
    seen = (usage["prompt_tokens"], details.get("cached_tokens") or 0, usage.get("completion_tokens") or 0)
    assert row.usage_source == "engine", row
    assert (row.input_tokens, row.cached_tokens, row.output_tokens) == seen, f"{answer} and its row {row}"


def price_of(row: RequestRecord) -> Decimal:
    """The expected cost of a row at the configured prices."""
    uncached = row.input_tokens - row.cached_tokens
    amounts = {"input": uncached, "cached_input": row.cached_tokens, "output": row.output_tokens}
    return sum((Decimal(PRICE[kind]) * tokens for kind, tokens in amounts.items()), Decimal(0)) / 10**6
