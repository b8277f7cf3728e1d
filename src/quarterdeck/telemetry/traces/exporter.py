"""Exports batches of traces by OTLP/HTTP. It blocks: the worker calls it in a thread.

The SDK's exporter returns only "success" or "failure". Here a refusal (permanent) differs from an outage (temporary),
and a refused export is split until the trace that is refused is found, so that it takes no other with it. Requests use
one connection that is kept open. The batches are sent as they are: they were encoded and compressed once for all sinks.
"""

import http.client
import socket
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # protobuf ships no types
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from quarterdeck.net.http_origin import Origin
from quarterdeck.net.proxies import Proxies, ProxyError
from quarterdeck.telemetry.traces import otlp_encoding as otlp
from quarterdeck.telemetry.traces.batches import TraceBatch, gzipped, pack

SCOPE = "quarterdeck"
MAX_RESPONSE = 64 * 1024
"""Most bytes read of a sink's response, which is one sentence."""

# Permanent: the request itself is invalid. 401, 403 and 404 are temporary: the key or path is misconfigured, and the
# spans are valid once that is fixed.
_REFUSED = frozenset({400, 411, 413, 414, 415, 422, 431})


class OTLPError(Exception):
    """The sink is unavailable or asks to retry later, after `retry_after` seconds if it says so."""

    def __init__(self, reason: str, retry_after: float | None = None) -> None:
        super().__init__(reason)
        self.retry_after = retry_after


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of an export, in traces."""

    delivered: int
    refused: int = 0
    reason: str = ""
    """The sink's message for the last refusal."""


