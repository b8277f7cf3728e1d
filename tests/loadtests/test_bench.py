"""Pure parts of the benchmarks: parsing wrk, medians, tables between markers, verification."""

import sys
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

sys.path.append(str(Path(__file__).resolve().parents[2] / "loadtests" / "bench"))  # scripts that import each other

from arms import series
from drive import Round, Wrk, milliseconds, parse_wrk
from levels import per_million
from proof import judge
from sink import trace_ids
from tables import between, comparison, ratios, rotated, spread, standalone

from quarterdeck.load.report.plots import Line, Plot
from quarterdeck.store.usage import Usage

WRK = """Running 2s test @ http://127.0.0.1:1/v1/chat/completions
  1 threads and 32 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     5.96ms    2.10ms  30.00ms   80.00%
    Req/Sec     5.40k   300.00     6.00k    70.00%
  Latency Distribution
     50%  870.00us
     75%    6.10ms
     90%    8.00ms
     99%    1.34s
  10736 requests in 2.01s, 6.50MB read
Requests/sec:   5341.38
Transfer/sec:      3.23MB
"""


def run(rps: float, **fields: float) -> Round:
    values = {"p50": 1.0, "p99": 2.0, "cpu_us": 100.0, "other_core_idle": 0.5, "rss_mb": 90.0} | fields
    return Round(count=1000, rps=rps, errors=0, **values)


def test_wrk_is_read() -> None:
    assert parse_wrk(WRK) == Wrk(count=10736, rps=5341.38, p50=0.87, p99=1340.0, errors=0)


def test_answers_that_are_no_200_and_broken_connections_are_errors_but_slow_ones_are_not() -> None:
    worse = WRK + "  Socket errors: connect 1, read 2, write 3, timeout 40\n  Non-2xx or 3xx responses: 500\n"
    assert parse_wrk(worse).errors == 506


def test_what_wrk_did_not_say_is_no_zero() -> None:
    with pytest.raises(ValueError, match="not the output of wrk"):
        parse_wrk("unable to connect to 127.0.0.1:1 Connection refused")


def test_wrks_units_are_milliseconds() -> None:
    assert [milliseconds(text) for text in ("250us", "1.5ms", "2s", "1m")] == [0.25, 1.5, 2000.0, 60_000.0]


def test_a_spread_is_median_least_and_most() -> None:
    assert spread([3000.4, 1000.0, 2000.0]) == "2,000 (1,000–3,000)"
    assert spread([0.254, 0.111], 2) == "0.18 (0.11–0.25)"


def test_an_arm_without_a_process_shows_no_cost() -> None:
    rows = comparison({("plain", "Ours"): [run(10)], ("plain", "mock alone"): [run(99, rss_mb=0)]}).splitlines()
    assert (
        rows[2]
        == "| Ours plain | 10 (10–10) | 1.00 (1.00–1.00) | 2.00 (2.00–2.00) | 100 (100–100) | 0.100 | 90 | 50% | – |"
    )
    assert rows[3] == "| mock alone plain | 99 (99–99) | 1.00 (1.00–1.00) | 2.00 (2.00–2.00) | – | – | – | 50% | – |"


def test_ratios_are_of_medians_with_the_spread_of_the_rounds() -> None:
    rounds = {
        ("plain", "Ours"): [run(10), run(20), run(30)],
        ("plain", "Peer"): [run(10, cpu_us=50), run(10, cpu_us=50), run(20, cpu_us=50)],
        ("plain", "mock alone"): [run(99, rss_mb=0)],
    }
    assert ratios(rounds, "Ours") == [
        "Ours / Peer, plain: 2.00 of its requests a second (round by round 1.50 (1.00–2.00)), 2 of its CPU a request"
    ]


def test_a_peer_that_finished_nothing_has_no_ratio() -> None:
    rounds = {("plain", "Ours"): [run(10)], ("plain", "Peer"): [replace(run(0), count=0)]}
    assert ratios(rounds, "Ours") == ["Ours / Peer, plain: none, as Peer finished no request in one of its rounds"]


def test_each_arm_begins_and_order_turns() -> None:
    assert [rotated("abc", number) for number in range(4)] == [list("abc"), list("cba"), list("bca"), list("acb")]


