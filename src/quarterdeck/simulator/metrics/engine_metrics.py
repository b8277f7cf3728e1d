"""What the engine counts, and the text that /metrics answers with."""

import time
from bisect import bisect_left
from collections.abc import Iterable, Mapping

from quarterdeck.simulator.metrics import series
from quarterdeck.simulator.metrics.series import Series


class Histogram:
    """Counts by bucket."""

    def __init__(self, buckets: tuple[float, ...]) -> None:
        self.bounds = buckets
        self.counts = [0.0] * (len(buckets) + 1)
        self.sum = 0.0

    def observe(self, value: float, times: int = 1) -> None:
        self.counts[bisect_left(self.bounds, value)] += times
        self.sum += value * times

    def preset(self, counts: Iterable[float]) -> None:
        """Show these counts, missing ones 0, and a sum that fits them."""
        given = list(counts)[: len(self.counts)]
        self.counts = [*map(float, given), *([0.0] * (len(self.counts) - len(given)))]
        uppers = (*self.bounds, self.bounds[-1] if self.bounds else 0.0)
        self.sum = sum(count * upper for count, upper in zip(self.counts, uppers, strict=True))


class Metrics:
    """Counters and histograms by their series' names, without prefix and suffix."""

    def __init__(self, max_model_len: int) -> None:
        tokens = series.one_two_five(max_model_len)
        self.started = time.time()
        self.histograms = {each.name: Histogram(each.buckets or tokens) for each in series.HISTOGRAMS}
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


class Page:
    """The Prometheus text, built line by line."""

    def __init__(self, model: str) -> None:
        self._base = f'model_name="{escape(model)}",engine="0"'
        self._lines: list[str] = []

    def text(self) -> bytes:
        return ("\n".join(self._lines) + "\n").encode()

    def head(self, each: Series, kind: str = "gauge", name: str = "") -> None:
        name = name or each.name
        self._lines.append(f"# HELP {name} {each.told}")
        self._lines.append(f"# TYPE {name} {kind}")

    def value(self, name: str, value: float, **labels: str) -> None:
        extra = "".join(f',{key}="{escape(text)}"' for key, text in labels.items())
        self._lines.append(f"{name}{{{self._base}{extra}}} {number(value)}")

    def info(self, each: Series, values: Mapping[str, str], value: float = 1.0) -> None:
        """A series with labels of its own only."""
        labels = ",".join(f'{name}="{escape(values[name])}"' for name in each.labels)
        self._lines.append(f"{each.name}{{{labels}}} {number(value)}")

    def counter(self, each: Series, metrics: Metrics) -> None:
        name = f"{each.name}_total"
        self.head(each, "counter", name)
        own = each.labels[len(series.LABELS) :]
        labels = sorted(label for key, label in metrics.counters if key == each.name) if own else [""]
        for label in labels:
            self.value(name, metrics.counters.get((each.name, label), 0), **({own[0]: label} if own else {}))
        self.head(each, "gauge", f"{each.name}_created")
        for label in labels:
            self.value(f"{each.name}_created", metrics.started, **({own[0]: label} if own else {}))

    def histogram(self, each: Series, histogram: Histogram) -> None:
        self.head(each, "histogram")
        so_far = 0.0
        for bound, count in zip((*map(number, histogram.bounds), "+Inf"), histogram.counts, strict=True):
            so_far += count
            self.value(f"{each.name}_bucket", so_far, le=bound)
        self.value(f"{each.name}_count", so_far)
        self.value(f"{each.name}_sum", histogram.sum)


def number(value: float) -> str:
    return repr(float(value))


def escape(text: str) -> str:
    return text.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
