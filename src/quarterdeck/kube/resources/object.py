"""What all custom resources have in common: metadata, and reading an object as the API returns it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from quarterdeck.kube.names import API_VERSION
from quarterdeck.kube.nesting import is_deeper_than
from quarterdeck.kube.shape import Rule, StatusShape

MAX_LEVELS = 64
"""Of a spec. Less than what `kube/nesting` leaves of a document, so that nothing it has cut is used."""
MAX_PROBLEMS = 3
"""Problems of one object that its error names."""


FIXED_NAME = Rule(
    "has(self.name) == has(oldSelf.name) && (!has(self.name) || self.name == oldSelf.name)",
    "name can't change: create another object, then delete this one",
)


class InvalidObjectError(ValueError):
    """An object that can't be read; the message is one sentence for people."""


class Metadata(BaseModel):
    """The members of an object's metadata that Quarterdeck reads."""

    model_config = ConfigDict(
        frozen=True, extra="ignore", alias_generator=to_camel, validate_by_name=True, serialize_by_alias=True
    )

    name: str
    namespace: str = "default"
    uid: str = ""
    generation: int = 0
    resource_version: str = ""
    creation_timestamp: str = ""
    deletion_timestamp: str | None = None
    labels: dict[str, str] = Field(default_factory=dict)
    annotations: dict[str, str] = Field(default_factory=dict)
    finalizers: tuple[str, ...] = ()

    @property
    def age_key(self) -> tuple[str, str]:
        """Orders objects by age; of several that claim one name the least wins. Objects of the same second are ordered
        by uid, so that all processes agree."""
        return (self.creation_timestamp or "9999", self.uid)


@dataclass(frozen=True, slots=True)
class Column:
    """A column of `kubectl get`."""

    name: str
    path: str
    type: str = "string"
    priority: int = 0
    """0: always shown. 1: only with `-o wide`."""


class Resource(BaseModel):
    """A custom resource."""

    model_config = ConfigDict(
        frozen=True, extra="ignore", alias_generator=to_camel, validate_by_name=True, serialize_by_alias=True
    )

    kind: ClassVar[str]
    plural: ClassVar[str]
    short_names: ClassVar[tuple[str, ...]]
    columns: ClassVar[tuple[Column, ...]]
    is_scalable: ClassVar[bool] = False
    """Whether it has the scale subresource."""
    schema_rules: ClassVar[tuple[Rule, ...]] = ()
    """CEL rules of the whole object."""

    metadata: Metadata

    @classmethod
    def parse(cls, data: Mapping[str, Any]) -> Self:
        """Read an object as the API returns it. Raises InvalidObjectError."""
        if is_deeper_than(data.get("spec"), MAX_LEVELS):
            raise InvalidObjectError(f"spec: it is nested too deeply, the limit is {MAX_LEVELS} levels")
        try:
            return cls.model_validate(data, by_name=False, by_alias=True)
        except ValidationError as error:
            problems = error.errors(include_url=False)
            if "status" in data and all(each["loc"][:1] == ("status",) for each in problems):
                # Another version of the operator wrote it. It is written anew; the spec counts.
                return cls.parse({name: value for name, value in data.items() if name != "status"})
            text = "; ".join(_sentence(each) for each in problems[:MAX_PROBLEMS])
            more = f"; and {len(problems) - MAX_PROBLEMS} more" if len(problems) > MAX_PROBLEMS else ""
            raise InvalidObjectError(text + more) from error
        except RecursionError as error:
            raise InvalidObjectError("the object is nested too deeply") from error

    @property
    def name(self) -> str:
        """Name of the object."""
        return self.metadata.name

    @property
    def ref(self) -> str:
        """Names the object in messages: `Model llama`."""
        return f"{self.kind} {self.metadata.name}"

    def owner_reference(self) -> dict[str, Any]:
        """For children, which are deleted with the object."""
        return {
            "apiVersion": API_VERSION,
            "kind": self.kind,
            "name": self.metadata.name,
            "uid": self.metadata.uid,
            "controller": True,
            "blockOwnerDeletion": True,
        }


class Replicas(StatusShape):
    """Replicas of a Model."""

    desired: int = 0
    """Replicas that should run."""
    ready: int = 0
    """Replicas that answer requests."""
    draining: int = 0
    """Replicas that finish their requests and then end."""


def _sentence(problem: Any) -> str:
    where = ""
    for part in problem["loc"]:
        where += f"[{part}]" if isinstance(part, int) else f".{part}"
    message = str(problem["msg"]).removeprefix("Value error, ")
    if problem["type"] == "extra_forbidden":
        message = "unknown field"
    return f"{where.lstrip('.') or 'object'}: {message}"
