"""Names in the cluster: API group, labels, annotations, objects of a Model, field managers."""

import hashlib

GROUP = "quarterdeck.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"

# ---- labels ----

MODEL_LABEL = f"{GROUP}/model"
"""Name of the Model object that a pod, Service or EndpointSlice belongs to."""
REVISION_LABEL = f"{GROUP}/revision"
"""Revision of the Model that a pod or EndpointSlice belongs to."""
ROLE_LABEL = f"{GROUP}/role"
"""What a Service's addresses are: ROLE_ENGINE, ROLE_DOOR or ROLE_REPLICA."""
ROLE_ENGINE = "engine"
"""Each ready address speaks OpenAI's protocol and is an endpoint."""
ROLE_DOOR = "door"
"""An engine door, whose `GET /endpoints` lists the endpoints."""
ROLE_REPLICA = "replica"
"""A pod in which a replica may listen that an engine door lists."""
SERVICE_NAME_LABEL = "kubernetes.io/service-name"
"""Kubernetes' own, on EndpointSlices."""

APP_NAME = "app.kubernetes.io/name"
APP_INSTANCE = "app.kubernetes.io/instance"
APP_COMPONENT = "app.kubernetes.io/component"
APP_PART_OF = "app.kubernetes.io/part-of"
APP_MANAGED_BY = "app.kubernetes.io/managed-by"
PART_OF = "quarterdeck"
MANAGED_BY = "quarterdeck-operator"

# ---- objects of a Model ----

STABLE = "stable"
CANARY = "canary"
TRACKS = (STABLE, CANARY)
MAX_RAY_NAME = 47
"""KubeRay makes names of Services from a RayService's."""


def engine_name(model: str, track: str = STABLE) -> str:
    """Name of a Model's Deployment and its Service."""
    return f"model-{model}" if track == STABLE else f"model-{model}-{track}"


def ray_name(model: str, track: str = STABLE) -> str:
    """Name of a Model's RayService and its doors' Service."""
    name = engine_name(model, track)
    if len(name) <= MAX_RAY_NAME:
        return name
    digest = hashlib.sha256(f'"{name}"'.encode()).hexdigest()
    return f"{name[: MAX_RAY_NAME - 7]}-{digest[:6]}"


RAY_TOKEN_SUFFIX = "-ray-token"  # noqa: S105


def ray_token_name(model: str) -> str:
    """Name of the Secret with the token of a Model's Ray cluster."""
    return f"{ray_name(model)}{RAY_TOKEN_SUFFIX}"


def is_ray_token(secret: str) -> bool:
    """Whether a Secret has the name of a Ray cluster's token."""
    return secret.startswith("model-") and secret.endswith(RAY_TOKEN_SUFFIX)


def replicas_name(model: str, track: str = STABLE) -> str:
    """Name of the Service of a RayService's workers."""
    return f"{ray_name(model, track)}-replicas"


def service_names(model: str) -> frozenset[str]:
    """Names of all Services whose addresses count as a Model's."""
    return frozenset(name(model, track) for name in (engine_name, ray_name, replicas_name) for track in TRACKS)


# ---- annotations ----

HASH_ANNOTATION = f"{GROUP}/hash"
"""Hash of the manifest as rendered, on every object that the operator applies."""

# ---- field managers ----

MANAGER_OPERATOR = "quarterdeck-operator"
"""Applies children and writes status."""
MANAGER_USAGE = "quarterdeck-usage"
"""Writes `status.usage` of Teams."""

# ---- the configuration's ConfigMap ----

CONFIG_KEY = "quarterdeck.yaml"
"""The configuration (`settings.config.Config`)."""
ENGINES_KEY = "engines.json"
"""The index of engines (`kube.compiled.EngineIndex`)."""
MAX_PLAIN_BYTES = 700_000
"""Above it, both documents are stored gzipped in `binaryData`, as a ConfigMap holds 1 MiB."""
