"""A batch's input is checked line by line, with OpenAI's errors."""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quarterdeck.protocol.batches import input_lines
from quarterdeck.protocol.batches.input_lines import (
    MAX_ERRORS,
    MAX_LINES,
    LineTooLongError,
    Validation,
    numbered_lines,
    read_line,
)

CHAT = "/v1/chat/completions"


def line(custom_id: Any = "a", **changes: Any) -> bytes:
    members = {"custom_id": custom_id, "method": "POST", "url": CHAT, "body": {"model": "m", "messages": []}}
    return json.dumps({name: value for name, value in (members | changes).items() if value is not ...}).encode()


def errors_of(*lines: bytes, endpoint: str = CHAT) -> list[tuple[int | None, str, str | None]]:
    validation = Validation(endpoint)
    for number, text in enumerate(lines, 1):
        validation.add(number, text)
    validation.finish()
    return [(each.line, each.code, each.param) for each in validation.errors]


async def pieces(*given: bytes) -> AsyncIterator[bytes]:
    for each in given:
        yield each


async def lines_of(*given: bytes) -> list[tuple[int, bytes]]:
    return [each async for each in numbered_lines(pieces(*given))]


@pytest.mark.parametrize(
    ("text", "code", "param"),
    [
        (b"{", "invalid_json_line", None),
        (b"[]", "invalid_json_line", None),
        (b'"text"', "invalid_json_line", None),
        (b'{"custom_id": "\xff"}', "invalid_json_line", None),
        (b"[" * 100_000, "invalid_json_line", None),
        (line(...), "missing_required_parameter", "custom_id"),
        (line(3), "invalid_type", "custom_id"),
        (line(""), "invalid_custom_id", "custom_id"),
        (line("x" * 513), "invalid_custom_id", "custom_id"),
        (line(method=...), "missing_required_parameter", "method"),
        (line(method="GET"), "invalid_method", "method"),
        (line(url=...), "missing_required_parameter", "url"),
        (line(url="/v1/embeddings"), "mismatched_url", "url"),
        (line(url="https://evil.example/v1/chat/completions"), "mismatched_url", "url"),
        (line(body=...), "missing_required_parameter", "body"),
        (line(body=[]), "invalid_type", "body"),
        (line(body=None), "invalid_type", "body"),
        (line(body={}), "missing_required_parameter", "body.model"),
        (line(body={"model": 3}), "invalid_type", "body.model"),
        (line(body={"model": "m", "stream": True}), "stream_not_supported", "body.stream"),
        (line(body={"model": "m", "background": True}), "background_not_supported", "body.background"),
    ],
)
def test_an_invalid_line_names_its_number_code_and_parameter(text: bytes, code: str, param: str | None) -> None:
    assert errors_of(line("first"), text) == [(2, code, param)]


def test_ids_must_be_unique_and_the_model_the_same() -> None:
    assert errors_of(line("a"), line("a")) == [(2, "duplicate_custom_id", "custom_id")]
    other = line("b", body={"model": "n"})
    assert errors_of(line("a"), other) == [(2, "mismatched_model", "body.model")]
    assert errors_of(line("a"), line("b", body={"model": "m", "stream": False})) == []


def test_an_empty_input_and_one_with_too_many_lines_fail() -> None:
    assert errors_of() == [(None, "empty_file", None)]
    validation = Validation(CHAT)
    for number in range(MAX_LINES + 1):
        validation.add(number + 1, line(str(number)))
    validation.finish()
    assert [each.code for each in validation.errors] == ["too_many_requests"]


def test_the_list_of_errors_is_bounded() -> None:
    assert len(errors_of(*[b"{"] * 1000)) == MAX_ERRORS


def test_a_body_is_sent_byte_for_byte() -> None:
    body = b'{"model":"m", "messages": [ ] ,"top_k":1e3}'
    text = b'{"custom_id":"a","method":"POST","url":"/v1/chat/completions","body":' + body + b"}"
    assert read_line(1, text, CHAT).body == body


def test_responses_are_stored_only_if_a_line_says_so() -> None:
    url = "/v1/responses"
    plain = read_line(1, line(url=url, body={"model": "m", "input": "x"}), url)
    stored = read_line(1, line(url=url, body={"model": "m", "store": True}), url)
    assert json.loads(plain.body)["store"] is False
    assert json.loads(stored.body)["store"] is True


@given(st.lists(st.text("ab \r\t{}é", max_size=5)), st.integers(1, 7))
async def test_any_cut_of_the_input_gives_the_same_lines(texts: list[str], size: int) -> None:
    whole = "\n".join(texts).encode()
    cut = [whole[at : at + size] for at in range(0, len(whole), size)]
    expected = [(at, text.strip(" \t\r").encode()) for at, text in enumerate(texts, 1) if text.strip(" \t\r")]
    assert await lines_of(*cut) == await lines_of(whole) == expected


async def test_a_byte_order_mark_is_skipped_and_windows_ends_are_taken() -> None:
    assert await lines_of(b"\xef\xbb\xbf{}\r\n{}\r\n") == [(1, b"{}"), (2, b"{}")]


async def test_a_line_without_end_is_not_held(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(input_lines, "MAX_LINE_BYTES", 100)
    with pytest.raises(LineTooLongError) as raised:
        await lines_of(b"{}\n", *[b"x" * 60] * 3)
    assert raised.value.number == 2
