"""Calls of the engine's door: downloads of weights, and another attempt to start a model."""

import json
from typing import Any
from urllib.parse import quote

from quarterdeck.errors import APIError, ServiceUnavailableError
from quarterdeck.net.http_client import HttpClient
from quarterdeck.net.http_connection import Timeouts, UpstreamError
from quarterdeck.net.http_origin import Origin, request_head
from quarterdeck.protocol.error_bodies import parse_error_body

TIMEOUTS = Timeouts(connect=2.0, first_byte=10.0, idle=10.0)
MAX_BYTES = 1024 * 1024


class EngineDoor:
    """`url`: the door's control port."""

    def __init__(self, url: str, client: HttpClient) -> None:
        self._origin = Origin.parse(url)
        self._client = client

    async def downloads(self) -> list[dict[str, Any]]:
        """Downloads without a model, newest last. Raises APIError."""
        found = await self._call("GET", "/weights")
        downloads = found.get("downloads")
        return downloads if isinstance(downloads, list) else []

    async def download(self, source: str, revision: str | None, *, cancel: bool = False) -> dict[str, Any]:
        """Start a download in the background, or cancel it. Raises APIError."""
        return await self._call("POST", "/weights", {"source": source, "revision": revision, "cancel": cancel})

    async def retry(self, model: str) -> None:
        """Try a failed model again now. Raises APIError."""
        await self._call("POST", f"/models/{quote(model, safe='')}/retry", {})

    async def _call(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        content = b"" if body is None else json.dumps(body).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(content)).encode())]
        head = request_head(method, self._origin, path, headers) + b"\r\n"
        try:
            connection = await self._client.request(self._origin, head, content, TIMEOUTS)
            try:
                answer = await connection.read_all(MAX_BYTES)
            finally:
                self._client.release(self._origin, connection)
        except UpstreamError as error:
            raise ServiceUnavailableError(f"The engine does not answer: {error}", code="engine_unavailable") from error
        if connection.status >= 400:
            error_body = parse_error_body(answer)
            raise _refusal(connection.status, error_body.message or f"The engine answered {connection.status}.")
        try:
            found = json.loads(answer or b"{}")
        except ValueError:
            found = None
        return found if isinstance(found, dict) else {}


def _refusal(status: int, message: str) -> APIError:
    error = APIError(message)
    error.status = status
    error.type = "invalid_request_error" if status < 500 else "server_error"
    return error
