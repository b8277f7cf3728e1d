"""The models as callers see them: the names a key may use, and whether an endpoint serves each. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from quarterdeck.accounting.principal import Principal
from quarterdeck.inference.endpoints.endpoint import Endpoint
from quarterdeck.inference.routing.directory import Directory, ServedModel


@dataclass(frozen=True, slots=True)
class Availability:
    """Whether a model can serve requests."""

    state: str
    """ready, idle (the next request starts a replica), starting, draining, resting (its endpoints are ejected for
    failures) or unavailable (it has none, or they can't serve as they are configured)."""
    detail: str = ""
    task: str | None = None
    """generate or embed. None: not known, as no endpoint is."""

    @property
    def is_ready(self) -> bool:
        return self.state == "ready"

    @property
    def is_well(self) -> bool:
        """Whether nothing is amiss: it is ready, or will be when it is asked for."""
        return self.state in ("ready", "idle")


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
    directory: Directory, name: str, served: ServedModel, endpoints: Sequence[Endpoint], now: float
) -> Availability:
    """The availability of a public name: the best of all models that may answer for it."""
    route = directory.routes.get(name)
    models = route.models if route else (served,)
    return max((availability(each.name, endpoints, now) for each in models), key=lambda each: _RANK[each.state])


def availability(name: str, endpoints: Sequence[Endpoint], now: float) -> Availability:
    """The availability of a model or adapter: the best state of its endpoints. `now` is the loop's time."""
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


_RANK = {"unavailable": 0, "draining": 1, "resting": 2, "starting": 3, "idle": 4, "ready": 5}
