"""Which requests become traces. Pure; a record delivered twice is decided the same."""

from quarterdeck.record import RequestRecord
from quarterdeck.settings.telemetry import TelemetryConfig
from quarterdeck.telemetry.traces.span_ids import trace_id_of

_UINT64 = 2**64


def is_sampled(record: RequestRecord, config: TelemetryConfig) -> bool:
    """Whether a record's trace is exported.

    Decided by the trace id, as OpenTelemetry's TraceIdRatioBased does, so that all requests of one trace have the same
    fate. Failed requests are always exported, unless the caller's flag counts and says no.
    """
    caller = record.trace
    if config.sampling == "parent" and caller is not None and caller.parent:
        return caller.is_sampled
    ratio = config.sampling_ratio
    if ratio >= 1 or record.status in ("error", "lost"):
        return True
    return int.from_bytes(trace_id_of(record)[8:], "big") < ratio * _UINT64
