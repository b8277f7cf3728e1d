"""What a refused caller reads: the limit as it is configured, and why a budget has no room."""

import pytest
from tests.accounting.spending import ORG, a_scope, reserve, trust

from quarterdeck.accounting.admission import Admission
from quarterdeck.accounting.local_limits import LocalLimits
from quarterdeck.accounting.refusals import refusal_of
from quarterdeck.accounting.scopes import Scope, ScopeSet
from quarterdeck.net.redis import Redis
from quarterdeck.settings.limits import Limits


@pytest.mark.parametrize(
    ("left", "held", "asked", "text", "retry"),
    [
        (0, 0, 880_000, "the budget of this API key is exhausted. Please contact your administrator.", False),
        (
            *(500_000, 0, 880_000),
            "this request may cost up to $0.88, and the budget of this API key has $0.50 left. "
            "Please ask for fewer output tokens, or contact your administrator.",
            False,
        ),
        (
            *(0, 1_000_000, 20_000),
            "this request may cost up to $0.02, and the budget of this API key has $0.00 left while $1.00 is held for "
            "requests in flight. Please retry when they have ended, or ask for fewer output tokens.",
            True,
        ),
        (
            *(1, 9, 5_000_000),
            "this request may cost up to $5.00, and the budget of this API key has $0.000001 left while $0.000009 is "
            "held for requests in flight. Please ask for fewer output tokens, or contact your administrator.",
            False,
        ),
    ],
)
def test_a_budget_is_exhausted_only_if_it_is_spent(left: int, held: int, asked: int, text: str, retry: bool) -> None:
    error = refusal_of(Admission("money", 0, "key:k", money_left=left, money_held=held), asked=asked)
    assert error.message == f"You exceeded your current quota: {text}"
    assert (error.status, error.code) == (429, "insufficient_quota")
    assert (error.headers["x-should-retry"], error.retry_after) == (("true", 1) if retry else ("false", None))


async def test_redis_says_what_is_held_and_what_is_spent(redis: Redis) -> None:
    scope = a_scope("key:k", 1000)
    for spent, held, left, in_flight in ((0, 900, 100, 900), (950, 0, 50, 0), (950, 200, 0, 50), (1100, 300, 0, 0)):
        await trust(redis, scope, spent=spent, held=held)
        _, refused = await reserve(redis, [scope], 500)
        assert (refused.refused, refused.money_left, refused.money_held) == ("money", left, in_flight)


@pytest.mark.parametrize(
    ("limits", "text"),
    [
        (Limits(requests_per_minute=50), "50 requests per minute, of which 5 are granted"),
        (Limits(tokens_per_minute=50), "50 tokens per minute, of which 5 are granted"),
        (Limits(concurrent_requests=50), "50 concurrent requests, of which 5 are granted"),
    ],
)
def test_without_redis_the_limit_is_the_configured_one(limits: Limits, text: str) -> None:
    subject, scope_set = LocalLimits(), ScopeSet(ORG, (Scope("key:k", limits),))
    for _ in range(6):
        answer = subject.take(scope_set, 1, 0, share=0.1, now=0)
    error = refusal_of(answer)
    assert f"{text} while the limiter is unavailable" in error.message
    name = "requests" if limits.requests_per_minute else "tokens"
    if limits.concurrent_requests is None:
        assert error.headers[f"x-ratelimit-limit-{name}"] == "50"


def test_a_whole_share_is_not_explained() -> None:
    subject, scope_set = LocalLimits(), ScopeSet(ORG, (Scope("key:k", Limits(requests_per_minute=1)),))
    subject.take(scope_set, 1, 0, share=0.1, now=0)
    assert "1 requests per minute. Please" in refusal_of(subject.take(scope_set, 1, 0, share=0.1, now=0)).message
