"""The operator's metrics."""

from quarterdeck.telemetry.metrics import Metrics

_RECONCILE_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class OperatorMetrics(Metrics):
    """Reconciles, the queue, and calls of the API server."""

    def __init__(self) -> None:
        super().__init__()
        self.reconciles = self.counter(
            "quarterdeck_operator_reconciles",
            "Reconciles by kind of object: ok, or failed (repeated with growing pauses).",
            ("kind", "outcome"),
        )
        self.reconcile_seconds = self.histogram(
            "quarterdeck_operator_reconcile_seconds", "Duration of a reconcile.", _RECONCILE_SECONDS, ("kind",)
        )
        self.queue_wait_seconds = self.histogram(
            "quarterdeck_operator_queue_wait_seconds",
            "Time that an object waited for its reconcile.",
            _RECONCILE_SECONDS,
        )
        self.queue_depth = self.gauge(
            "quarterdeck_operator_queue_objects", "Objects that wait for a reconcile or are being reconciled."
        )
        self.api_calls = self.counter(
            "quarterdeck_operator_api_calls",
            "Calls of the API server by verb, kind of object and outcome: ok, missing (404), conflict (409), throttled"
            " (429), refused (other 4xx), failed (5xx, or no answer).",
            ("verb", "kind", "outcome"),
        )
        self.api_seconds = self.histogram(
            "quarterdeck_operator_api_call_seconds",
            "Duration of calls of the API server.",
            _RECONCILE_SECONDS,
            ("verb",),
        )
        self.is_leader = self.gauge("quarterdeck_operator_leader", "1 if this operator leads, else 0.")
        self.objects = self.gauge("quarterdeck_operator_objects", "Custom resources by kind.", ("kind",))
        self.models = self.gauge("quarterdeck_operator_models", "Models by state.", ("state",))
        self.canaries = self.gauge("quarterdeck_operator_canaries", "Models with a canary, by its phase.", ("phase",))
        self.adapters = self.gauge(
            "quarterdeck_operator_adapters",
            "ModelAdapters by state: ready, waiting (it is loaded, or its Model has no replica) or failed.",
            ("state",),
        )
        self.scalings = self.counter(
            "quarterdeck_operator_scalings", "Changes of a Model's number of replicas.", ("direction",)
        )
        self.published = self.counter(
            "quarterdeck_operator_config_writes", "Writes of the configuration that gateways follow."
        )
        self.gateways = self.gauge("quarterdeck_operator_gateways", "Gateways that are asked for their demand.")
        self.watch_events = self.counter(
            "quarterdeck_operator_watch_events", "Changes reported by the API server, by kind of object.", ("kind",)
        )
        self.corrections = self.counter(
            "quarterdeck_operator_watch_corrections",
            "Objects whose change or deletion a watch had missed, found by listing them.",
        )


def outcome_of(status: int) -> str:
    """The label of an API call's status; 0: no answer."""
    if 200 <= status < 300:
        return "ok"
    return {404: "missing", 409: "conflict", 429: "throttled"}.get(
        status, "refused" if 400 <= status < 500 else "failed"
    )
