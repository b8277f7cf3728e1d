"""Exported spans are accepted, refused for good, or kept for a retry."""

import http.client
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from urllib.parse import urlsplit

import pytest
from tests.quiet_server import QuietHTTPServer
from tests.records import a_record
from tests.telemetry.otlp_sink import OTLPSink

from quarterdeck.net.proxies import Proxies
from quarterdeck.record import RequestRecord
from quarterdeck.telemetry.traces.batches import TraceBatch, pack
from quarterdeck.telemetry.traces.exporter import OTLPError, OTLPExporter, Outcome
from quarterdeck.telemetry.traces.projection import TraceProjection


@pytest.fixture
def sink() -> Iterator[OTLPSink]:
    subject = OTLPSink().start()
    yield subject
    subject.stop()


@pytest.fixture
def exporter(sink: OTLPSink) -> Iterator[OTLPExporter]:
    subject = an_exporter(sink)
    yield subject
    subject.close()
    subject.disconnect()


def an_exporter(sink: OTLPSink, **changes: object) -> OTLPExporter:
    arguments = {"headers": sink.headers, "service_name": "quarterdeck", "environment": "test", "timeout": 5.0}
    return OTLPExporter(sink.endpoint, **(arguments | changes))  # type: ignore[arg-type]


def batch_of(*records: RequestRecord) -> TraceBatch:
    encode = TraceProjection("test").encode
    return pack([encode(record) for record in records])


def traces(count: int) -> list[TraceBatch]:
    return [batch_of(*[a_record() for _ in range(count)])]


def test_a_trace_arrives_as_it_was_made(sink: OTLPSink, exporter: OTLPExporter) -> None:
    record = a_record()
    assert exporter.export([batch_of(record)]) == Outcome(1)
    names = ["POST /v1/chat/completions", "chat smollm2", "attempt smollm2#0", "attempt smollm2#1"]
    assert [span.name for span in sink.spans] == names
    assert {span.trace_id for span in sink.spans} == {record.trace_id}
    assert [span.kind for span in sink.spans] == [2, 3, 3, 3]  # SERVER, then CLIENT
    assert sink.spans[0].resource["service.name"] == "quarterdeck"
    assert sink.spans[0].resource["deployment.environment.name"] == "test"
    assert sink.complaints == []


def test_several_batches_are_one_request(sink: OTLPSink, exporter: OTLPExporter) -> None:
    records = [a_record() for _ in range(9)]
    assert exporter.export([batch_of(*records[:4]), batch_of(*records[4:8]), batch_of(records[8])]) == Outcome(9)
    assert sink.observations.keys() == {record.trace_id for record in records}
    assert sink.exports == 1


def test_a_sink_that_takes_no_gzip_gets_none(sink: OTLPSink) -> None:
    subject = an_exporter(sink, is_compressed=False)
    assert subject.export([*traces(3), *traces(2)]) == Outcome(5)
    assert len(sink.observations) == 5
    assert sink.complaints == []
    subject.close()
    subject.disconnect()


def test_an_error_is_the_spans_status(sink: OTLPSink, exporter: OTLPExporter) -> None:
    exporter.export([batch_of(a_record(status="error", http_status=503, error_code="engine_unavailable"))])
    assert sink.spans[0].status == 2
    assert sink.spans[0].observation.level == "ERROR"


def test_nothing_to_send_is_no_request(sink: OTLPSink, exporter: OTLPExporter) -> None:
    assert exporter.export([]) == Outcome(0)
    assert sink.exports == 0


def test_a_trace_that_is_refused_does_not_take_the_others_with_it(sink: OTLPSink, exporter: OTLPExporter) -> None:
    records = [a_record() for _ in range(20)]
    sink.behaviour.refuses = lambda span: span.trace_id == records[7].trace_id
    outcome = exporter.export([batch_of(*records[:5]), batch_of(*records[5:])])
    assert (outcome.delivered, outcome.refused) == (19, 1)
    assert "told to refuse" in outcome.reason
    assert sink.observations.keys() == {record.trace_id for record in records} - {records[7].trace_id}


def test_a_partial_success_is_counted_and_not_sent_again(sink: OTLPSink, exporter: OTLPExporter) -> None:
    records = [a_record() for _ in range(3)]
    sink.behaviour.drops = lambda span: span.trace_id == records[1].trace_id and span.parent_id is None
    assert exporter.export([batch_of(*records)]) == Outcome(2, 1, "told to drop")
    assert sink.exports == 1


