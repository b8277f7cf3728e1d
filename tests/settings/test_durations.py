"""Durations as text, as a pydantic field and as an environment variable."""

import pytest
from pydantic import TypeAdapter, ValidationError

from quarterdeck.settings import durations


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("2m", 120), ("500ms", 0.5), ("1.5h", 5400), ("7", 7), (" 1 s ", 1)]
)
def test_durations_are_parsed_into_seconds(text: str, seconds: float) -> None:
    assert durations.parse(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "2 minutes", "-1s", "inf", "nan", "s", "1d"])
def test_other_text_is_rejected(text: str) -> None:
    with pytest.raises(ValueError, match="is not a duration"):
        durations.parse(text)


def test_a_field_takes_numbers_and_text() -> None:
    field = TypeAdapter[float](durations.Seconds)
    assert (field.validate_python("2m"), field.validate_python(3)) == (120, 3)
    with pytest.raises(ValidationError):
        field.validate_python(-1)


def test_a_variable_has_a_default_and_is_named_if_malformed() -> None:
    assert durations.from_variable({}, "GRACE", 20) == 20
    assert durations.from_variable({"GRACE": ""}, "GRACE", 20) == 20
    assert durations.from_variable({"GRACE": "2.5"}, "GRACE", 20) == 2.5
    with pytest.raises(ValueError, match="GRACE must be a number of seconds, not 'soon'"):
        durations.from_variable({"GRACE": "soon"}, "GRACE", 20)
