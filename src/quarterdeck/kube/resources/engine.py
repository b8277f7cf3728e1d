"""The engine of a Model: server, quantization, hardware, adapters."""

from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, Field, field_validator, model_validator

from quarterdeck.kube.resources.texts import ENV_NAME, Quantity
from quarterdeck.kube.shape import Rule, Shape, with_rules
from quarterdeck.settings.engine import Dtype

CPU = "cpu"
"""The accelerator of models without a GPU."""

Quantization = Literal["auto", "none", "bitsandbytes", "int8", "fp8", "awq", "gptq"]

FIELD_OF = {
    "model": "source.uri",
    "served_model_name": "servedName",
    "tensor_parallel_size": "resources.tensorParallel",
    "pipeline_parallel_size": "resources.pipelineParallel",
    "quantization": "quantization.method",
    "max_model_len": "context",
    "dtype": "quantization.dtype",
}
"""Arguments of vLLM that have a field of their own."""


class Engine(Shape):
    """The server that runs the model."""

    model_config = ConfigDict(
        json_schema_extra=with_rules(Rule("!has(self.image) || !has(self.version)", "set image or version, not both"))
    )

    type: Literal["vllm", "sim"] = "vllm"
    """vllm, or sim: the simulated engine, which needs no model, GPU or download."""
    image: str | None = Field(default=None, max_length=512, pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/@-]*$")
    """Container image. Unset: the platform's image of this type."""
    version: str | None = Field(default=None, max_length=128, pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]*$")
    """Tag of the platform's image of this type. Unset: the platform's."""
    args: dict[str, Any] = Field(default_factory=dict)
    """Further arguments of the engine by Python name, passed unchanged: `gpu_memory_utilization: 0.85`."""
    env: dict[Annotated[str, Field(max_length=128, pattern=ENV_NAME)], Annotated[str, Field(max_length=4096)]] = Field(
        default_factory=dict, max_length=64
    )
    """Environment variables of the engine. Anyone who can read Models or pods sees the values: take secrets from
    a Secret, with `podTemplatePatch` and `valueFrom`."""

    @field_validator("args")
    @classmethod
    def _leave_fields_alone(cls, args: dict[str, Any]) -> dict[str, Any]:
        for name in sorted(FIELD_OF.keys() & args.keys()):
            raise ValueError(f"{name} is set by its own field: use {FIELD_OF[name]} instead")
        return args

    @model_validator(mode="after")
    def _has_one_image(self) -> Self:
        if self.image is not None and self.version is not None:
            raise ValueError("set image or version, not both")
        return self


class QuantizationSpec(Shape):
    """How the weights are stored in memory."""

    model_config = ConfigDict(
        json_schema_extra=with_rules(
            Rule(
                "self.method != 'bitsandbytes' || self.dtype != 'float32'",
                "bitsandbytes requires dtype bfloat16 (or auto), not float32",
            )
        )
    )

    method: Quantization = "none"
    """none: exact weights. bitsandbytes (4 bit), int8, fp8: quantized while loading. awq, gptq: weights made for it.
    auto: what the checkpoint says, else none."""
    dtype: Dtype = "auto"
    """Number type of the computation. auto: the model's own on a GPU, what the processor does well on a CPU."""

    @model_validator(mode="after")
    def _fits_the_dtype(self) -> Self:
        if self.method == "bitsandbytes" and self.dtype == "float32":
            raise ValueError("bitsandbytes requires dtype bfloat16 (or auto), not float32")
        return self


class Resources(Shape):
    """Hardware of one replica."""

    model_config = ConfigDict(
        json_schema_extra=with_rules(
            Rule(
                "self.accelerator != 'cpu' || !has(self.gpus) || self.gpus == 0",
                "gpus need an accelerator: set accelerator to the name of a profile",
            ),
            Rule(
                "self.accelerator == 'cpu' || !has(self.gpus) || "
                "self.gpus >= self.tensorParallel * self.pipelineParallel",
                "gpus must be at least tensorParallel × pipelineParallel",
            ),
        )
    )

    accelerator: str = Field(default=CPU, max_length=63, pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")
    """`cpu`, or the name of an accelerator profile of the platform."""
    gpus: int | None = Field(default=None, ge=0, le=64)
    """GPUs of a replica. Unset: tensorParallel × pipelineParallel; 0 on a CPU."""
    tensor_parallel: int = Field(default=1, ge=1, le=64)
    """GPUs that share every layer."""
    pipeline_parallel: int = Field(default=1, ge=1, le=64)
    """Stages over which the layers are spread."""
    cpu: Quantity | int | None = None
    """CPU cores requested."""
    memory: Quantity | int | None = None
    """Memory requested, and its limit."""
    shm: Quantity | int | None = None
    """Size of /dev/shm. Unset: 1Gi with several GPUs, else 64Mi."""

    @model_validator(mode="after")
    def _has_gpus_for_its_parts(self) -> Self:
        if self.is_cpu:
            if self.gpus:
                raise ValueError("gpus need an accelerator: set accelerator to the name of a profile")
        elif self.gpus is not None and self.gpus < self.tensor_parallel * self.pipeline_parallel:
            raise ValueError("gpus must be at least tensorParallel × pipelineParallel")
        return self

    @property
    def is_cpu(self) -> bool:
        return self.accelerator == CPU

    @property
    def gpu_count(self) -> int:
        """GPUs of a replica."""
        if self.gpus is not None:
            return self.gpus
        return 0 if self.is_cpu else self.tensor_parallel * self.pipeline_parallel


class Adapters(Shape):
    """LoRA adapters."""

    max: int = Field(default=0, ge=0, le=256)
    """Adapters that the engine holds. 0: LoRA is off."""
    max_rank: Literal[8, 16, 32, 64, 128, 256, 512] = 16
    """Maximum rank of an adapter."""