@pytest.mark.parametrize("status", [401, 403, 404, 408, 429, 500, 502, 503, 504, 301])
def test_what_may_be_put_right_is_not_now(sink: OTLPSink, exporter: OTLPExporter, status: int) -> None:
    sink.behaviour.status = status
    with pytest.raises(OTLPError, match=str(status)):
        exporter.export(traces(1))


def test_the_sink_may_say_when_to_come_back(sink: OTLPSink, exporter: OTLPExporter) -> None:
    sink.behaviour.status, sink.behaviour.retry_after = 503, "7"
    with pytest.raises(OTLPError) as caught:
        exporter.export(traces(1))
    assert caught.value.retry_after == 7.0


def test_a_wrong_key_is_not_now_and_is_not_shown(sink: OTLPSink) -> None:
    exporter = an_exporter(sink, headers={"authorization": "Basic c2VjcmV0"})
    with pytest.raises(OTLPError) as caught:
        exporter.export(traces(1))
    assert "401" in str(caught.value)
    assert "c2VjcmV0" not in str(caught.value)
    exporter.disconnect()


def test_a_dead_sink_is_not_now_and_then_takes_them(sink: OTLPSink, exporter: OTLPExporter) -> None:
    exporter.export(traces(1))
    sink.stop()
    with pytest.raises(OTLPError):
        exporter.export(traces(1))
    sink.start()
    assert exporter.export(traces(1)) == Outcome(1)


def test_a_connection_closed_while_idle_costs_nothing(sink: OTLPSink, exporter: OTLPExporter) -> None:
    exporter.export(traces(1))
    sink.stop()
    sink.start()
    assert exporter.export(traces(1)) == Outcome(1)


def test_a_sink_that_does_not_answer_is_left_after_the_time_out(sink: OTLPSink) -> None:
    sink.behaviour.gate = threading.Event()
    exporter = an_exporter(sink, timeout=0.1)
    with pytest.raises(OTLPError):
        exporter.export(traces(1))
    sink.behaviour.gate.set()


def test_closing_ends_a_request_under_way(sink: OTLPSink, exporter: OTLPExporter) -> None:
    sink.behaviour.gate = threading.Event()
    failures: list[BaseException] = []

    def export() -> None:
        try:
            exporter.export(traces(1))
        except OTLPError as error:
            failures.append(error)

    thread = threading.Thread(target=export)
    thread.start()
    sink.wait_for(lambda s: s.exports == 1)
    exporter.close()
    thread.join(5)
    assert not thread.is_alive()
    assert len(failures) == 1
    sink.behaviour.gate.set()


@pytest.mark.parametrize("endpoint", ["localhost:4318", "grpc://h:4317", "https://"])
def test_what_is_no_url_is_refused_at_the_start(endpoint: str) -> None:
    with pytest.raises(ValueError, match="OTLP endpoint"):
        OTLPExporter(endpoint, headers={}, service_name="x", environment="x")


def test_spans_go_through_the_environments_proxy(sink: OTLPSink) -> None:
    seen: list[tuple[str, str | None, str | None]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            seen.append((self.path, self.headers["host"], self.headers["proxy-authorization"]))
            there = http.client.HTTPConnection("127.0.0.1", urlsplit(sink.endpoint).port)
            headers = {name: value for name, value in self.headers.items() if name != "proxy-authorization"}
            there.request("POST", urlsplit(self.path).path, body, headers)
            answer = there.getresponse()
            words = answer.read()
            there.close()
            self.send_response(answer.status)
            self.send_header("content-length", str(len(words)))
            self.end_headers()
            self.wfile.write(words)

        def log_message(self, format: str, *args: object) -> None: ...

    with QuietHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        proxies = Proxies({"http_proxy": f"http://u:p@127.0.0.1:{server.server_port}"})
        path = urlsplit(sink.endpoint).path
        subject = OTLPExporter(
            f"http://otel.example.com{path}",
            headers=sink.headers,
            service_name="quarterdeck",
            environment="test",
            proxies=proxies,
        )
        assert subject.export(traces(2)) == Outcome(2)
        subject.close()
        subject.disconnect()
        server.shutdown()
        thread.join()
    assert seen == [(f"http://otel.example.com{path}", "otel.example.com", "Basic dTpw")]


def test_a_proxy_that_can_not_be_used_is_a_failure_of_the_export() -> None:
    subject = OTLPExporter(
        "https://otel.example.com",
        headers={},
        service_name="x",
        environment="x",
        proxies=Proxies({"https_proxy": "socks5://p"}),
    )
    with pytest.raises(OTLPError, match="https_proxy names a socks5 proxy"):
        subject.export(traces(1))
