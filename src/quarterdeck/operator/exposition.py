"""What the operator's metrics say of objects and of calls, counted when they are read."""

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from quarterdeck.kube.conditions import Reason
from quarterdeck.kube.reasons import EXPLANATIONS
from quarterdeck.kube.resources.adapter import ModelAdapter
from quarterdeck.kube.resources.model import Model
from quarterdeck.operator.cache import ObjectCache
from quarterdeck.operator.manifests import CUSTOM, Manifest
from quarterdeck.telemetry.metrics import Gauge
from quarterdeck.telemetry.operator_metrics import OperatorMetrics, outcome_of

MODEL_STATES = ("Serving", "Zero", "Suspended", "Starting", "Failed")
CANARY_PHASES = ("Preparing", "Running", "Promoting", "Aborting", "Aborted")
ADAPTER_STATES = ("ready", "waiting", "failed")


def count_objects(metrics: OperatorMetrics, cache: ObjectCache) -> None:
    """Set the gauges of custom resources."""
    for kind in CUSTOM:
        metrics.objects.set(len(cache.keys(kind.name)), (kind.name,))
    statuses = [each.get("status") or {} for each in cache.of_kind(Model.kind)]
    _set(metrics.models, MODEL_STATES, [str(status.get("state", "Starting")) for status in statuses])
    phases = [str(status["canary"].get("phase")) for status in statuses if status.get("canary")]
    _set(metrics.canaries, CANARY_PHASES, phases)
    _set(metrics.adapters, ADAPTER_STATES, list(map(adapter_state, cache.of_kind(ModelAdapter.kind))))


def adapter_state(manifest: Manifest) -> str:
    """ready, waiting (it is loaded, or its Model has no replica) or failed."""
    conditions = (manifest.get("status") or {}).get("conditions") or ()
    ready: Mapping[str, Any] = next((each for each in conditions if each.get("type") == "Ready"), {})
    if ready.get("status") == "True":
        return "ready"
    reason = ready.get("reason")
    explanation = EXPLANATIONS.get(Reason(reason)) if reason in frozenset(Reason) else None
    return "failed" if explanation is not None and not explanation.is_progress else "waiting"


def _set(gauge: Gauge, labels: tuple[str, ...], found: list[str]) -> None:
    counts = Counter(found)
    for label in labels:
        gauge.set(counts[label], (label,))


def observed_cluster(metrics: OperatorMetrics) -> Callable[[str, str, int, float], None]:
    """`on_call` of a Cluster that counts into `metrics`."""

    def on_call(verb: str, kind: str, status: int, seconds: float) -> None:
        metrics.api_calls.add((verb, kind, outcome_of(status)))
        metrics.api_seconds.observe(seconds, (verb,))

    return on_call
