"""Tools and formats of a response, as they are shown and as chat completions take them. Pure.

Functions are called by the client: the platform returns the call. A `namespace` groups some of them. Tools of servers
(`mcp`) are called by the platform. Others are refused with a message that names what is served.
"""

from collections.abc import Sequence
from typing import Any

from quarterdeck.errors import BadRequestError
from quarterdeck.resources.responses.function_names import functions_of
from quarterdeck.resources.responses.requests import ResponseRequest
from quarterdeck.resources.responses.tool_loop.server_tools import shown_server

SERVED = ("function", "mcp")
MAX_TOOLS = 128
MAX_FUNCTIONS = 1000
"""Those of all namespaces together."""
_HINTS = {
    "code_interpreter": " Code is not executed here: offer a function, or an MCP server that runs it in a sandbox.",
    "custom": " Give the tool as a function with `parameters`.",
    "web_search": ' Offer an MCP server that searches (in Codex: web_search = "disabled").',
}
_CHOICES = ("none", "auto", "required")
_FORMATS = ("text", "json_object", "json_schema")
_FUNCTION = frozenset({"type", "name", "description", "parameters", "strict"})
_NAMESPACE = frozenset({"type", "name", "description", "tools"})


def shown_tools(request: ResponseRequest) -> list[dict[str, Any]]:
    """The `tools` of a response object, each with all members. Raises BadRequestError."""
    given = request.tools or []
    if len(given) > MAX_TOOLS:
        raise BadRequestError(
            f"Invalid 'tools': array too long. Expected an array with maximum length {MAX_TOOLS}, but got an array "
            f"with length {len(given)} instead.",
            param="tools",
            code="array_above_max_length",
        )
    shown = [_shown_tool(tool, f"tools[{index}]") for index, tool in enumerate(given) if not _searches_nothing(tool)]
    if (count := len(functions_of(shown))) > MAX_FUNCTIONS:
        raise BadRequestError(
            f"Invalid 'tools': {count} functions, at most {MAX_FUNCTIONS} in all namespaces together.",
            param="tools",
            code="array_above_max_length",
        )
    labels = [tool["server_label"] for tool in shown if tool["type"] == "mcp"]
    for index, tool in enumerate(shown):
        if tool["type"] == "mcp" and labels.count(tool["server_label"]) > 1:
            raise BadRequestError(
                f"Duplicate server_label '{tool['server_label']}' in 'tools'.",
                param=f"tools[{index}].server_label",
                code="invalid_value",
            )
    return shown


def _searches_nothing(tool: dict[str, Any]) -> bool:
    """A search of the pages that OpenAI has cached, and of no others. Codex offers it in each request, wanted or not.
    Nothing is cached here, so the model is not shown it; a search of the web is refused."""
    return tool.get("type") == "web_search" and tool.get("external_web_access") is False


def _shown_tool(tool: dict[str, Any], where: str) -> dict[str, Any]:
    kind = tool.get("type")
    if kind is None:
        raise _missing(f"{where}.type")
    if kind == "namespace":
        return _shown_namespace(tool, where)
    if kind not in SERVED:
        hint = _HINTS.get(kind, "") if isinstance(kind, str) else ""
        raise BadRequestError(
            f"Unsupported tool type: '{str(kind)[:100]}'. Served tool types: {', '.join(SERVED)}.{hint}",
            param=f"{where}.type",
            code="unsupported_tool",
        )
    if kind == "mcp":
        return shown_server(tool, where)
    if "function" in tool:
        raise BadRequestError(
            f"Unknown parameter: '{where}.function'. In the Responses API, a function's name and parameters are "
            "members of the tool itself.",
            param=f"{where}.function",
            code="unknown_parameter",
        )
    for name in tool:
        if name not in _FUNCTION:
            raise _unsupported(f"{where}.{name[:100]}")
    called = _text(tool, "name", where)
    if not called:
        raise _missing(f"{where}.name")
    parameters = tool.get("parameters")
    if parameters is not None and not isinstance(parameters, dict):
        raise _invalid(f"{where}.parameters", "an object")
    strict = tool.get("strict")
    if strict is not None and not isinstance(strict, bool):
        raise _invalid(f"{where}.strict", "a boolean")
    return {
        "type": "function",
        "name": called,
        "description": _text(tool, "description", where),
        "parameters": parameters,
        "strict": bool(strict),
    }


