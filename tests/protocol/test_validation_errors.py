"""pydantic's problems, as vLLM 0.29 sends them, become one sentence about one field."""

import json
from pathlib import Path

import pytest

from quarterdeck.protocol.error_bodies import parse_error_body
from quarterdeck.protocol.validation_errors import Sentence, from_text

SENT = json.loads(Path(__file__).with_name("vllm_validation_errors.json").read_text())
"""Bodies of vLLM's answers, by what was wrong with the request."""
STRING = "input should be a valid string"
EXPECTED = {
    "name": (f"Invalid type for 'messages[1].name': {STRING}.", "messages[1].name", "invalid_type"),
    "dump": (f"Invalid type for 'messages[1].name': {STRING}.", "messages[1].name", "invalid_type"),
    "content null": (f"Invalid type for 'messages[1].content': {STRING}.", "messages[1].content", "invalid_type"),
    "tool content null": (f"Invalid type for 'messages[1].content': {STRING}.", "messages[1].content", "invalid_type"),
    "role null": (f"Invalid type for 'messages[1].role': {STRING}.", "messages[1].role", "invalid_type"),
    "priority": ("Invalid type for 'priority': input should be a valid integer.", "priority", "invalid_type"),
    "stop": (f"Invalid type for 'stop': {STRING}.", "stop", "invalid_type"),
    "format": (
        "Invalid value for 'response_format.type': input should be 'text', 'json_object' or 'json_schema'.",
        "response_format.type",
        "invalid_value",
    ),
    "tool type": ("Invalid value for 'tools[0].type': input should be 'function'.", "tools[0].type", "invalid_value"),
    "two": (
        "Invalid type for 'max_tokens': input should be a valid integer, unable to parse string as an integer.",
        "max_tokens",
        "invalid_type",
    ),
}


@pytest.mark.parametrize("case", SENT)
def test_what_vllm_refuses_is_one_sentence_with_the_field(case: str) -> None:
    error = parse_error_body(json.dumps(SENT[case]).encode())
    assert (error.message, error.param, error.code) == EXPECTED[case]


def test_a_missing_field_is_named() -> None:
    text = "1 validation error:\n  {'type': 'missing', 'loc': ('body', 'messages', 0, 'role'), 'msg': 'Field required'}"
    message = "Missing required parameter: 'messages[0].role'."
    assert from_text(text) == Sentence(message, "messages[0].role", "missing_required_parameter")


def test_a_problem_of_the_whole_body_is_its_own_sentence() -> None:
    text = (
        "1 validation error:\n  {'type': 'value_error', 'loc': ('body',), 'msg': 'Value error, It\\'s no.', 'input': 1}"
    )
    assert from_text(text) == Sentence("It's no.", None, None)


def test_a_callers_text_is_not_taken_for_a_problem() -> None:
    text = (
        "1 validation error:\n  {'type': 'int_type', 'loc': ('body', 'n'), 'msg': 'no', "
        "'input': \"{'type': 'x', 'loc': ('body', 'x'), 'msg': 'y'\"}"
    )
    assert from_text(text) == Sentence("Invalid type for 'n': no.", "n", "invalid_type")


@pytest.mark.parametrize("text", ["", "temperature must be ≥ 0", "1 validation error:\n  Unsupported Media Type: no"])
def test_other_texts_stay_as_they_are(text: str) -> None:
    assert from_text(text) is None


def test_a_long_text_is_read_up_to_a_bound() -> None:
    assert from_text("9 validation errors:\n" + "  {'type': 'a', 'loc': (" * 100_000) is None
