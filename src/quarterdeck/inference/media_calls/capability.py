"""Which models serve an audio or image operation, by their configuration."""

from quarterdeck.accounting.principal import Principal
from quarterdeck.errors import BadRequestError, NotFoundError, NotServedError
from quarterdeck.inference.endpoints.endpoint import Endpoints
from quarterdeck.inference.routing.directory import Directory, Route
from quarterdeck.inference.routing.resolution import MAX_NAME, resolve

MAX_LISTED = 10
"""Models that an error names."""


def check_served(directory: Directory, word: str) -> None:
    """Raises NotServedError where no model serves the operation `word` (`models[].serves`)."""
    if not any(word in served.serves for served in directory.names.values()):
        raise NotServedError(
            f"{word} is not served by this platform: none of its models does. The operator can set `serves: [{word}]` "
            "for a model whose endpoints serve it."
        )


def serving_route(directory: Directory, endpoints: Endpoints, name: str, word: str, principal: Principal) -> Route:
    """The route of a model name, without models that don't serve the operation. Raises NotServedError, NotFoundError
    for a model that the key may not use, and BadRequestError for one that serves something else; the latter two name
    those that the key may use instead."""
    check_served(directory, word)
    try:
        route = resolve(directory, endpoints, name, principal)
    except NotFoundError as error:
        raise NotFoundError(
            error.message + _instead(directory, word, principal), param=error.param, code=error.code
        ) from None
    serving = route.serving(word)
    if serving is None:
        raise BadRequestError(
            f"The model '{name[:MAX_NAME]}' does not support {word}.{_instead(directory, word, principal)}",
            param="model",
            code="unsupported_operation",
        )
    return serving


def _instead(directory: Directory, word: str, principal: Principal) -> str:
    allowed = principal.models
    names = sorted(
        name
        for name, route in directory.routes.items()
        if "@" not in name and route.serving(word) is not None and (allowed is None or route.is_allowed(name, allowed))
    )
    if not names:
        return ""
    more = f" and {len(names) - MAX_LISTED} more" if len(names) > MAX_LISTED else ""
    return f" Models that support {word}: {', '.join(names[:MAX_LISTED])}{more}."
