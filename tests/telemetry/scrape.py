"""Reads metrics as a scraper does."""

from prometheus_client.parser import text_string_to_metric_families

from quarterdeck.telemetry.metrics import Metrics


def scraped(subject: Metrics) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """(sample name, labels) → value, read with prometheus-client's own parser."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(subject.render().decode())
        for sample in family.samples
    }


def value(subject: Metrics, name: str, **labels: str) -> float | None:
    return scraped(subject).get((name, tuple(sorted(labels.items()))))
