"""ModelAdapter: a LoRA adapter of a Model."""

from typing import ClassVar, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from quarterdeck.kube.conditions import Condition
from quarterdeck.kube.resources.embedded import SecretKeyRef
from quarterdeck.kube.resources.object import Column, Resource
from quarterdeck.kube.resources.texts import (
    LONG_NAME,
    MAX_PUBLIC_NAME,
    SHORT_NAME,
    AdapterUri,
    ObjectName,
    PublicName,
    is_hub,
)
from quarterdeck.kube.shape import Rule, Shape, StatusShape, with_rules


class ModelRef(Shape):
    """A Model of the same namespace."""

    name: ObjectName
    """Name of the Model object."""


class AdapterSource(Shape):
    """Where an adapter comes from."""

    model_config = ConfigDict(
        json_schema_extra=with_rules(
            Rule(
                "!(self.uri.startsWith('pvc:') || self.uri.startsWith('file:')) || "
                "!(has(self.revision) || has(self.secretRef))",
                "revision and secretRef are for sources on the hub (hf://org/name)",
            ),
        )
    )

    uri: AdapterUri
    """`hf://org/name` or `org/name` (Hugging Face), `pvc://claim/path`, or `file:///path` in the engine's container:
    a folder in PEFT's format."""
    revision: str | None = Field(default=None, max_length=128, pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]*$")
    """Branch, tag or commit of the repository. Unset: its main branch."""
    secret_ref: SecretKeyRef | None = None
    """The Secret's key that holds the hub's access token."""

    @model_validator(mode="after")
    def _is_downloaded_if_it_says_how(self) -> Self:
        if not is_hub(self.uri) and (self.revision or self.secret_ref):
            raise ValueError("revision and secretRef are for sources on the hub (hf://org/name)")
        return self


class ModelAdapterSpec(Shape):
    """What is loaded, and into which engine."""

    model_ref: ModelRef = Field(
        json_schema_extra=with_rules(
            Rule("self == oldSelf", "modelRef can't change: delete the adapter and create it again")
        )
    )
    """The Model whose engine loads it."""
    served_name: PublicName | None = None
    """Public name, used as `model` in requests. Unset: the object's name."""
    source: AdapterSource
    """Where it comes from."""


class AdapterReplica(StatusShape):
    """The adapter on one replica."""

    pod: str
    """Name of the pod."""
    state: Literal["Loading", "Loaded", "Failed", "Unloading"]
    """What it does there."""
    error: str = ""
    """Why it failed."""


class AdapterCount(StatusShape):
    """On how many replicas the adapter is loaded."""

    loaded: int = 0
    """Replicas on which it is loaded and answered a probe."""
    total: int = 0
    """Replicas that count."""


class ModelAdapterStatus(StatusShape):
    """What is."""

    observed_generation: int = 0
    """The generation of the spec that the status describes."""
    conditions: tuple[Condition, ...] = ()
    """Accepted, ResolvedRefs, WeightsReady, Loaded, Routable, and Ready as their summary."""
    replicas: AdapterCount = AdapterCount()
    """On how many replicas it is loaded."""
    per_replica: tuple[AdapterReplica, ...] = ()
    """The adapter on each replica."""
    message: str = ""
    """The state in a sentence."""


class ModelAdapter(Resource):
    """A LoRA adapter of a Model."""

    kind: ClassVar[str] = "ModelAdapter"
    plural: ClassVar[str] = "modeladapters"
    short_names: ClassVar[tuple[str, ...]] = ("ma",)
    columns: ClassVar[tuple[Column, ...]] = (
        Column("Ready", '.status.conditions[?(@.type=="Ready")].status'),
        Column("Reason", '.status.conditions[?(@.type=="Ready")].reason'),
        Column("Model", ".spec.modelRef.name"),
        Column("Loaded", ".status.replicas.loaded", "integer"),
        Column("Total", ".status.replicas.total", "integer"),
        Column("Source", ".spec.source.uri", priority=1),
        Column("Age", ".metadata.creationTimestamp", "date"),
        Column("Message", ".status.message", priority=1),
    )

    schema_rules: ClassVar[tuple[Rule, ...]] = (SHORT_NAME,)

    spec: ModelAdapterSpec
    """What is loaded, and into which engine."""
    status: ModelAdapterStatus = ModelAdapterStatus()
    """What is."""

    @model_validator(mode="after")
    def _has_a_short_name(self) -> Self:
        if len(self.served_name) > MAX_PUBLIC_NAME:
            raise ValueError(LONG_NAME)
        return self

    @property
    def served_name(self) -> str:
        """Public name."""
        return self.spec.served_name or self.metadata.name
