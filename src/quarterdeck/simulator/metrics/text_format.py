"""The Prometheus text format."""

from collections.abc import Mapping

from quarterdeck.simulator.metrics import series
from quarterdeck.simulator.metrics.engine_metrics import BucketHistogram, EngineMetrics
from quarterdeck.simulator.metrics.series import Series


class MetricsPage:
    """One page, built line by line."""

    def __init__(self, model: str) -> None:
        self._base = f'model_name="{escape(model)}",engine="0"'
        self._lines: list[str] = []

    def text(self) -> bytes:
        return ("\n".join(self._lines) + "\n").encode()

    def head(self, each: Series, kind: str = "gauge", name: str = "") -> None:
        name = name or each.name
        self._lines.append(f"# HELP {name} {each.help}")
        self._lines.append(f"# TYPE {name} {kind}")

    def value(self, name: str, value: float, **labels: str) -> None:
        extra = "".join(f',{key}="{escape(text)}"' for key, text in labels.items())
        self._lines.append(f"{name}{{{self._base}{extra}}} {number(value)}")

    def info(self, each: Series, values: Mapping[str, str], value: float = 1.0) -> None:
        """Add a series that has only its own labels."""
        labels = ",".join(f'{name}="{escape(values[name])}"' for name in each.labels)
        self._lines.append(f"{each.name}{{{labels}}} {number(value)}")

    def counter(self, each: Series, metrics: EngineMetrics) -> None:
        name = f"{each.name}_total"
        self.head(each, "counter", name)
        own = each.labels[len(series.LABELS) :]
        labels = sorted(label for key, label in metrics.counters if key == each.name) if own else [""]
        for label in labels:
            self.value(name, metrics.counters.get((each.name, label), 0), **({own[0]: label} if own else {}))
        self.head(each, "gauge", f"{each.name}_created")
        for label in labels:
            self.value(f"{each.name}_created", metrics.started, **({own[0]: label} if own else {}))

    def histogram(self, each: Series, histogram: BucketHistogram) -> None:
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
