"""The members of a turn's chat completion that concern tools. Pure."""

from collections.abc import Sequence
from typing import Any

from quarterdeck.resources.responses import tools
from quarterdeck.resources.responses.function_names import functions_of
from quarterdeck.resources.responses.objects import Response
from quarterdeck.resources.responses.requests import ResponseRequest
from quarterdeck.resources.responses.tool_loop.toolbox import Toolbox


def tool_members(
    request: ResponseRequest, response: Response, toolbox: Toolbox, *, must_answer: bool
) -> dict[str, Any]:
    """`must_answer`: no tool may be called any more. They stay in the prompt, which stays cached.

    A choice that forces a call holds until a tool was called: else the model could never answer.
    """
    of_clients = [tool for tool in response["tools"] if tool["type"] != "mcp"]
    functions = functions_of(of_clients)
    members = tools.chat_members(request, of_clients, "auto", response["text"]["format"])
    of_client = {each["function"]["name"]: each for each in members.pop("tools", [])}
    members.pop("tool_choice", None)
    allowed: frozenset[str] | None = None
    choice: Any = response["tool_choice"]
    if isinstance(choice, dict):
        kind = choice["type"]
        if kind == "allowed_tools":
            allowed = frozenset().union(*(_named(each, toolbox, functions) for each in choice["tools"]))
            choice = choice["mode"]
        else:
            chosen = _named(choice, toolbox, functions)
            allowed = chosen if kind == "mcp" and len(chosen) > 1 else None
            choice = "required" if len(chosen) != 1 else {"type": "function", "function": {"name": next(iter(chosen))}}
    if any(item["type"] == "mcp_call" and not item["approval_request_id"] for item in response["output"]):
        choice = "auto" if choice != "none" else choice
        allowed = allowed if isinstance(response["tool_choice"], dict) and "mode" in response["tool_choice"] else None
    shown = [tool for name, tool in of_client.items() if allowed is None or name in allowed]
    shown += toolbox.functions(allowed)
    if not shown:
        return {name: value for name, value in members.items() if name == "response_format"}
    members["tools"] = shown
    if must_answer:
        members["tool_choice"] = "none"
    elif choice != "auto" or request.tool_choice is not None:
        members["tool_choice"] = choice
    if request.parallel_tool_calls is not None:
        members["parallel_tool_calls"] = request.parallel_tool_calls
    return members


def _named(choice: dict[str, Any], toolbox: Toolbox, functions: Sequence[tuple[str, dict[str, Any]]]) -> frozenset[str]:
    """The functions that a choice names."""
    if choice["type"] == "mcp":
        return toolbox.of(choice["server_label"], choice.get("name"))
    return frozenset({tools.chosen_name(choice, functions)})
