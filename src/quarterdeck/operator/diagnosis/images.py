"""Why an image can't be pulled: from the waiting container's message, which has containerd's error."""

from quarterdeck.kube.conditions import Reason
from quarterdeck.operator.diagnosis.finding import Finding, Object, sentence

WAITING = frozenset(
    {
        "ErrImagePull",
        "ImagePullBackOff",
        "ErrImageNeverPull",
        "InvalidImageName",
        "ImageInspectError",
        "RegistryUnavailable",
        "SignatureValidationFailed",
    }
)
"""Reasons of a waiting container that concern its image."""

_UNAUTHORIZED = (
    "401 Unauthorized",
    "403 Forbidden",
    "authorization failed",
    "insufficient_scope",
    "no basic auth credentials",
    "authentication required",
    "pull access denied",
    "requested access to the resource is denied",
)
_NOT_FOUND = ("not found", "manifest unknown", "name unknown")
_UNREACHABLE = (
    "dial tcp",
    "i/o timeout",
    "no such host",
    "connection refused",
    "failed to do request",
    "TLS handshake",
)


def explain_image(container: Object, waiting: Object, pod: Object) -> Finding:
    image = str(container.get("image") or "")
    reason, message = str(waiting.get("reason")), str(waiting.get("message") or "")
    # containerd repeats the reference at each level: "failed to pull …: failed to resolve …: <the cause>".
    cause = (
        message.replace(f'"{image}"', "").rsplit(f"{image}: ", 1)[-1].rsplit("failed to resolve reference : ", 1)[-1]
    )
    if reason == "InvalidImageName":
        return Finding(
            Reason.IMAGE_NOT_FOUND, f"'{image}' is not a valid image reference.", "Correct spec.engine.image.", pod
        )
    if reason == "ErrImageNeverPull":
        return Finding(
            Reason.IMAGE_NOT_FOUND,
            f"The image '{image}' is not on the node, and its pull policy is Never.",
            "Load the image into the nodes, or change the pull policy.",
            pod,
        )
    if any(word in message for word in _UNAUTHORIZED):
        return Finding(
            Reason.IMAGE_UNAUTHORIZED,
            sentence(f"The registry does not give the image '{image}' without credentials that may read it: {cause}"),
            "Add a pull secret: imagePullSecrets of the chart's values, or spec.podTemplatePatch.",
            pod,
        )
    if any(word in message for word in _UNREACHABLE):
        return Finding(
            Reason.IMAGE_PULL_FAILED,
            sentence(f"The registry of the image '{image}' can't be reached: {cause}"),
            "Check the nodes' network and proxies, or use a registry inside the cluster (global.imageRegistry).",
            pod,
        )
    if any(word in message for word in _NOT_FOUND):
        return Finding(
            Reason.IMAGE_NOT_FOUND,
            f"The image '{image}' does not exist in its registry.",
            "Correct spec.engine.image or spec.engine.version, or push the image.",
            pod,
        )
    if "no space left on device" in message:
        return Finding(
            Reason.IMAGE_PULL_FAILED,
            f"The node's disk is too full for the image '{image}'.",
            "Free space on the node, or give nodes a larger disk.",
            pod,
        )
    return Finding(
        Reason.IMAGE_PULL_FAILED,
        sentence(f"The image '{image}' can't be pulled: {cause}"),
        "The kubelet tries again by itself.",
        pod,
    )
