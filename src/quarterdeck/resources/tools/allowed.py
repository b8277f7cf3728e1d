"""Some tools of a server: those that the operator allows. Others are not listed, and not called by a name that a caller
knows or makes up."""

from collections.abc import Collection, Mapping
from typing import Any

from quarterdeck.resources.tools.servers import ServerTool, ToolResult, ToolServer, tool_error


class AllowedTools:
    """A `ToolServer`."""

    def __init__(self, server: ToolServer, names: Collection[str]) -> None:
        self._server = server
        self._names = names

    async def list_tools(self) -> list[ServerTool]:
        return [tool for tool in await self._server.list_tools() if tool.name in self._names]

    async def call(self, name: str, arguments: Mapping[str, Any]) -> ToolResult:
        if name not in self._names:
            return ToolResult(error=tool_error(f"Unknown tool: {name[:100]}"))
        return await self._server.call(name, arguments)

    async def aclose(self) -> None:
        await self._server.aclose()
