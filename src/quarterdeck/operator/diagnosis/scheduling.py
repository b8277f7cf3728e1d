"""Why a pod has no node: from the scheduler's message in the pod's condition PodScheduled."""

import re
from collections.abc import Sequence

from quarterdeck.kube.conditions import Reason
from quarterdeck.operator.diagnosis.evidence import Evidence
from quarterdeck.operator.diagnosis.finding import Finding, Object, name_of, sentence
from quarterdeck.operator.diagnosis.volumes import explain_claims

_INSUFFICIENT = re.compile(r"Insufficient ([\w./-]*\w)")
_CLAIM_MISSING = re.compile(r'persistentvolumeclaim "([^"]+)" not found')
_CLAIM_WORDS = ("PersistentVolumeClaim", "persistent volume", "volume node affinity", "volume(s)")
_COUNTS = re.compile(r"^\d+/\d+ nodes are available: ")
_BUSY = "No preemption victims found"
"""The scheduler says this of a node that is large enough and full; of one that is too small, that preemption does not
help."""
_NATIVE = frozenset({"cpu", "memory", "ephemeral-storage", "pods"})


def explain_scheduling(pod: Object, evidence: Evidence) -> Finding | None:
    """Return None for a pod that has a node."""
    if (pod.get("spec") or {}).get("nodeName"):
        return None
    conditions = (pod.get("status") or {}).get("conditions") or ()
    scheduled = next((each for each in conditions if each.get("type") == "PodScheduled"), None)
    if scheduled is None or scheduled.get("status") == "True":
        return Finding(Reason.SCHEDULING, "The pod waits for the scheduler.", subject=pod)
    if scheduled.get("reason") == "SchedulingGated":
        return Finding(Reason.SCHEDULING, "A scheduling gate (a queue of the cluster) holds the pod.", subject=pod)
    return _explain(pod, str(scheduled.get("message") or ""), evidence)


def _explain(pod: Object, message: str, evidence: Evidence) -> Finding:
    if missing := _CLAIM_MISSING.search(message):
        return Finding(
            Reason.SOURCE_NOT_FOUND,
            f"The PersistentVolumeClaim '{missing[1]}' does not exist.",
            "Create it, or correct spec.source.",
            pod,
        )
    if any(word in message for word in _CLAIM_WORDS):
        return explain_claims(pod, message, evidence)
    requests = _requests(pod)
    accelerators = {name: count for name, count in requests.items() if "/" in name}
    insufficient = set(_INSUFFICIENT.findall(message))
    wanted = {name: count for name, count in accelerators.items() if name in insufficient}
    selector: dict[str, str] = dict((pod.get("spec") or {}).get("nodeSelector") or {})
    if wanted:
        return _accelerator(pod, wanted, selector, message, evidence)
    if native := sorted(insufficient & _NATIVE):
        return Finding(
            Reason.UNSCHEDULABLE,
            f"No node has enough {' and '.join(native)} free.",
            "Request less (spec.resources), or add nodes.",
            pod,
            _said(message),
        )
    unmatched = "didn't match Pod's node affinity/selector" in message and bool(selector)
    if "untolerated taint" in message and _has_matching_node(selector, evidence.nodes, default=not unmatched):
        return _tainted(pod, message)
    if unmatched:
        where = ", ".join(f"{key}={value}" for key, value in sorted(selector.items()))
        return Finding(
            Reason.NO_SUCH_ACCELERATOR,
            f"No node has the labels of the accelerator profile{f' ({where})' if where else ''}.",
            "Choose an accelerator that the cluster has (spec.resources.accelerator), or add a node with these labels.",
            pod,
            _said(message),
        )
    return Finding(
        Reason.UNSCHEDULABLE,
        "No node can run the pod.",
        "Add nodes, or change what the pod asks for (spec.resources, spec.podTemplatePatch).",
        pod,
        _said(message),
    )


