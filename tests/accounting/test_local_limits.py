"""Without Redis a share of every limit is admitted; requests that need a budget are not."""

from hypothesis import given
from hypothesis import strategies as st
from tests.accounting.spending import ORG, a_scope

from quarterdeck.accounting.local_limits import MAX_BUCKETS, LocalLimits
from quarterdeck.accounting.scopes import Scope, ScopeSet
from quarterdeck.settings.limits import Limits


def counted(**limits: int) -> ScopeSet:
    return ScopeSet(ORG, (Scope("key:key_1", Limits(**limits)),))


def test_what_is_not_limited_passes() -> None:
    assert LocalLimits().take(ScopeSet(ORG), 10**9, 10**9, share=0.1, now=0).refused is None


def test_a_share_of_the_requests_passes_and_fills_again() -> None:
    subject, scope_set = LocalLimits(), counted(requests_per_minute=100)
    taken = [subject.take(scope_set, 10, 0, share=0.1, now=5).refused for _ in range(11)]
    assert taken == [None] * 10 + ["requests"]
    refused = subject.take(scope_set, 10, 0, share=0.1, now=5)
    assert (refused.scope, refused.retry_after_ms) == ("key:key_1", 6000)
    assert subject.take(scope_set, 10, 0, share=0.1, now=11).refused is None


def test_tokens_that_were_not_used_come_back() -> None:
    subject, scope_set = LocalLimits(), counted(tokens_per_minute=1000)
    assert subject.take(scope_set, 80, 0, share=0.1, now=0).refused is None
    assert subject.take(scope_set, 80, 0, share=0.1, now=0).refused == "tokens"
    subject.give_back(scope_set, 60)
    assert subject.take(scope_set, 80, 0, share=0.1, now=0).refused is None


def test_places_are_shared_and_at_least_one() -> None:
    subject, scope_set = LocalLimits(), counted(concurrent_requests=3)
    assert subject.take(scope_set, 1, 0, share=0.1, now=0).refused is None
    assert subject.take(scope_set, 1, 0, share=0.1, now=0).refused == "concurrent"
    subject.give_back(scope_set, 0)
    assert subject.take(scope_set, 1, 0, share=0.1, now=0).refused is None


def test_a_request_that_is_larger_than_the_share_runs_when_the_bucket_is_full() -> None:
    subject, scope_set = LocalLimits(), counted(tokens_per_minute=100)
    assert subject.take(scope_set, 5000, 0, share=0.1, now=0).refused is None
    assert subject.take(scope_set, 1, 0, share=0.1, now=60).refused == "tokens"


def test_a_budget_that_denies_refuses_what_costs_and_one_that_warns_does_not() -> None:
    hard, soft = a_scope("key:a", 1000), a_scope("team:t", 1000, warns=True)
    subject = LocalLimits()
    assert subject.take(ScopeSet(ORG, (hard,)), 1, 1, share=0.1, now=0).refused == "cold"
    assert subject.take(ScopeSet(ORG, (hard,)), 1, 0, share=0.1, now=0).refused is None
    assert subject.take(ScopeSet(ORG, (soft,)), 1, 1, share=0.1, now=0).refused is None


def test_where_one_scope_refuses_no_other_gives() -> None:
    tight = Scope("org", Limits(requests_per_minute=10))
    own = Scope("key:a", Limits(requests_per_minute=100))
    subject = LocalLimits()
    assert subject.take(ScopeSet(ORG, (own, tight)), 1, 0, share=0.1, now=0).refused is None
    for _ in range(20):
        assert subject.take(ScopeSet(ORG, (own, tight)), 1, 0, share=0.1, now=0).scope == "org"
    assert subject.take(ScopeSet(ORG, (own,)), 1, 0, share=0.1, now=0).refused is None


def test_ten_thousand_keys_are_not_kept_for_ever() -> None:
    subject = LocalLimits()
    for n in range(2 * MAX_BUCKETS + 5):
        scope = Scope(f"key:{n}", Limits(requests_per_minute=10))
        subject.take(ScopeSet(ORG, (scope,)), 1, 0, share=0.1, now=n)
        subject.give_back(ScopeSet(ORG, (scope,)), 0)
    assert len(subject._buckets) <= MAX_BUCKETS


@given(st.lists(st.tuples(st.floats(0, 10), st.integers(1, 500)), max_size=80), st.integers(1, 2000))
def test_no_more_than_the_share_and_what_it_fills_by_passes(asked: list[tuple[float, int]], limit: int) -> None:
    subject, scope_set, now, passed = LocalLimits(), counted(tokens_per_minute=limit), 0.0, 0
    share = max(1.0, limit * 0.1)
    largest = 0
    for wait, tokens in asked:
        now += wait
        if subject.take(scope_set, tokens, 0, share=0.1, now=now).refused is None:
            passed, largest = passed + tokens, max(largest, tokens)
    assert passed <= share + share * now / 60 + largest + 1e-6
