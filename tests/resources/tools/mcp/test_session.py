"""MCP sessions with servers that misbehave: each is a ToolServerError within a bounded time and memory."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from quarterdeck.resources.tools.http_access import HttpAccess
from quarterdeck.resources.tools.mcp.session import McpSession
from quarterdeck.resources.tools.servers import ToolServerError

Handler = Callable[[dict[str, Any] | None, asyncio.StreamWriter], Awaitable[None]]
MAX_BYTES = 200_000
INFO = {"protocolVersion": "2025-06-18", "capabilities": {"tools": {}}, "serverInfo": {"name": "x", "version": "1"}}


def head(status: str = "200 OK", kind: str = "application/json", *more: str) -> bytes:
    return "\r\n".join([f"HTTP/1.1 {status}", f"content-type: {kind}", *more, "connection: close", "", ""]).encode()


def reply(message: dict[str, Any], result: Any) -> bytes:
    body = json.dumps({"jsonrpc": "2.0", "id": message.get("id"), "result": result}).encode()
    return head("200 OK", "application/json", f"content-length: {len(body)}") + body


@asynccontextmanager
async def a_server(answer: Handler) -> AsyncIterator[str]:
    """A server that does the handshake properly, and `answer`s the other messages (None: a request without a body)."""
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.current_task())  # type: ignore[arg-type]
        try:
            lines = (await reader.readuntil(b"\r\n\r\n")).lower().split(b"\r\n")
            length = next((int(line[15:]) for line in lines if line.startswith(b"content-length:")), 0)
            message = json.loads(await reader.readexactly(length)) if length else None
            method = (message or {}).get("method")
            if method == "server/discover":
                writer.write(head("404 Not Found"))
            elif method == "initialize":
                writer.write(reply(message or {}, INFO))
            elif method == "notifications/initialized":
                writer.write(head("202 Accepted", "text/plain", "content-length: 0"))
            else:
                await answer(message, writer)
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the client has gone
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/mcp"
    server.close()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


@asynccontextmanager
async def a_session(url: str, seconds: float = 30.0, **headers: str) -> AsyncIterator[McpSession]:
    access = HttpAccess(is_public=False, max_bytes=lambda: MAX_BYTES)
    made = McpSession(
        access, url, headers, transport="http", list_seconds=seconds, call_seconds=seconds, max_result=1000
    )
    yield made
    await made.aclose()
    await access.close()


async def failure(answer: Handler, seconds: float = 30.0) -> ToolServerError:
    """Of a call."""
    async with a_server(answer) as url, a_session(url, seconds) as session:
        with pytest.raises(ToolServerError) as caught:
            await session.call("add", {})
    return caught.value


async def test_a_body_that_never_ends_is_too_large() -> None:
    async def answer(message: dict[str, Any] | None, writer: asyncio.StreamWriter) -> None:
        writer.write(head())
        while True:
            writer.write(b"[" * 10_000)
            await writer.drain()

    assert "larger than 200000 bytes" in (await failure(answer)).message


async def test_events_that_never_end_are_too_large() -> None:
    async def answer(message: dict[str, Any] | None, writer: asyncio.StreamWriter) -> None:
        writer.write(head("200 OK", "text/event-stream"))
        note = json.dumps(
            {"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "info", "data": "x"}}
        )
        while True:
            writer.write(f"event: message\ndata: {note}\n\n".encode())
            await writer.drain()

    assert (await failure(answer)).message


async def test_a_server_that_says_nothing_is_too_late() -> None:
    async def answer(message: dict[str, Any] | None, writer: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    assert (await failure(answer, seconds=3.0)).status == 504


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"null",
        b'{"jsonrpc": "2.0"}',
        b"[" * 100_000,
        b'{"jsonrpc": "2.0", "id": 99, "result": {}}',
        b"\xff\xfe",
        b'{"jsonrpc": "2.0", "id": ID, "result": {"content": "no list"}}',
        b'{"jsonrpc": "2.0", "id": ID, "result": {"content": [{"type": "surprise"}]}}',
    ],
)
async def test_what_does_not_follow_the_protocol_is_an_error(body: bytes) -> None:
    async def answer(message: dict[str, Any] | None, writer: asyncio.StreamWriter) -> None:
        said = body.replace(b"ID", str((message or {}).get("id")).encode())
        writer.write(head("200 OK", "application/json", f"content-length: {len(said)}") + said)

    error = await failure(answer, seconds=3.0)
    assert error.message
    assert len(error.message) <= 1000


async def test_an_error_of_the_server_has_no_control_characters_and_is_short() -> None:
    async def answer(message: dict[str, Any] | None, writer: asyncio.StreamWriter) -> None:
        error = {"code": -32001, "message": "\x1b[2J\u202e" + "x" * 5000}
        body = json.dumps({"jsonrpc": "2.0", "id": (message or {}).get("id"), "error": error}).encode()
        writer.write(head("200 OK", "application/json", f"content-length: {len(body)}") + body)

    error = await failure(answer)
    assert (error.code, error.message[:6], len(error.message)) == (-32001, "[2Jxxx", 1000)


async def test_a_redirect_to_another_host_is_not_followed_and_gets_no_credentials() -> None:
    seen: list[bytes] = []

    async def elsewhere(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await reader.read(1000))
        writer.close()

    other = await asyncio.start_server(elsewhere, "127.0.0.1", 0)
    location = f"location: http://127.0.0.1:{other.sockets[0].getsockname()[1]}/mcp"

    async def answer(message: dict[str, Any] | None, writer: asyncio.StreamWriter) -> None:
        writer.write(head("307 Temporary Redirect", "text/plain", location, "content-length: 0"))

    async with a_server(answer) as url, a_session(url, authorization="Bearer secret") as session:
        with pytest.raises(ToolServerError) as caught:
            await session.call("add", {})
    assert caught.value.status == 307
    assert seen == []
    other.close()


async def test_tools_that_cannot_be_used_are_left_out() -> None:
    deep: Any = {}
    for _ in range(100):
        deep = {"properties": deep}
    tools = [
        {
            "name": "good",
            "description": "a\x1b[2Jb\u200b",
            "inputSchema": {"type": "object"},
            "outputSchema": {"type": "object"},
        },
        {"name": "bad name\n", "inputSchema": {"type": "object"}},
        {"name": "x" * 200, "inputSchema": {"type": "object"}},
        {"name": "deep", "inputSchema": {"type": "object", **deep}},
        {"name": "large", "inputSchema": {"type": "object", "description": "x" * 70_000}},
        {"name": "good", "description": "again", "inputSchema": {"type": "object"}},
    ]

    async def answer(message: dict[str, Any] | None, writer: asyncio.StreamWriter) -> None:
        writer.write(reply(message or {}, {"tools": tools}))

    async with a_server(answer) as url, a_session(url) as session:
        (tool,) = await session.list_tools()
    assert (tool.name, tool.description) == ("good", "a[2Jb")


async def test_a_list_without_an_end_is_an_error() -> None:
    async def answer(message: dict[str, Any] | None, writer: asyncio.StreamWriter) -> None:
        writer.write(reply(message or {}, {"tools": [], "nextCursor": "more"}))

    async with a_server(answer) as url, a_session(url) as session:
        with pytest.raises(ToolServerError, match="no end"):
            await session.list_tools()


async def test_a_pattern_of_an_output_schema_is_not_evaluated() -> None:
    """It would take this process for minutes."""
    schema = {"type": "object", "properties": {"a": {"type": "string", "pattern": "^(a+)+$"}}}

    async def answer(message: dict[str, Any] | None, writer: asyncio.StreamWriter) -> None:
        if (message or {}).get("method") == "tools/list":
            writer.write(
                reply(
                    message or {},
                    {"tools": [{"name": "add", "inputSchema": {"type": "object"}, "outputSchema": schema}]},
                )
            )
        else:
            content = {"content": [], "structuredContent": {"a": "a" * 50 + "!"}}
            writer.write(reply(message or {}, content))

    async with a_server(answer) as url, a_session(url) as session:
        await session.list_tools()
        result = await session.call("add", {})
    assert result.output == '{"a":"' + "a" * 50 + '!"}'


async def test_a_public_session_reaches_no_private_address() -> None:
    async def answer(message: dict[str, Any] | None, writer: asyncio.StreamWriter) -> None:
        raise AssertionError

    access = HttpAccess(is_public=True, max_bytes=lambda: MAX_BYTES)
    async with a_server(answer) as url:
        for host in ("127.0.0.1", "localhost", "127.0.0.1.nip.io"):
            with pytest.raises(ToolServerError):
                await access.send("GET", url.replace("127.0.0.1", host), [], b"", 5.0)
    await access.close()
