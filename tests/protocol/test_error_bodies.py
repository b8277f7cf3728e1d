"""Error bodies of all engines are read into one shape, whatever stands in them."""

import pytest

from quarterdeck.protocol.error_bodies import MAX_MESSAGE, ErrorBody, parse_error_body

BODIES = {
    "vLLM": (b'{"error":{"message":"no","type":"x","param":"n","code":400}}', ErrorBody("no", "n", 400)),
    "older vLLM": (b'{"object":"error","message":"no","param":"n","code":400}', ErrorBody("no", "n", 400)),
    "Ollama": (b'{"error":"no"}', ErrorBody("no", None, None)),
    "FastAPI": (b'{"detail":"no"}', ErrorBody("no", None, None)),
    "FastAPI's list": (
        b'{"detail":[{"loc":["body","n"],"msg":"not an int"},7,{"msg":"no"}]}',
        ErrorBody("body.n: not an int; no", None, None),
    ),
    "another object": (b"{}", ErrorBody("", None, None)),
    "Gemini": (b'[{"error":{"code":429,"message":"no","status":"X"}}]', ErrorBody("no", None, 429)),
    "Mistral": (
        b'{"object":"error","message":{"detail":[{"loc":["body","n"],"msg":"extra"}]},"code":null}',
        ErrorBody("body.n: extra", None, None),
    ),
    "older Mistral": (
        b'{"object":"error","message":"{\\"detail\\":\\"no\\"}","code":"1000"}',
        ErrorBody("no", None, "1000"),
    ),
    "Azure's front": (b'{"statusCode":429,"message":"no"}', ErrorBody("no", None, 429)),
    "xAI": (b'{"code":"Client error","error":"no"}', ErrorBody("no", None, "Client error")),
    "TGI": (b'{"error":"no","error_type":"overloaded"}', ErrorBody("no", None, "overloaded")),
    "llama.cpp": (
        b'{"error":{"code":400,"message":"no","type":"exceed_context_size_error"}}',
        ErrorBody("no", None, "exceed_context_size_error"),
    ),
    "wrapped for ever": (b'{"error":' * 30 + b'"no"' + b"}" * 30, ErrorBody(None, None, None)),
    "text": (b"Internal Server Error", ErrorBody("Internal Server Error", None, None)),
    "not UTF-8": (b"\xff", ErrorBody("\ufffd", None, None)),
}


@pytest.mark.parametrize(("body", "expected"), BODIES.values(), ids=BODIES.keys())
def test_an_error_body_is_read(body: bytes, expected: ErrorBody) -> None:
    assert parse_error_body(body) == expected


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"error":["bad","worse"]}', "bad; worse"),
        (b'{"errors":[{"message":"bad","code":7003}]}', "bad"),
        (b'{"errors":{"temperature":["too high"]}}', "temperature: too high"),
        (b'{"error":{"message":{"text":"bad"}}}', "bad"),
        (b'{"error_type":"BadRequestError","error_message":"bad"}', "bad"),
        (b'{"type":"about:blank","title":"Bad Request","status":400}', "Bad Request"),
        (b'"bad"', "bad"),
        (b"null", None),
        (b"7", None),
        (b'{"error":{}}', ""),
    ],
)
def test_the_words_of_an_error_are_found_wherever_they_are(body: bytes, message: str | None) -> None:
    assert (parse_error_body(body).message or None) == (message or None)


def test_the_type_of_an_aws_error_is_its_code() -> None:
    assert parse_error_body(b'{"__type":"com.amazon#ThrottlingException","message":"x"}').code == "ThrottlingException"


@pytest.mark.parametrize("body", [b"[" * 100_000, b"<html>" * 10_000])
def test_of_a_long_text_a_part_is_the_message(body: bytes) -> None:
    message = parse_error_body(body).message
    assert message is not None
    assert len(message) <= MAX_MESSAGE
