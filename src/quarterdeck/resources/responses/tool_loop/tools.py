"""The servers of one response: their lists of tools, and calls within the limits."""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any

import msgspec

from quarterdeck.errors import APIError
from quarterdeck.resources.responses.deltas import Step
from quarterdeck.resources.responses.items import Item
from quarterdeck.resources.responses.tool_loop.toolbox import Toolbox
from quarterdeck.resources.tools.bounds import checked_tool
from quarterdeck.resources.tools.servers import ServerTool, ToolResult, ToolServer, ToolServerError, tool_error
from quarterdeck.settings.tools import ToolsConfig

COMMENT_SECONDS = 15.0
"""Between two comments in a stream while tools run: load balancers close silent connections after a minute."""
MAX_ARGUMENTS = 256 * 1024
"""Characters of a call's arguments."""


class ToolListError(APIError):
    """A server could not list its tools."""

    status, type, default_code = 424, "external_connector_error", "http_error"

    def __init__(self, label: str, reason: str, steps: list[Step]) -> None:
        super().__init__(f"Error retrieving tool list from server '{label}': {reason}", param="tools")
        self.steps = steps
        """What a stream shows of it."""


class ToolCall(msgspec.Struct, frozen=True):
    """A call to be made. `index`: its number in the turn."""

    index: int
    label: str
    name: str
    arguments: str


class CallReport(msgspec.Struct, frozen=True):
    """A call that was made, for its record. Times are Unix seconds."""

    label: str
    name: str
    started: float
    ended: float
    result: ToolResult


