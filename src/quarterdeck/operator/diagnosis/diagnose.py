"""What keeps a Model's engine from being ready: one finding, the most telling one.

Pure: objects as the API returned them in, a finding out. A finding stays the same while its cause does,
through the states that a restarting pod passes; it is gone when the pods are ready.
"""

from collections.abc import Iterable

from quarterdeck.kube.conditions import Reason
from quarterdeck.kube.reasons import EXPLANATIONS
from quarterdeck.operator.diagnosis.admission import explain_admission
from quarterdeck.operator.diagnosis.containers import explain_container
from quarterdeck.operator.diagnosis.evidence import Evidence, event_time, matching
from quarterdeck.operator.diagnosis.finding import Finding, Object, sentence
from quarterdeck.operator.diagnosis.scheduling import explain_scheduling, node_of
from quarterdeck.operator.diagnosis.serve import explain_serve

_EXHAUSTED = ("UnexpectedAdmissionError", "OutOfcpu", "OutOfmemory", "OutOfpods", "OutOfephemeral-storage")
_NODE_REASONS = ("NodeLost", "NodeShutdown", "Shutdown", "Terminated", "NodeAffinity", "Preempting")
_DISK = ("emptydir", "ephemeral", "local storage", "disk")
_ORDER = {reason: at for at, reason in enumerate(EXPLANATIONS)}


def diagnose(evidence: Evidence) -> Finding | None:
    """Return what is wrong, or in progress. None: all pods are ready, or there are none and nothing refuses them."""
    findings = [*_of_pods(evidence), *_one(explain_admission(evidence)), *_one(explain_serve(evidence))]
    # Errors go first, in the order of the table of reasons: what is nearer to the engine tells more.
    return min(findings, key=lambda each: (each.is_progress, _ORDER[each.reason]), default=None)


def diagnose_pod(pod: Object, evidence: Evidence) -> Finding | None:
    """Return what is wrong with one pod, or in progress; None if it is ready."""
    status = pod.get("status") or {}
    if status.get("phase") == "Failed":
        return _of_failed(pod)
    if is_ready(pod):
        return None  # and so is its node, whatever an older reading says
    if lost := _of_node(pod, evidence):
        return lost
    if unscheduled := explain_scheduling(pod, evidence):
        return unscheduled
    for is_init, key in ((True, "initContainerStatuses"), (False, "containerStatuses")):
        for each in status.get(key) or ():
            if finding := explain_container(each, pod, evidence, is_init=is_init):
                return finding
    return Finding(Reason.STARTING, "The kubelet prepares the pod.", subject=pod)


def is_ready(pod: Object) -> bool:
    conditions = (pod.get("status") or {}).get("conditions") or ()
    return any(each.get("type") == "Ready" and each.get("status") == "True" for each in conditions)


def _of_pods(evidence: Evidence) -> Iterable[Finding]:
    pods = evidence.current_pods()
    newest_ready = max((_created(pod) for pod in pods if is_ready(pod)), default="")
    for pod in pods:
        failed = (pod.get("status") or {}).get("phase") == "Failed"
        if failed and _created(pod) <= newest_ready:
            continue  # it has been replaced, and the replacement is ready
        if finding := diagnose_pod(pod, evidence):
            yield finding


def _of_failed(pod: Object) -> Finding:
    """A pod that the kubelet or a controller ended. Whatever made it replaces it."""
    status = pod.get("status") or {}
    reason, message = str(status.get("reason") or ""), str(status.get("message") or "")
    if reason in _NODE_REASONS:
        return Finding(
            Reason.NODE_LOST,
            sentence(f"The node of the pod went away: {message or reason}"),
            "The pod is replaced by another one.",
            pod,
        )
    if reason == "UnexpectedAdmissionError" and "requested number of devices" in message:
        return Finding(
            Reason.ACCELERATORS_BUSY,
            sentence(f"The node could not give the pod its accelerators: {message}"),
            "Check the device plugin of the node.",
            pod,
        )
    if reason in _EXHAUSTED:
        return Finding(
            Reason.UNSCHEDULABLE, sentence(f"The node refused the pod: {message or reason}"), "It is replaced.", pod
        )
    if reason == "Evicted" and any(word in message.lower() for word in _DISK):
        return Finding(
            Reason.DISK_FULL,
            sentence(f"The node evicted the pod: {message}"),
            "Put the weights into a volume (spec.source.cache), or enlarge the node's disk.",
            pod,
        )
    return Finding(
        Reason.EVICTED,
        sentence(f"The pod was evicted: {message or reason or 'no reason given'}"),
        "It is replaced. Set spec.resources.memory to what the engine uses.",
        pod,
    )


def _of_node(pod: Object, evidence: Evidence) -> Finding | None:
    name = (pod.get("spec") or {}).get("nodeName")
    node = node_of(pod, evidence.nodes)
    if node is not None:
        conditions = (node.get("status") or {}).get("conditions") or ()
        ready = next((each for each in conditions if each.get("type") == "Ready"), None)
        lost = ready is not None and ready.get("status") != "True"
        why = str(ready.get("message") or "") if lost and ready is not None else ""
    else:
        why = ""
        lost = _went_with_its_node(pod, evidence)
    if not lost:
        return None
    return Finding(
        Reason.NODE_LOST,
        sentence(f"The node '{name}' is not ready{f': {why}' if why else ''}"),
        "If it does not come back, its pods are replaced after five minutes.",
        pod,
    )


def _went_with_its_node(pod: Object, evidence: Evidence) -> bool:
    """Whether the node controller marked the pod, and no container has started since."""
    marks = matching(evidence.about(pod), "NodeNotReady")
    if not marks:
        return False
    states = [each.get("state") or {} for each in (pod.get("status") or {}).get("containerStatuses") or ()]
    started = [str((state.get("running") or {}).get("startedAt") or "") for state in states]
    return max(started, default="")[:19] <= event_time(marks[-1])[:19]


def _created(pod: Object) -> str:
    return str((pod.get("metadata") or {}).get("creationTimestamp", ""))


def _one(finding: Finding | None) -> list[Finding]:
    return [] if finding is None else [finding]
