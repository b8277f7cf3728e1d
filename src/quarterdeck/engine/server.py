"""What runs in a replica: Ray's LLMServer, mounted so that its own port is vLLM's whole API.

Ray Serve gives each replica of an ingress deployment an HTTP port (direct ingress), and LLMServer can build
vLLM's own ASGI app. One thing between the two is put right here: Serve *cancels* the app when the client hangs
up, but vLLM stops a request that does not stream only when it *receives* the disconnect (its handler is a task of
its own, which outlives a cancelled parent), so the sequence would run on to its last token.
"""

import asyncio
from typing import Any

from ray import serve
from ray.serve.llm.deployment import LLMServer

from quarterdeck.net.asgi import ASGIApp, Receive, Scope, Send

_HANG_UP_GRACE_S = 1.0


class HangUp:
    """Let the app see the disconnect that its server already holds, before it is cancelled.

    When Serve cancels us because of a disconnect, that message is the next one of `receive`. So the app runs as a
    task, shielded; it reads the message and ends by its own rules. What does not end within a second (a time-out
    has no message) is cancelled after all.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        task = asyncio.ensure_future(self._app(scope, receive, send))
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            _, running = await asyncio.wait([task], timeout=_HANG_UP_GRACE_S)
            if running:
                task.cancel()
            raise


class EngineServer(LLMServer):  # type: ignore[misc]  # ray has no types here
    """Ray's server with vLLM's app behind `HangUp`, and without two helpers that it starts."""

    async def _start_engine(self) -> None:
        # Ray LLM fetches the model in a worker of its own, which imports vLLM (10 s, 670 MB that stay) to find that a
        # folder needs no fetching. And its usage telemetry is an actor of 380 MB even where reports are turned off.
        if self._llm_config.model_loading_config.model_source.startswith("/"):
            self._llm_config.get_or_create_callback().ctx.run_init_node = False
        await self.engine.start()

    async def __serve_build_asgi_app__(self) -> ASGIApp:
        return HangUp(await super().__serve_build_asgi_app__())


def ingress_class() -> Any:
    """The class to deploy.

    Built on demand: `serve.ingress` wraps at call time, and importing this module should not.
    """
    return serve.ingress()(EngineServer)
