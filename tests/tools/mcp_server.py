"""An MCP server of the official SDK, as a process: `mcp_server.py streamable-http|sse PORT`. It answers requests with
the bearer token `secret` only."""

import asyncio
import os
import sys

from mcp.server.mcpserver import MCPServer
from mcp_types import ToolAnnotations
from starlette.types import ASGIApp, Receive, Scope, Send

server = MCPServer("calculator")


@server.tool(annotations=ToolAnnotations(read_only_hint=True))
def add(a: int, b: int) -> str:
    """Add two numbers."""
    return f"sum={a + b}"


@server.tool()
def fail(what: str) -> str:
    """Fail."""
    raise ValueError(what)


@server.tool()
async def wait() -> str:
    """Never answer."""
    await asyncio.Event().wait()
    return ""


@server.tool(name="long.text")
def long_text() -> str:
    """A result that is too long, with control characters."""
    return "\x1b[31mred\u202e" + "x" * 5000


class WithToken:
    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and dict(scope["headers"]).get(b"authorization") != b"Bearer secret":
            await send({"type": "http.response.start", "status": 401, "headers": [(b"content-length", b"0")]})
            await send({"type": "http.response.body", "body": b""})
            return
        if scope["type"] == "http" and scope["path"].startswith("/things/"):  # the HTTP API of `things.yaml`
            body = f"{scope['method']} {scope['raw_path'].decode()}?{scope['query_string'].decode()}".encode()
            body += b" " + (await receive()).get("body", b"")
            headers = [(b"content-type", b"text/plain"), (b"content-length", b"%d" % len(body))]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": body})
            return
        await self._app(scope, receive, send)


if __name__ == "__main__":
    import uvicorn

    kind, port = sys.argv[1], int(sys.argv[2])
    app = server.sse_app() if kind == "sse" else server.streamable_http_app()
    guarded = WithToken(app) if os.environ.get("NEEDS_TOKEN") else app
    uvicorn.run(guarded, host="127.0.0.1", port=port, log_level="warning")