class OTLPExporter:
    """Client of one sink. Not thread-safe, except `close`, which ends a running request.

    `attributes` are added to the resource and replace ours of the same name. `is_compressed`: whether the sink takes
    gzip.
    """

    def __init__(
        self,
        endpoint: str,
        *,
        headers: Mapping[str, str],
        service_name: str,
        environment: str,
        service_version: str = "",
        attributes: Mapping[str, str] = {},
        timeout: float = 10.0,
        proxies: Proxies | None = None,
        is_compressed: bool = True,
    ) -> None:
        parts = urlsplit(endpoint)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("the OTLP endpoint must be an http:// or https:// URL")
        self._secure, self._host, self._port = parts.scheme == "https", parts.hostname, parts.port
        self._path = (parts.path or "/v1/traces") + (f"?{parts.query}" if parts.query else "")
        self._timeout = timeout
        self._origin, self._proxies = Origin.parse(endpoint), proxies
        self._headers = {
            "content-type": "application/x-protobuf",
            **({"content-encoding": "gzip"} if is_compressed else {}),
            "user-agent": "quarterdeck",
            # Langfuse 4's direct ingestion; without it spans appear after minutes. Other sinks ignore it.
            "x-langfuse-ingestion-version": "4",
            **headers,
        }
        self._is_compressed = is_compressed
        self._version = service_version
        self._scope = otlp.instrumentation_scope(SCOPE, service_version)
        self._attributes = dict(attributes)
        self.set_labels(service_name=service_name, environment=environment)
        self._connection: http.client.HTTPConnection | None = None
        self._closed = False
        self._target = self._path
        self._proxy_headers: dict[str, str] = {}

    def set_labels(self, *, service_name: str, environment: str) -> None:
        """The resource attributes of exports from now on. Callable from any thread."""
        self._resource = {
            "service.name": service_name,
            "service.version": self._version,
            "deployment.environment.name": environment,
            **self._attributes,
        }

    def export(self, batches: Sequence[TraceBatch]) -> Outcome:
        """Send batches in one request. Raises OTLPError if the sink neither accepted nor refused them: the caller
        retries."""
        count = sum(batch.traces for batch in batches)
        if not count:
            return Outcome(0)
        try:
            body = self.encode(batches)
        except zlib.error as error:
            return self._apart(batches, f"damaged: {error}")
        status, words, retry_after = self._post(body)
        if 200 <= status < 300:
            refused, reason = _partial_refusal(words)
            refused = min(refused, count)  # it counts spans
            return Outcome(count - refused, refused, reason)
        reason = f"HTTP {status} {_readable(words)}".strip()
        if status not in _REFUSED:
            raise OTLPError(reason, retry_after)
        return self._apart(batches, reason)

    def _apart(self, batches: Sequence[TraceBatch], reason: str) -> Outcome:
        """Send halves of an export that can't be sent as a whole, until what it is about is alone."""
        count = sum(batch.traces for batch in batches)
        try:
            parts = _halves(batches) if count > 1 else ()
        except zlib.error:
            parts = ()
        if not parts:
            return Outcome(0, count, reason)
        halves = [self.export(part) for part in parts]
        return Outcome(
            sum(half.delivered for half in halves),
            sum(half.refused for half in halves),
            next((half.reason for half in reversed(halves) if half.reason), ""),
        )

    def encode(self, batches: Sequence[TraceBatch]) -> bytes:
        """The request's body: OTLP protobuf, compressed unless the sink does not take that."""
        resource = b"".join([otlp.resource_attribute(name, value) for name, value in self._resource.items()])
        head = otlp.export_request(resource, self._scope, sum(batch.size for batch in batches))
        if self._is_compressed:
            return gzipped(head, batches)
        plain = [zlib.decompressobj(-zlib.MAX_WBITS).decompress(batch.data) for batch in batches]
        return b"".join((head, *plain))

    def close(self) -> None:
        """End a running request and refuse further ones. Callable from any thread."""
        self._closed = True
        connection = self._connection
        if connection is not None and connection.sock is not None:
            try:
                connection.sock.shutdown(socket.SHUT_RDWR)  # wakes the thread that waits for the response
            except OSError:
                return

    def _post(self, body: bytes) -> tuple[int, bytes, float | None]:
        for is_last in (False, True):
            if self._closed:
                raise OTLPError("closed")
            is_new = self._connection is None
            try:
                return self._send(body)
            except (OSError, http.client.HTTPException) as error:
                self.disconnect()
                # The sink may have closed an idle connection: retry once on a new one.
                if is_new or is_last:
                    raise OTLPError(f"{type(error).__name__}: {error}".strip(": ")) from error
        raise AssertionError("unreachable")

    def _send(self, body: bytes) -> tuple[int, bytes, float | None]:
        if self._connection is None:
            self._connect()
        assert self._connection is not None  # noqa: S101  # narrows the type
        self._connection.request("POST", self._target, body=body, headers={**self._headers, **self._proxy_headers})
        response = self._connection.getresponse()
        words = response.read(MAX_RESPONSE)
        if response.will_close or not response.isclosed():
            self.disconnect()
        return response.status, words, _seconds(response.headers.get("retry-after"))

    def _connect(self) -> None:
        """Make the connection that requests open, to the sink or to its proxy."""
        self._target, self._proxy_headers = self._path, {}
        host, port, is_tls = self._host, self._port, self._secure
        try:
            proxy = self._proxies.of(self._origin) if self._proxies is not None else None
        except ProxyError as error:
            raise OTLPError(str(error)) from error
        if proxy is None:
            kind = http.client.HTTPSConnection if is_tls else http.client.HTTPConnection
            self._connection = kind(host, port, timeout=self._timeout)
            return
        headers = {"proxy-authorization": proxy.authorization.decode()} if proxy.authorization else {}
        if is_tls:
            if proxy.tls:
                raise OTLPError("an https proxy is not supported for an https endpoint")
            self._connection = http.client.HTTPSConnection(proxy.host, proxy.port, timeout=self._timeout)
            self._connection.set_tunnel(host, port or 443, headers)
            return
        kind = http.client.HTTPSConnection if proxy.tls else http.client.HTTPConnection
        self._connection = kind(proxy.host, proxy.port, timeout=self._timeout)
        self._target, self._proxy_headers = f"http://{self._origin.authority}{self._path}", headers

    def disconnect(self) -> None:
        """Close the connection; the next export opens another. Called by the exporting thread."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _halves(batches: Sequence[TraceBatch]) -> tuple[Sequence[TraceBatch], Sequence[TraceBatch]]:
    """Between two batches, or within the only one."""
    if len(batches) > 1:
        middle = len(batches) // 2
        return batches[:middle], batches[middle:]
    traces = batches[0].unpacked()
    middle = len(traces) // 2
    return [pack(traces[:middle])], [pack(traces[middle:])]


def _partial_refusal(body: bytes) -> tuple[int, str]:
    """Return count and reason of OTLP's partial refusal, which must not be retried; 0 for a JSON or empty response."""
    try:
        partial = ExportTraceServiceResponse.FromString(body).partial_success
    except DecodeError:
        return 0, ""
    return partial.rejected_spans, partial.error_message


def _readable(body: bytes) -> str:
    text = "".join(c if c.isprintable() else " " for c in body[:200].decode("utf-8", "replace"))
    return " ".join(text.split())


def _seconds(text: str | None) -> float | None:
    """Parse Retry-After in seconds; a date is ignored."""
    try:
        return min(max(float(text), 0.0), 300.0) if text else None
    except ValueError:
        return None
