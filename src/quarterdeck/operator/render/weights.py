"""Where an engine finds its weights: the source's URI as an argument of the engine, volumes and variables."""

from dataclasses import dataclass, field
from typing import Any

from quarterdeck.kube.resources.model import Model
from quarterdeck.operator.render.request import RenderError

CACHE = "/cache"
"""Where the cache volume is mounted."""
WEIGHTS = "/weights"
"""Where a claim of the source is mounted."""


@dataclass(frozen=True, slots=True)
class Weights:
    """A source, located."""

    model: str
    """What the engine is given: an id of the hub, or a folder."""
    is_remote: bool
    """Whether the engine downloads it."""
    volumes: tuple[dict[str, Any], ...] = ()
    mounts: tuple[dict[str, Any], ...] = ()
    env: tuple[dict[str, Any], ...] = field(default=())


def claim_name(model: Model) -> str:
    """Name of the cache's claim that the operator creates."""
    return f"model-{model.name}-cache"


def owns_claim(model: Model) -> bool:
    """Whether the operator creates the cache's claim."""
    source = model.spec.source
    return source is not None and source.cache.mode == "pvc" and not source.cache.claim


def locate(model: Model) -> Weights:
    """Raises RenderError for a URI of an unknown scheme."""
    source = model.spec.source
    if source is None:
        raise RenderError("InvalidSpec", "spec.source is not set, so there is no engine")
    uri = source.uri
    scheme, mark, rest = uri.partition("://")
    volumes, mounts = _cache(model)
    if not mark:
        if uri.startswith("packaged:"):
            return Weights(uri, False, volumes, mounts)
        return _hub(model, uri, volumes, mounts)
    if scheme == "hf":
        return _hub(model, rest, volumes, mounts)
    if scheme == "file":
        return Weights("/" + rest.lstrip("/"), False, volumes, mounts)
    if scheme == "pvc":
        claim, _, path = rest.partition("/")
        if not claim or ".." in path.split("/"):
            raise RenderError("InvalidSpec", f"spec.source.uri: {uri!r} is not pvc://claim/path")
        volume = {"name": "weights", "persistentVolumeClaim": {"claimName": claim, "readOnly": True}}
        mount = {"name": "weights", "mountPath": WEIGHTS, "readOnly": True}
        return Weights(f"{WEIGHTS}/{path}".rstrip("/"), False, (*volumes, volume), (*mounts, mount))
    raise RenderError("InvalidSpec", f"spec.source.uri: unknown scheme {scheme!r}; known are hf, pvc and file")


def _hub(model: Model, name: str, volumes: tuple[Any, ...], mounts: tuple[Any, ...]) -> Weights:
    source = model.spec.source
    env: tuple[dict[str, Any], ...] = ()
    if source is not None and source.secret_ref is not None:
        reference = {"name": source.secret_ref.name, "key": source.secret_ref.key}
        env = ({"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": reference}},)
    return Weights(name, True, volumes, mounts, env)


def _cache(model: Model) -> tuple[tuple[dict[str, Any], ...], tuple[dict[str, Any], ...]]:
    source = model.spec.source
    volume: dict[str, Any] = {"name": "cache", "emptyDir": {}}
    if source is not None and source.cache.mode == "pvc":
        claim = source.cache.claim or claim_name(model)
        volume = {"name": "cache", "persistentVolumeClaim": {"claimName": claim}}
    return (volume,), ({"name": "cache", "mountPath": CACHE},)
