"""What the engine counts."""

import time
from bisect import bisect_left
from collections.abc import Iterable

from quarterdeck.simulator.metrics import series


class BucketHistogram:
    """Counts by bucket, and a sum."""

    def __init__(self, buckets: tuple[float, ...]) -> None:
        self.bounds = buckets
        self.counts = [0.0] * (len(buckets) + 1)
        self.sum = 0.0

    def observe(self, value: float, times: int = 1) -> None:
        self.counts[bisect_left(self.bounds, value)] += times
        self.sum += value * times

    def preset(self, counts: Iterable[float]) -> None:
        """Set the counts, missing ones to 0, and a sum that matches them."""
        given = list(counts)[: len(self.counts)]
        self.counts = [*map(float, given), *([0.0] * (len(self.counts) - len(given)))]
        uppers = (*self.bounds, self.bounds[-1] if self.bounds else 0.0)
        self.sum = sum(count * upper for count, upper in zip(self.counts, uppers, strict=True))


class EngineMetrics:
    """Counters and histograms by series name, without suffix (`_total`, `_bucket`)."""

    def __init__(self, max_model_len: int) -> None:
        tokens = series.one_two_five(max_model_len)
        self.started = time.time()
        self.histograms = {each.name: BucketHistogram(each.buckets or tokens) for each in series.HISTOGRAMS}
        self.counters: dict[tuple[str, str], float] = {}
        for reason in series.FINISHED_REASONS:
            self.counters["vllm:request_success", reason] = 0
        for source in series.SOURCES:
            self.counters["vllm:prompt_tokens_by_source", source] = 0
        self.time_to_first_token = self.histograms["vllm:time_to_first_token_seconds"]
        self.inter_token_latency = self.histograms["vllm:inter_token_latency_seconds"]

    def count(self, name: str, amount: float = 1, label: str = "") -> None:
        self.counters[name, label] = self.counters.get((name, label), 0) + amount

    def observe(self, name: str, value: float, times: int = 1) -> None:
        self.histograms[name].observe(value, times)
