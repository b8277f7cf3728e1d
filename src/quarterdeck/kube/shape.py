"""What all classes of custom resources have in common: camelCase in YAML, snake_case in Python, CEL rules.

A class is the one source of its CRD schema (`kube/schema.py`), of its text in `kubectl explain` and of what the
operator reads. A rule that spans several fields is stated twice, next to each other: as a CEL rule, which the API
server applies when an object is written, and as a validator, for objects that were written otherwise.
"""

from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel

CAMEL = ConfigDict(alias_generator=to_camel, validate_by_name=True, validate_by_alias=True, serialize_by_alias=True)
"""Of a subclass of a `settings` class: its fields as a cluster's YAML writes them."""

VALIDATIONS = "x-kubernetes-validations"

T = TypeVar("T", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Rule:
    """A CEL rule (`x-kubernetes-validations`)."""

    rule: str
    """The expression; `self` is the value that has the rule, `oldSelf` its value before an update."""
    message: str
    """What a person reads when it is false."""


def with_rules(*rules: Rule, **extra: Any) -> dict[str, Any]:
    """`json_schema_extra` of a class or field that has CEL rules. `extra`: further members of its schema."""
    return {VALIDATIONS: [{"rule": each.rule, "message": each.message} for each in rules], **extra}


class Shape(BaseModel):
    """Part of a spec. Unknown fields are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, **CAMEL)


class StatusShape(BaseModel):
    """Part of a status. Unknown fields are ignored: another version of the operator may have written them."""

    model_config = ConfigDict(frozen=True, extra="ignore", use_attribute_docstrings=True, **CAMEL)


def to_settings(value: BaseModel, kind: type[T]) -> T:
    """The `settings` object of an embedded class, from the fields that are set. Raises ValidationError."""
    return kind.model_validate(value.model_dump(by_alias=False, exclude_unset=True))
