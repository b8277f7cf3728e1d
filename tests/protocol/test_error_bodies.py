"""Error bodies of all engines are read into one shape, whatever stands in them."""

import pytest

from quarterdeck.protocol.error_bodies import MAX_TEXT, ErrorBody, parse_error_body

BODIES = {
    "vLLM": (b'{"error":{"message":"no","type":"x","param":"n","code":400}}', ErrorBody("no", "n", 400)),
    "older vLLM": (b'{"object":"error","message":"no","param":"n","code":400}', ErrorBody("no", "n", 400)),
    "Ollama": (b'{"error":"no"}', ErrorBody("no", None, None)),
    "FastAPI": (b'{"detail":"no"}', ErrorBody("no", None, None)),
    "FastAPI's list": (
        b'{"detail":[{"loc":["body","n"],"msg":"not an int"},7,{"msg":"no"}]}',
        ErrorBody("body.n: not an int; : no", None, None),
    ),
    "another object": (b"{}", ErrorBody("", None, None)),
    "text": (b"Internal Server Error", ErrorBody("Internal Server Error", None, None)),
    "not UTF-8": (b"\xff", ErrorBody("\ufffd", None, None)),
}


@pytest.mark.parametrize(("body", "expected"), BODIES.values(), ids=BODIES.keys())
def test_an_error_body_is_read(body: bytes, expected: ErrorBody) -> None:
    assert parse_error_body(body) == expected


@pytest.mark.parametrize("body", [b"[" * 100_000, b"<html>" * 10_000])
def test_of_a_long_text_a_part_is_the_message(body: bytes) -> None:
    message = parse_error_body(body).message
    assert message is not None
    assert len(message) <= MAX_TEXT
