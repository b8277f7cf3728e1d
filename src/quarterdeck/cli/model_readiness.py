"""Changes of the models' state between two responses of the engine's `GET /endpoints`. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from quarterdeck.model_lifecycle.status import about

SERVES = ("ready", "updating")
STEPS = 10
"""Into which a progress is divided for the terminal: a line for every tenth of a download."""


@dataclass(frozen=True, slots=True)
class ModelState:
    """State of a model over all its endpoints."""

    name: str
    is_ready: bool
    detail: str
    step: tuple[str, ...] = ()
    """Equal where nothing changed that is worth a line: estimates and percentages change all the time."""
    log: str = ""
    """The file with its engine's output. Empty: it has none of its own."""


def read(body: Any, models: Iterable[str]) -> dict[str, ModelState]:
    """The state of each model that the engine lists. Of an engine that lists no models, only endpoints: of each of
    `models`, and one without an endpoint is starting."""
    listed: Mapping[str, Any] = body if isinstance(body, Mapping) else {}
    statuses = listed.get("models")
    if isinstance(statuses, list):
        found = [_of_status(each) for each in statuses if isinstance(each, Mapping)]
        return {each.name: each for each in found}
    endpoints = [e for e in listed.get("endpoints") or () if isinstance(e, Mapping)]
    return {name: _of_endpoints(name, [e for e in endpoints if e.get("model") == name]) for name in models}


def _of_status(status: Mapping[str, Any]) -> ModelState:
    name, state, detail = str(status.get("name", "")), str(status.get("state", "")), str(status.get("detail") or "")
    reason = str(status.get("reason") or "")
    progress = status.get("progress")
    step = str(int(progress * STEPS)) if isinstance(progress, int | float) else ""
    if state in SERVES:
        text = f"ready, but {detail}" if reason else "ready" if state == "ready" else detail
        return ModelState(name, True, text, (state, reason, step, text if reason else ""))
    text = detail or state.replace("_", " ")
    if state == "failed":
        retry = status.get("retry_seconds")
        again = f"; next attempt in {retry:.0f} s" if isinstance(retry, int | float) and retry >= 1 else ""
        return ModelState(name, False, f"failed: {text}{again}", (state, reason, text), str(status.get("log") or ""))
    left = status.get("seconds_left")
    if isinstance(left, int | float) and state != "downloading":
        text = f"{text} ({about(left)})"
    return ModelState(name, False, text, (state, step, "" if step else detail))


def _of_endpoints(name: str, endpoints: Sequence[Mapping[str, Any]]) -> ModelState:
    ready = [e for e in endpoints if e.get("state") == "ready"]
    details = [str(e["detail"]) for e in endpoints if e.get("detail") and e.get("state") != "ready"]
    detail = "ready" if ready else (details[0] if details else "starting")
    return ModelState(name, bool(ready), detail, (detail,))


def changes(before: Mapping[str, ModelState], now: Mapping[str, ModelState]) -> list[tuple[str, str]]:
    """(model, text) for each model whose state changed, or that is not listed any more."""
    texts = []
    for name, state in now.items():
        old = before.get(name)
        if old is not None and old.step == state.step:
            continue
        was_ready = old is not None and old.is_ready
        texts.append((name, f"no longer ready: {state.detail}" if was_ready and not state.is_ready else state.detail))
    texts += [(name, "removed") for name in before if name not in now]
    return texts
