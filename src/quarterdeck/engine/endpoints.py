"""Turns Ray Serve's details of its replicas into the rows of `GET /endpoints`. Pure.

Serve lists a replica's state in one place and its port in another (target groups), and omits the port of a stopping
replica: so known ports are passed in (`known_urls`), kept as long as the replica is listed.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

State = Literal["starting", "ready", "draining"]

_STATES: dict[str, State] = {"RUNNING": "ready", "STOPPING": "draining", "PENDING_MIGRATION": "draining"}
_VALUE_ERROR = "Value error, "
_FAILED = frozenset({"DEPLOY_FAILED", "UNHEALTHY"})


@dataclass(frozen=True, slots=True)
class DeployedModel:
    """A model to deploy, from the configuration."""

    name: str
    app: str
    """The name of its Serve application."""
    task: str
    max_running: int
    detail: str = ""
    """The deployment's progress until Serve lists it, or why it failed."""
    version: str = ""
    is_draining: bool = False
    """Whether it is being replaced or removed."""


class AdapterStates(Protocol):
    """The adapters of a replica."""

    def loaded(self, replica: str) -> Mapping[str, str]:
        """The engine's names of the loaded adapters, by public name."""
        ...

    def failures(self, model: str, replica: str) -> Mapping[str, str]:
        """Why adapters are missing, by public name."""
        ...


@dataclass(frozen=True, slots=True)
class EndpointRow:
    """One replica, or a model without one."""

    id: str
    model: str
    url: str
    state: State
    max_running: int
    task: str
    detail: str = ""
    adapters: Mapping[str, str] = field(default_factory=dict)
    """The engine's names of the loaded adapters, by public name. Equal names are equal contents."""
    failed_adapters: Mapping[str, str] = field(default_factory=dict)
    """Why adapters are missing, by public name."""
    version: str = ""
    """The fingerprint of the model's files. Empty: not known."""

    def as_dict(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "model": self.model,
            "adapters": dict(self.adapters),
            "failed_adapters": dict(self.failed_adapters),
            "version": self.version,
            "url": self.url,
            "state": self.state,
            "max_running": self.max_running,
            "task": self.task,
            "detail": self.detail,
        }


def replica_urls(details: Mapping[str, Any], host: str | None) -> dict[str, str]:
    """Return the base URL of each running replica, by actor name. `host` None: the replica's node address."""
    found = {}
    for group in details.get("target_groups", ()):
        if str(getattr(group["protocol"], "value", group["protocol"])) != "HTTP":
            continue
        prefix = group["route_prefix"].rstrip("/")
        for target in group["targets"]:
            # An application without a replica lists the proxies instead, whose names differ.
            if target["name"].startswith("SERVE_REPLICA::"):
                found[target["name"]] = f"http://{host or target['ip']}:{target['port']}{prefix}"
    return found


def remembered_urls(details: Mapping[str, Any], known: Mapping[str, str], host: str | None) -> dict[str, str]:
    """Return the base URL of every listed replica: its current one, or the known one of a replica that is stopping."""
    listed = {
        replica["actor_name"]
        for app in details.get("applications", {}).values()
        for deployment in app["deployments"].values()
        for replica in deployment["replicas"]
    }
    urls = {**known, **replica_urls(details, host)}
    return {name: url for name, url in urls.items() if name in listed}


def endpoint_rows(
    models: Sequence[DeployedModel],
    details: Mapping[str, Any],
    known_urls: Mapping[str, str],
    adapters: AdapterStates,
    *,
    incomplete: Collection[str] = (),
    is_draining: bool = False,
) -> list[EndpointRow]:
    """Return a row for every replica of every model. A model may be listed several times, with its versions.

    `incomplete`: replicas that lack an adapter; they are not ready,
    because a request for it would get a 404.
    """
    listed: list[EndpointRow] = []
    for model in models:
        app = details.get("applications", {}).get(model.app)
        found = [
            _row(
                model,
                replica,
                known_urls.get(replica["actor_name"], ""),
                adapters,
                is_complete=replica["actor_name"] not in incomplete,
                is_draining=is_draining or model.is_draining,
            )
            for deployment in (app["deployments"].values() if app else ())
            for replica in deployment["replicas"]
        ]
        # A stopping replica that never had a port never served a request.
        found = [row for row in found if row.url or row.state != "draining"]
        listed += found or ([] if model.is_draining else [_waiting(model, app)])
    running = {row.model for row in listed if row.url}
    return [row for row in listed if row.url or row.model not in running or row.id != row.model]


def failure(app: Mapping[str, Any] | None) -> str | None:
    """Return why an application failed, in one line; None if it did not."""
    if app is None or str(word(app["status"])) not in _FAILED:
        return None
    messages = [deployment.get("message", "") for deployment in app["deployments"].values()]
    return last_line("\n".join([*messages, app.get("message", "")]) if not any(messages) else "\n".join(messages))


def last_line(text: str) -> str:
    """Return the line of a traceback that names the error: the last with an exception, else the last of all.

    For pydantic that line only counts the errors; the first error is in the line below it.
    """
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if values := [line for line in lines if line.startswith(_VALUE_ERROR)]:
        return values[-1].removeprefix(_VALUE_ERROR).partition(" [type=")[0][:300]
    named = [line for line in lines if line.split(":")[0].endswith(("Error", "Exception")) and ":" in line]
    return ((named or lines or ["no reason given"])[-1])[:300]


def _row(
    model: DeployedModel,
    replica: Mapping[str, Any],
    url: str,
    adapters: AdapterStates,
    *,
    is_complete: bool,
    is_draining: bool,
) -> EndpointRow:
    state: State = _STATES.get(str(word(replica["state"])), "starting")
    detail = "loading the model" if state == "starting" else ""
    if state == "ready" and not url:
        state, detail = "starting", "waiting for its port"
    elif state == "ready" and is_draining:
        state = "draining"
    elif state == "ready" and not is_complete:
        state, detail = "starting", "loading adapters"
    return EndpointRow(
        id=f"{model.name}#{replica['replica_id']}",
        model=model.name,
        url=url if state != "starting" else "",
        state=state,
        max_running=model.max_running,
        task=model.task,
        detail=detail,
        adapters=adapters.loaded(replica["actor_name"]),
        failed_adapters=adapters.failures(model.name, replica["actor_name"]),
        version=model.version,
    )


def _waiting(model: DeployedModel, app: Mapping[str, Any] | None) -> EndpointRow:
    reason = failure(app)
    detail = f"failed: {reason}" if reason else model.detail or "waiting for deployment"
    return EndpointRow(model.name, model.name, "", "starting", model.max_running, model.task, detail)


def word(value: Any) -> Any:
    """Serve mixes enums and plain strings."""
    return getattr(value, "value", value)
