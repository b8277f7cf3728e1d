"""The adapters that a Model's replicas should have, from its ModelAdapters. Pure."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

from quarterdeck.kube.conditions import Reason
from quarterdeck.kube.resources.adapter import ModelAdapter
from quarterdeck.kube.resources.model import Model
from quarterdeck.operator.render.weights import adapter_path

MARK = "@"
"""Between the public name and the hash in the engine's name. No public name contains it."""
_HASH_DIGITS = 10


@dataclass(frozen=True, slots=True)
class Wanted:
    """An adapter as engines should have it."""

    name: str
    """Name of the ModelAdapter."""
    public: str
    engine_name: str
    """The name in the engine. Equal names are equal contents: vLLM's prefix cache knows an adapter by its name only."""
    path: str
    """What the engine is asked to load: a folder in its container, or an id of the hub."""


@dataclass(frozen=True, slots=True)
class Refused:
    """A ModelAdapter that is not loaded, and why. The message is one sentence."""

    reason: Reason
    message: str


def engine_name(adapter: ModelAdapter) -> str:
    """Another name for another source, and for an object that was deleted and made again: its files may differ."""
    source = adapter.spec.source
    parts = (adapter.metadata.uid, source.uri, source.revision or "")
    digest = hashlib.sha256("\n".join(parts).encode()).hexdigest()[:_HASH_DIGITS]
    return f"{adapter.served_name}{MARK}{digest}"


def is_ours(engine_name: str) -> bool:
    """Whether the operator gave the name: what else an engine has loaded is left alone."""
    public, mark, digest = engine_name.rpartition(MARK)
    return bool(public and mark) and len(digest) == _HASH_DIGITS and all(c in "0123456789abcdef" for c in digest)


def public_name(engine_name: str) -> str:
    """The public name in one of the operator's names."""
    return engine_name.rpartition(MARK)[0]


def choose(model: Model, adapters: Iterable[ModelAdapter]) -> tuple[list[Wanted], dict[str, Refused]]:
    """The adapters that are to be loaded, oldest first, and those that are not, by the ModelAdapter's name.

    `adapters`: accepted ones of this Model. The oldest have the places that `spec.adapters.max` gives.
    """
    wanted: list[Wanted] = []
    refused: dict[str, Refused] = {}
    for adapter in sorted(adapters, key=lambda each: each.metadata.age_key):
        problem = _problem(model, adapter)
        if problem is None and len(wanted) >= model.spec.adapters.max:
            problem = Refused(
                Reason.TOO_MANY_ADAPTERS,
                f"Model {model.name} has places for {model.spec.adapters.max} adapters (spec.adapters.max), and older "
                "ones have them.",
            )
        if problem is not None:
            refused[adapter.name] = problem
            continue
        path = adapter_path(model, adapter.spec.source.uri)
        wanted.append(Wanted(adapter.name, adapter.served_name, engine_name(adapter), path))
    return wanted, refused


def _problem(model: Model, adapter: ModelAdapter) -> Refused | None:
    source = adapter.spec.source
    is_hub = "://" not in source.uri or source.uri.startswith("hf://")
    if adapter_path(model, source.uri) == "":
        return Refused(Reason.INVALID_SPEC, f"spec.source.uri: '{source.uri}' is no hub, claim or file address.")
    if source.revision and is_hub:
        return Refused(
            Reason.INVALID_SPEC,
            "spec.source.revision: engines load the main branch of an adapter's repository; leave it out, or keep the "
            "adapter in a volume.",
        )
    own = model.spec.source.secret_ref if model.spec.source is not None else None
    if source.secret_ref is not None and source.secret_ref != own:
        return Refused(
            Reason.INVALID_SPEC,
            f"spec.source.secretRef: engines load adapters with their Model's token; set it in Model {model.name}.",
        )
    return None
