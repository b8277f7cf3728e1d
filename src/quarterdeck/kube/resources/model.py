"""Model: one served model, by an engine in the cluster or by external endpoints."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, PositiveInt

from quarterdeck.kube.conditions import Condition
from quarterdeck.kube.resources.embedded import EndpointSpec, PriceSpec, RoutingSpec, SecretKeyRef
from quarterdeck.kube.resources.object import Column, Replicas, Resource
from quarterdeck.kube.shape import Shape, StatusShape
from quarterdeck.settings.content import CaptureLevel
from quarterdeck.settings.engine import Dtype, Task

PUBLIC_NAME = r"^[A-Za-z0-9][A-Za-z0-9._:/-]{0,127}$"
OBJECT_NAME = r"^[a-z]([-a-z0-9]*[a-z0-9])?$"
MAX_OBJECT_NAME = 40
"""Names of Services, pods and Ray clusters are made of it."""
QUANTITY = r"^[0-9]+(\.[0-9]+)?(m|k|Ki|M|Mi|G|Gi|T|Ti)?$"
CPU = "cpu"
"""The accelerator of models without a GPU."""

PublicName = Annotated[str, Field(pattern=PUBLIC_NAME)]
Quantity = Annotated[str, Field(pattern=QUANTITY, max_length=32)]
Quantization = Literal["auto", "none", "bitsandbytes", "int8", "fp8", "awq", "gptq"]
BackendKind = Literal["auto", "Deployment", "RayService"]
Edit = Literal["InPlace", "EngineRestart", "NewCluster"]
State = Literal["Serving", "Zero", "Suspended", "Starting", "Failed"]


class Cache(Shape):
    """Where downloaded weights are kept."""

    mode: Literal["none", "pvc"] = "none"
    """none: each pod downloads the weights. pvc: a volume keeps them between pods and restarts."""
    claim: str | None = None
    """An existing PersistentVolumeClaim. Unset: the operator creates one of `size`."""
    size: Quantity | None = None
    """Size of the claim that the operator creates, such as `50Gi`."""
    storage_class: str | None = None
    """Storage class of that claim. Unset: the cluster's default."""


class Source(Shape):
    """Where the weights come from."""

    uri: str = Field(min_length=1, max_length=1024)
    """`hf://org/name` or `org/name` (Hugging Face), `pvc://claim/path`, `file:///path` in the image, or
    `packaged:name`."""
    revision: str | None = Field(default=None, max_length=128)
    """Branch, tag or commit of the repository. Unset: its main branch."""
    secret_ref: SecretKeyRef | None = None
    """The Secret's key that holds the hub's access token."""
    cache: Cache = Cache()
    """Where downloaded weights are kept."""


class Engine(Shape):
    """The server that runs the model."""

    type: Literal["vllm", "sim"] = "vllm"
    """vllm, or sim: the simulated engine, which needs no model, GPU or download."""
    image: str | None = Field(default=None, max_length=512)
    """Container image. Unset: the platform's image of this type."""
    version: str | None = Field(default=None, max_length=128)
    """Tag of the platform's image of this type. Unset: the platform's."""
    args: dict[str, Any] = Field(default_factory=dict)
    """Further arguments of the engine by Python name, passed unchanged: `gpu_memory_utilization: 0.85`."""
    env: dict[str, str] = Field(default_factory=dict)
    """Environment variables of the engine."""


class QuantizationSpec(Shape):
    """How the weights are stored in memory."""

    method: Quantization = "none"
    """none: exact weights. bitsandbytes (4 bit), int8, fp8: quantized while loading. awq, gptq: weights made for it.
    auto: what the checkpoint says, else none."""
    dtype: Dtype = "auto"
    """Number type of the computation."""


