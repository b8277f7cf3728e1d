"""Access lines have the format of log lines, are written in batches, and hold no secrets."""

import errno
import io
import json

import msgspec
import pytest

from quarterdeck.telemetry.access_lines import AccessLine, LineWriter, Timestamps
from quarterdeck.telemetry.logging import redact


def line(**changes: object) -> AccessLine:
    fields = {
        "ts": "2026-01-01T00:00:00.000+00:00",
        "message": "POST /v1/chat/completions 200",
        "request_id": "req_1",
        "method": "POST",
        "path": "/v1/chat/completions",
        "status": 200,
        "duration_ms": 1.5,
        "key": "key_1",
        "client_request_id": None,
    }
    return AccessLine(**{**fields, **changes})


def written(*lines: AccessLine) -> bytes:
    stream = io.BytesIO()
    LineWriter(stream).write(lines)
    return stream.getvalue()


def test_lines_are_json_and_come_in_order() -> None:
    found = [json.loads(text) for text in written(*[line(status=status) for status in (200, 429, 503)]).splitlines()]
    assert [each["status"] for each in found] == [200, 429, 503]
    assert list(found[0]) == [
        *("ts", "level", "logger", "message", "service", "request_id", "method", "path", "status", "error"),
        *("duration_ms", "key", "client_request_id"),
    ]


def test_lines_are_out_when_they_are_written() -> None:
    raw = io.BytesIO()
    buffered = io.BufferedWriter(raw)  # type: ignore[arg-type]
    LineWriter(buffered).write([line()])
    assert raw.getvalue().endswith(b"}\n")


def test_what_looks_like_a_secret_is_hidden() -> None:
    assert b"canary" not in written(line(client_request_id="sk-qd-canary-5f3a9b"), line(path="/sk-qd-canary-5f3a9b"))


@pytest.mark.parametrize(
    "chosen",
    [
        {"client_request_id": "sk-qd-canary"},
        {"path": "/sk-qd-canary", "message": "GET /sk-qd-canary 404"},
        {"path": "/Bearer canary", "message": "GET /Bearer canary 404"},
        {"path": "/Basic%20canary", "message": "GET /Basic%20canary 404"},
        {"path": "/\bearer canary", "message": "GET /\bearer canary 404"},  # JSON makes a `b` of a backspace
        {"path": "/bearer\u2028canary", "message": "GET /bearer\u2028canary 404"},
        {"client_request_id": "redis://user:canary@host"},
        {"client_request_id": "ends-in-bearer"},
        {"method": "BASIC", "message": "BASIC /v1/chat/completions 200"},
        {"key": "sk-qd-canary"},
    ],
)
def test_a_line_among_others_reads_as_it_would_alone(chosen: dict[str, object]) -> None:
    lines = [line(), line(**chosen), line(path="/canary:x@y", client_request_id="Bearer"), line(request_id="req_2")]
    alone = [redact(msgspec.json.encode(each).decode()) for each in lines]
    assert written(*lines).decode() == "".join(text + "\n" for text in alone)


def test_a_timestamp_is_utc_to_the_millisecond() -> None:
    stamps = Timestamps()
    assert stamps.of(1_700_000_000.0419) == "2023-11-14T22:13:20.041+00:00"
    assert stamps.of(1_700_000_000.9999) == "2023-11-14T22:13:20.999+00:00"
    assert stamps.of(1_700_000_001.0) == "2023-11-14T22:13:21.000+00:00"


def test_a_stream_that_takes_nothing_loses_lines_and_nothing_else() -> None:
    class Full(io.BytesIO):
        def write(self, data: object) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

    writer = LineWriter(Full())
    writer.write([line(), line()])
    writer.write([line()])
    assert writer.lost == 3
