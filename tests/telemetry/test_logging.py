"""A log line is JSON with its request's id and without secrets."""

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from quarterdeck import ids
from quarterdeck.telemetry import logging as logs


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    stream = io.StringIO()
    logs.configure("INFO", "gateway", stream)
    yield stream
    logging.captureWarnings(False)
    root.handlers[:] = handlers
    root.setLevel(level)


def read(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_record_is_one_line_of_json(lines: io.StringIO) -> None:
    logging.getLogger("a.b").info("two\nlines %d", 7, extra={"model": "m", "tokens": 3})
    (line,) = read(lines)
    assert line["message"] == "two\nlines 7"
    assert (line["level"], line["logger"], line["service"]) == ("info", "a.b", "gateway")
    assert (line["model"], line["tokens"]) == ("m", 3)
    assert line["ts"].endswith("+00:00")


def test_the_request_id_comes_from_the_context(lines: io.StringIO) -> None:
    token = logs.request_id.set("req_1")
    logging.getLogger("a").info("inside")
    logs.request_id.reset(token)
    logging.getLogger("a").info("outside")
    inside, outside = read(lines)
    assert inside["request_id"] == "req_1"
    assert "request_id" not in outside


def test_an_exception_is_a_field_and_not_more_lines(lines: io.StringIO) -> None:
    try:
        raise ValueError("bad thing")
    except ValueError:
        logging.getLogger("a").exception("failed")
    (line,) = read(lines)
    assert "ValueError: bad thing" in line["exc"]


@pytest.mark.parametrize(
    "text",
    [
        "key={secret}",
        "Authorization: Bearer {secret}",
        "{{'authorization': b'Bearer {secret}'}}",
        "redis://:{secret}@cache:6379/0",
        "postgresql+asyncpg://user:{secret}@db/quarterdeck",
        "Authorization=Basic {secret}",
        "Authorization=Basic%20{secret}",
    ],
)
def test_a_secret_does_not_reach_the_line(lines: io.StringIO, text: str) -> None:
    secret = ids.api_key()
    logging.getLogger("a").info(text.format(secret=secret))
    logging.getLogger("a").info("as an argument: %s", text.format(secret=secret))
    logging.getLogger("a").info("as a field", extra={"what": {"nested": [text.format(secret=secret)]}})
    try:
        raise RuntimeError(text.format(secret=secret))
    except RuntimeError:
        logging.getLogger("a").exception("as an exception")
    assert secret.removeprefix("sk-qd-") not in lines.getvalue()
    assert lines.getvalue().count(logs.HIDDEN) == 4
    assert len(read(lines)) == 4


def test_a_field_with_a_secrets_name_is_hidden(lines: io.StringIO) -> None:
    logging.getLogger("a").info("m", extra={"authorization": "hunter2", "api_key": "hunter2", "key": "key_1"})
    (line,) = read(lines)
    assert line["authorization"] == line["api_key"] == logs.HIDDEN
    assert line["key"] == "key_1"


def test_what_json_has_no_word_for_is_written_as_text(lines: io.StringIO) -> None:
    logging.getLogger("a").info("odd \ud800", extra={"thing": object(), "set": {1}, "map": {(1, 2): 3}})
    (line,) = read(lines)
    assert line["message"] == "odd ?"


def test_a_huge_message_is_cut(lines: io.StringIO) -> None:
    logging.getLogger("a").info("x" * 1_000_000)
    assert len(lines.getvalue()) < 2 * logs.MAX_LINE


def test_configuring_again_replaces_the_first(lines: io.StringIO) -> None:
    second = io.StringIO()
    logs.configure("WARNING", "worker", second)
    logging.getLogger("a").info("not shown")
    logging.getLogger("a").warning("shown")
    assert lines.getvalue() == ""
    assert [line["service"] for line in read(second)] == ["worker"]


def test_uvicorns_loggers_go_the_same_way(lines: io.StringIO) -> None:
    logging.getLogger("uvicorn.error").error("broken")
    (line,) = read(lines)
    assert line["logger"] == "uvicorn.error"
