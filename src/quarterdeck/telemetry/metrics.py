"""Prometheus metrics with cheap increments.

An increment is a dictionary update: no lock, no label object. One event loop writes and renders. The text format is
written here: prometheus-client takes 10 µs a line, in which no request is served, and a hundred models have twenty
thousand lines. The number of label sets per family is bounded, because a label may come from a caller; further ones are
summed under `other`.
"""

import collections
import time
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import accumulate, islice, repeat
from operator import mul

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest

Labels = tuple[str, ...]
Number = int | float

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
"""Content type of `Metrics.render`."""

HELD_SECONDS = 1.0
"""How long a rendered scrape is reused. Prometheus scrapes every 15 s or so."""
MAX_SERIES = 2000
"""Most label sets of a family; a histogram of fifteen buckets then holds 0.6 MB."""

DURATION_BUCKETS = (0.005, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
"""Seconds; OpenTelemetry's gen_ai buckets, from a cache hit to a long answer."""
TTFT_BUCKETS = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
"""Seconds to the first token; OpenTelemetry's and vLLM's buckets, so that both can share a graph."""
TOKEN_COUNT_BUCKETS = tuple(4.0**power for power in range(14))
"""Tokens of a request: 1 to 67,108,864, OpenTelemetry's buckets of gen_ai.client.token.usage."""
TOKEN_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 1.0, 2.5)
"""Seconds between two tokens."""


def _bounded(labels: Labels, series: Mapping[Labels, object]) -> Labels:
    """Return the label set under which a new series is stored."""
    return labels if len(series) < MAX_SERIES else ("other",) * len(labels)


class Counter:
    """A counter, incremented or read at a scrape (`read`). `name` has no `_total`: the text format appends it."""

    __slots__ = ("_flush", "_values", "help", "labels", "name", "read")

    def __init__(self, name: str, help: str, labels: Sequence[str], flush: Callable[[], None]) -> None:
        self.name, self.help, self.labels, self._flush = name, help, tuple(labels), flush
        self._values: dict[Labels, Number] = {} if labels else {(): 0}
        self.read: Callable[[], Mapping[Labels, Number]] | None = None

    @property
    def values(self) -> Mapping[Labels, Number]:
        self._flush()
        return self._values

    def add(self, labels: Labels = (), amount: Number = 1) -> None:
        """Add `amount`. `labels` are values in the order of the label names."""
        values = self._values
        try:
            values[labels] += amount
        except KeyError:
            labels = _bounded(labels, values)
            values[labels] = values.get(labels, 0) + amount

    def add_each(self, labels: Iterable[Labels]) -> None:
        """Add one for each label set."""
        for each, amount in collections.Counter(labels).items():
            self.add(each, amount)

    def lines(self) -> list[str]:
        """The family in the text format."""
        return _lines(f"{self.name}_total", "counter", self, self.values if self.read is None else self.read())


class Gauge:
    """A current value: set when it changes, or read at a scrape (`read` returns values by label set)."""

    __slots__ = ("help", "labels", "name", "read", "values")

    def __init__(
        self,
        name: str,
        help: str,
        labels: Sequence[str] = (),
        read: Callable[[], Mapping[Labels, Number]] | None = None,
    ) -> None:
        self.name, self.help, self.labels, self.read = name, help, tuple(labels), read
        self.values: dict[Labels, Number] = {}

    def set(self, value: Number, labels: Labels = ()) -> None:
        if labels not in self.values:
            labels = _bounded(labels, self.values)
        self.values[labels] = value

    def add(self, amount: Number = 1, labels: Labels = ()) -> None:
        self.set(self.values.get(labels, 0) + amount, labels)

    def replace(self, values: Mapping[Labels, Number]) -> None:
        """Set all values at once: a label set that is not given has none any more."""
        self.values = dict(islice(values.items(), MAX_SERIES))
        if len(values) > MAX_SERIES:
            self.values[("other",) * len(self.labels)] = sum(islice(values.values(), MAX_SERIES, None))

    def lines(self) -> list[str]:
        """The family in the text format."""
        return _lines(self.name, "gauge", self, self.values if self.read is None else self.read())


