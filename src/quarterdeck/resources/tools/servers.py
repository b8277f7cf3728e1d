"""What executes tools: servers, by one interface whatever their protocol.

A further kind of tool (a search in files, a sandbox) is another `ToolServer`.
"""

from collections.abc import Mapping
from typing import Any, Protocol

import msgspec

Json = dict[str, Any]


class ServerTool(msgspec.Struct, frozen=True):
    """A tool that a server offers, with its members as MCP has them."""

    name: str
    input_schema: Json
    description: str | None = None
    annotations: Json | None = None

    @property
    def is_read_only(self) -> bool:
        """By its server's own word."""
        return bool((self.annotations or {}).get("readOnlyHint"))


class ToolResult(msgspec.Struct, frozen=True):
    """What a call has returned: a text, or an error in the shape of OpenAI's `mcp_call.error`."""

    output: str | None = None
    error: Json | None = None


class ToolServerError(Exception):
    """A server could not be reached, or its answer was none.

    `status`: that of its HTTP response. 0: there was none. `code`: of a protocol error.
    """

    def __init__(self, message: str, *, status: int = 0, code: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.code = code

    @property
    def as_error(self) -> Json:
        """As an item's `error` has it."""
        if self.code is not None:
            return {"type": "mcp_protocol_error", "code": self.code, "message": self.message}
        return {"type": "http_error", "code": self.status or 502, "message": self.message}


class ToolServer(Protocol):
    """A server in one response. Its methods may be called at the same time, and take a bounded time."""

    async def list_tools(self) -> list[ServerTool]:
        """Raises ToolServerError."""
        ...

    async def call(self, name: str, arguments: Mapping[str, Any]) -> ToolResult:
        """Call a tool. Raises ToolServerError."""
        ...

    async def aclose(self) -> None:
        """Idempotent."""
        ...


def tool_error(text: str) -> Json:
    """The error of a tool that ran and failed."""
    return {"type": "mcp_tool_execution_error", "content": [{"type": "text", "text": text}]}
