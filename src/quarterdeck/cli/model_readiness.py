"""Changes of the models' state between two responses of `GET /endpoints`. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class ModelState:
    """State of a model over all its endpoints."""

    name: str
    is_ready: bool
    detail: str


def read(body: Any, models: Iterable[str]) -> dict[str, ModelState]:
    """The state of each of `models` in the engine's response; a model that is not listed is starting."""
    listed: Mapping[str, Any] = body if isinstance(body, Mapping) else {}
    endpoints = [e for e in listed.get("endpoints") or () if isinstance(e, Mapping)]
    return {name: _state(name, [e for e in endpoints if e.get("model") == name]) for name in models}


def _state(name: str, endpoints: Sequence[Mapping[str, Any]]) -> ModelState:
    ready = [e for e in endpoints if e.get("state") == "ready"]
    details = [str(e["detail"]) for e in endpoints if e.get("detail") and e.get("state") != "ready"]
    return ModelState(name, bool(ready), "" if ready else (details[0] if details else "starting"))


def changes(before: Mapping[str, ModelState], now: Mapping[str, ModelState]) -> list[tuple[str, str]]:
    """(model, text) for each model whose state changed."""
    texts = []
    for name, state in now.items():
        old = before.get(name)
        if old == state:
            continue
        if state.is_ready:
            texts.append((name, "ready"))
        elif old is not None and old.is_ready:
            texts.append((name, f"no longer ready: {state.detail}"))
        else:
            texts.append((name, state.detail))
    return texts
