"""What an answer means for a line, and the lines of output and error files."""

import json

import pytest

from quarterdeck.protocol.batches.results import (
    MAX_TRIES,
    Tokens,
    answered,
    retry_pause,
    tokens_of,
    unexecuted,
    verdict,
)


@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [
        (200, None, "done"),
        (400, "invalid_value", "done"),
        (403, None, "done"),
        (404, "model_not_found", "done"),
        (501, "not_served", "done"),
        (401, "invalid_api_key", "stop"),
        (401, "invalid_job_credential", "wait"),
        (429, "rate_limit_exceeded", "wait"),
        (429, "no_idle_capacity", "wait"),
        (429, "insufficient_quota", "wait"),
        (503, "model_not_ready", "wait"),
        (503, "shutting_down", "wait"),
        (503, "engine_unavailable", "retry"),
        (502, "engine_error", "retry"),
        (504, "engine_timeout", "retry"),
        (408, None, "retry"),
        (500, None, "retry"),
    ],
)
def test_an_answer_is_a_result_a_reason_to_wait_or_to_try_again(status: int, code: str | None, expected: str) -> None:
    assert verdict(status, code, 0) == expected


def test_a_failure_that_lasts_becomes_the_result() -> None:
    assert verdict(502, None, MAX_TRIES - 1) == "done"
    assert verdict(429, None, MAX_TRIES * 100) == "wait"


def test_pauses_grow_and_keep_to_retry_after() -> None:
    assert retry_pause(0, None, 0.5) == 1.0
    assert retry_pause(40, None, 0.5) == 60.0
    assert retry_pause(0, 20.0, 0.5) == 20.0
    assert retry_pause(0, 9_999_999.0, 0.5) == 300.0


def test_an_answer_is_shown_as_openai_does() -> None:
    body = b'{"id":"x","usage":{"prompt_tokens":3,"completion_tokens":4,"total_tokens":7}}'
    result = answered("batch_1", 7, "mine", status=200, request="req_1", body=body)
    shown = json.loads(result.text)
    assert shown == {
        "id": shown["id"],
        "custom_id": "mine",
        "response": {"status_code": 200, "request_id": "req_1", "body": json.loads(body)},
        "error": None,
    }
    assert shown["id"].startswith("batch_req_") and not result.is_error and b"\n" not in result.text
    assert result.tokens == Tokens(3, 0, 4, 0)
    assert answered("batch_1", 7, "mine", status=200, request="req_1", body=body) == result


def test_a_refusal_and_a_line_that_was_not_executed_are_errors() -> None:
    refused = answered("b", 1, "x", status=400, request="req_1", body=b'{"error":{"message":"no"}}')
    assert refused.is_error and json.loads(refused.text)["response"]["status_code"] == 400
    late = unexecuted("b", 1, "x", code="batch_expired", message="late")
    shown = json.loads(late.text)
    assert (shown["response"], shown["error"]) == (None, {"code": "batch_expired", "message": "late"})
    assert late.is_error


def test_a_body_that_is_no_json_is_still_a_line_of_json() -> None:
    result = answered("b", 1, "x", status=502, request="req_1", body=b"<html>\n")
    assert json.loads(result.text)["response"]["body"]["error"]["message"] == "<html>\n"


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        ({"prompt_tokens": 5, "total_tokens": 5}, Tokens(5)),
        (
            {"input_tokens": 9, "input_tokens_details": {"cached_tokens": 4}, "output_tokens": 2,
             "output_tokens_details": {"reasoning_tokens": 1}},
            Tokens(9, 4, 2, 1),
        ),
        ({"prompt_tokens": -1, "completion_tokens": True}, Tokens()),
        (None, Tokens()),
        ([], Tokens()),
    ],
)  # fmt: skip
def test_the_usage_of_each_endpoint_is_read(usage: object, expected: Tokens) -> None:
    assert tokens_of(json.dumps({"usage": usage}).encode()) == expected
