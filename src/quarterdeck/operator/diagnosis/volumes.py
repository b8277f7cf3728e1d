"""Why a volume is not there: claims that are not bound, and mounts that fail."""

import re

from quarterdeck.kube.conditions import Reason
from quarterdeck.operator.diagnosis.evidence import Evidence, matching
from quarterdeck.operator.diagnosis.finding import Finding, Object, sentence

_NOT_FOUND = re.compile(r'(secret|configmap) "([^"]+)" not found', re.IGNORECASE)


def explain_claims(pod: Object, message: str, evidence: Evidence) -> Finding:
    """The scheduler waits for a claim: say which, and why it is not bound."""
    claims = evidence.claims()
    for name in claim_names(pod):
        claim = claims.get(name)
        if claim is None or (claim.get("status") or {}).get("phase") == "Bound":
            continue
        events = evidence.about(claim)
        storage_class = (claim.get("spec") or {}).get("storageClassName")
        if failed := matching(events, "ProvisioningFailed"):
            why = sentence(str(failed[-1].get("message")))
            hint = "Set spec.source.cache.storageClass to a storage class of the cluster."
        elif not storage_class:
            why = "It names no storage class, and the cluster has no default one."
            hint = "Set spec.source.cache.storageClass, or make a storage class the default."
        else:
            why = f"No volume of the storage class '{storage_class}' fits it, and none is created."
            hint = "Request less (spec.source.cache.size), or check the storage class and its provisioner."
        return Finding(Reason.VOLUME_PENDING, f"The PersistentVolumeClaim '{name}' is not bound. {why}", hint, claim)
    return Finding(
        Reason.VOLUME_PENDING,
        sentence(f"A volume of the pod is not available: {message.split('. preemption:')[0].split('. no new')[0]}"),
        "Check the PersistentVolumeClaim, and that its volume can be reached from a node with the accelerator.",
        pod,
    )


def explain_mounts(pod: Object, evidence: Evidence) -> Finding | None:
    """A container waits for its volumes: say which mount failed. None if none did."""
    events = evidence.about(pod)
    if attached := matching(events, "FailedAttachVolume"):
        return Finding(
            Reason.VOLUME_PENDING,
            sentence(str(attached[-1].get("message"))),
            "A volume with access mode ReadWriteOnce serves pods of one node only: use a ReadWriteMany class, or "
            "rollout strategy Recreate.",
            pod,
        )
    failed = matching(events, "FailedMount")
    if not failed:
        return None
    message = str(failed[-1].get("message"))
    if missing := _NOT_FOUND.search(message):
        return missing_object(missing[1], missing[2], pod)
    return Finding(Reason.VOLUME_PENDING, sentence(message), "Check the volume and its driver on the node.", pod)


def missing_object(kind: str, name: str, pod: Object) -> Finding:
    """A Secret or ConfigMap that a container needs does not exist."""
    if kind.lower() == "secret":
        return Finding(
            Reason.SECRET_NOT_FOUND,
            f"The Secret '{name}' does not exist in the Model's namespace.",
            "Create it, or correct the secretRef that names it.",
            pod,
        )
    return Finding(
        Reason.CONTAINER_CONFIG_INVALID,
        f"The ConfigMap '{name}' does not exist in the Model's namespace.",
        "Create it, or correct spec.podTemplatePatch.",
        pod,
    )


def claim_names(pod: Object) -> list[str]:
    """Claims that the pod mounts."""
    volumes = (pod.get("spec") or {}).get("volumes") or ()
    return [
        str(each["persistentVolumeClaim"].get("claimName")) for each in volumes if each.get("persistentVolumeClaim")
    ]