class Resources(Shape):
    """Hardware of one replica."""

    accelerator: str = Field(default=CPU, min_length=1, max_length=63)
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

    @property
    def is_cpu(self) -> bool:
        return self.accelerator == CPU

    @property
    def gpu_count(self) -> int:
        """GPUs of a replica."""
        if self.gpus is not None:
            return self.gpus
        return 0 if self.is_cpu else self.tensor_parallel * self.pipeline_parallel


class ColdStart(Shape):
    """What happens to a request while no replica runs."""

    mode: Literal["Hold", "Reject"] = "Hold"
    """Hold: it waits until a replica is ready. Reject: 503 with Retry-After, and a replica starts."""
    hold_seconds: float = Field(default=300, ge=0, le=900)
    """How long it waits, in seconds."""


class Scaling(Shape):
    """Number of replicas."""

    min: int = Field(default=1, ge=0, le=1000)
    """Minimum number of replicas. 0: none runs when nobody asks."""
    max: int | None = Field(default=None, ge=1, le=1000)
    """Maximum number of replicas. Unset: `min`, at least 1."""
    target: int = Field(default=16, ge=1, le=100_000)
    """Requests in flight per replica above which another one is added."""
    idle_seconds: int = Field(default=300, ge=1, le=86_400)
    """Seconds without a request after which the last replica ends, where `min` is 0."""
    replicas: int | None = Field(default=None, ge=0, le=1000)
    """Set by `kubectl scale` and autoscalers through the scale subresource; don't set it in a manifest."""
    cold_start: ColdStart = ColdStart()
    """What happens to a request while no replica runs."""

    @property
    def upper(self) -> int:
        """Maximum number of replicas."""
        return self.max if self.max is not None else max(self.min, 1)


class CanaryStep(Shape):
    """One step of a canary."""

    weight: int = Field(ge=1, le=100)
    """Percentage of requests that the new revision gets."""
    pause_seconds: int = Field(default=60, ge=0, le=86_400)
    """Seconds before the next step."""


class CanaryAbort(Shape):
    """When a canary is aborted."""

    error_rate: float = Field(default=0.05, ge=0, le=1)
    """Share of its requests that fail."""
    ttft_ratio: float = Field(default=2.0, ge=1, le=100)
    """Its 90th percentile of the time to first token, relative to the old revision's."""
    min_requests: int = Field(default=20, ge=1, le=1_000_000)
    """Requests before it is judged."""


class Canary(Shape):
    """Moves requests to a new revision in steps."""

    steps: tuple[CanaryStep, ...] = Field(min_length=1, max_length=20)
    """Steps in order; after the last one the new revision gets all requests."""
    abort: CanaryAbort = CanaryAbort()
    """When it is aborted; then the old revision gets all requests again."""


class Rollout(Shape):
    """How a change that needs a new engine is rolled out."""

    strategy: Literal["Surge", "Recreate"] = "Surge"
    """Surge: the new replica is ready before an old one ends, which needs its GPUs twice. Recreate: the old ones end
    first."""
    drain_seconds: int = Field(default=120, ge=0, le=3600)
    """Seconds that requests in flight have before a replica ends."""
    canary: Canary | None = None
    """Moves requests in steps. Unset: all at once."""


class Adapters(Shape):
    """LoRA adapters."""

    max: int = Field(default=0, ge=0, le=256)
    """Adapters that the engine holds. 0: LoRA is off."""
    max_rank: Literal[8, 16, 32, 64, 128, 256, 512] = 16
    """Maximum rank of an adapter."""


class ModelSpec(Shape):
    """What is served, and how."""

    served_name: PublicName | None = None
    """Public name, used as `model` in requests. Unset: the object's name."""
    aliases: tuple[PublicName, ...] = Field(default=(), max_length=32)
    """Other names of the model."""
    source: Source | None = None
    """Where the weights come from. Unset: `endpoints` serve the model."""
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
    max_output_tokens: PositiveInt | None = None
    """Output tokens of a request that sets no limit, under a budget that denies."""
    endpoints: tuple[EndpointSpec, ...] = Field(default=(), max_length=64)
    """External servers, instead of an engine."""
    backend: BackendKind = "auto"
    """What runs the engine. auto: RayService if the cluster has KubeRay, else Deployment."""
    suspend: bool = False
    """Whether the engine is stopped. Requests get 503."""
    pod_template_patch: dict[str, Any] | None = None
    """Strategic merge patch of the engine's pod template, for what no field offers."""


