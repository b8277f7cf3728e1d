"""Resolves a request's `model` to a route and checks that its key may use it."""

from quarterdeck.accounting.principal import Principal
from quarterdeck.errors import NotFoundError, PermissionDeniedError
from quarterdeck.inference.endpoints.endpoint import Endpoints
from quarterdeck.inference.routing.directory import Directory, Route

MAX_NAME = 200
"""Characters of a model name that an error message quotes: a caller may send megabytes."""


def resolve(directory: Directory, endpoints: Endpoints, name: str, principal: Principal) -> Route:
    """Raises NotFoundError (`model_not_found`) and PermissionDeniedError (`model_not_allowed`)."""
    route = directory.routes.get(name)
    if route is None and (serving := endpoints.serving(name)):  # an adapter loaded after the configuration was read
        served = directory.adapter(name, serving[0].spec.model)
        route = Route.of_model(served, directory.config.gateway) if served else None
    if route is None:
        raise NotFoundError(
            f"The model '{name[:MAX_NAME]}' does not exist or you do not have access to it.",
            param="model",
            code="model_not_found",
        )
    allowed = principal.models
    if allowed is not None and not route.is_allowed(name, allowed):
        raise PermissionDeniedError(
            f"This API key does not have access to the model '{name[:MAX_NAME]}'.",
            param="model",
            code="model_not_allowed",
        )
    return route
