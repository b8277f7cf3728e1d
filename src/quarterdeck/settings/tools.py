"""Tools that the platform executes for responses: MCP servers and HTTP APIs, and the limits of their use."""

import re
from decimal import Decimal
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt, field_validator, model_validator

_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_OWN_HEADERS = frozenset(
    {
        *("host", "content-length", "content-type", "transfer-encoding", "connection", "accept", "expect", "upgrade"),
        *("mcp-session-id", "mcp-protocol-version", "accept-encoding", "te", "trailer", "keep-alive"),
    }
)
Label = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z][A-Za-z0-9_-]*$")]


class ToolServerConfig(BaseModel):
    """What MCP servers and HTTP APIs have in common: a label, and credentials that callers never see."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    label: Label
    """Name under which requests use it: `{"type": "mcp", "server_label": "tickets"}`."""
    description: str | None = None
    """What it offers, for `quarterdeck tools`."""
    api_key_env: str | None = None
    """Environment variable that holds its API key; the file never contains the key itself."""
    api_key_file: str | None = None
    """File that holds its API key, such as a mounted Kubernetes secret. Read for each response."""
    api_key_header: str | None = None
    """Header that carries the API key. None: `authorization` with a bearer token."""
    headers: dict[str, str] = Field(default_factory=dict)
    """Headers sent with every request. Not for secrets: the file is not secret."""
    orgs: tuple[str, ...] | None = None
    """Organisations that may use it. None: all."""
    timeout_seconds: PositiveFloat | None = Field(default=None, le=600)
    """How long one call may take. None: `tools.call_timeout_seconds`."""

    @field_validator("headers")
    @classmethod
    def _may_be_sent(cls, headers: dict[str, str]) -> dict[str, str]:
        for name, value in headers.items():
            if name.lower() in _OWN_HEADERS or not _HEADER.fullmatch(name):
                raise ValueError(f"header {name!r} can't be set")
            if not value.isascii() or not value.isprintable():
                raise ValueError(f"header {name!r} has a value that is not printable ASCII")
        return headers

    @field_validator("api_key_header")
    @classmethod
    def _is_a_key_header(cls, name: str | None) -> str | None:
        if name is not None and (not _HEADER.fullmatch(name) or name.lower() in _OWN_HEADERS):
            raise ValueError(f"header {name!r} can't carry a key")
        return name if name is None else name.lower()

    @model_validator(mode="after")
    def _has_one_key(self) -> Self:
        if self.api_key_env and self.api_key_file:
            raise ValueError("set only one of `api_key_env` and `api_key_file`")
        return self


class McpServerConfig(ToolServerConfig):
    """An MCP server. Listing it allows it, also on a private address."""

    url: str
    """Its URL. A request's `server_url` that is the same uses these credentials as well."""
    transport: Literal["auto", "http", "sse"] = "auto"
    """http: streamable HTTP. sse: the older transport. auto: SSE where the path ends with `/sse`, else streamable HTTP,
    and SSE if the server refuses that."""

    allowed_tools: tuple[str, ...] | None = Field(default=None, min_length=1)
    """Names of its tools that may be listed and called, whatever a request says. None: all, also those that it adds
    later. For a server whose API key may do more than callers should."""

    @field_validator("url")
    @classmethod
    def _is_http(cls, url: str) -> str:
        return check_url(url)


class HttpApiConfig(ToolServerConfig):
    """An HTTP API whose operations are tools, described by an OpenAPI document."""

    spec: str | dict[str, Any]
    """The OpenAPI document (3.0 or 3.1): the path of a JSON or YAML file, relative to quarterdeck.yaml's folder, or the
    document itself."""
    url: str | None = None
    """Where the API is served. None: the first of the document's `servers`."""
    operations: tuple[str, ...] = Field(min_length=1)
    """`operationId`s that are tools. Others of the document are not."""

    @field_validator("url")
    @classmethod
    def _is_http(cls, url: str | None) -> str | None:
        return url if url is None else check_url(url)


class ToolsConfig(BaseModel):
    """Tools that the platform executes in `/v1/responses`."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    mcp_servers: tuple[McpServerConfig, ...] = ()
    """MCP servers with the operator's credentials, or on private addresses."""
    http_apis: tuple[HttpApiConfig, ...] = ()
    """HTTP APIs whose operations are tools."""
    public_servers: bool = True
    """Whether requests may name MCP servers by URL that are not listed here, on public addresses only.

    On, as at OpenAI. Off: only listed servers are called, so that no request sends data elsewhere.
    """
    max_turns: PositiveInt = Field(default=16, le=200)
    """Engine calls of one response. The last one is made without tools, so that the model answers.

    16: agents that need more have usually lost their way.
    """
    max_calls: PositiveInt = Field(default=64, le=1000)
    """Tool calls of one response. A request's `max_tool_calls` can lower it. 64: four in each turn."""
    max_parallel: PositiveInt = Field(default=8, le=64)
    """Tool calls of one response that run at the same time. 8: more is rarely asked for, and each has a connection."""
    max_seconds: PositiveFloat = Field(default=300, le=3600)
    """How long one response may go on calling tools; then the model answers with what it has. 300: a third of
    `gateway.total_timeout_seconds`, which bounds the whole."""
    max_cost: Decimal | None = Field(default=None, gt=0, max_digits=18, decimal_places=6)
    """What the engine calls of one response may cost, in $, before the model answers without further tools. None: only
    budgets limit it."""
    call_timeout_seconds: PositiveFloat = Field(default=60, le=600)
    """How long one tool call may take. The model is given the failure. 60: longer than web pages and databases take."""
    list_timeout_seconds: PositiveFloat = Field(default=15, le=120)
    """How long a server may take to list its tools. 15: a client waits meanwhile."""
    max_tools: PositiveInt = Field(default=128, le=2000)
    """Tools of all servers in one request, after `allowed_tools`. 128: as functions. Each costs prompt tokens in every
    turn."""
    max_result_kb: PositiveInt = Field(default=128, le=4096)
    """Size of one result in KiB; a longer one is cut, and the model reads that it was. 128: some 30,000 tokens."""
    max_answer_mb: PositiveInt = Field(default=4, le=64)
    """Size of one HTTP response of a server in MiB; a larger one is a failed call. 4: room for a thousand tools."""

    @model_validator(mode="after")
    def _labels_are_unique(self) -> Self:
        seen: set[str] = set()
        for each in (*self.mcp_servers, *self.http_apis):
            if each.label in seen:
                raise ValueError(f"duplicate label {each.label!r} among mcp_servers and http_apis")
            seen.add(each.label)
        return self


def check_url(url: str) -> str:
    """Raises ValueError for a URL that no tool server can have."""
    if len(url) > 2048 or not url.isascii() or not url.isprintable() or " " in url:
        raise ValueError("a URL is at most 2048 printable characters of ASCII")
    parts = urlsplit(url)
    try:
        port = parts.port
    except ValueError:
        port = 0
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        raise ValueError("a URL is http(s)://host[:port][/path]")
    if parts.username is not None or parts.password is not None:
        raise ValueError("a URL has no user and no password")
    if parts.fragment:
        raise ValueError("a URL has no fragment")
    return url
