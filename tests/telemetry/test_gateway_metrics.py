"""The gateway's metrics are projections of finished requests' records."""

import sys
from collections import defaultdict
from decimal import Decimal

import pytest
from tests.records import a_record
from tests.telemetry.scrape import scraped, value

from quarterdeck.record import Attempt
from quarterdeck.telemetry.gateway_metrics import BATCH, GatewayMetrics
from quarterdeck.telemetry.metrics import MAX_SERIES


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
        assert sum(one_by_one.requests.values.values()) == so_many  # a read flushes the batch
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
    for _ in range(10 * BATCH + 1):
        subject.observe(record)
        assert sys.getrefcount(record) - held < BATCH
    assert sum(subject.requests.values.values()) == 10 * BATCH + 1


def test_every_family_has_a_help_line_and_the_prefix() -> None:
    for name, _, help_text, _ in GatewayMetrics().describe():
        assert name.startswith(("quarterdeck_", "gen_ai_"))
        assert not name.endswith("_total")
        assert help_text.endswith(".")


def test_requests_tokens_and_cost_are_counted_by_team() -> None:
    subject = GatewayMetrics()
    for team, status in (("red", "ok"), ("red", "error"), ("blue", "ok")):
        made = a_record(org="acme", team=team, status=status, input_tokens=10, output_tokens=5, cost=Decimal("0.25"))
        subject.observe(made)
    assert value(subject, "quarterdeck_team_requests_total", org="acme", team="red", status="error") == 1
    assert value(subject, "quarterdeck_team_tokens_total", org="acme", team="red", kind="input") == 20
    assert value(subject, "quarterdeck_team_tokens_total", org="acme", team="blue", kind="output") == 5
    assert value(subject, "quarterdeck_team_cost_dollars_total", org="acme", team="red") == 0.5


def test_ten_thousand_models_teams_codes_and_endpoints_make_a_bounded_number_of_series() -> None:
    subject = GatewayMetrics()
    for n in range(10_000):
        attempts = (Attempt(f"endpoint-{n}", 0.0, 1.0),)
        subject.observe(a_record(model=f"m{n}", org=f"o{n}", team=f"t{n}", key=f"k{n}", attempts=attempts))
    series = defaultdict[str, set[tuple[tuple[str, str], ...]]](set)
    for (name, labels), _ in (found := scraped(subject)).items():
        series[name].add(tuple(label for label in labels if label[0] != "le"))
    # `other` comes once per histogram of tokens and kind beside the bounded ones.
    assert max(map(len, series.values())) <= MAX_SERIES + 2
    assert sum(count for (name, _), count in found.items() if name == "quarterdeck_requests_total") == 10_000


def test_prompts_of_one_name_in_two_organisations_are_counted_apart() -> None:
    metrics = GatewayMetrics()
    for org, count in (("acme", 2), ("default", 3)):
        for _ in range(count):
            metrics.observe(a_record(org=org, prompt="greet", prompt_version="1", cost=Decimal("0.5")))
    assert metrics.prompt_requests.values == {("acme", "greet", "1", "ok"): 2, ("default", "greet", "1", "ok"): 3}
    assert metrics.prompt_cost.values == {("acme", "greet", "1"): 1, ("default", "greet", "1"): 1.5}


def test_versions_of_prompts_are_counted_and_their_number_is_bounded() -> None:
    metrics = GatewayMetrics()
    for number in range(10_000):
        metrics.observe(a_record(prompt=f"p{number}", prompt_version=str(number % 7 + 1), cost=Decimal("0.5")))
    metrics.observe(a_record(prompt=None))
    requests, cost = metrics.prompt_requests.values, metrics.prompt_cost.values
    assert (sum(requests.values()), sum(cost.values())) == (10_000, 5_000)
    assert requests["default", "p0", "1", "ok"] == 1
    assert max(len(requests), len(cost)) <= MAX_SERIES + 1
