"""The server in a replica: Ray's LLMServer, mounted so that the replica's port serves vLLM's whole API.

Ray Serve gives each replica of an ingress deployment an HTTP port (direct ingress), and LLMServer can build vLLM's own
ASGI app. A replica counts as running once that app is built: until then it also warms up.
"""

from typing import Any

from ray import serve
from ray.serve.llm.deployment import LLMServer

from quarterdeck.engine.disconnects import DisconnectFirst
from quarterdeck.engine.warm_up import warm_up
from quarterdeck.net.asgi import ASGIApp
from quarterdeck.net.browser_guard import BrowserGuard


class EngineServer(LLMServer):  # type: ignore[misc]  # ray has no types here
    """Ray's server with vLLM's app behind `DisconnectFirst`, and without two helper processes."""

    async def _start_engine(self) -> None:
        # Ray LLM downloads the model in a separate worker, which imports vLLM (10 s, 670 MB kept) even if the source is
        # a folder. Its usage telemetry is an actor of 380 MB even if reports are off.
        if self._llm_config.model_loading_config.model_source.startswith("/"):
            self._llm_config.get_or_create_callback().ctx.run_init_node = False
        await self.engine.start()

    async def __serve_build_asgi_app__(self) -> ASGIApp:
        app = await super().__serve_build_asgi_app__()
        is_pooling = self._llm_config.engine_kwargs.get("runner") == "pooling"
        await warm_up(app, self._llm_config.model_id, "embed" if is_pooling else "generate")
        # vLLM's own CORS rules let every web page in, and its port can load adapters.
        return BrowserGuard(DisconnectFirst(app), is_loopback=False)


def ingress_class() -> Any:
    """Return the class to deploy. Built on demand: importing this module must not call `serve.ingress`."""
    return serve.ingress()(EngineServer)
