"""What the responses of `/readyz` and `GET /endpoints` say about gateway, worker and engine. Pure."""

from collections.abc import Mapping
from typing import Any

from quarterdeck.cli.health import HealthResponse

READY = "ready"


def gateway_state(response: HealthResponse) -> str:
    """The gateway's own word: ready, degraded, starting, unavailable, draining."""
    status = _mapping(response.body).get("status")
    return str(status) if response.status and status else _plain_state(response)


def gateway_problems(response: HealthResponse) -> dict[str, str]:
    """What is not ready, by part or model: `{"redis": "away", "model m": "unavailable, no endpoint serves it"}`."""
    body = _mapping(response.body)
    found = {str(name): str(state) for name, state in _mapping(body.get("parts")).items() if state != READY}
    for name, model in _mapping(body.get("models")).items():
        fields = _mapping(model)
        if fields.get("state") != READY:
            detail = fields.get("detail")
            found[f"model {name}"] = f"{fields.get('state')}, {detail}" if detail else str(fields.get("state"))
    return found


def worker_state(response: HealthResponse) -> str:
    """ready, degraded (it is ready, but one of its jobs fails), not ready."""
    if response.status == 200:
        return "degraded" if worker_problems(response) else READY
    return "not ready" if response.status == 503 else _plain_state(response)


def worker_problems(response: HealthResponse) -> dict[str, str]:
    parts = _mapping(_mapping(response.body).get("parts"))
    return {str(name): str(state) for name, state in parts.items() if state != "ok"}


def engine_state(response: HealthResponse) -> str:
    endpoints = _mapping(response.body).get("endpoints")
    if response.status != 200 or not isinstance(endpoints, list):
        return _plain_state(response)
    states = [str(_mapping(each).get("state")) for each in endpoints]
    ready = states.count(READY)
    return READY if ready == len(states) else f"{ready} of {len(states)} endpoints ready"


def is_simulated(response: HealthResponse) -> bool:
    """Whether the engine door is the simulator's."""
    endpoints = _mapping(response.body).get("endpoints")
    listed = endpoints if isinstance(endpoints, list) else []
    return any(_mapping(each).get("detail") == "simulated" for each in listed)


def _plain_state(response: HealthResponse) -> str:
    return f"responds with status {response.status}" if response.status else "no response"


def _mapping(value: Any) -> Mapping[Any, Any]:
    return value if isinstance(value, Mapping) else {}
