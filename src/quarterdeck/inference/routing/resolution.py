"""Resolves a request's `model` to a route and checks that its key may use it."""

from quarterdeck.accounting.principal import Principal
from quarterdeck.errors import NotFoundError
from quarterdeck.inference.endpoints.endpoint import Endpoints
from quarterdeck.inference.routing.directory import Directory, Route

MAX_NAME = 200
"""Characters of a model name that an error message quotes: a caller may send megabytes."""


def resolve(directory: Directory, endpoints: Endpoints, name: str, principal: Principal) -> Route:
    """Raises NotFoundError (`model_not_found`): the same one for a model that does not exist and for one that the key
    may not use, so that no key learns of other models' names."""
    route = directory.routes.get(name)
    if route is None and (serving := endpoints.serving(name)):  # an adapter loaded after the configuration was read
        served = directory.adapter(name, serving[0].spec.model)
        route = Route.of_model(served, directory.config.gateway) if served else None
    allowed = principal.models
    if route is None or (allowed is not None and not route.is_allowed(name, allowed)):
        raise NotFoundError(
            f"The model '{name[:MAX_NAME]}' does not exist or you do not have access to it.",
            param="model",
            code="model_not_found",
        )
    return route
