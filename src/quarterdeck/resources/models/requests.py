"""Request bodies that add and change models.

By API a model can't be given what runs code on the host: `env`, and arguments of vLLM outside of ARGS, are set in
quarterdeck.yaml.
"""

from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator

from quarterdeck.settings.engine import AdapterConfig, AutoscalingConfig, Dtype, Quantization, Task
from quarterdeck.settings.models import MediaOperation

ARGS = frozenset(
    {
        *("block_size", "cpu_offload_gb", "enable_chunked_prefill", "enable_prefix_caching", "enforce_eager"),
        *("gpu_memory_utilization", "kv_cache_dtype", "limit_mm_per_prompt", "max_logprobs", "max_num_batched_tokens"),
        *("max_num_seqs", "rope_scaling", "rope_theta", "seed", "swap_space"),
    }
)
"""Arguments of vLLM's engine that the API takes."""


def _is_path(name: str) -> str:
    """A model's URL has its name: clients and proxies resolve `a/../b` to another one."""
    if any(part in ("", ".", "..") for part in name.split("/")):
        raise ValueError("must have a name between slashes, other than '.' and '..'")
    return name


Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/-]{0,127}$"), AfterValidator(_is_path)]


class ModelTerms(BaseModel):
    """What adding and changing a model have in common. Absent: its default; in a change: as it was."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    source: Annotated[str, Field(min_length=1, max_length=1024)] | None = None
    """A repository on the Hugging Face hub (`org/name`), an absolute folder on the engine's machine, or
    `packaged:smollm2-135m-instruct`, `packaged:all-minilm-l6-v2`."""
    revision: str | None = None
    """Branch, tag or commit of the repository."""
    aliases: Annotated[tuple[Name, ...], Field(max_length=50)] | None = None
    """Other names of the model."""
    serves: Annotated[tuple[MediaOperation, ...], Field(max_length=16)] | None = None
    """Audio and image operations that it serves: `["audio.transcriptions"]`."""
    task: Task | None = None
    """`generate` or `embed`."""
    quantization: Quantization | None = None
    """`none`, `bitsandbytes`, `int8`, `fp8`, `awq` or `gptq`."""
    dtype: Dtype | None = None
    """`auto`, `float32`, `bfloat16` or `float16`."""
    context: int | None = None
    """Maximum tokens of prompt and answer together."""
    max_adapters: int | None = None
    """LoRA adapters in one batch. 0: none can be loaded."""
    max_adapter_rank: int | None = None
    """Maximum rank of an adapter."""
    tensor_parallel: int | None = None
    """GPUs that share every layer of one replica."""
    pipeline_parallel: int | None = None
    """Stages over which one replica's layers are spread."""
    accelerator: str | None = None
    """`auto`, `cpu`, `gpu`, or a GPU type."""
    autoscaling: AutoscalingConfig | None = None
    """Number of replicas, and when to add one."""
    tool_parser: str | None = None
    """vLLM's tool call parser for this model."""
    kv_cache_gib: float | None = None
    """GiB of memory for the KV cache on a CPU."""
    args: dict[str, Any] | None = None
    """Further arguments of vLLM's engine."""
    stopped: bool | None = None
    """Whether the engine stays stopped."""

    @field_validator("source")
    @classmethod
    def _is_not_relative(cls, source: str | None) -> str | None:
        if source is not None and (source.startswith(("./", "../", "~")) or source == "."):
            raise ValueError("a folder must be absolute")
        return source

    @field_validator("args")
    @classmethod
    def _are_harmless(cls, args: dict[str, Any] | None) -> dict[str, Any] | None:
        for name in args or ():
            if name not in ARGS:
                raise ValueError(f"{name[:100]!r} can be set in quarterdeck.yaml only; here: {', '.join(sorted(ARGS))}")
        return args


class ModelRequest(ModelTerms):
    """The body of `POST /admin/models`."""

    source: Annotated[str, Field(min_length=1, max_length=1024)]
    """As in a change; required."""
    name: Name | None = None
    """The public name. Default: the repository's, the folder's or the packaged model's own, in lower case."""

    @property
    def public_name(self) -> str:
        return self.name or default_name(self.source)


class ModelUpdate(ModelTerms):
    """The body of `POST /admin/models/{name}`: a field that is left out keeps its value, null resets it."""


class AdapterRequest(BaseModel):
    """The body of `POST /admin/adapters`."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    model: Annotated[str, Field(max_length=200)]
    """The model that the adapter belongs to."""
    name: Name
    """The public name of the adapter."""
    source: Annotated[str, Field(min_length=1, max_length=1024, pattern=r"^/")]
    """Absolute folder in PEFT format on the engine's machine."""

    @property
    def adapter(self) -> AdapterConfig:
        return AdapterConfig(name=self.name, source=self.source)


class WeightsRequest(BaseModel):
    """The body of `POST /admin/weights`."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    source: Annotated[str, Field(pattern=r"^[A-Za-z0-9][\w.-]*/[\w.-]+$", max_length=200)]
    """A repository on the Hugging Face hub."""
    revision: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]*$", max_length=128)] | None = None
    """Branch, tag or commit. Default: main."""


def default_name(source: str) -> str:
    """`qwen2.5-0.5b-instruct` for `Qwen/Qwen2.5-0.5B-Instruct`."""
    last = source.removeprefix("packaged:").rstrip("/").rpartition("/")[2]
    return "".join(char if char.isalnum() or char in "._-" else "-" for char in last.lower()).strip("._-") or "model"
