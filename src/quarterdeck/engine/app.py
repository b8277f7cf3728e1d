"""The control port, plain ASGI: `GET /endpoints`, `GET /healthz`, `POST /adapters`, `DELETE /adapters/{model}/{name}`,
`POST /models/{name}/retry`, `GET /weights`, `POST /weights`, `GET /prometheus/targets` (Ray's own metrics).

It listens on loopback without authentication: a client that can reach it can reach the replicas as well. Its clients
are the gateway and the operator; `net/browser_guard.py` refuses web pages, and a body must be declared as JSON, which a
page can't do without asking first.
"""

import json
import logging
from typing import Any
from urllib.parse import unquote

from quarterdeck.engine.adapters import parse_adapter_request
from quarterdeck.engine.door import Door
from quarterdeck.errors import APIError, BadRequestError, MethodNotAllowedError, NotFoundError, envelope
from quarterdeck.net.asgi import ClientGoneError, Receive, Scope, Send, read_body, send_response
from quarterdeck.weights.control import control_download, list_downloads
from quarterdeck.weights.pulls import Pulls

log = logging.getLogger(__name__)

_BODY_LIMIT = 64 << 10


class App:
    """Routes requests; an APIError becomes its envelope."""

    def __init__(self, door: Door, pulls: Pulls) -> None:
        self._door = door
        self._pulls = pulls

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise RuntimeError(f"unsupported ASGI scope type: {scope['type']}")
        answer: object
        try:
            status, answer = await self._route(scope, receive)
        except ClientGoneError:
            return
        except APIError as error:
            status, answer = error.status, envelope(error)
        # The door's outer edge: for any other error the caller gets an envelope, and the log the traceback.
        except Exception:
            log.exception("unexpected error in %s %s", scope["method"], scope["path"])
            status, answer = 500, envelope(APIError("Internal error."))
        await send_response(send, status, json.dumps(answer).encode(), [(b"content-type", b"application/json")])

    async def _route(self, scope: Scope, receive: Receive) -> tuple[int, dict[str, Any] | list[dict[str, Any]]]:
        # The raw path, because a model's name may contain a slash, encoded as %2F.
        raw: bytes = scope.get("raw_path") or scope["path"].encode()
        match (scope["method"], *(unquote(part) for part in raw.decode("latin-1").strip("/").split("/"))):
            case ("GET", "endpoints"):
                return 200, {
                    "endpoints": [row.as_dict() for row in self._door.endpoints()],
                    "models": [status.as_dict() for status in self._door.statuses()],
                }
            case ("GET", "healthz"):
                return (200, {"status": "ok"}) if self._door.is_healthy else (503, {"status": "Ray is not ready"})
            case ("GET", "prometheus", "targets"):
                return 200, await self._door.scrape_targets()
            case ("POST", "adapters"):
                if not is_json(scope):
                    raise BadRequestError("The Content-Type must be application/json.", code="unsupported_media_type")
                model, name, path = parse_adapter_request(await read_body(receive, _BODY_LIMIT))
                await self._door.adapters.add(model, name, path, self._door.generating(model))
                return 200, {"model": model, "name": name}
            case ("DELETE", "adapters", model, name):
                await self._door.adapters.remove(model, name, self._door.generating(model))
                return 200, {"model": model, "name": name, "deleted": True}
            case ("GET", "weights"):
                return 200, list_downloads(self._pulls)
            case ("POST", "weights"):
                if not is_json(scope):
                    raise BadRequestError("The Content-Type must be application/json.", code="unsupported_media_type")
                return 202, control_download(self._pulls, await read_body(receive, _BODY_LIMIT))
            case ("POST", "models", name, "retry"):
                return 200, {"name": name, "was_failed": self._door.retry(name)}
            case (_, "endpoints" | "healthz" | "adapters" | "models" | "weights", *_) | (_, "prometheus", "targets"):
                raise MethodNotAllowedError(f"Method {scope['method']} is not allowed for {scope['path']}.")
            case _:
                raise NotFoundError(f"Unknown URL: {scope['path']}", code="not_found")


def is_json(scope: Scope) -> bool:
    types = [value for name, value in scope["headers"] if name == b"content-type"]
    return [each.partition(b";")[0].strip().lower() for each in types] == [b"application/json"]
