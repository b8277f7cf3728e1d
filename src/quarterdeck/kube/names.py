"""Names in the cluster: API group, labels, annotations, finalizers and field managers."""

GROUP = "quarterdeck.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"

# ---- labels ----

MODEL_LABEL = f"{GROUP}/model"
"""Name of the Model object that a pod, Service or EndpointSlice belongs to."""
REVISION_LABEL = f"{GROUP}/revision"
"""Revision of the Model that a pod or EndpointSlice belongs to; see `revisions` of its status."""
ROLE_LABEL = f"{GROUP}/role"
"""What a Service's addresses are: ROLE_ENGINE or ROLE_DOOR."""
ROLE_ENGINE = "engine"
"""Each ready address speaks OpenAI's protocol and is an endpoint."""
ROLE_DOOR = "door"
"""An engine door, whose `GET /endpoints` lists the endpoints."""

APP_NAME = "app.kubernetes.io/name"
APP_INSTANCE = "app.kubernetes.io/instance"
APP_COMPONENT = "app.kubernetes.io/component"
APP_PART_OF = "app.kubernetes.io/part-of"
APP_MANAGED_BY = "app.kubernetes.io/managed-by"
PART_OF = "quarterdeck"
MANAGED_BY = "quarterdeck-operator"

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
