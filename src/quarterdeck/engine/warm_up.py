"""One small request of a replica to itself before it is ready.

The first request to vLLM compiles what no start compiles: seventeen seconds on two cores. Without it the first user
waits for that, and an estimate of the start is wrong by it.
"""

import asyncio
import json
import logging
import sys
import time
from typing import Any

from quarterdeck.net.asgi import ASGIApp
from quarterdeck.settings.engine import Task

log = logging.getLogger(__name__)

WARM_UP_SECONDS = 180.0
"""After this time the replica is ready anyway; its first request may be slow."""
_REQUESTS: dict[Task, tuple[str, dict[str, Any]]] = {
    "generate": ("/v1/completions", {"prompt": "The quick brown fox", "max_tokens": 4, "temperature": 0}),
    "embed": ("/v1/embeddings", {"input": "The quick brown fox"}),
}


async def warm_up(app: ASGIApp, model: str, task: Task, *, seconds: float = WARM_UP_SECONDS) -> bool:
    """Send the request to vLLM's app in this process. Returns whether it was answered; a failure is logged only, as
    the requests of users tell more about it."""
    path, body = _REQUESTS[task]
    # For `replica_logs.py`, which follows the output. Serve has replaced sys.stdout by a log of its own.
    print(f"Warming up the replica of {model}", file=sys.__stdout__, flush=True)
    began = time.monotonic()
    try:
        async with asyncio.timeout(seconds):
            status = await _post(app, path, {"model": model, **body})
    except TimeoutError:
        log.warning("warm-up of %s was not answered within %.0f s", model, seconds)
        return False
    # Whatever it is, users get it as their request's error, with a status.
    except Exception:
        log.exception("warm-up of %s failed", model)
        return False
    if status != 200:
        log.warning("warm-up of %s was answered with status %d", model, status)
        return False
    print(f"Warm-up of {model} took {time.monotonic() - began:.1f} s", file=sys.__stdout__, flush=True)
    return True


async def _post(app: ASGIApp, path: str, body: dict[str, Any]) -> int:
    """Call an ASGI app in this process. Returns the status of its response."""
    content = json.dumps(body).encode()
    messages = [{"type": "http.request", "body": content, "more_body": False}]
    ended = asyncio.Event()
    status = 0

    async def receive() -> dict[str, Any]:
        if messages:
            return messages.pop()
        await ended.wait()  # vLLM watches for a disconnect
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        nonlocal status
        if message["type"] == "http.response.start":
            status = message["status"]
        elif message["type"] == "http.response.body" and not message.get("more_body"):
            ended.set()

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": b"",
        "headers": [(b"content-type", b"application/json"), (b"content-length", str(len(content)).encode())],
        "client": ("127.0.0.1", 0),
        "server": ("127.0.0.1", 0),
        "state": {},
        "extensions": {},
    }
    await app(scope, receive, send)
    return status
