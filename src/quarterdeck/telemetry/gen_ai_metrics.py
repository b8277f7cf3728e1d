"""The gateway's metrics under the names of OpenTelemetry's gen_ai semantic conventions.

Dashboards made for these names work unchanged. Durations and times to first token are views of the gateway's own
histograms; tokens by request and times per token are counted here. Names are as Prometheus writes them: dots become
underscores, units a suffix.
"""

from collections.abc import Sequence

from quarterdeck.record import RequestRecord
from quarterdeck.telemetry.gen_ai import OPERATIONS, PROVIDER
from quarterdeck.telemetry.metrics import TOKEN_BUCKETS, TOKEN_COUNT_BUCKETS, Histogram, Labels, Metrics

_LABELS = ("gen_ai_operation_name", "gen_ai_provider_name", "gen_ai_request_model")


class GenAIMetrics:
    """Added to `metrics`. `duration` and `time_to_first_token` have the labels (operation, model)."""

    def __init__(self, metrics: Metrics, *, duration: Histogram, time_to_first_token: Histogram) -> None:
        metrics.view(
            "gen_ai_server_request_duration_seconds", "Time of a request to a model.", duration, _LABELS, _relabel
        )
        metrics.view(
            "gen_ai_server_time_to_first_token_seconds",
            "Time to the first chunk of a streamed answer.",
            time_to_first_token,
            _LABELS,
            _relabel,
        )
        self._time_per_token = metrics.histogram(
            "gen_ai_server_time_per_output_token_seconds",
            "Mean time per token after the first, of each streamed answer.",
            TOKEN_BUCKETS,
            _LABELS,
        )
        self._usage = metrics.histogram(
            "gen_ai_client_token_usage",
            "Tokens of a request: input (cached ones included) and output (reasoning included).",
            TOKEN_COUNT_BUCKETS,
            (*_LABELS, "gen_ai_token_type"),
        )

    def count(self, operation: str, model: str, records: Sequence[RequestRecord]) -> None:
        """Count finished requests of one operation and model."""
        labels = _relabel((operation, model))
        if inputs := [record.input_tokens for record in records if record.input_tokens]:
            self._usage.observe_all(inputs, (*labels, "input"))
        if outputs := [record.output_tokens for record in records if record.output_tokens]:
            self._usage.observe_all(outputs, (*labels, "output"))
        times = [
            (record.ended - record.first_token) / (record.output_tokens - 1)
            for record in records
            if record.stream and record.first_token is not None and record.output_tokens > 1
        ]
        if times:
            self._time_per_token.observe_all(times, labels)


def _relabel(labels: Labels) -> Labels:
    operation, model = labels
    return (OPERATIONS.get(operation, operation), PROVIDER, model)
