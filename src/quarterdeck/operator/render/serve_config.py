"""The Serve configuration of one Model, and the arguments of its application."""

import json
from typing import Any

from pydantic import ValidationError

from quarterdeck.kube.resources.model import Model
from quarterdeck.kube.serve_application import APPLICATION, IMPORT_PATH, ASGIAppSource, ServeArguments
from quarterdeck.operator.render import simulator, vllm
from quarterdeck.operator.render.arguments import merged_arguments
from quarterdeck.operator.render.request import RenderError, RenderRequest
from quarterdeck.operator.render.weights import locate
from quarterdeck.settings.engine import EngineConfig

SERVE_PORT = 8000
SIMULATOR = "quarterdeck.simulator.app:create_app_from_options"
QUEUED_PER_RUNNING = 4
"""Requests that may wait in a replica for each one that runs; beyond, the gateway tries another replica."""


def arguments(request: RenderRequest) -> ServeArguments:
    """Raises RenderError."""
    model = request.model
    common: dict[str, Any] = {
        "model": model.served_name,
        "task": model.spec.task,
        "has_adapters": model.spec.adapters.max > 0,
    }
    if model.spec.engine.type == "sim":
        options = merged_arguments(simulator.options(model), model.spec.engine.args, simulator.RESERVED)
        given = {name: value for name, value in options.items() if value is not None}
        return ServeArguments(**common, app=ASGIAppSource(factory=SIMULATOR, options=given))
    return ServeArguments(**common, engine=_engine(model))


def serve_config(request: RenderRequest, given: ServeArguments) -> str:
    """`serveConfigV2`. Equal requests make equal texts: KubeRay submits a changed text to the cluster."""
    limit = vllm.max_running(request.model)
    deployment = {
        "name": APPLICATION,
        "num_replicas": request.replicas,
        "max_ongoing_requests": limit,
        "max_queued_requests": limit * QUEUED_PER_RUNNING,
        "graceful_shutdown_timeout_s": request.model.spec.rollout.drain_seconds,
    }
    application = {
        "name": APPLICATION,
        "route_prefix": "/",
        "import_path": IMPORT_PATH,
        "args": given.model_dump(mode="json", exclude_none=True, exclude_defaults=True),
        "deployments": [deployment],
    }
    config = {
        "proxy_location": "HeadOnly",
        "http_options": {"host": "0.0.0.0", "port": SERVE_PORT},  # noqa: S104 - a pod: NetworkPolicies decide
        "applications": [application],
    }
    return json.dumps(config, sort_keys=True)


def _engine(model: Model) -> EngineConfig:
    spec, weights = model.spec, locate(model)
    given = merged_arguments({}, spec.engine.args, vllm.RESERVED)
    if spec.source is not None and spec.source.revision and weights.is_remote:
        given["revision"] = spec.source.revision
    try:
        return EngineConfig(
            source=weights.model,
            task=spec.task,
            # auto: vLLM reads the method from the checkpoint, as without one.
            quantization="none" if spec.quantization.method == "auto" else spec.quantization.method,
            dtype=spec.quantization.dtype,
            context=spec.context,
            max_adapters=spec.adapters.max,
            max_adapter_rank=spec.adapters.max_rank,
            tensor_parallel=spec.resources.tensor_parallel,
            pipeline_parallel=spec.resources.pipeline_parallel,
            accelerator=spec.resources.accelerator,
            chat_template=vllm.TEMPLATE_FILE if spec.chat_template and spec.task == "generate" else None,
            tool_parser=spec.tool_parser,
            args={"max_num_seqs": vllm.max_running(model), **given},
            env=spec.engine.env,
        )
    except ValidationError as error:
        raise RenderError("InvalidSpec", f"spec: {error.errors(include_url=False)[0]['msg']}") from None