class ResponseTools:
    """`report` is called with each call that has ended. `cost`: of the response's engine calls so far, in $."""

    def __init__(
        self,
        toolbox: Toolbox,
        servers: Mapping[str, ToolServer],
        limits: ToolsConfig,
        *,
        max_calls: int | None,
        report: Callable[[CallReport], None],
        cost: Callable[[], Decimal] = Decimal,
        on_close: Callable[[], None] = lambda: None,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.toolbox = toolbox
        self._servers = servers
        self._limits = limits
        self._max_calls = limits.max_calls if max_calls is None else min(max_calls, limits.max_calls)
        self._report = report
        self._cost = cost
        self._on_close = on_close
        self._wall = wall
        self._started = time.monotonic()
        self._stated: set[str] = set()
        """Servers whose tools are those of an item, which a client may have made."""
        self._checks: dict[str, asyncio.Task[list[ServerTool]]] = {}

    async def list(self, history: Sequence[Item]) -> list[Step]:
        """Learn the tools of all servers. Those that an earlier response listed are not listed again. Returns the
        steps. Raises ToolListError and BadRequestError."""
        known: dict[str, list[ServerTool]] = {}
        for item in history:
            if item["type"] == "mcp_list_tools" and item["server_label"] in self._servers and not item.get("error"):
                known[item["server_label"]] = [made for tool in item["tools"] if (made := _listed(tool)) is not None]
        self._stated = set(known)
        asked = [label for label in self._servers if label not in known]
        lists = await asyncio.gather(*(self._servers[label].list_tools() for label in asked), return_exceptions=True)
        steps: list[Step] = []
        for label, found in zip(asked, lists, strict=True):
            if isinstance(found, ToolServerError):
                failed: list[Step] = [["list", label], ["listed", label, [], found.message]]
                raise ToolListError(label, found.message, steps + failed)
            if isinstance(found, BaseException):
                raise found
            shown = [tool for tool in found if self.toolbox.servers[label].allowed.takes(tool)]
            steps += [["list", label], ["listed", label, [_shown(tool) for tool in shown], None]]
            known[label] = shown
        for label in self._servers:
            self.toolbox.add(label, known[label])
        return steps

    def must_answer(self, turn: int, calls: int) -> bool:
        """Whether the model has to answer without further tools, after so many turns and calls."""
        limits = self._limits
        return (
            turn >= limits.max_turns - 1
            or calls >= self._max_calls
            or time.monotonic() - self._started >= limits.max_seconds
            or (limits.max_cost is not None and self._cost() >= limits.max_cost)
        )

    def remaining(self, calls: int) -> int:
        return self._max_calls - calls

    async def run(self, calls: Sequence[ToolCall]) -> AsyncGenerator[Step | None, None]:
        """Make calls side by side, and give the step of each when it has ended. None: still running, say so."""
        places = asyncio.Semaphore(self._limits.max_parallel)

        async def one(call: ToolCall) -> Step:
            async with places:
                result = await self._call(call)
            return ["mcp_result", call.index, result.output, result.error]

        running = {asyncio.ensure_future(one(call)) for call in calls}
        try:
            while running:
                done, running = await asyncio.wait(
                    running, timeout=COMMENT_SECONDS, return_when=asyncio.FIRST_COMPLETED
                )
                for task in done:
                    yield task.result()
                if not done:
                    yield None
        finally:
            for task in running:
                task.cancel()

    async def aclose(self) -> None:
        """Close all sessions."""
        self._on_close()
        for check in self._checks.values():
            check.cancel()
        await asyncio.gather(*(server.aclose() for server in self._servers.values()), return_exceptions=True)

    async def _call(self, call: ToolCall) -> ToolResult:
        """Call a tool. A failure is a result, which the model is given."""
        started = self._wall()
        if self.toolbox.tool(call.label, call.name) is None:  # approved, and not offered any more
            return ToolResult(error=tool_error(f"The tool '{call.name}' is not offered in this response."))
        left = self._limits.max_seconds - (time.monotonic() - self._started)
        try:
            async with asyncio.timeout(max(0.0, left)):
                if not await self._is_listed(call.label, call.name):
                    return ToolResult(error=tool_error(f"The server does not list a tool '{call.name}'."))
                result = await self._servers[call.label].call(call.name, _arguments(call.arguments))
        except _InvalidArgumentsError as error:
            result = ToolResult(error=tool_error(str(error)))
        except ToolServerError as error:
            result = ToolResult(error=error.as_error)
        except TimeoutError:
            late = ToolServerError(f"The time for tools is over ({self._limits.max_seconds:g} s).", status=504)
            result = ToolResult(error=late.as_error)
        self._report(CallReport(call.label, call.name, started, self._wall(), result))
        return result

    async def _is_listed(self, label: str, name: str) -> bool:
        """Whether the server itself lists a tool, and the request allows it. What an item says is shown to the model
        without asking; nothing is called on its word. Raises ToolServerError."""
        if label not in self._stated:
            return True
        if label not in self._checks:
            self._checks[label] = asyncio.create_task(self._servers[label].list_tools())
        allowed = self.toolbox.servers[label].allowed
        tools = await asyncio.shield(self._checks[label])  # further calls wait for the same list
        return any(tool.name == name and allowed.takes(tool) for tool in tools)


class _InvalidArgumentsError(ValueError):
    pass


def _arguments(text: str) -> dict[str, Any]:
    """Raises _InvalidArgumentsError, whose message the model can act on."""
    if len(text) > MAX_ARGUMENTS:
        raise _InvalidArgumentsError(f"The arguments are longer than {MAX_ARGUMENTS} characters.")
    try:
        found = msgspec.json.decode(text or "{}")
    except (msgspec.DecodeError, RecursionError):
        raise _InvalidArgumentsError("The arguments are not valid JSON.") from None
    if not isinstance(found, dict):
        raise _InvalidArgumentsError("The arguments are not a JSON object.")
    return found


def _shown(tool: ServerTool) -> Item:
    return {
        "name": tool.name,
        "description": tool.description,
        "input_schema": tool.input_schema,
        "annotations": tool.annotations,
    }


def _listed(tool: Item) -> ServerTool | None:
    """A tool of an item, which a client may have made."""
    return checked_tool(tool["name"], tool.get("description"), tool.get("input_schema"), tool.get("annotations"))
