"""The simulated engine as a container."""

from typing import Any

from quarterdeck.kube.resources.model import Model
from quarterdeck.operator.render import pod
from quarterdeck.operator.render.arguments import command_line, merged_arguments
from quarterdeck.operator.render.request import RenderRequest
from quarterdeck.operator.render.vllm import image, max_running
from quarterdeck.operator.render.weights import locate, volumes_of_claims
from quarterdeck.operator.settings import Accelerator

RESERVED = {
    "model": "spec.source.uri",
    "served_model_name": "spec.servedName",
    "task": "spec.task",
    "host": "the platform",
    "port": "the platform",
}
_LISTEN = {"host": "0.0.0.0", "port": pod.PORT}  # noqa: S104 - a pod: NetworkPolicies decide who reaches it
_ENVIRONMENT = {"HOME": "/tmp", "PYTHONUNBUFFERED": "1"}  # noqa: S108 - the only writable folder
START_SECONDS = 120
"""It starts in less than a second; a node's image pull is not counted."""


def container(request: RenderRequest, profile: Accelerator | None) -> tuple[dict[str, Any], list[Any], dict[str, str]]:
    """The container, the pod's volumes and its annotations. Raises RenderError."""
    model, config = request.model, request.config
    spec = model.spec
    volumes, mounts = pod.writable_volumes(pod.shm_size(model))
    # The volumes and the token that vLLM would have, so that what can go wrong with them goes wrong here too.
    weights = locate(model) if spec.source is not None else None
    adapter_volumes, adapter_mounts = volumes_of_claims(request.adapter_claims)
    made = {
        "name": pod.ENGINE,
        "image": image(request),
        "imagePullPolicy": config.images.pull_policy,
        "command": ["python", "-m", "quarterdeck.simulator"],
        "args": command_line(merged_arguments({**options(model), **_LISTEN}, spec.engine.args, RESERVED)),
        "env": pod.variables(_ENVIRONMENT, spec.engine.env, weights.env if weights else ()),
        "ports": [{"name": "http", "containerPort": pod.PORT, "protocol": "TCP"}],
        "resources": pod.container_resources(
            model, profile, config.pod.sim_cpu, config.pod.sim_memory, pod.times(config.pod.sim_memory, 4)
        ),
        "securityContext": pod.container_security(),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "lifecycle": {"preStop": pod.pre_stop(model)},
        "volumeMounts": [*mounts, *(weights.mounts if weights else ()), *adapter_mounts],
        **pod.probes("/health", "/health/ready", period=1, start_seconds=START_SECONDS),
    }
    return made, [*volumes, *(weights.volumes if weights else ()), *adapter_volumes], {}


def options(model: Model) -> dict[str, Any]:
    """The simulated engine's options by Python name, whatever runs it."""
    spec, source = model.spec, model.spec.source
    derived: dict[str, Any] = {
        "model": source.uri if source is not None else model.name,
        "served_model_name": model.served_name,
        "task": spec.task,
        "max_model_len": spec.context,
        "max_num_seqs": max_running(model),
        "drain_timeout": f"{max(spec.rollout.drain_seconds, 1)}s",
    }
    if spec.adapters.max > 0:
        derived |= {"enable_lora": True, "max_loras": spec.adapters.max, "max_lora_rank": spec.adapters.max_rank}
    return derived
