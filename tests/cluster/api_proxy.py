"""A proxy between an operator under test and the API server: it counts, refuses and cuts off requests.

It stands in front of `kubectl proxy`, which has the credentials. The API server behind it is the real one.
"""

import asyncio
import json
import re
import subprocess
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

import aiohttp
import yaml
from aiohttp import web

WRITES = frozenset({"POST", "PUT", "PATCH", "DELETE"})
_HOP = frozenset({"host", "connection", "transfer-encoding", "content-length", "keep-alive", "content-encoding"})

Hook = Callable[[str, str], "int | None"]
"""Takes method and path; a status is answered instead of passing the request on."""


class ApiProxy:
    """`before` decides about each request, `after` is called once the API server has answered it. `hides` is an API
    group that the cluster has and this proxy does not list."""

    def __init__(self, environ: Mapping[str, str], folder: Path) -> None:
        self._environ, self._folder = environ, folder
        self.before: Hook = lambda method, path: None
        self.after: Callable[[str, str], None] = lambda method, path: None
        self.hides = ""
        self.kubeconfig = folder / "kubeconfig"

    def __enter__(self) -> "ApiProxy":
        command = ["kubectl", "proxy", "--port=0", "--reject-paths=^$"]
        self._upstream = subprocess.Popen(command, env=dict(self._environ), stdout=subprocess.PIPE, text=True)
        assert self._upstream.stdout is not None
        found = re.search(r"127\.0\.0\.1:(\d+)", self._upstream.stdout.readline())
        assert found is not None
        self._target = f"http://127.0.0.1:{found[1]}"
        self._loop = asyncio.new_event_loop()
        started = threading.Event()
        self._thread = threading.Thread(target=self._serve, args=(started,), daemon=True)
        self._thread.start()
        assert started.wait(30)
        cluster = {"name": "c", "cluster": {"server": f"http://127.0.0.1:{self.port}"}}
        context = {"name": "c", "context": {"cluster": "c", "user": "u"}}
        self.kubeconfig.write_text(
            yaml.safe_dump(
                {
                    "apiVersion": "v1",
                    "kind": "Config",
                    "clusters": [cluster],
                    "contexts": [context],
                    "users": [{"name": "u", "user": {}}],
                    "current-context": "c",
                }
            )
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(20)
        self._upstream.terminate()
        self._upstream.wait()
        assert self._upstream.stdout is not None
        self._upstream.stdout.close()

    def _serve(self, started: threading.Event) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._run(started))
        self._loop.close()

    async def _run(self, started: threading.Event) -> None:
        self._stop = asyncio.Event()
        application = web.Application(client_max_size=64 * 1024 * 1024)
        application.router.add_route("*", "/{path:.*}", self._forward)
        runner = web.AppRunner(application, access_log=None, shutdown_timeout=1)
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None), auto_decompress=True) as session:
            self._session = session
            await runner.setup()
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            self.port = runner.addresses[0][1]
            started.set()
            await self._stop.wait()
            await runner.cleanup()

    async def _forward(self, request: web.Request) -> web.StreamResponse:
        if (status := self.before(request.method, request.path)) is not None:
            body = {"kind": "Status", "status": "Failure", "reason": "TooManyRequests", "message": "slow down"}
            return web.json_response({**body, "code": status}, status=status, headers={"Retry-After": "1"})
        headers = {name: value for name, value in request.headers.items() if name.lower() not in _HOP}
        async with self._session.request(
            request.method, self._target + request.path_qs, headers=headers, data=await request.read() or None
        ) as answer:
            if request.query.get("watch") != "true":
                data = await answer.read()
                self.after(request.method, request.path)
                if self.hides and request.path == "/apis":
                    listed = json.loads(data)
                    listed["groups"] = [group for group in listed["groups"] if group["name"] != self.hides]
                    data = json.dumps(listed).encode()
                return web.Response(body=data, status=answer.status, content_type=answer.content_type)
            streamed = web.StreamResponse(status=answer.status, headers={"Content-Type": answer.content_type})
            try:
                await streamed.prepare(request)
                async for piece in answer.content.iter_any():
                    await streamed.write(piece)
            except (aiohttp.ClientError, ConnectionError):
                return streamed
            return streamed


def is_step(method: str, path: str) -> bool:
    """Whether a request is a step of a reconcile: a write that is neither the lease's nor an event."""
    return method in WRITES and "/leases" not in path and "/events" not in path
