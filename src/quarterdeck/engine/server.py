"""The server in a replica: Ray's LLMServer, mounted so that the replica's port serves vLLM's whole API.

Ray Serve gives each replica of an ingress deployment an HTTP port (direct ingress), and LLMServer can build vLLM's own
ASGI app. The two handle a disconnect differently: Serve *cancels* the app when the client disconnects, but vLLM stops a
request that is not streamed only when it *receives* the disconnect (its handler is a separate task, which outlives a
cancelled parent). Without `DisconnectFirst` the sequence would run to its last token.
"""

import asyncio
from typing import Any

from ray import serve
from ray.serve.llm.deployment import LLMServer

from quarterdeck.net.asgi import ASGIApp, Receive, Scope, Send
from quarterdeck.net.browser_guard import BrowserGuard

_DISCONNECT_GRACE_S = 1.0


class DisconnectFirst:
    """Lets the app receive a disconnect before it is cancelled.

    When Serve cancels because of a disconnect, that message is the next one of `receive`. So the app runs as a shielded
    task: it reads the message and ends by its own rules. If it has not ended within a second (a timeout has no
    message), it is cancelled.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        task = asyncio.ensure_future(self._app(scope, receive, send))
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            _, running = await asyncio.wait([task], timeout=_DISCONNECT_GRACE_S)
            if running:
                task.cancel()
            raise


class EngineServer(LLMServer):  # type: ignore[misc]  # ray has no types here
    """Ray's server with vLLM's app behind `DisconnectFirst`, and without two helper processes."""

    async def _start_engine(self) -> None:
        # Ray LLM downloads the model in a separate worker, which imports vLLM (10 s, 670 MB kept) even if the source is
        # a folder. Its usage telemetry is an actor of 380 MB even if reports are off.
        if self._llm_config.model_loading_config.model_source.startswith("/"):
            self._llm_config.get_or_create_callback().ctx.run_init_node = False
        await self.engine.start()

    async def __serve_build_asgi_app__(self) -> ASGIApp:
        # vLLM's own CORS rules let every web page in, and its port can load adapters.
        return BrowserGuard(DisconnectFirst(await super().__serve_build_asgi_app__()), is_loopback=False)


def ingress_class() -> Any:
    """Return the class to deploy. Built on demand: importing this module must not call `serve.ingress`."""
    return serve.ingress()(EngineServer)
