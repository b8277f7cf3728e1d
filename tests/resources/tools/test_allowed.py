"""The operator's choice among a server's tools holds for its list and for calls."""

from collections.abc import Mapping
from typing import Any

from quarterdeck.resources.tools.allowed import AllowedTools
from quarterdeck.resources.tools.servers import ServerTool, ToolResult


class Server:
    def __init__(self) -> None:
        self.called: list[str] = []
        self.is_closed = False

    async def list_tools(self) -> list[ServerTool]:
        return [ServerTool(name, {"type": "object"}) for name in ("read", "delete")]

    async def call(self, name: str, arguments: Mapping[str, Any]) -> ToolResult:
        self.called.append(name)
        return ToolResult("done")

    async def aclose(self) -> None:
        self.is_closed = True


async def test_other_tools_are_neither_listed_nor_called() -> None:
    server = Server()
    allowed = AllowedTools(server, {"read"})
    assert [tool.name for tool in await allowed.list_tools()] == ["read"]
    assert (await allowed.call("read", {})).output == "done"
    refused = await allowed.call("delete", {})
    assert refused.output is None and "Unknown tool: delete" in str(refused.error)
    assert server.called == ["read"]
    await allowed.aclose()
    assert server.is_closed
