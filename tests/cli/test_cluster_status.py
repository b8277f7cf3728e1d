"""The parts of a release and its Models, from the objects of a cluster."""

from typing import Any

from quarterdeck.cli.cluster_status import Part, model_state, parts_of


def workload(component: str, replicas: int, ready: int | None) -> dict[str, Any]:
    status = {} if ready is None else {"readyReplicas": ready}
    labels = {"app.kubernetes.io/component": component}
    return {"metadata": {"name": component, "labels": labels}, "spec": {"replicas": replicas}, "status": status}


def test_a_part_is_ready_when_all_its_replicas_are() -> None:
    found = parts_of([workload("worker", 1, 1), workload("gateway", 2, 1), workload("redis", 0, None)], [])
    assert [(one.name, one.state) for one in found] == [
        ("gateway", "1 of 2 ready"),
        ("worker", "ready"),
        ("redis", "scaled to zero"),
    ]


def test_the_reason_of_a_pod_that_waits_is_shown() -> None:
    labels = {"app.kubernetes.io/component": "gateway"}
    waiting = {"state": {"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}}
    pulling: dict[str, Any] = {"metadata": {"labels": labels}, "status": {"containerStatuses": [waiting]}}
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes"}
    pending: dict[str, Any] = {"metadata": {"labels": labels}, "status": {"conditions": [condition]}}
    gateway = workload("gateway", 1, 0)
    assert parts_of([gateway], [pulling]) == [Part("gateway", 1, 0, "ImagePullBackOff: no such image")]
    assert parts_of([gateway], [pending])[0].detail == "Unschedulable: 0/1 nodes"


def test_a_model_says_its_reason_and_message() -> None:
    conditions = [{"type": "Ready", "status": "False", "reason": "Downloading", "message": "12 of 40 GB"}]
    status = {"conditions": conditions, "replicas": {"desired": 2, "ready": 1}}
    found = model_state({"metadata": {"name": "m"}, "status": status})
    assert (found.is_ready, found.reason, found.message, found.replicas) == (False, "Downloading", "12 of 40 GB", "1/2")
    assert found.is_in_trouble


def test_a_model_that_no_operator_has_seen_says_so() -> None:
    found = model_state({"metadata": {"name": "m"}})
    assert (found.reason, found.message) == ("Pending", "the operator has not seen it")
