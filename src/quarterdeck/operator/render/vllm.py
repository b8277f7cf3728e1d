"""vLLM's own server as a container."""

from typing import Any

from quarterdeck.kube.resources.model import Model
from quarterdeck.operator import engine_logging
from quarterdeck.operator.render import pod
from quarterdeck.operator.render.arguments import command_line, merged_arguments
from quarterdeck.operator.render.request import RenderError, RenderRequest
from quarterdeck.operator.render.weights import CACHE, Weights, locate, volumes_of_claims
from quarterdeck.operator.settings import Accelerator

RUNNING_PER_REPLICA = 256
"""Sequences that vLLM runs at once unless `max_num_seqs` says otherwise: its own default on small GPUs."""
TEMPLATE_ANNOTATION = "quarterdeck.dev/chat-template"
FILES = "/etc/quarterdeck/engine"
"""Where small files are mounted."""
TEMPLATE_FILE = f"{FILES}/chat-template.jinja"
_QUANTIZATION = {"bitsandbytes": "bitsandbytes", "int8": "int8_per_channel_weight_only", "fp8": "fp8"}
"""By method. awq, gptq and auto are read from the checkpoint; none is no argument."""
RESERVED = {
    "model": "spec.source.uri",
    "served_model_name": "spec.servedName",
    "revision": "spec.source.revision",
    "tensor_parallel_size": "spec.resources.tensorParallel",
    "pipeline_parallel_size": "spec.resources.pipelineParallel",
    "quantization": "spec.quantization.method",
    "host": "the platform",
    "port": "the platform",
    "api_key": "the platform",
}


def container(request: RenderRequest, profile: Accelerator | None) -> tuple[dict[str, Any], list[Any], dict[str, str]]:
    """The container, the pod's volumes and its annotations. Raises RenderError."""
    model, config = request.model, request.config
    weights = locate(model)
    if weights.model.startswith("packaged:"):
        raise RenderError(
            "InvalidSpec", "spec.source.uri: packaged models need `backend: RayService` or `engine.type: sim`"
        )
    volumes, mounts = pod.writable_volumes(pod.shm_size(model))
    items, annotations = files(model)
    volumes.append({"name": "files", "downwardAPI": {"items": items}})
    mounts.append({"name": "files", "mountPath": FILES, "readOnly": True})
    adapter_volumes, adapter_mounts = volumes_of_claims(request.adapter_claims)
    is_cpu = profile is None
    made = {
        "name": pod.ENGINE,
        "image": image(request),
        "imagePullPolicy": config.images.pull_policy,
        "command": ["python3", "-m", "vllm.entrypoints.openai.api_server"],
        "args": command_line(_arguments(request, weights, is_cpu=is_cpu)),
        "env": pod.variables(environment(model, weights), model.spec.engine.env, weights.env),
        "ports": [{"name": "http", "containerPort": pod.PORT, "protocol": "TCP"}],
        "resources": pod.container_resources(model, profile, config.pod.cpu, config.pod.memory, None),
        "securityContext": pod.container_security(),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "lifecycle": {"preStop": pod.pre_stop(model)},
        "volumeMounts": [*mounts, *weights.mounts, *adapter_mounts],
        **pod.probes("/health", "/health", period=5, start_seconds=config.pod.start_seconds),
    }
    return made, [*volumes, *weights.volumes, *adapter_volumes], annotations


def image(request: RenderRequest) -> str:
    """The Model's own image, or the platform's with the Model's version as its tag."""
    engine, images = request.model.spec.engine, request.config.images
    if engine.image:
        return engine.image
    if engine.type == "sim":
        return tagged(images.sim, engine.version)
    return tagged(images.vllm_cpu if request.model.spec.resources.is_cpu else images.vllm, engine.version)


def tagged(reference: str, version: str | None) -> str:
    """An image's reference with another tag."""
    if not version:
        return reference
    name = reference.partition("@")[0]
    head, slash, last = name.rpartition("/")
    return f"{head}{slash}{last.partition(':')[0]}:{version}"


def max_running(model: Model) -> int:
    """Requests that one replica runs at once."""
    for name in ("max_num_seqs", "max-num-seqs"):
        value = model.spec.engine.args.get(name)
        if isinstance(value, int | float | str) and str(value).isdigit() and int(value) > 0:
            return int(value)
    return RUNNING_PER_REPLICA


def _arguments(request: RenderRequest, weights: Weights, *, is_cpu: bool) -> dict[str, Any]:
    model = request.model
    spec, source = model.spec, model.spec.source
    derived: dict[str, Any] = {
        "model": weights.model,
        "served_model_name": model.served_name,
        "host": "0.0.0.0",  # noqa: S104 - a pod: NetworkPolicies decide who reaches it
        "port": pod.PORT,
        "tensor_parallel_size": spec.resources.tensor_parallel,
        "pipeline_parallel_size": spec.resources.pipeline_parallel,
        "dtype": spec.quantization.dtype,
        "revision": source.revision if source is not None and weights.is_remote else None,
        "quantization": _QUANTIZATION.get(spec.quantization.method),
        "max_model_len": spec.context,
    }
    if is_cpu:
        derived["enforce_eager"] = True  # compiling takes a minute and gains little on a CPU
    if spec.task == "embed":
        derived["runner"] = "pooling"
    else:
        derived |= {"enable_prompt_tokens_details": True, "max_num_seqs": max_running(model)}
        if spec.tool_parser:
            derived |= {"enable_auto_tool_choice": True, "tool_call_parser": spec.tool_parser}
        if spec.chat_template:
            derived["chat_template"] = TEMPLATE_FILE
        if spec.adapters.max > 0:
            derived |= {
                "enable_lora": True,
                "max_loras": spec.adapters.max,
                "max_cpu_loras": 2 * spec.adapters.max,  # one that is replaced and its successor are both loaded
                "max_lora_rank": spec.adapters.max_rank,
            }
    return merged_arguments(derived, spec.engine.args, RESERVED)


def environment(model: Model, weights: Weights) -> dict[str, str]:
    """Variables of vLLM's processes."""
    found = {
        "HOME": "/tmp",  # noqa: S108 - the only writable folder besides the cache
        "USER": "quarterdeck",  # PyTorch asks for the user's name, and the image does not know this uid
        "HF_HOME": f"{CACHE}/huggingface",
        "VLLM_CACHE_ROOT": f"{CACHE}/vllm",
        "XDG_CACHE_HOME": CACHE,
        "TRITON_CACHE_DIR": f"{CACHE}/triton",
        "TORCHINDUCTOR_CACHE_DIR": f"{CACHE}/inductor",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        **engine_logging.environment(FILES),
    }
    if not weights.is_remote and model.spec.adapters.max == 0:  # an adapter may come from the hub
        found["HF_HUB_OFFLINE"] = "1"  # no request to the hub, and no wait if it is unreachable
    if model.spec.adapters.max > 0:
        found["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] = "1"
    return found


def files(model: Model) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Small files, handed to the container as annotations of its own pod: no ConfigMap to keep in step."""
    items, annotations = engine_logging.files(), engine_logging.annotations()
    if model.spec.chat_template and model.spec.task == "generate":
        annotations[TEMPLATE_ANNOTATION] = model.spec.chat_template
        field = {"fieldPath": f"metadata.annotations['{TEMPLATE_ANNOTATION}']"}
        items.append({"path": "chat-template.jinja", "fieldRef": field})
    return items, annotations