class Plan(StatusShape):
    """What the operator decided."""

    image: str = ""
    """Image of the engine."""
    accelerator: str = ""
    """Accelerator profile."""
    gpus: int = 0
    """GPUs of one replica."""
    quantization: str = ""
    """Quantization method."""
    edit: Edit | None = None
    """What the latest change needs. InPlace: nothing restarts. EngineRestart: engines restart in place. NewCluster: a
    second set of replicas runs meanwhile."""
    extra_gpus: int = Field(default=0, alias="extraGPUs")
    """GPUs that the change needs beyond those in use."""
    source: str = ""
    """Short form of the weights' source, for `kubectl get`."""


class Revision(StatusShape):
    """A revision of the engine."""

    hash: str
    """Identifies it: the label `quarterdeck.dev/revision`."""
    image: str = ""
    """Image of its engine."""
    weight: int = 0
    """Percentage of requests that it gets."""
    ready: int = 0
    """Its replicas that answer requests."""
    created_at: str = ""
    """When it was created."""


class ScalingEvent(StatusShape):
    """A change of the number of replicas."""

    from_: int = Field(alias="from")
    """Replicas before."""
    to: int
    """Replicas after."""
    reason: str = ""
    """Why."""
    at: str = ""
    """When."""


class Backend(StatusShape):
    """The object that runs the engine."""

    kind: str = ""
    """Deployment or RayService."""
    name: str = ""
    """Its name."""


class ModelStatus(StatusShape):
    """What is."""

    observed_generation: int = 0
    """The generation of the spec that the status describes."""
    conditions: tuple[Condition, ...] = ()
    """Accepted, Planned, WeightsReady, Scheduled, EngineReady, Routable, and Ready as their summary."""
    plan: Plan | None = None
    """What the operator decided."""
    replicas: Replicas = Replicas()
    """Replicas."""
    selector: str = ""
    """Label selector of the engine's pods, for the scale subresource."""
    state: State | None = None
    """Serving, Starting, Zero (no replica, the next request starts one), Suspended or Failed."""
    revisions: tuple[Revision, ...] = ()
    """Revisions of the engine that exist."""
    last_scalings: tuple[ScalingEvent, ...] = ()
    """The latest changes of the number of replicas, newest first, at most 5."""
    backend: Backend | None = None
    """The object that runs the engine."""
    message: str = ""
    """The state in a sentence."""


class Model(Resource):
    """A served model."""

    kind: ClassVar[str] = "Model"
    plural: ClassVar[str] = "models"
    short_names: ClassVar[tuple[str, ...]] = ("m",)
    columns: ClassVar[tuple[Column, ...]] = (
        Column("Ready", '.status.conditions[?(@.type=="Ready")].status'),
        Column("Reason", '.status.conditions[?(@.type=="Ready")].reason'),
        Column("Source", ".spec.source.uri"),
        Column("Quant", ".spec.quantization.method"),
        Column("GPU", ".status.plan.gpus", "integer"),
        Column("Replicas", ".status.replicas.ready", "integer"),
        Column("State", ".status.state"),
        Column("Age", ".metadata.creationTimestamp", "date"),
    )

    spec: ModelSpec
    status: ModelStatus = ModelStatus()

    @property
    def served_name(self) -> str:
        """Public name."""
        return self.spec.served_name or self.metadata.name

    @property
    def has_engine(self) -> bool:
        """Whether the operator runs an engine for it."""
        return self.spec.source is not None