def _accelerator(
    pod: Object, wanted: dict[str, str], selector: dict[str, str], message: str, evidence: Evidence
) -> Finding:
    name, count = sorted(wanted.items())[0]
    what = f"{count} × {name}"
    largest = _largest(name, selector, evidence.nodes, (pod.get("spec") or {}).get("tolerations") or ())
    # Nodes are read each minute; the scheduler knows them now.
    fits = _BUSY in message or (largest is not None and largest >= _number(count))
    if fits:
        return Finding(
            Reason.ACCELERATORS_BUSY,
            f"The pod needs {what}, and all that the cluster has are in use.",
            "It starts when some become free. Scale other models down, or add nodes.",
            pod,
            _said(message),
        )
    tainted = _largest(name, selector, evidence.nodes, [{"operator": "Exists"}])
    if tainted is not None and tainted >= _number(count):
        return _tainted(pod, message)
    having = "" if largest is None else f"The largest node that matches has {largest}."
    return Finding(
        Reason.NO_SUCH_ACCELERATOR,
        f"No node of the cluster has {what}.",
        "Choose an accelerator and a number that one node has (spec.resources), or add such a node, or check its "
        "device plugin.",
        pod,
        f"{having} {_said(message)}".strip(),
    )


def _tainted(pod: Object, message: str) -> Finding:
    return Finding(
        Reason.UNSCHEDULABLE,
        "The nodes that could run the pod have taints that it does not tolerate.",
        "Add tolerations to the accelerator profile of the operator's configuration.",
        pod,
        _said(message),
    )


def _largest(
    resource: str, selector: dict[str, str], nodes: Sequence[Object] | None, tolerations: Sequence[Object]
) -> int | None:
    """Most of the resource that one matching node has; None if nodes are unknown."""
    if nodes is None:
        return None
    sizes = [
        _number(((node.get("status") or {}).get("allocatable") or {}).get(resource, "0"))
        for node in nodes
        if _matches(node, selector) and _is_tolerated(node, tolerations)
    ]
    return max(sizes, default=0)


def _has_matching_node(selector: dict[str, str], nodes: Sequence[Object] | None, *, default: bool) -> bool:
    return default if nodes is None else any(_matches(node, selector) for node in nodes)


def _matches(node: Object, selector: dict[str, str]) -> bool:
    labels = (node.get("metadata") or {}).get("labels") or {}
    return all(labels.get(key) == value for key, value in selector.items())


def _is_tolerated(node: Object, tolerations: Sequence[Object]) -> bool:
    taints = (node.get("spec") or {}).get("taints") or ()
    return all(
        taint.get("effect") == "PreferNoSchedule" or any(_tolerates(each, taint) for each in tolerations)
        for taint in taints
    )


def _tolerates(toleration: Object, taint: Object) -> bool:
    if toleration.get("effect") and toleration["effect"] != taint.get("effect"):
        return False
    if not toleration.get("key"):
        return toleration.get("operator") == "Exists"
    if toleration["key"] != taint.get("key"):
        return False
    return toleration.get("operator") == "Exists" or (toleration.get("value") or "") == (taint.get("value") or "")


def _requests(pod: Object) -> dict[str, str]:
    """What the containers ask for. Accelerators are asked for by one container."""
    found: dict[str, str] = {}
    for container in (pod.get("spec") or {}).get("containers") or ():
        resources = container.get("resources") or {}
        found |= {name: str(count) for name, count in (resources.get("limits") or {}).items()}
        found |= {name: str(count) for name, count in (resources.get("requests") or {}).items()}
    return found


def _number(quantity: object) -> int:
    """A count of devices."""
    text = str(quantity)
    return int(text) if text.isdigit() else 0


def _said(message: str) -> str:
    """The scheduler's own words, without its remarks on preemption."""
    first = _COUNTS.sub("", message.split(" preemption:")[0].split(". no new claims")[0].removesuffix(". not found"))
    return sentence(f"The scheduler says: {first.strip().rstrip('.')}") if first.strip() else ""


def node_of(pod: Object, nodes: Sequence[Object] | None) -> Object | None:
    """The node that the pod was assigned to, if it is known."""
    name = (pod.get("spec") or {}).get("nodeName")
    return next((node for node in nodes or () if name and name_of(node) == name), None)
