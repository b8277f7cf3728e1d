"""Problems of values in words."""

from typing import Annotated, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from quarterdeck.settings.config import Config
from quarterdeck.settings.problem_texts import field_names, problem_text


class Inner(BaseModel):
    model_config = ConfigDict(extra="forbid")

    limit: int | None = Field(default=None, ge=1)
    ratio: float = Field(default=0, lt=1)


class Shape(BaseModel):
    model_config = ConfigDict(extra="forbid")

    mode: Literal["deny", "warn"] = "deny"
    is_on: bool = True
    name: str = ""
    words: tuple[str, ...] = ()
    items: list[Inner] = []
    named: dict[str, Annotated[Inner, Field()]] = {}


@pytest.mark.parametrize(
    ("data", "text"),
    [
        ({"mod": 1}, "unknown setting; did you mean 'mode'?"),
        ({"items": [{"limits": 1}]}, "unknown setting; did you mean 'limit'?"),
        ({"named": {"a": {"ration": 1}}}, "unknown setting; did you mean 'ratio'?"),
        ({"zzzzzz": 1}, "unknown setting"),
        ({"mode": "warm"}, "must be deny or warn, not 'warm'; did you mean 'warn'?"),
        ({"mode": None}, "must be deny or warn, not empty"),
        ({"is_on": "perhaps"}, "must be true or false, not 'perhaps'"),
        ({"name": {"secret": "x"}}, "must be text, not a mapping"),
        ({"words": "a"}, "must be a list, not 'a'"),
        ({"items": [7]}, "must be a mapping, not 7"),
        ({"items": [{"limit": "many"}]}, "must be a whole number, not 'many'"),
        ({"items": [{"limit": 1.5}]}, "must be a whole number, not 1.5"),
        ({"items": [{"limit": 0}]}, "must be ≥ 1, not 0"),
        ({"items": [{"ratio": 1}]}, "must be < 1, not 1"),
        ({"items": [{"ratio": "x" * 99}]}, f"must be a number, not '{'x' * 39}…'"),
    ],
    ids=str,
)
def test_a_problem_is_said_without_pydantics_words(data: object, text: str) -> None:
    with pytest.raises(ValidationError) as error:
        Shape.model_validate(data)
    assert problem_text(dict(error.value.errors()[0]), Shape) == text


def test_the_fields_of_the_configurations_classes_are_found() -> None:
    assert "models" in field_names(Config, ())
    assert "source" in field_names(Config, ("models", 0, "engine"))
    assert "priority" in field_names(Config, ("teams", "red"))
    assert field_names(Config, ("nothing", "here")) == []
