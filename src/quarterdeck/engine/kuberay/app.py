"""The control port, plain ASGI: `GET /endpoints`, `/nodes`, `/healthz`, and `POST /drain` for the pod's own hooks."""

import json
import logging
from typing import Any

from quarterdeck.engine.kuberay.door import ObservingDoor
from quarterdeck.errors import APIError, MethodNotAllowedError, NotFoundError, PermissionDeniedError, envelope
from quarterdeck.net.asgi import Receive, Scope, Send, send_response

log = logging.getLogger(__name__)

_LOOPBACK = ("127.0.0.1", "::1")


class App:
    """Routes requests; an APIError becomes its envelope."""

    def __init__(self, door: ObservingDoor) -> None:
        self._door = door

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise RuntimeError(f"unsupported ASGI scope type: {scope['type']}")
        try:
            status, answer = await self._route(scope)
        except APIError as error:
            status, answer = error.status, envelope(error)
        # The door's outer edge: for any other error the caller gets an envelope, and the log the traceback.
        except Exception:
            log.exception("unexpected error in %s %s", scope["method"], scope["path"])
            status, answer = 500, envelope(APIError("Internal error."))
        await send_response(send, status, json.dumps(answer).encode(), [(b"content-type", b"application/json")])

    async def _route(self, scope: Scope) -> tuple[int, dict[str, Any]]:
        match scope["method"], scope["path"]:
            case "GET", "/endpoints":
                return 200, {"endpoints": [row.as_dict() for row in self._door.endpoints()]}
            case "GET", "/nodes":
                return 200, {"in_use": sorted(self._door.nodes_in_use())}
            case "GET", "/healthz":
                return 200, {"status": "ok" if self._door.is_healthy else "Ray's dashboard does not answer"}
            case "POST", "/drain":
                if (scope.get("client") or ("",))[0] not in _LOOPBACK:
                    raise PermissionDeniedError("Only hooks of this pod may drain it.", code="drain_not_allowed")
                return 200, {"active": await self._door.drain()}
            case _, "/endpoints" | "/nodes" | "/healthz" | "/drain":
                raise MethodNotAllowedError(f"Method {scope['method']} is not allowed for {scope['path']}.")
            case _:
                raise NotFoundError(f"Unknown URL: {scope['path']}", code="not_found")
