"""A request names a prompt in `prompt` or by its model."""

from typing import Any

import msgspec
import pytest

from quarterdeck.errors import BadRequestError
from quarterdeck.inference.prompts.reference import MAX_VARIABLES_BYTES, Reference, read_reference


def read(model: str | None, member: Any = None) -> Reference:
    return read_reference(model, None if member is None else msgspec.Raw(msgspec.json.encode(member)))


@pytest.mark.parametrize(
    ("model", "member", "expected"),
    [
        ("m", {"id": "a"}, Reference("a", None, "production")),
        ("m", {"id": "a", "version": 3}, Reference("a", 3)),
        ("m", {"id": "a", "version": "3"}, Reference("a", 3)),
        ("m", {"id": "a", "label": "staging", "variables": {"x": 1}}, Reference("a", None, "staging", {"x": 1})),
        ("m", {"id": "a", "version": None, "variables": None}, Reference("a", None, "production")),
        ("prompt:a", None, Reference("a", None, "production", {}, "model")),
        ("prompt:team/a-b.c@staging", None, Reference("team/a-b.c", None, "staging", {}, "model")),
        ("prompt:a#12", {"variables": {"x": 1}}, Reference("a", 12, "", {"x": 1}, "model")),
        (None, {"id": "prompt_123"}, Reference("prompt_123", None, "production")),
    ],
)
def test_what_names_a_prompt(model: str | None, member: Any, expected: Reference) -> None:
    assert read(model, member) == expected


@pytest.mark.parametrize(
    ("model", "member", "param"),
    [
        ("m", {}, "prompt.id"),
        ("m", {"id": ""}, "prompt.id"),
        ("m", {"id": 7}, "prompt.id"),
        ("m", {"id": "a", "version": 0}, "prompt.version"),
        ("m", {"id": "a", "version": True}, "prompt.version"),
        ("m", {"id": "a", "version": 1.5}, "prompt.version"),
        ("m", {"id": "a", "version": "latest"}, "prompt.version"),
        ("m", {"id": "a", "version": 2**31}, "prompt.version"),
        ("m", {"id": "a", "version": 1, "label": "b"}, "prompt.label"),
        ("m", {"id": "a", "label": 1}, "prompt.label"),
        ("m", {"id": "a", "variables": []}, "prompt.variables"),
        ("m", {"id": "a", "vars": {}}, "prompt.vars"),
        ("m", "text", "prompt"),
        ("m", [], "prompt"),
        ("prompt:", None, "model"),
        ("prompt:a@", None, "model"),
        ("prompt:a#x", None, "model"),
        ("prompt:a@b#1", None, "model"),
        ("prompt:a#0", None, "model"),
        ("prompt:a#\N{ARABIC-INDIC DIGIT ONE}", None, "model"),
        ("prompt:a", {"id": "a"}, "prompt.id"),
        ("prompt:a@b", {"version": 1}, "prompt"),
        ("m", {"id": "a", "variables": {"x": "y" * MAX_VARIABLES_BYTES}}, "prompt"),
    ],
)
def test_what_does_not_is_refused_and_named(model: str, member: Any, param: str) -> None:
    with pytest.raises(BadRequestError) as refused:
        read(model, member)
    assert refused.value.param == param
