"""Admission while Redis is away: each gateway admits a share of every limit, from token buckets of its own.

A limit holds over n gateways as long as `redis_down_share` is at most 1/n and the share at least 1: each gateway grants
1 of every limit, so that no key is locked out. Money cannot be shared out like that, because what other gateways spend
meanwhile is unknown: a budget that denies refuses requests with a price, and one that warns admits. Pure: the clock is
an argument."""

from math import ceil

from quarterdeck.accounting.admission import Admission
from quarterdeck.accounting.scopes import ScopeSet, is_limited

MAX_BUCKETS = 10_000
"""Buckets kept. Beyond it, those that are full again and have no request in flight are dropped."""


class _LocalBucket:
    """What was left at `at` (seconds), and how many requests are in flight."""

    __slots__ = ("at", "requests", "running", "tokens")

    def __init__(self, at: float, requests: float, tokens: float) -> None:
        self.at, self.requests, self.tokens, self.running = at, requests, tokens, 0


class LocalLimits:
    """The buckets of one gateway."""

    def __init__(self) -> None:
        self._buckets: dict[tuple[str, str], _LocalBucket] = {}

    def take(self, scope_set: ScopeSet, tokens: int, money: int, *, share: float, now: float) -> Admission:
        """Admit or refuse a request. `give_back` must follow for each that is admitted."""
        taken = []
        for scope in scope_set.scopes:
            if scope.budget is not None and scope.budget.on_exhausted == "deny" and money:
                return Admission("cold", 0, scope.id)
            if not is_limited(scope.limits):
                continue
            limits = scope.limits
            requests = _share(limits.requests_per_minute, share)
            level = _share(limits.tokens_per_minute, share)
            bucket = self._bucket((scope_set.org, scope.id), requests, level, now)
            need = min(tokens, level)  # as in Redis: an estimate beyond the bucket may run when that is full
            places = _share(limits.concurrent_requests, share)
            if bucket.running >= places:
                most = limits.concurrent_requests or 0
                return Admission("concurrent", 0, scope.id, places=most, granted=int(places), retry_after_ms=1000)
            if bucket.requests < 1:
                wait = (1 - bucket.requests) * 60_000 / requests
                refused = Admission("requests", 0, scope.id, granted=int(requests), retry_after_ms=ceil(wait))
                refused.requests_limit = limits.requests_per_minute or 0
                return refused
            if bucket.tokens < need:
                wait = (need - bucket.tokens) * 60_000 / level
                refused = Admission("tokens", 0, scope.id, granted=int(level), retry_after_ms=ceil(wait))
                refused.tokens_limit = limits.tokens_per_minute or 0
                return refused
            taken.append(bucket)
        for bucket in taken:
            bucket.requests -= 1
            bucket.tokens -= tokens
            bucket.running += 1
        return Admission(None, 0)

    def give_back(self, scope_set: ScopeSet, unused: int) -> None:
        """A request admitted here is over and did not use so many of its tokens (negative: it used more)."""
        for scope in scope_set.scopes:
            bucket = self._buckets.get((scope_set.org, scope.id))
            if bucket is not None and bucket.running:
                bucket.tokens += unused
                bucket.running -= 1

    def _bucket(self, key: tuple[str, str], requests: float, tokens: float, now: float) -> _LocalBucket:
        """The bucket, refilled up to now."""
        bucket = self._buckets.get(key)
        if bucket is None:
            if len(self._buckets) >= MAX_BUCKETS:
                self._buckets = {k: b for k, b in self._buckets.items() if b.running or now - b.at < 60}
            bucket = self._buckets[key] = _LocalBucket(now, requests, tokens)
            return bucket
        minutes = max(0.0, now - bucket.at) / 60
        # Infinite where there is no limit: such a bucket stays full.
        bucket.requests = min(requests, bucket.requests + (requests * minutes if minutes else 0))
        bucket.tokens = min(tokens, bucket.tokens + (tokens * minutes if minutes else 0))
        bucket.at = now
        return bucket


def _share(limit: int | None, share: float) -> float:
    """At least one, so that no key is locked out."""
    return float("inf") if limit is None else max(1.0, limit * share)
