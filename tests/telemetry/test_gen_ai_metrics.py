"""Metrics under OpenTelemetry's gen_ai names agree with our own."""

from tests.records import a_record
from tests.telemetry.scrape import value

from quarterdeck.telemetry.gateway_metrics import GatewayMetrics

CHAT = {"gen_ai_operation_name": "chat", "gen_ai_provider_name": "quarterdeck", "gen_ai_request_model": "m"}
COMPLETION = CHAT | {"gen_ai_operation_name": "text_completion"}


def test_durations_are_those_of_our_own_metric() -> None:
    subject = GatewayMetrics()
    subject.observe(a_record(model="m", started=100.0, first_token=100.5, ended=101.5))
    subject.observe(a_record(model="m", operation="completions", started=100.0, first_token=100.25, ended=103.0))
    assert value(subject, "gen_ai_server_request_duration_seconds_sum", **CHAT) == 1.5
    assert value(subject, "gen_ai_server_request_duration_seconds_sum", **COMPLETION) == 3.0
    assert value(subject, "gen_ai_server_time_to_first_token_seconds_sum", **CHAT) == 0.5
    assert value(subject, "gen_ai_server_time_to_first_token_seconds_bucket", **CHAT, le="0.25") == 0
    assert value(subject, "gen_ai_server_time_to_first_token_seconds_bucket", **COMPLETION, le="0.25") == 1


def test_tokens_and_times_are_counted_once_per_request() -> None:
    subject = GatewayMetrics()
    for output in (11, 21):
        record = a_record(model="m", first_token=100.0, ended=101.0, input_tokens=30, output_tokens=output)
        subject.observe(record)
    subject.observe(a_record(model="m", status="error", first_token=None, input_tokens=0, output_tokens=0))
    assert value(subject, "gen_ai_client_token_usage_sum", **CHAT, gen_ai_token_type="input") == 60
    assert value(subject, "gen_ai_client_token_usage_sum", **CHAT, gen_ai_token_type="output") == 32
    assert value(subject, "gen_ai_client_token_usage_bucket", **CHAT, gen_ai_token_type="output", le="16.0") == 1
    assert value(subject, "gen_ai_client_token_usage_count", **CHAT, gen_ai_token_type="output") == 2
    assert value(subject, "gen_ai_server_time_per_output_token_seconds_count", **CHAT) == 2
    assert value(subject, "gen_ai_server_time_per_output_token_seconds_sum", **CHAT) == 1 / 10 + 1 / 20
