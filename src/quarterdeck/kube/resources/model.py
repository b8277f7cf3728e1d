"""Model: one served model, by an engine in the cluster or by external endpoints."""

import re
from typing import Any, ClassVar, Literal, Self

from pydantic import ConfigDict, Field, field_validator, model_validator

from quarterdeck.kube.resources.embedded import EndpointSpec, PriceSpec, RoutingSpec
from quarterdeck.kube.resources.engine import Adapters, Engine, QuantizationSpec, Resources
from quarterdeck.kube.resources.model_status import ModelStatus
from quarterdeck.kube.resources.object import Column, Metadata, Resource
from quarterdeck.kube.resources.scaling import Rollout, Scaling
from quarterdeck.kube.resources.source import Source
from quarterdeck.kube.resources.texts import OBJECT_NAME, SERVED_NAME, PublicName
from quarterdeck.kube.shape import Rule, Shape, with_rules
from quarterdeck.settings.content import CaptureLevel
from quarterdeck.settings.engine import Task
from quarterdeck.settings.models import MediaOperation

MAX_OBJECT_NAME = 40
"""Names of Services, pods and Ray clusters are made of it."""

BackendKind = Literal["auto", "Deployment", "RayService"]


BAD_NAME = (
    f"metadata.name must be a lower-case DNS label of at most {MAX_OBJECT_NAME} characters that begins with a letter, "
    "because Services are named after it; servedName can be any name"
)
EITHER = "set either source (an engine in the cluster; not needed for engine type sim) or endpoints (external servers)"
NEEDS_ENGINE = "adapters, suspend, backend and podTemplatePatch are for an engine in the cluster, not for endpoints"
OWN_ALIAS = "the model's own name (servedName, or else metadata.name) must not be among the aliases"
GENERATES = "toolParser, chatTemplate and adapters are for models that generate; task is embed"
EMBEDS = "tooLong is for models that embed; task is generate"
OUTPUT_FITS = "maxOutputTokens must not be more than context"
PACKAGED_EXACT = "awq and gptq require weights made for them; the packaged models have none"
CANARY_BACKEND = "rollout.canary is for the Deployment backend: KubeRay replaces a Ray cluster as a whole"
FP8_GPU = "fp8 needs a GPU: set resources.accelerator"

SPEC_RULES = (
    Rule(
        "(has(self.source) || (has(self.engine) && self.engine.type == 'sim')) != "
        "(has(self.endpoints) && self.endpoints.size() > 0)",
        EITHER,
    ),
    Rule(
        "!(has(self.endpoints) && self.endpoints.size() > 0) || !((has(self.adapters) && self.adapters.max > 0) || "
        "self.suspend || has(self.podTemplatePatch) || self.backend != 'auto')",
        NEEDS_ENGINE,
    ),
    Rule(
        "self.task != 'embed' || !(has(self.toolParser) || has(self.chatTemplate) || "
        "(has(self.adapters) && self.adapters.max > 0))",
        GENERATES,
    ),
    Rule("self.task != 'generate' || !has(self.tooLong)", EMBEDS),
    Rule("self.backend != 'RayService' || !has(self.rollout) || !has(self.rollout.canary)", CANARY_BACKEND),
    Rule("!has(self.maxOutputTokens) || !has(self.context) || self.maxOutputTokens <= self.context", OUTPUT_FITS),
    Rule(
        "!has(self.source) || !self.source.uri.startsWith('packaged:') || !has(self.quantization) || "
        "!(self.quantization.method in ['awq', 'gptq'])",
        PACKAGED_EXACT,
    ),
    Rule(
        "!has(self.source) || !has(self.quantization) || self.quantization.method != 'fp8' || "
        "(has(self.engine) && self.engine.type == 'sim') || "
        "(has(self.resources) && self.resources.accelerator != 'cpu')",
        FP8_GPU,
    ),
)


