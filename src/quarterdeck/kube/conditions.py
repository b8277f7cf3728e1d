"""Conditions of the custom resources: types, reasons, and how a condition is replaced.

A condition is Kubernetes' `metav1.Condition`. Types and reasons are fixed lists, so that scripts and alerts can depend
on them; the message is for people. `Ready` summarizes the others and has the reason of the first that is not True.
"""

from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import Literal

from pydantic import Field

from quarterdeck.kube.shape import StatusShape

Status = Literal["True", "False", "Unknown"]


class ConditionType(StrEnum):
    """Types of conditions, in the order in which an object gets there."""

    ACCEPTED = "Accepted"
    """The spec is valid, and its names are the object's own."""
    RESOLVED_REFS = "ResolvedRefs"
    """Models, adapters and secrets that the object names exist."""
    PLANNED = "Planned"
    """The operator knows what to create, and on which accelerator."""
    WEIGHTS_READY = "WeightsReady"
    """The weights are where the engine reads them."""
    SCHEDULED = "Scheduled"
    """The engine's pods have nodes."""
    ENGINE_READY = "EngineReady"
    """At least one replica answers requests."""
    LOADED = "Loaded"
    """An adapter is loaded on every replica that counts."""
    SYNCED = "Synced"
    """The object is stored outside the cluster's API (a prompt in the database)."""
    ROUTABLE = "Routable"
    """Gateways have the object's names in their configuration."""
    READY = "Ready"
    """The object does what its spec says."""


class Reason(StrEnum):
    """Reasons of conditions. A reason is added here before it is used."""

    # ---- True ----
    ACCEPTED = "Accepted"
    RESOLVED = "Resolved"
    PLANNED = "Planned"
    WEIGHTS_READY = "WeightsReady"
    SCHEDULED = "Scheduled"
    ENGINE_READY = "EngineReady"
    LOADED = "Loaded"
    SYNCED = "Synced"
    ROUTABLE = "Routable"
    READY = "Ready"
    SCALED_TO_ZERO = "ScaledToZero"
    """No replica runs because no request came; the next request starts one."""
    EXTERNAL = "ExternalEndpoints"
    """The model is served by external endpoints; there is no engine to run."""

    # ---- in progress ----
    PENDING = "Pending"
    """The step has not begun, because one before it is not done."""
    DOWNLOADING = "Downloading"
    SCHEDULING = "Scheduling"
    LOADING = "Loading"
    """An adapter is being loaded or probed."""
    STARTING = "Starting"
    """Containers run and the engine loads the model."""
    ROLLING_OUT = "RollingOut"
    CANARY_RUNNING = "CanaryRunning"
    DRAINING = "Draining"
    SUSPENDED = "Suspended"
    DELETING = "Deleting"

    # ---- the spec ----
    INVALID_SPEC = "InvalidSpec"
    NAME_CONFLICT = "NameConflict"
    """An older object, or the platform's own configuration, has the name."""
    CONFIGURATION_INVALID = "ConfigurationInvalid"
    """The platform's own configuration (the chart's `config`) is invalid, so nothing can be compiled."""
    MODEL_NOT_FOUND = "ModelNotFound"
    SECRET_NOT_FOUND = "SecretNotFound"  # noqa: S105 - a reason
    INVALID_POD_TEMPLATE_PATCH = "InvalidPodTemplatePatch"
    INVALID_ENGINE_ARGUMENT = "InvalidEngineArgument"
    UNKNOWN_ACCELERATOR = "UnknownAccelerator"
    """The operator's configuration has no such accelerator profile."""
    BACKEND_UNAVAILABLE = "BackendUnavailable"
    """The backend needs an API that the cluster does not have (KubeRay)."""
    ADAPTERS_DISABLED = "AdaptersDisabled"
    """The model's `spec.adapters.max` is 0, or all its places are taken."""
    ADAPTER_RANK_TOO_LARGE = "AdapterRankTooLarge"
    TOO_MANY_ADAPTERS = "TooManyAdapters"
    ADAPTER_NOT_FOUND = "AdapterNotFound"
    """The adapter's folder or repository has no adapter."""
    ADAPTER_MISMATCH = "AdapterMismatch"
    """The adapter was made for another model, or its files are damaged."""

    # ---- weights ----
    SOURCE_NOT_FOUND = "SourceNotFound"
    """The repository, revision, claim or folder does not exist."""
    INVALID_SOURCE = "InvalidSource"
    """The engine can't read the model: damaged files, or an architecture that it does not support."""
    HUB_UNAUTHORIZED = "HubUnauthorized"
    """401 or 403 of the hub: the repository is gated or private, and the token is missing or has no access."""
    HUB_UNREACHABLE = "HubUnreachable"
    DISK_FULL = "DiskFull"
    VOLUME_PENDING = "VolumePending"
    """A PersistentVolumeClaim is not bound."""

    # ---- pods ----
    UNSCHEDULABLE = "Unschedulable"
    NO_SUCH_ACCELERATOR = "NoSuchAccelerator"
    """No node has the accelerator, or not so many of it."""
    ACCELERATORS_BUSY = "AcceleratorsBusy"
    """Nodes have the accelerator, and all of them are in use."""
    NO_DEVICE = "NoDevice"
    """The engine finds no accelerator in its container: a driver or runtime is missing."""
    NODE_LOST = "NodeLost"
    EVICTED = "Evicted"
    QUOTA_EXCEEDED = "QuotaExceeded"
    POD_FORBIDDEN = "PodForbidden"
    """Pod Security or an admission webhook refuses the pod."""
    CONTAINER_CONFIG_INVALID = "ContainerConfigInvalid"
    """The container can't be created: its command, or a ConfigMap that it needs, does not exist."""
    IMAGE_NOT_FOUND = "ImageNotFound"
    IMAGE_UNAUTHORIZED = "ImageUnauthorized"
    IMAGE_PULL_FAILED = "ImagePullFailed"
    OUT_OF_MEMORY = "OutOfMemory"
    """The kernel killed the container (OOMKilled)."""
    ACCELERATOR_OUT_OF_MEMORY = "AcceleratorOutOfMemory"
    PROBE_FAILING = "ProbeFailing"
    STARTUP_TIMEOUT = "StartupTimeout"
    """The engine was not ready within the time that its startup probe allows."""
    CRASH_LOOP = "CrashLoop"
    ENGINE_FAILED = "EngineFailed"
    """The engine reports an error that has no reason of its own."""
    ADAPTER_LOAD_FAILED = "AdapterLoadFailed"
    ADAPTER_PROBE_FAILED = "AdapterProbeFailed"
    """The engine has the adapter, and a request of one token to it failed."""

    # ---- rollout and routing ----
    CANARY_ABORTED = "CanaryAborted"
    NO_READY_REPLICA = "NoReadyReplica"
    NO_READY_TARGET = "NoReadyTarget"
    CONFIGURATION_NOT_WRITTEN = "ConfigurationNotWritten"
    GATEWAY_UNREACHABLE = "GatewayUnreachable"
    SYNC_FAILED = "SyncFailed"


