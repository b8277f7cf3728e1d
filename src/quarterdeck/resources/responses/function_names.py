"""The functions of a response's tools, and the names that they have in a chat completion. Pure.

Tools of type `namespace` group functions under a name. Chat completions know no groups, so such a function is
`namespace__name` there, as at vLLM; the response's items have both names again.
"""

import hashlib
from collections.abc import Sequence
from typing import Any

MAX_NAME = 64
"""Characters of a function's name in a chat completion, as OpenAI's."""


def chat_name(namespace: str | None, name: str) -> str:
    """The name of a function in the chat completion."""
    if not namespace:
        return name
    joined = f"{namespace}__{name}"
    if len(joined) <= MAX_NAME:
        return joined
    digest = hashlib.sha256(f"{namespace}\0{name}".encode()).hexdigest()[:8]
    return f"{joined[: MAX_NAME - 9]}_{digest}"


def functions_of(tools: Sequence[dict[str, Any]]) -> list[tuple[str, dict[str, Any]]]:
    """The functions among some tools, each with its name in the chat completion."""
    found: list[tuple[str, dict[str, Any]]] = []
    for tool in tools:
        if tool["type"] == "function":
            found.append((tool["name"], tool))
        elif tool["type"] == "namespace":
            found += [(chat_name(tool["name"], each["name"]), each) for each in tool["tools"]]
    return found


class FunctionNames:
    """What items of calls have of the functions that an engine calls."""

    def __init__(self, tools: Sequence[dict[str, Any]]) -> None:
        self._grouped = {
            chat_name(tool["name"], each["name"]): {"name": each["name"], "namespace": tool["name"]}
            for tool in tools
            if tool["type"] == "namespace"
            for each in tool["tools"]
        }

    def members(self, name: str) -> dict[str, str]:
        """`name`, and `namespace` for a function of one."""
        return self._grouped.get(name) or {"name": name}