class ModelSpec(Shape):
    """What is served, and how."""

    model_config = ConfigDict(json_schema_extra=with_rules(*SPEC_RULES))

    served_name: PublicName | None = None
    """Public name, used as `model` in requests. Unset: the object's name."""
    aliases: tuple[PublicName, ...] = Field(
        default=(), max_length=32, json_schema_extra={"x-kubernetes-list-type": "set"}
    )
    """Other names of the model."""
    source: Source | None = None
    """Where the weights come from. Unset: `endpoints` serve the model, or the simulated engine, which has none."""
    engine: Engine = Engine()
    """The server that runs the model."""
    task: Task = "generate"
    """generate: chat and completions. embed: embeddings and scores."""
    quantization: QuantizationSpec = QuantizationSpec()
    """How the weights are stored in memory."""
    context: int | None = Field(default=None, ge=16, le=100_000_000)
    """Maximum tokens of prompt and answer together. Unset: the model's own limit."""
    resources: Resources = Resources()
    """Hardware of one replica."""
    scaling: Scaling = Scaling()
    """Number of replicas."""
    rollout: Rollout = Rollout()
    """How a change that needs a new engine is rolled out."""
    adapters: Adapters = Adapters()
    """LoRA adapters."""
    price: PriceSpec = PriceSpec()
    """Prices. Unset: free."""
    routing: RoutingSpec = RoutingSpec()
    """How a replica is chosen for a request."""
    content: CaptureLevel | None = None
    """What is kept of inputs and outputs. Unset: the model does not say."""
    tool_parser: str | None = Field(default=None, max_length=64)
    """vLLM's tool call parser for this model: `hermes`, `llama3_json`, `mistral`."""
    chat_template: str | None = Field(default=None, max_length=65_536)
    """Text of a Jinja template that replaces the model's own chat template."""
    max_output_tokens: int | None = Field(default=None, ge=1, le=100_000_000)
    """Output tokens of a request that sets no limit, under a budget that denies."""
    image_tokens: int = Field(default=2048, ge=1, le=1_000_000)
    """Prompt tokens that are reserved for one picture of a request."""
    serves: tuple[MediaOperation, ...] = Field(
        default=(), max_length=16, json_schema_extra={"x-kubernetes-list-type": "set"}
    )
    """Audio and image operations that the model serves."""
    max_audio_seconds: int | None = Field(default=None, ge=1, le=1_000_000)
    """Seconds of audio that a budget holds for one file at most. Unset: by its size."""
    too_long: Literal["refuse", "truncate"] | None = None
    """What an embedding model does with an input that is longer than it reads. Unset: truncate for the packaged
    embedding model, else refuse."""
    endpoints: tuple[EndpointSpec, ...] = Field(default=(), max_length=64)
    """External servers, instead of an engine."""
    backend: BackendKind = "auto"
    """What runs the engine. auto: Deployment if there is a `rollout.canary`, else the platform's; if that is auto too,
    RayService for vLLM if the cluster has KubeRay, else Deployment."""
    suspend: bool = False
    """Whether the engine is stopped. Requests get 503."""
    pod_template_patch: dict[str, Any] | None = None
    """Strategic merge patch of the engine's pod template, for what no field offers."""

    @property
    def has_engine(self) -> bool:
        """Whether an engine in the cluster serves the model."""
        return self.source is not None or self.engine.type == "sim"

    @model_validator(mode="after")
    def _is_served_in_one_way(self) -> Self:
        if self.has_engine == bool(self.endpoints):
            raise ValueError(EITHER)
        if self.endpoints and (
            self.adapters.max or self.suspend or self.pod_template_patch is not None or self.backend != "auto"
        ):
            raise ValueError(NEEDS_ENGINE)
        if self.backend == "RayService" and self.rollout.canary is not None:
            raise ValueError(CANARY_BACKEND)
        if len(set(self.aliases)) < len(self.aliases):
            raise ValueError("aliases: duplicate name")
        return self

    @model_validator(mode="after")
    def _fields_fit_the_task(self) -> Self:
        if self.task == "embed" and (self.tool_parser or self.chat_template or self.adapters.max):
            raise ValueError(GENERATES)
        if self.task == "generate" and self.too_long is not None:
            raise ValueError(EMBEDS)
        if self.max_output_tokens and self.context and self.max_output_tokens > self.context:
            raise ValueError(OUTPUT_FITS)
        return self

    @model_validator(mode="after")
    def _quantization_fits(self) -> Self:
        if self.source is None:
            return self
        method = self.quantization.method
        if method in ("awq", "gptq") and self.source.uri.startswith("packaged:"):
            raise ValueError(PACKAGED_EXACT)
        if method == "fp8" and self.resources.is_cpu and self.engine.type == "vllm":
            raise ValueError(FP8_GPU)
        return self


class Model(Resource):
    """A served model."""

    kind: ClassVar[str] = "Model"
    plural: ClassVar[str] = "models"
    short_names: ClassVar[tuple[str, ...]] = ("m",)
    is_scalable: ClassVar[bool] = True
    columns: ClassVar[tuple[Column, ...]] = (
        Column("Ready", '.status.conditions[?(@.type=="Ready")].status'),
        Column("Reason", '.status.conditions[?(@.type=="Ready")].reason'),
        Column("Source", ".spec.source.uri"),
        Column("Quant", ".spec.quantization.method"),
        Column("GPU", ".status.plan.gpus", "integer"),
        Column("Replicas", ".status.replicas.ready", "integer"),
        Column("State", ".status.state"),
        Column("Age", ".metadata.creationTimestamp", "date"),
        Column("Desired", ".status.replicas.desired", "integer", priority=1),
        Column("Backend", ".status.backend.kind", priority=1),
        Column("Message", ".status.message", priority=1),
    )

    schema_rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            f"self.metadata.name.size() <= {MAX_OBJECT_NAME} && self.metadata.name.matches('{OBJECT_NAME}')", BAD_NAME
        ),
        Rule(f"!has(self.spec.aliases) || !({SERVED_NAME} in self.spec.aliases)", OWN_ALIAS),
    )

    spec: ModelSpec
    """What is served, and how."""
    status: ModelStatus = ModelStatus()
    """What is."""

    @field_validator("metadata")
    @classmethod
    def _names_of_children_are_made_of_it(cls, metadata: Metadata) -> Metadata:
        if len(metadata.name) > MAX_OBJECT_NAME or not re.fullmatch(OBJECT_NAME.strip("^$"), metadata.name):
            raise ValueError(BAD_NAME)
        return metadata

    @model_validator(mode="after")
    def _is_not_its_own_alias(self) -> Self:
        if self.served_name in self.spec.aliases:
            raise ValueError(OWN_ALIAS)
        return self

    @property
    def served_name(self) -> str:
        """Public name."""
        return self.spec.served_name or self.metadata.name

    @property
    def has_engine(self) -> bool:
        """Whether the operator runs an engine for it."""
        return self.spec.has_engine
