"""Tool calls and files are counted by labels of which callers can't make more than a bounded number."""

from tests.telemetry.scrape import scraped, value

from quarterdeck.telemetry.gateway_metrics import GatewayMetrics
from quarterdeck.telemetry.resource_metrics import MAX_TOOLS


def test_calls_of_listed_servers_are_counted_by_tool() -> None:
    subject = GatewayMetrics()
    subject.resources.called("tickets", "find", "ok", 0.2)
    subject.resources.called("tickets", "find", "http_error", 3.0)
    of = {"server": "tickets", "tool": "find"}
    assert value(subject, "quarterdeck_tool_calls_total", **of, outcome="ok") == 1
    assert value(subject, "quarterdeck_tool_calls_total", **of, outcome="http_error") == 1
    assert value(subject, "quarterdeck_tool_call_duration_seconds_sum", **of) == 3.2
    assert value(subject, "quarterdeck_tool_call_duration_seconds_bucket", **of, le="0.25") == 1


def test_servers_and_tools_that_callers_name_make_no_series_of_their_own() -> None:
    subject = GatewayMetrics()
    for at in range(500):
        subject.resources.called(None, f"tool-{at}", "ok", 0.1)
        subject.resources.called("listed", f"tool-{at}", "ok", 0.1)
    series = {labels for name, labels in scraped(subject) if name == "quarterdeck_tool_calls_total"}
    assert len(series) == MAX_TOOLS + 2
    of = {"tool": "other", "outcome": "ok"}
    assert value(subject, "quarterdeck_tool_calls_total", server="public", **of) == 500
    assert value(subject, "quarterdeck_tool_calls_total", server="listed", **of) == 500 - MAX_TOOLS


def test_only_what_is_stored_counts_as_bytes() -> None:
    subject = GatewayMetrics()
    subject.resources.written("files", "stored", 100)
    subject.resources.written("files", "quota", 50)
    assert value(subject, "quarterdeck_file_bytes_total", kind="files") == 100
    assert value(subject, "quarterdeck_file_writes_total", kind="files", outcome="quota") == 1