def _shown_namespace(tool: dict[str, Any], where: str) -> dict[str, Any]:
    for name in tool:
        if name not in _NAMESPACE:
            raise _unsupported(f"{where}.{name[:100]}")
    called, grouped = _text(tool, "name", where), tool.get("tools")
    if not called:
        raise _missing(f"{where}.name")
    if not isinstance(grouped, list) or len(grouped) > MAX_TOOLS:
        raise _invalid(f"{where}.tools", f"an array of at most {MAX_TOOLS} functions")
    functions = []
    for index, each in enumerate(grouped):
        at = f"{where}.tools[{index}]"
        if not isinstance(each, dict):
            raise _invalid(at, "an object")
        if each.get("type") != "function":
            raise BadRequestError(
                f"Unsupported tool type: '{str(each.get('type'))[:100]}'. A namespace groups functions.",
                param=f"{at}.type",
                code="unsupported_tool",
            )
        functions.append(_shown_tool(each, at))
    return {"type": "namespace", "name": called, "description": _text(tool, "description", where), "tools": functions}


def shown_choice(request: ResponseRequest, tools: Sequence[dict[str, Any]]) -> str | dict[str, Any]:
    """The `tool_choice` of a response object. Raises BadRequestError."""
    choice = request.tool_choice
    if choice is None:
        return "auto"
    if isinstance(choice, str):
        if choice not in _CHOICES:
            raise _choice(choice)
        if choice == "required" and not tools:
            raise BadRequestError(
                "Tool choice 'required' must be specified with 'tools'.", param="tool_choice", code="invalid_value"
            )
        return choice
    kind = choice.get("type")
    names = {tool["name"] for _, tool in functions_of(tools)}
    labels = {tool["server_label"] for tool in tools if tool["type"] == "mcp"}
    if kind == "mcp":
        return _server_choice(choice, labels, "tool_choice")
    if kind == "function":
        chosen = _text(choice, "name", "tool_choice")
        if chosen not in names:
            raise _no_such_tool(chosen, "tool_choice.name")
        return {"type": "function", "name": chosen}
    if kind == "allowed_tools":
        if choice.get("mode") not in ("auto", "required"):
            raise _invalid("tool_choice.mode", "'auto' or 'required'")
        allowed = choice.get("tools")
        if not isinstance(allowed, list) or not allowed:
            raise _invalid("tool_choice.tools", "a non-empty array")
        for index, each in enumerate(allowed):
            if not isinstance(each, dict) or each.get("type") not in SERVED:
                raise _invalid(f"tool_choice.tools[{index}]", "a reference to a function or an MCP server")
            if each["type"] == "mcp":
                _server_choice(each, labels, f"tool_choice.tools[{index}]")
            elif each.get("name") not in names:
                raise _no_such_tool(each.get("name"), f"tool_choice.tools[{index}].name")
        return choice
    raise _choice(str(kind))


def _server_choice(choice: dict[str, Any], labels: set[str], where: str) -> dict[str, Any]:
    """A choice of a server, or of one of its tools."""
    label = choice.get("server_label")
    if label not in labels:
        raise _no_such_tool(label, f"{where}.server_label")
    name = _text(choice, "name", where)
    return {"type": "mcp", "server_label": label, **({"name": name} if name is not None else {})}


