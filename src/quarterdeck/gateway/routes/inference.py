"""The model routes, for FastAPI's table: `hot_path` has taken their POSTs before routing.

They stand here so that another method is a 405 that names POST, and so that a walk over the routes finds them.
"""

from starlette.routing import Route

from quarterdeck.inference.call import Operation
from quarterdeck.net.asgi import ASGIApp


def routes(endpoint: ASGIApp) -> list[Route]:
    """One for each operation, all answered by `endpoint`."""
    return [Route(operation.value, endpoint, methods=["POST"], name=operation.word) for operation in Operation]
