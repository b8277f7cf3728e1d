"""Whether the ledger says what the callers saw: every request once, its tokens, its status, its money."""

from collections import defaultdict
from collections.abc import Sequence
from decimal import Decimal

from tests.faults.asking import Answer
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
"""Codes of requests that were refused before they were admitted: they take nothing and leave no record."""


def check(
    answers: Sequence[Answer], rows: Sequence[RequestRecord], *, counters_fail: bool = False
) -> dict[str, RequestRecord]:
    """Raises AssertionError where they disagree. Returns the rows by the answers' tags.

    An answer that broke off (its gateway died) may have a row or, if the gateway never got to admit it, none; or one
    that knows little more than its key (it died before the first renewal), and costs nothing. Every other admitted one
    has exactly one row. `counters_fail`: the engine may fail when it is asked to count what it did not
    report; it is estimated then.
    """
    by_tag: dict[str, list[RequestRecord]] = defaultdict(list)
    for row in rows:
        by_tag[row.user or ""].append(row)
    found: dict[str, RequestRecord] = {}
    nameless, broken = by_tag.pop("", []), 0
    for answer in answers:
        its = by_tag.pop(answer.tag, [])
        if answer.error is not None and answer.error["code"] in NO_RECORD:
            assert not its, f"{answer} was refused, and has a row"
            continue
        if answer.outcome == "broken" and not its:
            broken += 1
            continue
        assert len(its) == 1, f"{answer} has {len(its)} rows"
        found[answer.tag] = its[0]
        if not (counters_fail and answer.outcome == "ok" and its[0].usage_source == "estimated"):
            _agree(answer, its[0])
    assert len(nameless) <= broken, f"more than broke off: {nameless}"
    assert all((row.status, row.input_tokens, row.output_tokens, row.cost) == ("lost", 0, 0, 0) for row in nameless)
    assert not by_tag, f"rows that nobody asked for: {sorted(by_tag)}"
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
    """What the row should cost by the file's prices."""
    uncached = row.input_tokens - row.cached_tokens
    amounts = {"input": uncached, "cached_input": row.cached_tokens, "output": row.output_tokens}
    return sum((Decimal(PRICE[kind]) * tokens for kind, tokens in amounts.items()), Decimal(0)) / 10**6
