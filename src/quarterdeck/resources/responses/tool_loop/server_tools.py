"""A request's tools of type `mcp`, checked, and which of a server's tools they allow. Pure."""

import re
from typing import Any

import msgspec

from quarterdeck.errors import BadRequestError
from quarterdeck.resources.tools.servers import ServerTool
from quarterdeck.settings.tools import check_url

_MEMBERS = frozenset(
    {
        *("type", "server_label", "server_url", "server_description", "allowed_tools", "require_approval"),
        *("authorization", "headers", "connector_id", "tunnel_id", "defer_loading", "allowed_callers"),
    }
)
_CREDENTIALS = (
    "Credentials of tool servers are configured by the operator (`tools.mcp_servers` in quarterdeck.yaml), and are "
    "never taken from requests."
)
_LABEL = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")
MAX_NAMES = 1000


class Filter(msgspec.Struct, frozen=True):
    """Some of a server's tools. `names` None: any name. `read_only` None: any."""

    names: frozenset[str] | None = None
    read_only: bool | None = None

    def takes(self, tool: ServerTool) -> bool:
        return (self.names is None or tool.name in self.names) and (
            self.read_only is None or tool.is_read_only == self.read_only
        )


NOTHING = Filter(frozenset())
EVERYTHING = Filter()


class RequestedServer(msgspec.Struct, frozen=True):
    """A server of a request. `always`, `never`: which tools need an approval; those of neither do."""

    label: str
    url: str | None
    allowed: Filter
    always: Filter
    never: Filter

    def needs_approval(self, tool: ServerTool) -> bool:
        return self.always.takes(tool) or not self.never.takes(tool)


def shown_server(tool: dict[str, Any], where: str) -> dict[str, Any]:
    """A tool as the response object shows it. Raises BadRequestError."""
    for name, value in tool.items():
        if name not in _MEMBERS:
            raise _unsupported(f"{where}.{name[:100]}")
        if value is None:
            continue
        if name in ("authorization", "headers") and value != {}:
            raise _unsupported(f"{where}.{name}", _CREDENTIALS)
        if name in ("connector_id", "tunnel_id"):
            raise _unsupported(f"{where}.{name}", "Name the server by its `server_url`, or by an operator's label.")
        if name == "defer_loading" and value is not False:
            raise _unsupported(f"{where}.{name}")
        if name == "allowed_callers" and value != ["direct"]:
            raise _unsupported(f"{where}.{name}")
    label = tool.get("server_label")
    if label is None:
        raise _missing(f"{where}.server_label")
    if not isinstance(label, str) or not _LABEL.fullmatch(label):
        raise _invalid(f"{where}.server_label", "a letter, then at most 63 letters, digits, underscores and hyphens")
    url = tool.get("server_url")
    if url is not None:
        if not isinstance(url, str):
            raise _invalid(f"{where}.server_url", "a string")
        try:
            check_url(url)
        except ValueError as error:
            raise BadRequestError(
                f"Invalid '{where}.server_url': {error}.", param=f"{where}.server_url", code="invalid_value"
            ) from None
    description = tool.get("server_description")
    if description is not None and not isinstance(description, str):
        raise _invalid(f"{where}.server_description", "a string")
    requested_server(tool, where)
    approval = tool.get("require_approval")
    return {
        "type": "mcp",
        "server_label": label,
        "server_url": url,
        "server_description": description,
        "allowed_tools": tool.get("allowed_tools"),
        "require_approval": "always" if approval is None else approval,
        "headers": None,
    }


def requested_server(tool: dict[str, Any], where: str = "tools") -> RequestedServer:
    """Raises BadRequestError."""
    allowed = tool.get("allowed_tools")
    approval = tool.get("require_approval")
    if approval is None or isinstance(approval, str):
        if approval not in (None, "always", "never"):
            raise _invalid(f"{where}.require_approval", "'always', 'never' or an object")
        never = EVERYTHING if approval == "never" else NOTHING
        always = NOTHING
    elif isinstance(approval, dict) and set(approval) <= {"always", "never"}:
        never = _filter(approval.get("never"), f"{where}.require_approval.never", NOTHING)
        always = _filter(approval.get("always"), f"{where}.require_approval.always", NOTHING)
        if approval.get("never") is None and approval.get("always") is not None:
            never = EVERYTHING  # only those named need one
    else:
        raise _invalid(f"{where}.require_approval", "'always', 'never' or an object")
    return RequestedServer(
        str(tool.get("server_label")),
        tool.get("server_url"),
        _filter(allowed, f"{where}.allowed_tools", EVERYTHING),
        always,
        never,
    )


def _filter(given: Any, where: str, otherwise: Filter) -> Filter:
    if given is None:
        return otherwise
    if isinstance(given, list):
        return Filter(_names(given, where))
    if not isinstance(given, dict) or not set(given) <= {"tool_names", "read_only"}:
        raise _invalid(where, "an array of names, or an object with `tool_names` and `read_only`")
    read_only = given.get("read_only")
    if read_only is not None and not isinstance(read_only, bool):
        raise _invalid(f"{where}.read_only", "a boolean")
    names = given.get("tool_names")
    if names is None:
        return Filter(None, read_only) if read_only is not None else otherwise
    if not isinstance(names, list):
        raise _invalid(f"{where}.tool_names", "an array of names")
    return Filter(_names(names, f"{where}.tool_names"), read_only)


def _names(given: list[Any], where: str) -> frozenset[str]:
    if len(given) > MAX_NAMES or not all(isinstance(name, str) for name in given):
        raise _invalid(where, f"an array of at most {MAX_NAMES} names")
    return frozenset(given)


def _unsupported(param: str, hint: str = "It is not served here.") -> BadRequestError:
    return BadRequestError(f"Unsupported parameter: '{param}'. {hint}", param=param, code="unsupported_parameter")


def _missing(param: str) -> BadRequestError:
    return BadRequestError(f"Missing required parameter: '{param}'.", param=param, code="missing_required_parameter")


def _invalid(param: str, expected: str) -> BadRequestError:
    return BadRequestError(f"Invalid value for '{param}': expected {expected}.", param=param, code="invalid_value")