class Histogram:
    """Counts by fixed buckets, and a sum. A bucket counts values less than or equal to its bound."""

    __slots__ = ("_counts", "_flush", "_sums", "bounds", "help", "labels", "name")

    def __init__(
        self, name: str, help: str, bounds: Sequence[float], labels: Sequence[str], flush: Callable[[], None]
    ) -> None:
        self.name, self.help, self.labels, self.bounds = name, help, tuple(labels), tuple(bounds)
        self._flush = flush
        self._counts: dict[Labels, list[int]] = {}
        self._sums: dict[Labels, float] = {}

    @property
    def counts(self) -> Mapping[Labels, Sequence[int]]:
        self._flush()
        return self._counts

    def observe(self, value: float, labels: Labels = (), times: int = 1) -> None:
        """Count a value, `times` times: for example a stream's mean time between tokens, once per gap."""
        self.observe_all((value,), labels, (times,))

    def observe_all(self, values: Sequence[float], labels: Labels = (), times: Sequence[int] | None = None) -> None:
        """Count each value, as many times as `times` gives."""
        if labels not in self._counts:
            labels = _bounded(labels, self._counts)
            self._counts.setdefault(labels, [0] * (len(self.bounds) + 1))
            self._sums.setdefault(labels, 0.0)
        counts, buckets = self._counts[labels], map(bisect_left, repeat(self.bounds), values)
        if times is None:  # without a loop of ours for each value
            for bucket, often in collections.Counter(buckets).items():
                counts[bucket] += often
            self._sums[labels] += sum(values)
            return
        for bucket, often in zip(buckets, times, strict=True):
            counts[bucket] += often
        self._sums[labels] += sum(map(mul, values, times))

    def lines(self) -> list[str]:
        """The family in the text format."""
        return self.lines_as(self, lambda labels: labels)

    def lines_as(self, family: "Histogram | HistogramView", relabel: Callable[[Labels], Labels]) -> list[str]:
        """The samples with the name, help and label names of `family`."""
        name = family.name
        lines = _head(name, "histogram", family.help)
        ends = [*(f'le="{bound}"}} ' for bound in self.bounds), 'le="+Inf"} ']
        for labels, counts in self.counts.items():
            pairs = _pairs(family.labels, relabel(labels))
            start = f"{name}_bucket{{{pairs}," if pairs else f"{name}_bucket{{"
            lines += [f"{start}{end}{count}" for end, count in zip(ends, accumulate(counts), strict=True)]
            braces = f"{{{pairs}}}" if pairs else ""
            lines += [f"{name}_count{braces} {sum(counts)}", f"{name}_sum{braces} {self._sums[labels]!r}"]
        return lines


class HistogramView:
    """A histogram under another name, with other labels: it costs nothing until it is scraped."""

    def __init__(
        self, name: str, help: str, source: Histogram, labels: Sequence[str], relabel: Callable[[Labels], Labels]
    ) -> None:
        self.name, self.help, self.labels = name, help, tuple(labels)
        self._source, self._relabel = source, relabel

    def lines(self) -> list[str]:
        """The family in the text format."""
        return self._source.lines_as(self, self._relabel)


_KINDS = {Counter: "counter", Gauge: "gauge", Histogram: "histogram", HistogramView: "histogram"}


def _head(name: str, kind: str, help: str) -> list[str]:
    text = help.replace("\\", r"\\").replace("\n", r"\n")
    return [f"# HELP {name} {text}", f"# TYPE {name} {kind}"]


def _lines(name: str, kind: str, family: Counter | Gauge, values: Mapping[Labels, Number]) -> list[str]:
    lines = _head(name, kind, family.help)
    for labels, value in values.items():
        pairs = _pairs(family.labels, labels)
        lines.append(f"{name}{{{pairs}}} {value!r}" if pairs else f"{name} {value!r}")
    return lines


def _pairs(names: Labels, values: Labels) -> str:
    return ",".join([f'{name}="{_escaped(value)}"' for name, value in zip(names, values, strict=True)])


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


class Metrics:
    """The metric families of one process. Subclasses name them (`gateway_metrics`, `worker_metrics`)."""

    def __init__(self) -> None:
        self._families: list[Counter | Gauge | Histogram | HistogramView] = []
        self._flushers: list[Callable[[], None]] = []
        self._held: bytes | None = None
        self._held_at = 0.0
        self._process = CollectorRegistry()
        ProcessCollector(registry=self._process)

    def counter(self, name: str, help: str, labels: Sequence[str] = ()) -> Counter:
        family = Counter(name, help, labels, self._flush)
        self._families.append(family)
        return family

    def gauge(
        self,
        name: str,
        help: str,
        labels: Sequence[str] = (),
        read: Callable[[], Mapping[Labels, Number]] | None = None,
    ) -> Gauge:
        family = Gauge(name, help, labels, read)
        self._families.append(family)
        return family

    def histogram(self, name: str, help: str, bounds: Sequence[float], labels: Sequence[str] = ()) -> Histogram:
        family = Histogram(name, help, bounds, labels, self._flush)
        self._families.append(family)
        return family

    def view(
        self, name: str, help: str, source: Histogram, labels: Sequence[str], relabel: Callable[[Labels], Labels]
    ) -> None:
        """Publish `source` once more, under another name; `relabel` makes its label values."""
        self._families.append(HistogramView(name, help, source, labels, relabel))

    def before_reading(self, flush: Callable[[], None]) -> None:
        """Register a callback that flushes buffered counts. Called before a counter or a histogram is read."""
        self._flushers.append(flush)

    def _flush(self) -> None:
        for flush in self._flushers:
            flush()

    def describe(self) -> list[tuple[str, str, str, Labels]]:
        """Return (name, type, help, labels) of every family, for the generated reference."""
        return [(f.name, _KINDS[type(f)], f.help, f.labels) for f in self._families]

    def scrape(self) -> bytes:
        """Return the body of `GET /metrics`, which needs no key: rendered at most once in HELD_SECONDS, as it takes
        milliseconds in which no request is served."""
        now = time.monotonic()
        if self._held is None or now - self._held_at >= HELD_SECONDS:
            self._held, self._held_at = self.render(), now
        return self._held

    def render(self) -> bytes:
        """Render all families in the text format, now."""
        lines = [line for family in self._families for line in family.lines()]
        return generate_latest(self._process) + "\n".join(lines).encode() + b"\n"
