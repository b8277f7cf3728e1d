"""An HTTP API as a `ToolServer`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from quarterdeck.resources.tools.bounds import clean, cut
from quarterdeck.resources.tools.http_access import HttpAccess
from quarterdeck.resources.tools.openapi.document import ApiOperation, DocumentError, read_operations, server_url
from quarterdeck.resources.tools.openapi.requests import ArgumentsError, make_request
from quarterdeck.resources.tools.servers import ServerTool, ToolResult, ToolServerError, tool_error
from quarterdeck.settings.files import read_file
from quarterdeck.settings.tools import HttpApiConfig

MAX_DOCUMENT_BYTES = 16 * 1024 * 1024
MAX_ERROR = 2000
"""Characters of an error's body that the model is given."""
_TEXTS = ("application/json", "application/xml", "application/yaml", "application/x-ndjson")


class HttpApi:
    """An API's operations, read once for its configuration."""

    def __init__(self, config: HttpApiConfig, folder: Path) -> None:
        """Reads its document, and blocks meanwhile. Raises DocumentError."""
        self.config = config
        document = config.spec if isinstance(config.spec, dict) else _load(folder / config.spec)
        self.operations = read_operations(document, config.operations)
        self.url = config.url.rstrip("/") if config.url is not None else server_url(document)


class HttpApiServer:
    """`max_result`: bytes of a result. `timeout`: seconds of a call."""

    def __init__(
        self, api: HttpApi, access: HttpAccess, headers: Mapping[str, str], *, timeout: float, max_result: int
    ) -> None:
        self._api = api
        self._access = access
        self._headers = [(name.encode(), value.encode()) for name, value in headers.items()]
        self._timeout = timeout
        self._max_result = max_result

    async def list_tools(self) -> list[ServerTool]:
        return [operation.tool for operation in self._api.operations.values()]

    async def call(self, name: str, arguments: Mapping[str, Any]) -> ToolResult:
        operation = self._api.operations.get(name)
        if operation is None:
            return ToolResult(error=tool_error(f"Unknown tool: {name[:100]}"))
        try:
            return await self._send(operation, arguments)
        except ArgumentsError as error:
            return ToolResult(error=tool_error(str(error)))

    async def aclose(self) -> None: ...

    async def _send(self, operation: ApiOperation, arguments: Mapping[str, Any]) -> ToolResult:
        request = make_request(operation, arguments)
        own = {name for name, _ in self._headers}
        headers = [header for header in request.headers if header[0] not in own]
        answer = await self._access.send(
            request.method,
            self._api.url + request.target,
            [(b"user-agent", b"quarterdeck-tools"), *headers, *self._headers],
            request.body,
            self._timeout,
        )
        try:
            body = await answer.whole()
        finally:
            answer.close()
        kind = answer.header(b"content-type").decode("latin-1").partition(";")[0].strip().lower()
        is_text = not kind or kind.startswith("text/") or kind in _TEXTS or kind.endswith(("+json", "+xml"))
        text = body.decode(errors="replace") if is_text else f"[{clean(kind)[:100]}, {len(body)} bytes; not shown]"
        if answer.status >= 300:
            message = cut(text, MAX_ERROR) or "The API reported an error."
            raise ToolServerError(f"Status {answer.status}: {message}", status=answer.status)
        return ToolResult(cut(text, self._max_result))


def _load(path: Path) -> dict[str, Any]:
    """Raises DocumentError."""
    try:
        loaded = yaml.safe_load(read_file(path, MAX_DOCUMENT_BYTES))
    except OSError as error:
        raise DocumentError(f"can't read {path}: {error.strerror or error}") from error
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise DocumentError(f"{path} is not valid YAML or JSON") from error
    if not isinstance(loaded, dict):
        raise DocumentError(f"{path} is not an object")
    return loaded
