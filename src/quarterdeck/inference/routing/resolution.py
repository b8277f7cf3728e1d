"""What a request's `model` stands for, and whether its key may use it. Pure, but for asking who serves a name."""

from quarterdeck.accounting.principal import Principal
from quarterdeck.errors import NotFoundError, PermissionDeniedError
from quarterdeck.inference.endpoints.sources import Endpoints
from quarterdeck.inference.routing.directory import Directory, Route

MAX_NAME = 200
"""Characters of a model's name that a message repeats: a caller may have sent megabytes."""


def resolve(directory: Directory, endpoints: Endpoints, name: str, principal: Principal) -> Route:
    """Raises NotFoundError and PermissionDeniedError."""
    route = directory.routes.get(name)
    if route is None and (holders := endpoints.serving(name)):  # an adapter that was loaded since
        served = directory.adapter(name, holders[0].model)
        route = Route.to(served, directory.config.gateway) if served else None
    if route is None:
        raise NotFoundError(
            f"The model '{name[:MAX_NAME]}' does not exist or you do not have access to it.",
            param="model",
            code="model_not_found",
        )
    allowed = principal.models
    if allowed is not None and not route.is_allowed(name, allowed):
        raise PermissionDeniedError(
            f"This key may not use the model '{name[:MAX_NAME]}'.", param="model", code="model_not_allowed"
        )
    return route
