"""Captured answers against the schema of a prompt's version."""

import json
import time
from typing import Any

import pytest

from quarterdeck.resources.prompts.answer_schemas import check_of, count_valid

CITY = {"type": "object", "properties": {"city": {"type": "string", "pattern": "^[A-Z]"}}, "required": ["city"]}


def schema(of: Any) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": of}}


def output(content: Any, **message: Any) -> bytes:
    return json.dumps([{"index": 0, "message": {"role": "assistant", "content": content} | message}]).encode()


@pytest.mark.parametrize(
    ("content", "is_valid"),
    [
        ('{"city": "Bern"}', True),
        ('{"city": "bern"}', False),
        ('{"town": "Bern"}', False),
        ('```json\n{"city": "Bern"}\n```', False),
        ('{"city": "Be', False),
        ("", False),
        ("[" * 100_000, False),
    ],
)
def test_an_answer_is_valid_if_its_text_is_json_that_the_schema_accepts(content: str, is_valid: bool) -> None:
    check = check_of(schema(CITY))
    assert check is not None
    assert count_valid(check, [output(content)]) == (is_valid, 1)


def test_json_mode_asks_for_an_object() -> None:
    check = check_of({"type": "json_object"})
    assert check is not None
    assert count_valid(check, [output("{}"), output("[]"), output("no")]) == (1, 3)


@pytest.mark.parametrize("output", [output(None), output("", tool_calls=[{"id": "1"}]), b"[]", b"{", b"[1]", b"null"])
def test_what_has_no_text_is_not_checked(output: bytes) -> None:
    check = check_of(schema(CITY))
    assert check is not None
    assert count_valid(check, [output]) == (0, 0)


@pytest.mark.parametrize(
    "response_format",
    [
        None,
        {"type": "text"},
        {"type": "json_schema"},
        schema("no"),
        schema({"type": "no such type"}),
        schema({"$ref": "http://127.0.0.1:9/schema.json"}),
        schema({"$ref": "file:///etc/hostname"}),
        schema({"type": "string", "pattern": "("}),
    ],
    ids=str,
)
def test_without_a_usable_schema_nothing_is_checked(response_format: dict[str, Any] | None) -> None:
    assert check_of(response_format) is None


def test_a_pattern_takes_no_exponential_time() -> None:
    check = check_of(schema({"type": "string", "pattern": "^(a+)+$"}))
    assert check is not None
    started = time.process_time()
    assert count_valid(check, [output(json.dumps("a" * 50_000 + "!"))]) == (0, 1)
    assert time.process_time() - started < 20
