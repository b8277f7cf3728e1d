"""Objects of the API server as plain dicts, and how they are addressed."""

from dataclasses import dataclass
from typing import Any, NamedTuple

from quarterdeck.kube.names import API_VERSION
from quarterdeck.kube.resources.registry import RESOURCES

Manifest = dict[str, Any]
"""A Kubernetes object in its JSON form."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of object and its place in the API."""

    api: str
    """`v1`, `apps/v1`, …"""
    name: str
    plural: str

    @property
    def group(self) -> str:
        """The API group; empty for the core group."""
        return self.api.rpartition("/")[0]

    def path(self, namespace: str, name: str | None = None, subresource: str | None = None) -> str:
        """The URL path of a collection, an object or its subresource."""
        root = f"/apis/{self.api}" if self.group else f"/api/{self.api}"
        path = f"{root}/namespaces/{namespace}/{self.plural}"
        if name is not None:
            path += f"/{name}"
        return f"{path}/{subresource}" if subresource else path


class Key(NamedTuple):
    """An object of one namespace."""

    kind: str
    name: str


DEPLOYMENT = Kind("apps/v1", "Deployment", "deployments")
SERVICE = Kind("v1", "Service", "services")
SERVICE_ACCOUNT = Kind("v1", "ServiceAccount", "serviceaccounts")
POD = Kind("v1", "Pod", "pods")
CONFIG_MAP = Kind("v1", "ConfigMap", "configmaps")
EVENT = Kind("v1", "Event", "events")
VOLUME_CLAIM = Kind("v1", "PersistentVolumeClaim", "persistentvolumeclaims")
DISRUPTION_BUDGET = Kind("policy/v1", "PodDisruptionBudget", "poddisruptionbudgets")
ENDPOINT_SLICE = Kind("discovery.k8s.io/v1", "EndpointSlice", "endpointslices")
REPLICA_SET = Kind("apps/v1", "ReplicaSet", "replicasets")
SECRET = Kind("v1", "Secret", "secrets")
LEASE = Kind("coordination.k8s.io/v1", "Lease", "leases")
RAY_SERVICE = Kind("ray.io/v1", "RayService", "rayservices")
RAY_CLUSTER = Kind("ray.io/v1", "RayCluster", "rayclusters")

_BUILT_IN = (
    DEPLOYMENT,
    SERVICE,
    SERVICE_ACCOUNT,
    POD,
    CONFIG_MAP,
    EVENT,
    VOLUME_CLAIM,
    DISRUPTION_BUDGET,
    ENDPOINT_SLICE,
    LEASE,
    REPLICA_SET,
    SECRET,
    RAY_SERVICE,
    RAY_CLUSTER,
)
CUSTOM = tuple(Kind(API_VERSION, resource.kind, resource.plural) for resource in RESOURCES)
"""Our custom resources."""
KINDS: dict[tuple[str, str], Kind] = {(kind.api, kind.name): kind for kind in (*_BUILT_IN, *CUSTOM)}
"""By apiVersion and kind."""


def kind_of(manifest: Manifest) -> Kind:
    """Raises KeyError for a kind that the operator does not write."""
    return KINDS[manifest["apiVersion"], manifest["kind"]]


def key_of(manifest: Manifest) -> Key:
    return Key(manifest["kind"], manifest["metadata"]["name"])


def name_of(manifest: Manifest) -> str:
    name: str = manifest["metadata"]["name"]
    return name


def uid_of(manifest: Manifest) -> str:
    uid: str = manifest["metadata"].get("uid", "")
    return uid


def labels_of(manifest: Manifest) -> dict[str, str]:
    return manifest["metadata"].get("labels") or {}


def annotations_of(manifest: Manifest) -> dict[str, str]:
    return manifest["metadata"].get("annotations") or {}


def is_deleting(manifest: Manifest) -> bool:
    return "deletionTimestamp" in manifest["metadata"]


def controller_uid(manifest: Manifest) -> str | None:
    """The uid of the owner that controls the object."""
    for owner in manifest["metadata"].get("ownerReferences") or ():
        if owner.get("controller"):
            uid: str = owner["uid"]
            return uid
    return None


def version_of(manifest: Manifest) -> int:
    """The resource version as a number. Versions of one object grow; a test's fake may have none."""
    try:
        return int(manifest["metadata"].get("resourceVersion", 0))
    except ValueError:
        return 0
