"""A trace backend in this process: as strict as Langfuse's endpoint, and slow, faulty or stopped on demand.

Used by tests of every layer. It checks each export against Langfuse's transport rules, decodes it with
opentelemetry-proto and keeps the oracle's interpretation of each span.
"""

import base64
import threading
import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any, Self

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import ScopeSpans
from opentelemetry.proto.trace.v1.trace_pb2 import Span as ProtoSpan
from tests.quiet_server import QuietHTTPServer
from tests.telemetry.langfuse_oracle import Observation, observation_of

PUBLIC_KEY, SECRET_KEY = "pk-lf-test", "sk-lf-test-secret"


@dataclass(frozen=True)
class ReceivedSpan:
    """A span as received over the wire."""

    name: str
    kind: int
    trace_id: str
    span_id: str
    parent_id: str | None
    attributes: dict[str, Any]
    resource: dict[str, Any]
    events: list[str]
    status: int
    observation: Observation
    start_ns: int = 0
    end_ns: int = 0
    flags: int = 0
    trace_state: str = ""


@dataclass
class Behaviour:
    """How the sink responds from now on."""

    status: int | None = None
    """The status of every export. None: the transport rules decide."""
    retry_after: str | None = None
    refuses: Callable[[ReceivedSpan], bool] = field(default=lambda span: False)
    """An export with such a span is refused as a whole, 400, as Langfuse does."""
    drops: Callable[[ReceivedSpan], bool] = field(default=lambda span: False)
    """Such a span is dropped and counted in the response (OTLP's partial success)."""
    gate: threading.Event | None = None
    """An export waits for this event before its response."""


class OTLPSink:
    """Listens on its own port from `start` to `stop`; on the same port when started again."""

    def __init__(self) -> None:
        self.behaviour = Behaviour()
        self.spans: list[ReceivedSpan] = []
        """Every span of every accepted export, including repeated ones."""
        self.exports = 0
        """Number of requests, whatever the response."""
        self.complaints: list[str] = []
        """Why requests were refused by the rules; empty if all were valid."""
        self._changed = threading.Condition()
        self._server: _Server | None = None
        self._port = 0

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    @property
    def endpoint(self) -> str:
        return f"{self.base_url}/api/public/otel/v1/traces"

    @property
    def headers(self) -> dict[str, str]:
        return {"authorization": "Basic " + base64.b64encode(f"{PUBLIC_KEY}:{SECRET_KEY}".encode()).decode()}

    @property
    def environment(self) -> dict[str, str]:
        """The environment variables that enable tracing to this sink."""
        return {
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": self.endpoint,
            "OTEL_EXPORTER_OTLP_HEADERS": f"Authorization={self.headers['authorization']}",
        }

    @property
    def observations(self) -> dict[str, Observation]:
        """The model's call of each trace, or the request where it called none, by trace id. Others cost nothing."""
        found: dict[str, Observation] = {}
        with self._changed:
            for span in self.spans:
                if span.trace_id not in found or span.observation.type in ("GENERATION", "EMBEDDING"):
                    found[span.trace_id] = span.observation
        return found

    @property
    def rows(self) -> dict[str, Observation]:
        """Every observation, by its id; a repeated span is one row."""
        with self._changed:
            return {span.span_id: span.observation for span in self.spans}

    def start(self) -> Self:
        self._server = _Server(self, self._port)
        self._port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def stop(self) -> None:
        """Stop listening and close open connections."""
        server, self._server = self._server, None
        if server is not None:
            server.shutdown()
            server.server_close()
            server.hang_up()

    def wait_for(self, condition: Callable[[Self], bool], seconds: float = 20.0) -> None:
        """Block until `condition(self)` holds; checked after each request."""
        deadline = time.monotonic() + seconds
        with self._changed:
            while not condition(self):
                if not self._changed.wait(deadline - time.monotonic()):
                    raise TimeoutError(f"not so after {seconds} s: {len(self.spans)} spans, {self.complaints}")

    def answer(self, handler: BaseHTTPRequestHandler, body: bytes) -> tuple[int, bytes, dict[str, str]]:
        """Process one export. Returns status, body and headers."""
        behaviour = self.behaviour
        with self._changed:
            self.exports += 1
            self._changed.notify_all()
        if behaviour.gate is not None:
            behaviour.gate.wait()
        if behaviour.status is not None:
            headers = {"retry-after": behaviour.retry_after} if behaviour.retry_after else {}
            return behaviour.status, b"as told", headers
        try:
            spans = self._judge(handler, body)
        except _Refusal as refusal:
            with self._changed:
                self.complaints.append(str(refusal))
                self._changed.notify_all()
            return refusal.status, str(refusal).encode(), {}
        if any(behaviour.refuses(span) for span in spans):
            return 400, b'{"error":"told to refuse a span"}', {}
        kept = [span for span in spans if not behaviour.drops(span)]
        with self._changed:
            self.spans += kept
            self._changed.notify_all()
        if len(kept) < len(spans):
            return 200, _partial_success(len(spans) - len(kept)), {"content-type": "application/x-protobuf"}
        return 200, b"{}", {"content-type": "application/json"}

    def _judge(self, handler: BaseHTTPRequestHandler, body: bytes) -> Sequence[ReceivedSpan]:
        headers = handler.headers
        if handler.path != "/api/public/otel/v1/traces":
            raise _Refusal(404, f"no such path: {handler.path}")
        if headers.get("authorization") != self.headers["authorization"]:
            raise _Refusal(401, "invalid credentials")
        if headers.get("x-langfuse-ingestion-version") != "4":
            raise _Refusal(400, "not on the direct path: x-langfuse-ingestion-version must be 4")
        if headers.get("content-type") != "application/x-protobuf":
            raise _Refusal(400, f"content type {headers.get('content-type')}")
        if headers.get("content-encoding", "identity") == "gzip":
            body = _only_member(body)
        request = ExportTraceServiceRequest.FromString(body)
        spans = [
            _received(span, _values(group.resource.attributes))
            for group in request.resource_spans
            for scope in group.scope_spans
            for span in scope.spans
        ]
        if not spans:
            raise _Refusal(400, "an export without spans")
        return spans


