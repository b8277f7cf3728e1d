"""What is asked of each model, for who scales models and judges canaries: the operator.

Counters since this gateway's start, by model as the configuration names it, so that a canary's revisions are apart.
Records are counted in batches, as metrics are; nothing is counted per request or token besides.
"""

import asyncio
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Mapping
from itertools import accumulate
from typing import Any

import msgspec

from quarterdeck.inference.endpoints.endpoint import Endpoints
from quarterdeck.record import Attempt, RequestRecord
from quarterdeck.telemetry.metrics import TTFT_BUCKETS

BATCH = 64
MAX_MODELS = 2000
"""Names that are counted; far more than a configuration holds at once. The one that was added first gives way."""
MAX_WAIT_SECONDS = 30.0
REFUSED_SECONDS = 15.0
"""How long a request that was refused because its model has no replica counts as waiting: its client comes again after
the Retry-After of 5 s, and finds a replica that starts."""
DRAIN_CHECK_SECONDS = 0.5
BUCKETS = TTFT_BUCKETS
_NO_FAILURE = frozenset({None, "cancelled", "nothing_left", "resume_diverged"})
"""Ends of attempts that say nothing against the endpoint."""


class ModelCounts(msgspec.Struct):
    """Of one model since the start."""

    requests: int = 0
    """Finished requests that it answered, or that none answered."""
    errors: int = 0
    """Those that failed by the platform's fault: 5xx, and streams that broke off."""
    attempts: int = 0
    """Calls to its endpoints."""
    failures: int = 0
    """Calls that failed, also where another endpoint or model answered then."""
    ttft: list[int] = msgspec.field(default_factory=lambda: [0] * (len(BUCKETS) + 1))
    """Streams by the seconds from the call of the endpoint to its first token."""
    ttft_sum: float = 0.0


class Demand:
    """Counts finished requests (`observe`) and reports what is in progress. Belongs to one event loop."""

    def __init__(
        self,
        endpoints: Endpoints,
        waiting: Callable[[], Mapping[str, int]],
        is_draining: Callable[[], bool],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`waiting`: requests held at the gateway, by model."""
        self._endpoints = endpoints
        self._waiting = waiting
        self._is_draining = is_draining
        self._clock = clock
        self._records: list[RequestRecord] = []
        self._counts: dict[str, ModelCounts] = {}
        self._refused: dict[str, float] = {}
        """The time of the last refusal, by model."""
        self.version = 1
        self._news = asyncio.Event()

    def observe(self, record: RequestRecord) -> None:
        """Count a finished request, in batches."""
        self._records.append(record)
        if len(self._records) >= BATCH:
            self._flush()

    def announce(self, model: str) -> None:
        """A request has begun to wait for a model without endpoints: reports that are waited for are made now."""
        self.version += 1
        self._news.set()

    def refuse(self, model: str) -> None:
        """A request was refused because its model has no endpoint (yet). It counts as one that waits for a while."""
        is_news = model not in self._still_refused()
        if is_news and len(self._refused) >= MAX_MODELS:
            return
        self._refused[model] = self._clock()
        if is_news:
            self.announce(model)

    def _still_refused(self) -> dict[str, float]:
        since = self._clock() - REFUSED_SECONDS
        self._refused = {model: at for model, at in self._refused.items() if at > since}
        return self._refused

    async def changed(self, after: int, seconds: float) -> None:
        """Wait until `version` is greater than `after`, for so long at most; not while the gateway drains."""
        loop = asyncio.get_running_loop()
        until = loop.time() + min(seconds, MAX_WAIT_SECONDS)
        while self.version <= after and not self._is_draining() and (left := until - loop.time()) > 0:
            self._news.clear()
            try:
                async with asyncio.timeout(min(left, DRAIN_CHECK_SECONDS)):
                    await self._news.wait()
            except TimeoutError:
                continue

    def report(self) -> dict[str, Any]:
        """The answer to `GET /demand`. A model that nothing was asked of may be absent."""
        self._flush()
        in_flight: Counter[str] = Counter()
        for endpoint in self._endpoints.all():
            if endpoint.load.requests:
                in_flight[endpoint.spec.model] += endpoint.load.requests
        waiting = dict(self._waiting())
        for name in self._still_refused():
            waiting[name] = waiting.get(name, 0) or 1
        models = {}
        for name in {**self._counts, **in_flight, **waiting}:
            found = self._counts.get(name) or ModelCounts()
            models[name] = {
                "in_flight": in_flight[name],
                "waiting": waiting.get(name, 0),
                "requests": found.requests,
                "errors": found.errors,
                "attempts": found.attempts,
                "failures": found.failures,
                "ttft_ms": {
                    "count": sum(found.ttft),
                    "sum": round(found.ttft_sum * 1000, 3),
                    "buckets": [
                        [round(bound * 1000, 3), count]
                        for bound, count in zip(BUCKETS, accumulate(found.ttft), strict=False)
                    ],
                },
            }
        return {"version": self.version, "draining": self._is_draining(), "models": models}

    def _flush(self) -> None:
        records, self._records = self._records, []
        for record in records:
            counts = self._of(record.model)
            counts.requests += 1
            counts.errors += _is_platform_error(record)
            for attempt in record.attempts:
                target = self._of(attempt.model or record.model)
                target.attempts += 1
                target.failures += _is_failure(attempt)
            if record.stream and record.first_token is not None and (seconds := _ttft(record)) is not None:
                counts.ttft[bisect_left(BUCKETS, seconds)] += 1
                counts.ttft_sum += seconds

    def _of(self, model: str) -> ModelCounts:
        if (found := self._counts.get(model)) is None:
            if len(self._counts) >= MAX_MODELS:
                del self._counts[next(iter(self._counts))]
            found = self._counts[model] = ModelCounts()
        return found


def _is_platform_error(record: RequestRecord) -> bool:
    return record.status == "error" and (record.http_status >= 500 or record.http_status == 200)


def _is_failure(attempt: Attempt) -> bool:
    """An endpoint that is full, or finds a mistake of the caller's, works."""
    return attempt.error not in _NO_FAILURE and not 400 <= attempt.status < 500


def _ttft(record: RequestRecord) -> float | None:
    """Seconds from the call of the endpoint that gave the first token. None: no call did, as for a cached answer."""
    first = record.first_token
    assert first is not None  # noqa: S101  # checked by the caller
    started = [attempt.started for attempt in record.attempts if attempt.started <= first]
    return first - started[-1] if started else None
