"""Metrics are dictionaries until they are scraped."""

from collections.abc import Iterable

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector
from tests.telemetry.scrape import value

from quarterdeck.telemetry import metrics
from quarterdeck.telemetry.metrics import Metrics


def test_a_counter_counts_by_label_set() -> None:
    subject = Metrics()
    family = subject.counter("quarterdeck_things", "Things.", ("kind",))
    family.add(("a",))
    family.add(("a",), 2)
    family.add(('b"\n',))
    assert value(subject, "quarterdeck_things_total", kind="a") == 3
    assert value(subject, "quarterdeck_things_total", kind='b"\n') == 1


def test_a_counter_without_labels_is_there_before_its_first_increment() -> None:
    subject = Metrics()
    subject.counter("quarterdeck_things", "Things.")
    assert value(subject, "quarterdeck_things_total") == 0


def test_a_gauge_that_is_replaced_forgets_what_is_not_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "MAX_SERIES", 2)
    subject = Metrics()
    family = subject.gauge("quarterdeck_things", "Things.", ("kind",))
    family.replace({("a",): 1})
    family.replace({("b",): 2, ("c",): 3, ("d",): 4, ("e",): 5})
    assert family.values == {("b",): 2, ("c",): 3, ("other",): 9}


def test_a_histogram_is_cumulative_and_a_value_on_a_bound_belongs_to_it() -> None:
    subject = Metrics()
    family = subject.histogram("quarterdeck_seconds", "Seconds.", (1.0, 2.0))
    for seconds in (0.5, 1.0, 1.5, 9.0):
        family.observe(seconds)
    assert value(subject, "quarterdeck_seconds_bucket", le="1.0") == 2
    assert value(subject, "quarterdeck_seconds_bucket", le="2.0") == 3
    assert value(subject, "quarterdeck_seconds_bucket", le="+Inf") == 4
    assert value(subject, "quarterdeck_seconds_count") == 4
    assert value(subject, "quarterdeck_seconds_sum") == 12.0


def test_a_gauge_is_set_or_read_when_scraped() -> None:
    subject = Metrics()
    subject.gauge("quarterdeck_now", "Now.").set(3)
    subject.gauge("quarterdeck_read", "Read.", ("state",), read=lambda: {("ready",): 2})
    assert value(subject, "quarterdeck_now") == 3
    assert value(subject, "quarterdeck_read", state="ready") == 2


def test_a_counter_may_be_read_when_scraped() -> None:
    subject = Metrics()
    subject.counter("quarterdeck_read", "Read.", ("kind",)).read = lambda: {("a",): 2}
    assert value(subject, "quarterdeck_read_total", kind="a") == 2


def test_label_sets_are_bounded_and_the_rest_is_summed_under_other() -> None:
    subject = Metrics()
    counter = subject.counter("quarterdeck_things", "Things.", ("name",))
    histogram = subject.histogram("quarterdeck_seconds", "Seconds.", (1.0,), ("name",))
    for i in range(metrics.MAX_SERIES + 50):
        counter.add((f"name-{i}",))
        histogram.observe(0.5, (f"name-{i}",))
    assert len(counter.values) == metrics.MAX_SERIES + 1
    assert counter.values["other",] == 50
    assert histogram.counts["other",] == [50, 0]


def test_an_increment_flushes_nothing_and_a_read_does() -> None:
    subject = Metrics()
    counter = subject.counter("quarterdeck_things", "Things.", ("kind",))
    flushes: list[None] = []
    subject.before_reading(lambda: flushes.append(None))
    for _ in range(100):
        counter.add(("a",))
    assert flushes == []
    assert counter.values["a",] == 100
    assert len(flushes) == 1


def test_the_text_is_read_as_prometheus_clients_own() -> None:
    hostile = ('quote " back\\slash \n line', "Ünïcode {}=,")
    subject = Metrics()
    subject.counter("quarterdeck_things", "Things: a \\ and \n more.", ("kind", "name")).add(hostile, 3)
    subject.gauge("quarterdeck_now", "Now.").set(0.25)
    histogram = subject.histogram("quarterdeck_seconds", "Seconds.", (0.001, 1.0, 5.0), ("kind", "name"))
    for seconds in (0.0001, 0.5, 2.0, 30.0):
        histogram.observe(seconds, hostile)
    subject.view("quarterdeck_view", "A view.", histogram, ("name",), lambda labels: (labels[1],))
    plain = subject.histogram("quarterdeck_plain", "Without labels.", (1.0,))
    plain.observe(2.0)

    counter = CounterMetricFamily("quarterdeck_things", "Things: a \\ and \n more.", labels=("kind", "name"))
    counter.add_metric(hostile, 3)
    gauge = GaugeMetricFamily("quarterdeck_now", "Now.", value=0.25)
    buckets = [("0.001", 1.0), ("1.0", 2.0), ("5.0", 3.0), ("+Inf", 4.0)]
    seconds = HistogramMetricFamily("quarterdeck_seconds", "Seconds.", labels=("kind", "name"))
    seconds.add_metric(hostile, buckets, 32.5001)
    view = HistogramMetricFamily("quarterdeck_view", "A view.", labels=("name",))
    view.add_metric(hostile[1:], buckets, 32.5001)
    alone = HistogramMetricFamily("quarterdeck_plain", "Without labels.", [("1.0", 0.0), ("+Inf", 1.0)], 2.0)

    class Library(Collector):
        def collect(self) -> Iterable[Metric]:
            return [counter, gauge, seconds, view, alone]

    registry = CollectorRegistry()
    registry.register(Library())
    expected = families(generate_latest(registry))
    assert {name: found for name, found in families(subject.render()).items() if name in expected} == expected


def families(text: bytes) -> dict[str, tuple[str, str, list[tuple[str, dict[str, str], float]]]]:
    return {
        family.name: (
            family.type,
            family.documentation,
            sorted(((each.name, each.labels, each.value) for each in family.samples), key=str),
        )
        for family in text_string_to_metric_families(text.decode())
    }
