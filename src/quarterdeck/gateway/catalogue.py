"""The models as a caller sees them: which names there are, and whether somebody answers for each. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from quarterdeck.accounting.principal import Principal
from quarterdeck.inference.endpoints.sources import Endpoint
from quarterdeck.inference.routing.directory import Directory, ServedModel


@dataclass(frozen=True, slots=True)
class Availability:
    """Whether a model can be asked."""

    state: str
    """ready, starting, draining, resting (it failed and is left alone for seconds) or unavailable (nobody is there)."""
    detail: str = ""
    task: str | None = None
    """generate or embed; None: nobody knows yet."""

    @property
    def is_ready(self) -> bool:
        return self.state == "ready"


def names(directory: Directory, endpoints: Sequence[Endpoint]) -> dict[str, ServedModel]:
    """Models, aliases and adapters of the file, and the adapters that were loaded since."""
    found = dict(directory.names)
    for endpoint in endpoints:
        for adapter in sorted(endpoint.adapters):
            if adapter not in found and (served := directory.adapter(adapter, endpoint.model)) is not None:
                found[adapter] = served
    return found


def is_allowed(directory: Directory, name: str, served: ServedModel, principal: Principal) -> bool:
    """Whether the key may use it: by this name, by the one it stands for, or by its model's; a route also where it may
    use everybody who may answer."""
    if principal.models is None:
        return True
    if (route := directory.routes.get(name)) is not None:
        return route.is_allowed(name, principal.models)
    return not principal.models.isdisjoint({name, served.name, served.model})


def best_availability(
    directory: Directory, name: str, served: ServedModel, endpoints: Sequence[Endpoint], now: float
) -> Availability:
    """The same of a public name: the best of everybody who may answer for it."""
    route = directory.routes.get(name)
    answering = route.answering if route else (served,)
    return max((availability(each.name, endpoints, now) for each in answering), key=lambda each: _RANK[each.state])


def availability(name: str, endpoints: Sequence[Endpoint], now: float) -> Availability:
    """The best that any endpoint says of the name. `now` is the loop's time."""
    best = Availability("unavailable", "no endpoint answers for it")
    for endpoint in endpoints:
        if not endpoint.serves(name):
            continue
        state = "resting" if endpoint.state == "ready" and is_resting(endpoint, now) else endpoint.state
        if _RANK[state] > _RANK[best.state]:
            best = Availability(state, endpoint.detail, endpoint.task)
    return best


def is_resting(endpoint: Endpoint, now: float) -> bool:
    """Whether it failed, or does not answer its health check."""
    return endpoint.rests_until > now or not endpoint.is_alive


_RANK = {"unavailable": 0, "draining": 1, "resting": 2, "starting": 3, "ready": 4}
