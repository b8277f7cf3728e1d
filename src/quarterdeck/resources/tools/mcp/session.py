"""One session with an MCP server, for one response.

The SDK's contexts must be entered and left in one task, so a session has a task of its own; requests are sent from any.
Results are not checked against a server's output schema: its patterns would run in this process.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Literal, TypeVar

import httpx2
import mcp_types as types
from mcp.client.client import Client
from mcp.client.sse import sse_client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError
from pydantic import ValidationError

from quarterdeck.resources.tools.bounds import checked_tool, clean
from quarterdeck.resources.tools.http_access import HttpAccess
from quarterdeck.resources.tools.mcp.results import result_of
from quarterdeck.resources.tools.mcp.transport import AccessTransport
from quarterdeck.resources.tools.servers import ServerTool, ToolResult, ToolServerError

CLOSE_SECONDS = 5.0
MAX_PAGES = 50
"""Of a list of tools."""
MAX_MESSAGE = 1000
"""Characters of a server's error message."""
SSE_STATUSES = (400, 404, 405, 406, 415)
"""By which servers of the older transport refuse the newer one."""

log = logging.getLogger(__name__)

Transport = Literal["auto", "http", "sse"]
T = TypeVar("T")


class McpSession:
    """A `ToolServer`. It connects when it is used first. `list_seconds`, `call_seconds`: each with the connection."""

    def __init__(
        self,
        access: HttpAccess,
        url: str,
        headers: Mapping[str, str],
        *,
        transport: Transport,
        list_seconds: float,
        call_seconds: float,
        max_result: int,
    ) -> None:
        self._access = access
        self._url = url
        self._headers = headers
        self._kind = transport
        self._list_seconds = list_seconds
        self._call_seconds = call_seconds
        self._max_result = max_result
        self._task: asyncio.Task[None] | None = None
        self._is_closing = asyncio.Event()
        self._client: asyncio.Future[Client] | None = None
        self._http: AccessTransport | None = None

    async def list_tools(self) -> list[ServerTool]:
        return await self._run(self._list, self._list_seconds)

    async def call(self, name: str, arguments: Mapping[str, Any]) -> ToolResult:
        async def send(client: Client) -> types.CallToolResult:
            params = types.CallToolRequestParams(name=name, arguments=dict(arguments))
            return await client.session.send_request(types.CallToolRequest(params=params), types.CallToolResult)

        return result_of(await self._run(send, self._call_seconds), self._max_result)

    async def aclose(self) -> None:
        self._is_closing.set()
        if (task := self._task) is not None:
            await asyncio.wait({task}, timeout=CLOSE_SECONDS)
            task.cancel()
            await asyncio.wait({task}, timeout=CLOSE_SECONDS)

    async def _list(self, client: Client) -> list[ServerTool]:
        found: dict[str, ServerTool] = {}
        cursor: str | None = None
        for _ in range(MAX_PAGES):
            page = await client.list_tools(cursor=cursor)
            for tool in page.tools:
                annotations = tool.annotations.model_dump(by_alias=True) if tool.annotations is not None else None
                made = checked_tool(tool.name, tool.description, tool.input_schema, annotations)
                if made is not None:
                    found.setdefault(made.name, made)
            cursor = page.next_cursor
            if not cursor:
                return list(found.values())
        raise ToolServerError("The server's list of tools has no end.")

    async def _run(self, work: Callable[[Client], Awaitable[T]], seconds: float) -> T:
        """Send requests within a time, also where the session ends meanwhile. Raises ToolServerError."""
        running = asyncio.ensure_future(self._send(work))
        try:
            waited = {running} if self._task is None else {running, self._task}
            await asyncio.wait(waited, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            if running.done():
                return running.result()
            if self._task is not None and self._task.done():
                raise self._failure("The server closed the connection.")
            raise ToolServerError(f"The server did not answer within {seconds:g} s.", status=504)
        finally:
            running.cancel()

    async def _send(self, work: Callable[[Client], Awaitable[T]]) -> T:
        client = await self._connected()
        if self._http is not None:
            self._http.failure = None
        try:
            return await work(client)
        except MCPError as error:
            if self._http is not None and self._http.failure is not None:
                raise self._http.failure from error
            message = clean(error.error.message)[:MAX_MESSAGE]
            raise ToolServerError(message or "The server reported an error.", code=error.error.code) from error
        except ToolServerError:
            raise
        except Exception as error:  # the SDK raises what it likes for a server that breaks the protocol
            raise self._failure("The server's answer does not follow the protocol.") from error

    async def _connected(self) -> Client:
        if self._client is None:
            self._client = asyncio.get_running_loop().create_future()
            self._client.add_done_callback(lambda future: future.cancelled() or future.exception())
            self._task = asyncio.create_task(self._hold(self._client))
        return await asyncio.shield(self._client)

    async def _hold(self, connected: "asyncio.Future[Client]") -> None:
        """Connect, and keep the session until it is closed. Failures go to `connected`, or to who uses it then."""
        kinds: list[Literal["http", "sse"]] = ["http", "sse"] if self._kind == "auto" else [self._kind]
        if self._kind == "auto" and self._url.partition("?")[0].rstrip("/").endswith("/sse"):
            kinds = ["sse"]
        for kind in kinds:
            try:
                async with self._opened(kind) as client:
                    connected.set_result(client)
                    await self._is_closing.wait()
            except Exception as error:  # as in `_send`; anyio groups what is raised
                if connected.done():
                    log.info("MCP session ended: %s", type(error).__name__)
                    return
                failure = self._failure("The server's answer does not follow the protocol.", error)
                if kind == kinds[-1] or failure.status not in SSE_STATUSES:
                    connected.set_exception(failure)
                    return
            else:
                return

    def _opened(self, kind: Literal["http", "sse"]) -> Client:
        seconds = max(self._call_seconds, self._list_seconds)
        self._http = transport = AccessTransport(self._access, self._url, self._headers, seconds)

        def http_client(
            headers: dict[str, str] | None = None,
            timeout: httpx2.Timeout | None = None,
            auth: httpx2.Auth | None = None,
        ) -> httpx2.AsyncClient:
            return httpx2.AsyncClient(headers=headers, transport=transport, timeout=seconds, trust_env=False)

        if kind == "sse":
            return Client(sse_client(self._url, httpx_client_factory=http_client), mode="legacy")
        return Client(streamable_http_client(self._url, http_client=http_client()), mode="auto")

    def _failure(self, otherwise: str, error: BaseException | None = None) -> ToolServerError:
        """The transport's failure, which says more than the SDK's."""
        if self._http is not None and self._http.failure is not None:
            return self._http.failure
        if isinstance(error, MCPError):
            return ToolServerError(clean(error.error.message)[:MAX_MESSAGE], code=error.error.code)
        if isinstance(error, ValidationError):
            return ToolServerError("The server's answer does not follow the protocol.", status=502)
        return ToolServerError(otherwise, status=502)
