"""The Serve application of one Model: `import_path: quarterdeck.engine.kuberay.serve_app:build`.

`build` runs in a task of the Ray cluster, on the node of Serve's controller, which has no accelerator. vLLM is imported
only for a model that runs on it: the image of simulated engines does not have it. Numbers of replicas and requests come
from `deployments` of the Serve configuration, so that a change of them restarts nothing.
"""

import importlib
from pathlib import Path
from typing import Any

from ray import serve
from ray.serve import Application

from quarterdeck.engine.disconnects import DisconnectFirst
from quarterdeck.engine.kuberay.profile import asgi_options, cluster_profile, weights_of
from quarterdeck.engine.machine import read_machine
from quarterdeck.kube.serve_application import APPLICATION, ServeArguments
from quarterdeck.net.asgi import ASGIApp
from quarterdeck.net.browser_guard import BrowserGuard
from quarterdeck.settings.engine import EngineConfig
from quarterdeck.settings.environment import Environment


def build(args: dict[str, Any]) -> Application:
    """Raises ValueError for invalid arguments, ProfileError and PreparationError for a model that can't be served."""
    arguments = ServeArguments.model_validate(args)
    if arguments.engine is not None:
        return _vllm(arguments.model, arguments.engine)
    if arguments.app is None:
        raise ValueError("neither engine nor app is set")
    deployment = serve.deployment(serve.ingress()(ASGIServer), name=APPLICATION, **asgi_options())
    return deployment.bind(arguments.app.factory, arguments.app.options)


class ASGIServer:
    """A replica that serves an ASGI app at its own port."""

    def __init__(self, factory: str, options: dict[str, Any]) -> None:
        module, _, function = factory.partition(":")
        self._app: ASGIApp = getattr(importlib.import_module(module), function)(options)

    async def __serve_build_asgi_app__(self) -> ASGIApp:
        return BrowserGuard(DisconnectFirst(self._app), is_loopback=False)


def _vllm(model: str, engine: EngineConfig) -> Application:
    from ray.serve.llm import build_llm_deployment

    from quarterdeck.engine.deploy import llm_config
    from quarterdeck.engine.server import ingress_class

    base = Path.cwd()
    environment = Environment.read()
    profile = cluster_profile(engine, read_machine(), environment.variables.get("VLLM_CPU_OMP_THREADS_BIND"))
    return build_llm_deployment(
        llm_config(model, weights_of(engine, environment.cache), profile, base),
        deployment_cls=ingress_class(),
        override_serve_options={"name": APPLICATION},
    )
