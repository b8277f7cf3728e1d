"""What a backend renders, and what it answers."""

from collections.abc import Iterable
from dataclasses import dataclass

from quarterdeck.kube.names import CANARY as CANARY
from quarterdeck.kube.names import STABLE as STABLE
from quarterdeck.kube.resources.model import Model
from quarterdeck.kube.resources.model_status import Edit
from quarterdeck.operator.manifests import Manifest
from quarterdeck.operator.settings import OperatorConfig


class RenderError(Exception):
    """A spec that can't be rendered: `reason` is a condition's, the message one sentence."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason, self.message = reason, message


@dataclass(frozen=True, slots=True)
class RenderRequest:
    """One engine of a Model."""

    model: Model
    namespace: str
    config: OperatorConfig
    replicas: int
    track: str = STABLE
    """STABLE, or CANARY for the second object that runs while a canary is judged."""
    adapter_claims: tuple[str, ...] = ()
    """Claims that have adapters (`weights.adapter_claims`)."""


@dataclass(frozen=True, slots=True)
class Change:
    """What carrying out a plan does to running engines."""

    edit: Edit = "InPlace"
    extra_gpus: int = 0
    """GPUs that are needed beyond those in use, until it is done."""


@dataclass(frozen=True, slots=True)
class ReplicaState:
    """Replicas of one backend object, from its status and its pods."""

    desired: int = 0
    ready: int = 0
    updated: int = 0
    """Of the newest revision."""
    draining: int = 0
    is_rolled_out: bool = True
    """Whether no replica of an older revision is left."""


def draining_pods(pods: Iterable[Manifest]) -> int:
    """Pods that finish their requests."""
    return sum("deletionTimestamp" in pod["metadata"] for pod in pods)