class Condition(StatusShape):
    """One aspect of an object's state (`metav1.Condition`)."""

    type: str = Field(max_length=316)
    """Type of the condition, such as Ready."""
    status: Status
    """True, False or Unknown."""
    reason: str = Field(max_length=1024)
    """Reason of the status, one word of a fixed list."""
    message: str = Field(default="", max_length=32768)
    """What that means, and what to do about it."""
    observed_generation: int | None = None
    """The generation of the object that the condition describes."""
    last_transition_time: str = Field(default="", json_schema_extra={"format": "date-time"})
    """When the status last changed."""


def replaced(conditions: Iterable[Condition], new: Condition, now: str) -> list[Condition]:
    """Replace the condition of the same type, or append it. `now`, RFC 3339, becomes its transition time if its status
    changes; otherwise the time is kept."""
    found = []
    stamped = new.model_copy(update={"last_transition_time": now})
    for each in conditions:
        if each.type != new.type:
            found.append(each)
            continue
        if each.status == new.status and each.last_transition_time:
            stamped = new.model_copy(update={"last_transition_time": each.last_transition_time})
    order = {str(kind): at for at, kind in enumerate(ConditionType)}
    return sorted([*found, stamped], key=lambda each: order.get(each.type, len(order)))


def condition(conditions: Sequence[Condition], kind: str) -> Condition | None:
    """The condition of this type."""
    return next((each for each in conditions if each.type == kind), None)


def is_true(conditions: Sequence[Condition], kind: str) -> bool:
    """Whether the condition of this type is True."""
    found = condition(conditions, kind)
    return found is not None and found.status == "True"
