"""Ray Serve's account of its replicas → the rows of `GET /endpoints`. Pure.

Serve tells a replica's state in one place and its port in another (target groups), and the port of a replica that is
stopping nowhere: so what was seen once is remembered for as long as the replica is listed.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

State = Literal["starting", "ready", "draining"]

_STATES: dict[str, State] = {"RUNNING": "ready", "STOPPING": "draining", "PENDING_MIGRATION": "draining"}
_VALUE_ERROR = "Value error, "
_FAILED = frozenset({"DEPLOY_FAILED", "UNHEALTHY"})


@dataclass(frozen=True, slots=True)
class Served:
    """A model that we were asked to serve."""

    name: str
    app: str
    """Its name as a Serve application."""
    task: str
    max_running: int
    detail: str = ""
    """Where its deployment stands, in words, before Serve knows of it; or why it will never be there."""


@dataclass(frozen=True, slots=True)
class Row:
    """One replica, or a model that has none yet."""

    id: str
    model: str
    url: str
    state: State
    max_running: int
    task: str
    detail: str = ""
    adapters: Sequence[str] = field(default=())

    def as_dict(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "model": self.model,
            "adapters": list(self.adapters),
            "url": self.url,
            "state": self.state,
            "max_running": self.max_running,
            "task": self.task,
            "detail": self.detail,
        }


def urls(details: Mapping[str, Any], host: str | None) -> dict[str, str]:
    """Replica (its actor's name) → base URL, for those that serve. `host` None: the replica's own node."""
    found = {}
    for group in details.get("target_groups", ()):
        if str(getattr(group["protocol"], "value", group["protocol"])) != "HTTP":
            continue
        prefix = group["route_prefix"].rstrip("/")
        for target in group["targets"]:
            # An application without a replica lists the proxies instead: only a replica has such a name.
            if target["name"].startswith("SERVE_REPLICA::"):
                found[target["name"]] = f"http://{host or target['ip']}:{target['port']}{prefix}"
    return found


def rows(
    served: Sequence[Served],
    details: Mapping[str, Any],
    known_urls: Mapping[str, str],
    adapters: Mapping[str, Collection[str]],
    *,
    incomplete: Collection[str] = (),
    is_draining: bool = False,
) -> list[Row]:
    """Every replica of every model.

    `adapters`: what each replica is known to have loaded, by replica's name. `incomplete`: replicas that still
    lack one; they are not ready, because a request for that adapter would be told that it does not exist.
    """
    listed: list[Row] = []
    for model in served:
        app = details.get("applications", {}).get(model.app)
        found = [
            _row(
                model,
                replica,
                known_urls.get(replica["actor_name"], ""),
                adapters.get(replica["actor_name"], ()),
                is_complete=replica["actor_name"] not in incomplete,
                is_draining=is_draining,
            )
            for deployment in (app["deployments"].values() if app else ())
            for replica in deployment["replicas"]
        ]
        # One that stops and never had a port was never there for anyone.
        found = [row for row in found if row.url or row.state != "draining"]
        listed += found or [_waiting(model, app)]
    return listed


def failure(app: Mapping[str, Any] | None) -> str | None:
    """Why an application failed, in one line; None where it did not."""
    if app is None or str(_word(app["status"])) not in _FAILED:
        return None
    messages = [deployment.get("message", "") for deployment in app["deployments"].values()]
    return last_line("\n".join([*messages, app.get("message", "")]) if not any(messages) else "\n".join(messages))


def last_line(text: str) -> str:
    """The line of a traceback that says what went wrong: the last that names an error, else the last of all.

    pydantic's says only how many there are, and what in the line below it.
    """
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if values := [line for line in lines if line.startswith(_VALUE_ERROR)]:
        return values[-1].removeprefix(_VALUE_ERROR).partition(" [type=")[0][:300]
    named = [line for line in lines if line.split(":")[0].endswith(("Error", "Exception")) and ":" in line]
    return ((named or lines or ["no reason given"])[-1])[:300]


def _row(
    model: Served,
    replica: Mapping[str, Any],
    url: str,
    adapters: Collection[str],
    *,
    is_complete: bool,
    is_draining: bool,
) -> Row:
    state: State = _STATES.get(str(_word(replica["state"])), "starting")
    detail = "loading the model" if state == "starting" else ""
    if state == "ready" and not url:
        state, detail = "starting", "waiting for its port"
    elif state == "ready" and is_draining:
        state = "draining"
    elif state == "ready" and not is_complete:
        state, detail = "starting", "loading adapters"
    return Row(
        id=f"{model.name}#{replica['replica_id']}",
        model=model.name,
        url=url if state != "starting" else "",
        state=state,
        max_running=model.max_running,
        task=model.task,
        detail=detail,
        adapters=sorted(adapters),
    )


def _waiting(model: Served, app: Mapping[str, Any] | None) -> Row:
    why = failure(app)
    detail = f"failed: {why}" if why else model.detail or "waiting for its turn"
    return Row(model.name, model.name, "", "starting", model.max_running, model.task, detail)


def _word(value: Any) -> Any:
    """Serve mixes enums and plain strings."""
    return getattr(value, "value", value)
