"""Where an engine finds its weights: the source's URI as an argument of the engine, volumes and variables."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from quarterdeck.kube.resources.model import Model
from quarterdeck.operator.render.request import RenderError

CACHE = "/cache"
"""Where the cache volume is mounted."""
WEIGHTS = "/weights"
"""Where a claim of the source is mounted."""
ADAPTERS = "/adapters"
"""Below it, each other claim that has adapters is mounted under its name."""


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


def adapter_path(model: Model, uri: str) -> str:
    """What an engine of the Model is asked to load for an adapter's URI: a folder, or an id of the hub. Empty for a
    URI that is none."""
    scheme, mark, rest = uri.partition("://")
    if not mark:
        return uri if uri and ":" not in uri else ""
    if scheme == "hf":
        return rest
    if scheme == "file":
        return "/" + rest.lstrip("/")
    claim, _, path = rest.partition("/")
    if scheme != "pvc" or not claim or ".." in path.split("/"):
        return ""
    folder = WEIGHTS if claim == _source_claim(model) else f"{ADAPTERS}/{claim}"
    return f"{folder}/{path}".rstrip("/")


def adapter_claims(model: Model, uris: Iterable[str]) -> tuple[str, ...]:
    """Claims that are mounted for adapters, besides the source's own. A change of them restarts the engines."""
    claims = {uri.removeprefix("pvc://").partition("/")[0] for uri in uris if uri.startswith("pvc://")}
    return tuple(sorted(claim for claim in claims if claim and claim != _source_claim(model)))


def volumes_of_claims(claims: Iterable[str]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Volumes and mounts of the adapters' claims."""
    volumes, mounts = [], []
    for number, claim in enumerate(claims):
        name = f"adapters-{number}"
        volumes.append({"name": name, "persistentVolumeClaim": {"claimName": claim, "readOnly": True}})
        mounts.append({"name": name, "mountPath": f"{ADAPTERS}/{claim}", "readOnly": True})
    return volumes, mounts


def _source_claim(model: Model) -> str:
    uri = model.spec.source.uri if model.spec.source is not None else ""
    return uri.removeprefix("pvc://").partition("/")[0] if uri.startswith("pvc://") else ""


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