def _only_member(body: bytes) -> bytes:
    """Some backends read the first gzip member and ignore others."""
    reader = zlib.decompressobj(16 + zlib.MAX_WBITS)
    try:
        plain = reader.decompress(body)
    except zlib.error as error:
        raise _Refusal(400, str(error)) from error
    if not reader.eof or reader.unused_data:
        raise _Refusal(400, "not one complete gzip member")
    return plain


class _Refusal(Exception):
    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class _Server(QuietHTTPServer):
    block_on_close = False
    allow_reuse_address = True

    def __init__(self, sink: OTLPSink, port: int) -> None:
        self.connections: set[Any] = set()
        super().__init__(("127.0.0.1", port), _handler(sink))

    def hang_up(self) -> None:
        for connection in list(self.connections):
            self.shutdown_request(connection)

    def process_request(self, request: Any, client_address: Any) -> None:
        self.connections.add(request)
        super().process_request(request, client_address)

    def close_request(self, request: Any) -> None:
        self.connections.discard(request)
        super().close_request(request)


def _handler(sink: OTLPSink) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            status, answer, headers = sink.answer(self, body)
            self.send_response(status)
            self.send_header("content-length", str(len(answer)))
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, format: str, *args: Any) -> None:
            """Log nothing."""

    return Handler


def spans_of(encoded: bytes) -> list[ReceivedSpan]:
    """Encoded items of `ScopeSpans.spans`, as a sink receives them."""
    return [_received(span, {}) for span in ScopeSpans.FromString(encoded).spans]


def _received(span: ProtoSpan, resource: dict[str, Any]) -> ReceivedSpan:
    # One malformed id refuses the whole export.
    if len(span.trace_id) != 16 or not any(span.trace_id) or len(span.span_id) != 8 or not any(span.span_id):
        raise _Refusal(400, f"invalid ids: {span.trace_id.hex()!r} {span.span_id.hex()!r}")
    attributes = _values(span.attributes)
    observation = observation_of(
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex() or None,
        name=span.name,
        start_ns=span.start_time_unix_nano,
        end_ns=span.end_time_unix_nano,
        status_code=span.status.code,
        status_message=span.status.message,
        attributes=attributes,
        resource=resource,
    )
    events = [event.name for event in span.events]
    return ReceivedSpan(
        span.name,
        span.kind,
        span.trace_id.hex(),
        span.span_id.hex(),
        span.parent_span_id.hex() or None,
        attributes,
        resource,
        events,
        span.status.code,
        observation,
        span.start_time_unix_nano,
        span.end_time_unix_nano,
        span.flags,
        span.trace_state,
    )


def _values(attributes: Sequence[KeyValue]) -> dict[str, Any]:
    return {pair.key: _value(pair.value) for pair in attributes}


def _value(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(item) for item in value.array_value.values]
    return getattr(value, kind) if kind else None


def _partial_success(rejected: int) -> bytes:
    answer = ExportTraceServiceResponse()
    answer.partial_success.rejected_spans = rejected
    answer.partial_success.error_message = "told to drop"
    return bytes(answer.SerializeToString())
