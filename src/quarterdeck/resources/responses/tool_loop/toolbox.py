"""What the model may call in one response: functions of the client, and tools of servers. Pure.

A chat completion knows functions only. A server's tool has its own name there where no other tool has it, else one with
its server's label.
"""

import hashlib
import re
from collections.abc import Iterable, Sequence
from typing import Any

from quarterdeck.errors import BadRequestError
from quarterdeck.resources.responses.tool_loop.server_tools import RequestedServer
from quarterdeck.resources.tools.servers import ServerTool

MAX_NAME = 64
"""Characters of a function's name, as OpenAI's."""

Choice = str | dict[str, Any]


class Toolbox:
    """`functions`: names of the client's functions."""

    def __init__(self, functions: Iterable[str], servers: Sequence[RequestedServer], max_tools: int) -> None:
        self.servers = {server.label: server for server in servers}
        self._max_tools = max_tools
        self._taken = set(functions)
        self._tools: dict[str, tuple[str, ServerTool]] = {}
        """Label and tool, by the name of the function."""
        self._names: dict[tuple[str, str], str] = {}

    def add(self, label: str, tools: Iterable[ServerTool]) -> None:
        """Those tools of a server that the request allows. Raises BadRequestError for too many."""
        server = self.servers[label]
        for tool in tools:
            if not server.allowed.takes(tool) or (label, tool.name) in self._names:
                continue
            name = _function_name(label, tool.name, self._taken)
            self._taken.add(name)
            self._tools[name] = (label, tool)
            self._names[label, tool.name] = name
        if len(self._tools) > self._max_tools:
            raise BadRequestError(
                f"Too many tools: at most {self._max_tools} of all servers together. Name those that are needed in "
                "`allowed_tools`.",
                param="tools",
                code="too_many_tools",
            )

    def called(self, function: str) -> tuple[str, ServerTool] | None:
        """The label and the tool that a function stands for. None: it is the client's."""
        return self._tools.get(function)

    def tool(self, label: str, name: str) -> ServerTool | None:
        """A server's tool that the request allows."""
        function = self._names.get((label, name))
        return None if function is None else self._tools[function][1]

    def function_name(self, label: str, name: str) -> str:
        """The function of a server's tool, also of one that is not allowed (any more)."""
        return self._names.get((label, name)) or _function_name(label, name, set())

    def functions(self, allowed: frozenset[str] | None = None) -> list[dict[str, Any]]:
        """The servers' tools as a chat completion has functions. `allowed`: the functions to be shown."""
        return [
            {
                "type": "function",
                "function": {
                    "name": name,
                    **({"description": tool.description} if tool.description else {}),
                    "parameters": tool.input_schema,
                },
            }
            for name, (_, tool) in self._tools.items()
            if allowed is None or name in allowed
        ]

    def of(self, label: str, name: str | None = None) -> frozenset[str]:
        """The functions of a server, or of one of its tools."""
        return frozenset(
            function
            for function, (at, tool) in self._tools.items()
            if at == label and (name is None or tool.name == name)
        )


def _function_name(label: str, tool: str, taken: set[str]) -> str:
    plain = re.sub(r"[^A-Za-z0-9_-]", "_", tool)
    for candidate in (plain, f"{label}_{plain}"):
        if candidate not in taken and len(candidate) <= MAX_NAME and (candidate != plain or plain == tool):
            return candidate
    digest = hashlib.sha256(f"{label}\0{tool}".encode()).hexdigest()[:8]
    return f"{label[:20]}_{plain[:30]}_{digest}"
