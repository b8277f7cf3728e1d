"""The models as callers see them: the names a key may use, and whether an endpoint serves each. Pure."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from quarterdeck.accounting.principal import Principal
from quarterdeck.inference.endpoints.endpoint import Endpoint
from quarterdeck.inference.routing.directory import Directory, ServedModel
from quarterdeck.model_lifecycle.status import WORDS, ModelStatus

StatusOf = Callable[[str], ModelStatus | None]
"""The status of a model, by its name."""


@dataclass(frozen=True, slots=True)
class Availability:
    """Whether a model can serve requests."""

    state: str
    """ready, idle (the next request starts a replica), starting, draining, resting (its endpoints are ejected for
    failures), stopped, or unavailable (it has none, they can't serve as they are configured, or its engine failed)."""
    detail: str = ""
    task: str | None = None
    """generate or embed. None: not known, as no endpoint is."""
    status: ModelStatus | None = None
    """What the engine's door says of it."""

    @property
    def is_ready(self) -> bool:
        return self.state == "ready"

    @property
    def is_well(self) -> bool:
        """Whether nothing is amiss: it is ready, or will be when it is asked for."""
        return self.state in ("ready", "idle", "stopped")

    def more(self) -> dict[str, object]:
        """What programs need of a model that does not serve, or whose change is not in force."""
        status = self.status
        if status is None or (status.state == "ready" and not status.reason):
            return {}
        fields = {
            "phase": status.state,
            "reason": status.reason or None,
            "progress": status.progress,
            "seconds_left": status.seconds_left,
            "retry_seconds": status.retry_seconds,
        }
        return {key: value for key, value in fields.items() if value is not None}


def names(directory: Directory, endpoints: Sequence[Endpoint]) -> dict[str, ServedModel]:
    """All names of the configuration, and adapters that endpoints have loaded or failed to load since."""
    found = dict(directory.names)
    for endpoint in endpoints:
        for adapter in sorted({*endpoint.spec.adapters, *endpoint.spec.failed_adapters}):
            if adapter not in found and (served := directory.adapter(adapter, endpoint.spec.model)) is not None:
                found[adapter] = served
    return found


def is_allowed(directory: Directory, name: str, served: ServedModel, principal: Principal) -> bool:
    """Whether the key may use a name: by this name, by the one it stands for or by its model's; a route also if the key
    may use every model that may answer."""
    if principal.models is None:
        return True
    if (route := directory.routes.get(name)) is not None:
        return route.is_allowed(name, principal.models)
    return not principal.models.isdisjoint({name, served.name, served.model})


def best_availability(
    directory: Directory,
    name: str,
    served: ServedModel,
    endpoints: Sequence[Endpoint],
    now: float,
    status_of: StatusOf = lambda model: None,
) -> Availability:
    """The availability of a public name: the best of all models that may answer for it."""
    route = directory.routes.get(name)
    models = route.models if route else (served,)
    found = (availability(each.name, endpoints, now, status_of(each.model)) for each in models)
    return max(found, key=lambda each: _RANK[each.state])


def availability(
    name: str, endpoints: Sequence[Endpoint], now: float, status: ModelStatus | None = None
) -> Availability:
    """The availability of a model or adapter: the best state of its endpoints, and what its door says of the model
    where none is ready. `now` is the loop's time."""
    best = _of_endpoints(name, endpoints, now)
    if status is None:
        return best
    if best.state in ("ready", "idle", "resting"):
        detail = status.detail if best.is_ready and status.reason else best.detail
        return replace(best, detail=detail, status=status)
    if status.state == "failed":
        return Availability("unavailable", status.detail, best.task, status)
    if status.state == "stopped":
        return Availability("stopped", "", best.task, status)
    if status.is_starting:
        return Availability("starting", status.detail or WORDS[status.state], best.task, status)
    return replace(best, status=status)


def _of_endpoints(name: str, endpoints: Sequence[Endpoint], now: float) -> Availability:
    best = Availability("unavailable", "no endpoint answers for it")
    for endpoint in endpoints:
        spec = endpoint.spec
        if not spec.serves(name):
            if (reason := spec.failed_adapters.get(name)) and best.state == "unavailable":
                best = Availability("unavailable", reason, spec.task)
            continue
        state: str = spec.state
        detail = spec.detail
        if spec.problem:
            state, detail = "unavailable", spec.problem
        elif spec.state == "ready" and endpoint.breaker.is_ejected(now):
            state, detail = "resting", endpoint.breaker.health_error or "recent requests failed"
        if _RANK[state] > _RANK[best.state] or (spec.problem and best.state == "unavailable"):
            best = Availability(state, detail, spec.task)
    return best


_RANK = {"unavailable": 0, "stopped": 1, "draining": 2, "resting": 3, "starting": 4, "idle": 5, "ready": 6}
