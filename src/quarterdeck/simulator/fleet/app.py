"""The ASGI application of a fleet: the control port, and the engines below `/m/<app>`.

Other paths go to the first engine that is ready, as a single simulated engine has them.
"""

from urllib.parse import unquote

from msgspec.json import encode

from quarterdeck.errors import APIError, envelope
from quarterdeck.net.asgi import Receive, Scope, Send, read_body, send_response
from quarterdeck.simulator.fleet.door import FleetDoor
from quarterdeck.weights.control import control_download, list_downloads
from quarterdeck.weights.pulls import Pulls

_BODY_LIMIT = 64 << 10

_JSON = [(b"content-type", b"application/json")]


class FleetApp:
    """Routes by path."""

    def __init__(self, door: FleetDoor, pulls: Pulls) -> None:
        self._door, self._pulls = door, pulls

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise RuntimeError(f"unsupported ASGI scope type: {scope['type']}")
        path: str = scope["path"]
        if scope["method"] == "GET" and path == "/endpoints":
            return await send_response(send, 200, encode(self._door.listing()), _JSON)
        if scope["method"] == "GET" and path == "/healthz":
            return await send_response(send, 200, b'{"status":"ok"}', _JSON)
        if path == "/weights":
            return await self._weights(scope, receive, send)
        if scope["method"] == "POST" and (name := _retried(scope)) is not None:
            answer = {"name": name, "was_failed": self._door.reconciler.retry(name)}
            return await send_response(send, 200, encode(answer), _JSON)
        app = None
        if path.startswith("/m/"):
            name, _, rest = path.removeprefix("/m/").partition("/")
            app = self._door.runtime.app(name)
            scope = {**scope, "path": f"/{rest}", "raw_path": f"/{rest}".encode("latin-1", "replace")}
        else:
            app = self._door.runtime.first_ready()
        if app is None:
            body = encode({"error": {"message": "The engine is not ready.", "type": "ServiceUnavailable", "code": 503}})
            return await send_response(send, 503, body, _JSON)
        await app(scope, receive, send)

    async def _weights(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] == "GET":
            return await send_response(send, 200, encode(list_downloads(self._pulls)), _JSON)
        try:
            answer = control_download(self._pulls, await read_body(receive, _BODY_LIMIT))
        except APIError as error:
            return await send_response(send, error.status, encode(envelope(error)), _JSON)
        await send_response(send, 202, encode(answer), _JSON)


def _retried(scope: Scope) -> str | None:
    """The model in `POST /models/{name}/retry`; its name may contain a slash, encoded as %2F."""
    raw: bytes = scope.get("raw_path") or scope["path"].encode()
    match [unquote(part) for part in raw.decode("latin-1").strip("/").split("/")]:
        case ["models", name, "retry"]:
            return name
        case _:
            return None
