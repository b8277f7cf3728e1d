"""What should run, from the configuration. Pure."""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256

from quarterdeck.settings.engine import EngineConfig
from quarterdeck.settings.models import ModelConfig

_LIVE = frozenset({"adapters", "start_timeout_seconds"})
"""Fields of an engine that a running one follows."""
_DIGITS = 8


@dataclass(frozen=True)
class Desired:
    """A model and its engine. Two with the same digest are served by the same processes."""

    name: str
    engine: EngineConfig
    is_stopped: bool = False

    @cached_property
    def digest(self) -> str:
        fields = self.engine.model_dump(mode="json", exclude=set(_LIVE))
        return sha256(json.dumps([self.name, fields], sort_keys=True).encode()).hexdigest()[:_DIGITS]


def desired_models(models: Iterable[ModelConfig]) -> dict[str, Desired]:
    """The models that have an engine, those that generate first: users wait for chat."""
    found = [
        Desired(model.name, model.engine, is_stopped=model.stopped) for model in models if model.engine is not None
    ]
    found.sort(key=lambda each: each.engine.task != "generate")
    return {each.name: each for each in found}


def app_name(model: Desired, owner: str = "") -> str:
    """A name for the processes of this version of the model: of Serve's application, and in its URL. `owner`: of the
    door, where several share a cluster."""
    return f"{app_prefix(owner)}{slug(model.name)}-{model.digest}"


def app_prefix(owner: str) -> str:
    """How the names of a door's apps begin."""
    return f"qd-{owner}-" if owner else "qd-"


def slug(name: str) -> str:
    """Return a unique name with safe characters, for paths and files."""
    safe = re.sub(r"[^A-Za-z0-9._-]", "-", name)
    return safe if safe == name else f"{safe}-{sha256(name.encode()).hexdigest()[:6]}"


def changed(before: Mapping[str, Desired], now: Mapping[str, Desired]) -> set[str]:
    """The names whose engine was added, changed, stopped, started or removed."""
    return {name for name in before.keys() | now.keys() if before.get(name) != now.get(name)}
