"""Why pods are not created: from a ReplicaSet's condition ReplicaFailure, or a warning event of whatever creates "
"them."""

import re

from quarterdeck.kube.conditions import Reason
from quarterdeck.operator.diagnosis.evidence import Evidence, event_time
from quarterdeck.operator.diagnosis.finding import Finding, Object, sentence

_FORBIDDEN = re.compile(r"is forbidden: (.*)$|(admission webhook .*)$", re.DOTALL)
_QUOTA = re.compile(r"exceeded quota: ([^,]+), requested: (.+?), used: (.+?), limited: (.+)$")
_SECURITY = re.compile(r'violates PodSecurity "([^"]+)": (.*)$', re.DOTALL)


def explain_admission(evidence: Evidence) -> Finding | None:
    """Return None if nothing refuses pods."""
    newest = evidence.newest_replica_set()
    for item in ([newest] if newest is not None else []) + evidence.of_kind("Deployment"):
        for condition in (item.get("status") or {}).get("conditions") or ():
            if condition.get("type") == "ReplicaFailure" and condition.get("status") == "True":
                return _explain(str(condition.get("message") or ""), item)
    if newest is None and not evidence.pods:
        refused = [event for event in evidence.events if _is_refusal(event)]
        if refused:
            return _explain(str(max(refused, key=event_time).get("message")), refused[-1].get("involvedObject"))
    return None


def _is_refusal(event: Object) -> bool:
    involved = event.get("involvedObject") or {}
    return (
        event.get("type") == "Warning"
        and involved.get("kind") != "Pod"
        and _FORBIDDEN.search(str(event.get("message") or "")) is not None
    )


def _explain(message: str, subject: Object | None) -> Finding:
    found = _FORBIDDEN.search(message)
    why = " ".join((found[1] or found[2]).split()) if found else message
    if quota := _QUOTA.search(why):
        name, requested, used, limited = quota.groups()
        return Finding(
            Reason.QUOTA_EXCEEDED,
            f"The ResourceQuota '{name}' of the namespace does not allow the pod. "
            f"Requested: {requested}; used: {used}; limit: {limited}.",
            "Raise the quota, scale other models down, or request less (spec.resources, spec.scaling).",
            subject,
        )
    if security := _SECURITY.search(why):
        return Finding(
            Reason.POD_FORBIDDEN,
            sentence(f"Pod Security '{security[1]}' forbids the pod: {security[2]}"),
            "Remove these settings from spec.podTemplatePatch, or use a namespace with a lower level.",
            subject,
        )
    return Finding(Reason.POD_FORBIDDEN, sentence(f"The pod is not admitted: {why}"), _hint(why), subject)


def _hint(why: str) -> str:
    if "failed quota" in why:
        return "The namespace's quota requires these values: set them in spec.resources."
    if "per Container is" in why or "per Pod is" in why:
        return "The namespace has a LimitRange: request less (spec.resources), or change it."
    if "service account" in why or "serviceaccount" in why:
        return "Create the service account, or remove it from spec.podTemplatePatch."
    if "RuntimeClass" in why:
        return "Create the RuntimeClass (a GPU operator does), or correct runtimeClass of the accelerator profile."
    if "PriorityClass" in why:
        return "Create the PriorityClass, or correct spec.podTemplatePatch."
    return "An admission policy of the cluster refuses it: change the pod (spec.podTemplatePatch) or the policy."
