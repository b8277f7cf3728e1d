"""The operator's gauges count adapters by state and canaries by phase."""

from typing import Any

import pytest

from quarterdeck.operator.cache import ObjectCache
from quarterdeck.operator.exposition import adapter_state, count_objects
from quarterdeck.telemetry.operator_metrics import OperatorMetrics


def manifest(kind: str, name: str, **status: Any) -> dict[str, Any]:
    metadata = {"name": name, "uid": name, "resourceVersion": "1"}
    return {"apiVersion": "quarterdeck.dev/v1alpha1", "kind": kind, "metadata": metadata, "status": status}


def ready(status: str, reason: str) -> dict[str, Any]:
    return {
        "conditions": [{"type": "Accepted", "status": "True"}, {"type": "Ready", "status": status, "reason": reason}]
    }


@pytest.mark.parametrize(
    ("status", "state"),
    [
        ({}, "waiting"),
        (ready("True", "Ready"), "ready"),
        (ready("False", "AdapterRankTooLarge"), "failed"),
        (ready("Unknown", "Waiting"), "waiting"),
        (ready("False", "AReasonOfANewerOperator"), "waiting"),
    ],
)
def test_an_adapter_has_one_of_three_states(status: dict[str, Any], state: str) -> None:
    assert adapter_state(manifest("ModelAdapter", "a", **status)) == state


def test_what_is_gone_is_counted_as_zero() -> None:
    metrics, cache = OperatorMetrics(), ObjectCache()
    model = manifest("Model", "m", state="Serving", canary={"phase": "Running"})
    cache.put(model)
    cache.put(manifest("ModelAdapter", "a", **ready("True", "Ready")))
    count_objects(metrics, cache)
    text = metrics.render().decode()
    assert 'quarterdeck_operator_canaries{phase="Running"} 1' in text
    assert 'quarterdeck_operator_adapters{state="ready"} 1' in text
    cache.remove(model)
    count_objects(metrics, cache)
    assert 'quarterdeck_operator_canaries{phase="Running"} 0' in metrics.render().decode()
