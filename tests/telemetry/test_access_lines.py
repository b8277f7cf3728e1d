"""A line a request: the form of all log lines, written together, without secrets."""

import asyncio
import io
import json

from quarterdeck.telemetry import access_lines
from quarterdeck.telemetry.access_lines import AccessLine, LineWriter, Timestamps


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


async def test_lines_are_json_and_come_in_order() -> None:
    stream = io.BytesIO()
    writer = LineWriter(stream)
    for status in (200, 429, 503):
        writer.write(line(status=status))
    assert stream.getvalue() == b""  # not yet
    writer.flush()
    written = [json.loads(text) for text in stream.getvalue().splitlines()]
    assert [found["status"] for found in written] == [200, 429, 503]
    assert {"ts", "level", "logger", "message", "service", "request_id"} <= set(written[0])


async def test_a_line_does_not_wait_for_another(monkeypatch: object) -> None:
    written = asyncio.Event()

    class Stream(io.BytesIO):
        def flush(self) -> None:
            written.set()

    LineWriter(Stream()).write(line())
    await written.wait()


async def test_many_lines_are_written_before_their_time() -> None:
    stream = io.BytesIO()
    writer = LineWriter(stream)
    while not stream.getvalue():
        writer.write(line(path="/" + "x" * 250))
    assert len(stream.getvalue()) >= access_lines.FLUSH_BYTES
    writer.flush()


async def test_what_looks_like_a_secret_is_hidden() -> None:
    stream = io.BytesIO()
    writer = LineWriter(stream)
    writer.write(line(client_request_id="sk-qd-canary-5f3a9b", path="/v1/sk-qd-canary-5f3a9b"))
    writer.flush()
    assert b"canary" not in stream.getvalue()


def test_a_timestamp_is_utc_to_the_millisecond() -> None:
    stamps = Timestamps()
    assert stamps.of(1_700_000_000.0419) == "2023-11-14T22:13:20.041+00:00"
    assert stamps.of(1_700_000_000.9999) == "2023-11-14T22:13:20.999+00:00"
    assert stamps.of(1_700_000_001.0) == "2023-11-14T22:13:21.000+00:00"
