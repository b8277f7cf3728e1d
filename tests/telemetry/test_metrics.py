"""Metrics are dictionaries until they are scraped."""

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