def shown_format(request: ResponseRequest) -> dict[str, Any]:
    """The `text.format` of a response object. Raises BadRequestError."""
    given = request.text.format if request.text is not None else None
    if given is None:
        return {"type": "text"}
    kind = given.get("type")
    if kind is None:
        raise _missing("text.format.type")
    if kind not in _FORMATS:
        served = ", ".join(f"'{name}'" for name in _FORMATS)
        raise BadRequestError(
            f"Invalid value: '{str(kind)[:100]}'. Supported values are: {served}.",
            param="text.format.type",
            code="invalid_value",
        )
    if kind != "json_schema":
        return {"type": kind}
    name, schema = _text(given, "name", "text.format"), given.get("schema")
    if not name:
        raise _missing("text.format.name")
    if not isinstance(schema, dict):
        raise _missing("text.format.schema") if schema is None else _invalid("text.format.schema", "an object")
    if not isinstance(given.get("strict"), bool | None):
        raise _invalid("text.format.strict", "a boolean")
    return {
        "type": kind,
        "name": name,
        "description": _text(given, "description", "text.format"),
        "schema": schema,
        "strict": bool(given.get("strict")),
    }


def chat_members(
    request: ResponseRequest, tools: Sequence[dict[str, Any]], choice: str | dict[str, Any], form: dict[str, Any]
) -> dict[str, Any]:
    """`tools`, `tool_choice` and `response_format` of the chat completion."""
    members: dict[str, Any] = {}
    functions = functions_of(tools)
    if isinstance(choice, dict) and choice["type"] == "mcp":
        choice = "auto"
    if isinstance(choice, dict) and choice["type"] == "allowed_tools":
        allowed = {each.get("name") for each in choice["tools"]}
        functions, choice = [each for each in functions if each[1]["name"] in allowed], choice["mode"]
    if functions:
        stated = {name for name, tool in functions_of(request.tools or ()) if tool.get("strict") is not None}
        members["tools"] = [_chat_tool(name, tool, states_strict=name in stated) for name, tool in functions]
        if request.tool_choice is not None:
            members["tool_choice"] = (
                choice
                if isinstance(choice, str)
                else {"type": "function", "function": {"name": chosen_name(choice, functions)}}
            )
        if request.parallel_tool_calls is not None:
            members["parallel_tool_calls"] = request.parallel_tool_calls
    if request.prompt is not None and form["type"] == "text" and request.text is not None and request.text.format:
        members["response_format"] = {"type": "text"}  # replaces the prompt's
    if form["type"] == "json_object":
        members["response_format"] = form
    elif form["type"] == "json_schema":
        schema = {name: value for name, value in form.items() if name != "type" and value is not None}
        members["response_format"] = {"type": "json_schema", "json_schema": schema}
    return members


def chosen_name(choice: dict[str, Any], functions: Sequence[tuple[str, dict[str, Any]]]) -> str:
    """The name in the chat completion of the function that a choice names."""
    return next((name for name, tool in functions if tool["name"] == choice["name"]), str(choice["name"]))


def _chat_tool(called: str, tool: dict[str, Any], *, states_strict: bool) -> dict[str, Any]:
    function = {"name": called} | {name: tool[name] for name in ("description", "parameters") if tool[name] is not None}
    if states_strict:
        function["strict"] = tool["strict"]
    return {"type": "function", "function": function}


def _text(value: dict[str, Any], name: str, where: str) -> str | None:
    found = value.get(name)
    if found is not None and not isinstance(found, str):
        raise _invalid(f"{where}.{name}", "a string")
    return found


def _choice(kind: str) -> BadRequestError:
    return BadRequestError(
        f"Invalid value for 'tool_choice': '{kind[:100]}'. Served are 'none', 'auto', 'required', a function and "
        "`allowed_tools` of functions and MCP servers, and an MCP server.",
        param="tool_choice",
        code="invalid_value",
    )


def _no_such_tool(name: object, param: str) -> BadRequestError:
    return BadRequestError(f"Tool choice '{str(name)[:100]}' not found in 'tools'.", param=param, code="invalid_value")


def _unsupported(param: str) -> BadRequestError:
    return BadRequestError(f"Unsupported parameter: '{param}'.", param=param, code="unsupported_parameter")


def _missing(param: str) -> BadRequestError:
    return BadRequestError(f"Missing required parameter: '{param}'.", param=param, code="missing_required_parameter")


def _invalid(param: str, expected: str) -> BadRequestError:
    return BadRequestError(f"Invalid type for '{param}': expected {expected}.", param=param, code="invalid_type")
