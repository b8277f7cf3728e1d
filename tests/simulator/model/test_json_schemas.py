import datetime
import enum
from typing import Annotated, Any, Literal
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from quarterdeck.simulator.model.json_schemas import UnsatisfiableError, example_value


class Rig(enum.Enum):
    sloop = "sloop"
    brig = "brig"


class Port(BaseModel):
    name: str = Field(min_length=3, max_length=8)
    code: Annotated[str, Field(pattern=r"^[A-Z]{2}-\d{3}$")]
    depth: float = Field(gt=2, lt=3)


class Ship(BaseModel):
    id: UUID
    rig: Rig
    kind: Literal["cargo"]
    crew: int = Field(ge=7, multiple_of=5)
    built: datetime.date
    ports: list[Port] = Field(min_length=2)
    tags: set[str] = Field(min_length=3)
    position: tuple[int, str]
    flag: str | None
    parent: "Ship | None"
    notes: dict[str, int]
    choice: int | str
    optional: str = "x"


@given(st.integers(0, 2**32 - 1))
def test_an_instance_of_a_pydantic_model_validates(start: int) -> None:
    ship = Ship.model_validate(example_value(Ship.model_json_schema(), start))
    assert ship.optional == "x"


def test_the_same_schema_gives_the_same_value() -> None:
    assert example_value(Ship.model_json_schema(), 5) == example_value(Ship.model_json_schema(), 5)


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"const": 5}, 5),
        ({"type": "null"}, None),
        ({"type": ["null", "integer"], "minimum": 4}, 4),
        ({"type": "integer", "maximum": -3}, -3),
        ({"type": "integer", "exclusiveMaximum": 3}, 2),
        ({"type": "integer", "exclusiveMinimum": 3}, 4),
        ({"type": "number", "minimum": 1, "maximum": 2}, 1.5),
        ({"allOf": [{"type": "object", "required": ["a"]}, {"properties": {"a": {"const": 1}}}]}, {"a": 1}),
        ({"anyOf": [False, {"const": "b"}]}, "b"),
        ({"type": "array", "prefixItems": [{"const": 1}], "items": {"const": 2}, "minItems": 3}, [1, 2, 2]),
        ({"type": "object", "minProperties": 1, "additionalProperties": {"const": 1}}, {"key0": 1}),
    ],
)
def test_small_schemas(schema: dict[str, Any], value: Any) -> None:
    assert example_value(schema) == value


@pytest.mark.parametrize(
    "schema",
    [False, {"type": "integer", "minimum": 3, "maximum": 2}, {"$ref": "#/nowhere"}, {"$ref": "#"}],
)
def test_what_cannot_be_satisfied_is_said(schema: Any) -> None:
    with pytest.raises(UnsatisfiableError):
        example_value(schema)


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "array", "minItems": 10**9},
        {"type": "string", "minLength": 10**9},
        {"type": "object", "minProperties": 10**9},
        {"type": "string", "pattern": "((a{999}){999}){999}"},
        {"type": "array", "items": {"type": "boolean"}, "uniqueItems": True, "minItems": 3},
    ],
)
def test_a_schema_that_would_hold_up_everyone_is_refused(schema: dict[str, Any]) -> None:
    with pytest.raises(UnsatisfiableError):
        example_value(schema)