def test_a_table_lands_between_its_markers_and_nowhere_else() -> None:
    page = "Words.\n<!-- bench:gateway -->\nold\n<!-- /bench:gateway -->\nMore words.\n"
    new = between(page, "gateway", "| a |\n")
    assert new == "Words.\n<!-- bench:gateway -->\n| a |\n<!-- /bench:gateway -->\nMore words.\n"
    assert between(new, "gateway", "| a |") == new


@pytest.mark.parametrize("page", ["no markers", "<!-- /bench:x --><!-- bench:x -->", "<!-- bench:x -->"])
def test_a_page_without_the_markers_is_left_alone(page: str) -> None:
    with pytest.raises(ValueError, match="bench:x"):
        between(page, "x", "table")


def test_every_table_has_its_place_in_the_page() -> None:
    from curves import CURVES
    from tables import DOC

    page = DOC.read_text(encoding="utf-8")
    for name in ["gateway", *CURVES]:
        page = between(page, name, "table")


def test_a_plot_stands_alone() -> None:
    svg = standalone(Plot("Title", "Alt > words", "x", "y", [Line("a", [(1, 2), (2, 3)])]))
    assert svg.startswith('<svg xmlns="http://www.w3.org/2000/svg" viewBox=')
    assert "<style>" in svg.splitlines()[0]


def test_a_metric_is_the_sum_of_its_samples() -> None:
    page = '# TYPE a counter\na_total{b="c d"} 2\na_total{b="e"} 3\na_total_more 9\nplain 4\n'
    assert (series(page, "a_total"), series(page, "plain"), series(page, "absent")) == (5, 4, 0)


def test_a_slope_is_for_each_million_requests() -> None:
    assert per_million([(0, 90.0), (500_000, 95.0), (1_000_000, 100.0)]) == pytest.approx(10.0)
    assert per_million([(5, 1.0)]) == 0


def test_the_sink_finds_each_spans_trace_id() -> None:
    request = ExportTraceServiceRequest()
    group = request.resource_spans.add()
    group.resource.attributes.add(key="service.name").value.string_value = "quarterdeck"
    scope = group.scope_spans.add()
    scope.scope.name = "quarterdeck"
    for i in range(300):
        span = scope.spans.add(trace_id=bytes([i % 256]) * 16, span_id=b"12345678", name="chat", start_time_unix_nano=i)
        span.attributes.add(key="k").value.string_value = "x" * i
    assert trace_ids(request.SerializeToString()) == [bytes([i % 256]) * 16 for i in range(300)]
    assert trace_ids(b"") == []


def usage(status: str, requests: int, cost: str) -> Usage:
    return Usage(
        group=(status,), requests=requests, input_tokens=24 * requests, output_tokens=20 * requests, cost=Decimal(cost)
    )


RIGHT = SimpleNamespace(answered=100, errors=0, most_cancelled=32, recorded=101, spans=101, traces=101, hits=0)


def test_a_run_in_which_everything_agrees_is_right() -> None:
    usages = [usage("ok", 100, "0.00104"), Usage(group=("cancelled",), requests=1)]
    assert judge(usages, **vars(RIGHT)).problems == ()


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        ({"errors": 3}, "3 answers were no 200"),
        ({"recorded": 102}, "101 rows of 102 requests"),
        ({"traces": 100}, "100 traces of 101 rows"),
        ({"answered": 102, "recorded": 101}, "102 answers were seen"),
        ({"hits": 5}, "5 answers came from the cache"),
    ],
)
def test_what_disagrees_is_told(changed: dict[str, int], problem: str) -> None:
    usages = [usage("ok", 100, "0.00104"), Usage(group=("cancelled",), requests=1)]
    assert problem in "; ".join(judge(usages, **(vars(RIGHT) | changed)).problems)


def test_money_is_compared_to_the_last_decimal() -> None:
    usages = [usage("ok", 100, "0.00104000000000000001"), Usage(group=("cancelled",), requests=1)]
    assert "booked" in "; ".join(judge(usages, **vars(RIGHT)).problems)


def test_an_error_in_the_ledger_is_told() -> None:
    usages = [usage("ok", 99, "0.0010296"), Usage(group=("error",), requests=2)]
    assert "2 rows are neither ok nor cancelled" in "; ".join(judge(usages, **vars(RIGHT)).problems)
