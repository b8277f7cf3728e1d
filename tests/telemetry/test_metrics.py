"""Counters are dictionaries until somebody scrapes."""

import sys
import timeit
from decimal import Decimal

import pytest
from prometheus_client.parser import text_string_to_metric_families
from tests.records import a_record

from quarterdeck.telemetry import metrics
from quarterdeck.telemetry.gateway_metrics import ENTERED_TOGETHER, GatewayMetrics
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


def test_a_finished_request_is_projected_from_its_record() -> None:
    subject = GatewayMetrics()
    subject.observe(a_record(model="m", started=100.0, first_token=100.5, ended=101.5, cost=Decimal("0.25")))

    def seen(name: str, **labels: str) -> float | None:
        return value(subject, name, model="m", **labels)

    assert seen("quarterdeck_requests_total", operation="chat", http_status="200", status="ok") == 1
    assert seen("quarterdeck_request_duration_seconds_sum", operation="chat") == 1.5
    assert seen("quarterdeck_time_to_first_token_seconds_sum", operation="chat") == 0.5
    assert seen("quarterdeck_inter_token_latency_seconds_count", operation="chat") == 10
    assert seen("quarterdeck_inter_token_latency_seconds_sum", operation="chat") == pytest.approx(1.0)
    assert seen("quarterdeck_tokens_total", kind="input") == 14
    assert seen("quarterdeck_tokens_total", kind="cached") == 16
    assert seen("quarterdeck_tokens_total", kind="output") == 11
    assert seen("quarterdeck_cost_dollars_total") == 0.25
    assert (
        value(subject, "quarterdeck_endpoint_attempts_total", endpoint="smollm2#0", outcome="engine_unavailable") == 1
    )
    assert value(subject, "quarterdeck_endpoint_attempts_total", endpoint="smollm2#1", outcome="ok") == 1


def test_a_stream_that_went_on_elsewhere_is_counted_each_time() -> None:
    subject = GatewayMetrics()
    subject.observe(a_record(model="m", resumed=2))
    subject.observe(a_record(model="m", resumed=0))
    assert value(subject, "quarterdeck_stream_resumes_total", model="m") == 2


def test_a_cancelled_request_and_an_error_are_counted_as_such() -> None:
    subject = GatewayMetrics()
    subject.observe(a_record(status="cancelled", http_status=499, first_token=None, output_tokens=0))
    subject.observe(a_record(status="error", http_status=502, error_code="engine_error"))
    assert value(subject, "quarterdeck_cancelled_requests_total", model="smollm2") == 1
    assert value(subject, "quarterdeck_errors_total", code="engine_error") == 1


def test_requests_are_entered_together_as_one_by_one() -> None:
    records = [
        a_record(model="a", started=100.0, first_token=100.5, ended=101.5, cost=Decimal("0.25")),
        a_record(model="b", stream=False, first_token=None, output_tokens=0),
        a_record(model="a", operation="completions", status="error", http_status=502, error_code="engine_error"),
        a_record(model="a", cache="hit", saved=Decimal("0.5"), cost=Decimal(0), attempts=()),
        a_record(model="a", cache="miss", input_tokens=16, cached_tokens=16, output_tokens=1, resumed=1),
        a_record(model="b", status="cancelled", http_status=499, input_tokens=0, cached_tokens=0),
    ] * 50
    together, one_by_one = GatewayMetrics(), GatewayMetrics()
    for so_many, record in enumerate(records, 1):
        together.observe(record)
        one_by_one.observe(record)
        assert sum(one_by_one.requests.values.values()) == so_many  # whoever reads, has it entered
    assert value(together, "quarterdeck_request_duration_seconds_count", operation="chat", model="a") == 150
    assert value(together, "quarterdeck_cache_saved_dollars_total", model="a") == 25
    for (name, labels), seen in scraped(one_by_one).items():
        if name.startswith("quarterdeck_"):
            assert value(together, name, **dict(labels)) == pytest.approx(seen), (name, labels)


def test_what_is_read_is_never_older_than_the_last_request() -> None:
    subject = GatewayMetrics()
    for so_many in range(1, 4):
        subject.observe(a_record(model="m"))
        assert sum(subject.requests.values.values()) == so_many
        assert [sum(counts) for counts in subject.duration.counts.values()] == [so_many]
        assert value(subject, "quarterdeck_cost_dollars_total", model="m") == pytest.approx(
            so_many * float(a_record().cost)
        )


def test_only_so_many_requests_wait_to_be_entered() -> None:
    subject, record = GatewayMetrics(), a_record()
    held = sys.getrefcount(record)
    for _ in range(10 * ENTERED_TOGETHER + 1):
        subject.observe(record)
        assert sys.getrefcount(record) - held < ENTERED_TOGETHER
    assert sum(subject.requests.values.values()) == 10 * ENTERED_TOGETHER + 1


def test_every_family_has_a_help_line_and_the_prefix() -> None:
    for name, _, help_text, _ in GatewayMetrics().describe():
        assert name.startswith("quarterdeck_")
        assert not name.endswith("_total")
        assert help_text.endswith(".")


def test_an_increment_costs_less_than_some_microseconds() -> None:
    counter = Metrics().counter("quarterdeck_things", "Things.", ("kind",))
    labels = ("a",)
    best = min(timeit.repeat(lambda: counter.add(labels), number=10_000, repeat=5)) / 10_000
    assert best < 5e-6  # 0.2 µs seen; the bound is for a machine that does much else
