"""Requests that ended are counted when the counter is read, and their lines are written together soon after."""

import asyncio
import re
import time
from collections.abc import Sequence

import pytest

from quarterdeck.gateway.http import access_log
from quarterdeck.gateway.http.access_log import FLUSH_RECORDS, AccessLog, AccessRecord
from quarterdeck.telemetry.access_lines import AccessLine
from quarterdeck.telemetry.gateway_metrics import GatewayMetrics
from quarterdeck.telemetry.logging import request_id

CHAT = "/v1/chat/completions"


class Pages(list[list[AccessLine]]):
    """Lines, by the call that wrote them."""

    def __init__(self) -> None:
        super().__init__()
        self.has_one = asyncio.Event()

    def write(self, lines: Sequence[AccessLine]) -> None:
        self.append(list(lines))
        self.has_one.set()


def serve(log: AccessLog, status: int = 200, path: str = CHAT, route: str = CHAT) -> AccessRecord:
    record = log.open("POST", path, route)
    record.status = status
    log.close(record)
    return record


async def test_lines_come_in_the_order_of_closing() -> None:
    pages = Pages()
    log = AccessLog(GatewayMetrics(), pages.write)
    first, second = log.open("POST", CHAT, CHAT), log.open("GET", "/v1/models")
    second.status, second.key, second.client_request_id = 200, "key_1", "mine"
    log.close(second)
    log.close(first)
    assert pages == []  # not yet
    log.flush()
    (lines,) = pages
    assert [line.request_id for line in lines] == [second.request_id, first.request_id]
    assert lines[0].message == "GET /v1/models 200"
    assert (lines[0].method, lines[0].path, lines[0].status) == ("GET", "/v1/models", 200)
    assert (lines[0].key, lines[0].client_request_id) == ("key_1", "mine")


async def test_a_line_does_not_wait_for_another() -> None:
    pages = Pages()
    log = AccessLog(GatewayMetrics(), pages.write)
    for _ in range(2):
        pages.has_one.clear()
        serve(log)
        await pages.has_one.wait()
    assert [len(lines) for lines in pages] == [1, 1]


async def test_many_lines_are_written_before_their_time() -> None:
    pages = Pages()
    log = AccessLog(GatewayMetrics(), pages.write, flush_seconds=3600)
    for _ in range(2 * FLUSH_RECORDS + 1):
        serve(log)
    assert [len(lines) for lines in pages] == [FLUSH_RECORDS] * 2
    log.flush()
    log.flush()
    assert [len(lines) for lines in pages] == [FLUSH_RECORDS] * 2 + [1]


async def test_each_is_counted_once_read_before_its_line_is_written_or_after() -> None:
    metrics = GatewayMetrics()
    log = AccessLog(metrics, Pages().write)
    serve(log)
    assert metrics.http_requests.values == {(CHAT, "200"): 1}
    serve(log)
    serve(log, 429)
    assert metrics.http_requests.values == {(CHAT, "200"): 2, (CHAT, "429"): 1}
    log.flush()
    assert metrics.http_requests.values == {(CHAT, "200"): 2, (CHAT, "429"): 1}
    serve(log)
    assert b'http_requests_total{route="/v1/chat/completions",http_status="200"} 3\n' in metrics.render()


async def test_without_a_writer_requests_are_counted_and_no_lines_kept() -> None:
    metrics = GatewayMetrics()
    log = AccessLog(metrics)
    for _ in range(FLUSH_RECORDS + 1):
        serve(log)
    assert metrics.http_requests.values == {(CHAT, "200"): FLUSH_RECORDS + 1}


async def test_a_line_has_the_end_and_the_duration_of_its_request(monkeypatch: pytest.MonkeyPatch) -> None:
    now, pages = [5_000_000_000], Pages()
    monkeypatch.setattr(time, "perf_counter_ns", lambda: now[0])
    monkeypatch.setattr(time, "time_ns", lambda: 1_700_000_000_000_000_000 + now[0])
    log = AccessLog(GatewayMetrics(), pages.write)
    record = AccessRecord("POST", CHAT, "req_1", route=CHAT, opened=now[0])
    now[0] += 1_234_567_890
    assert (b"openai-processing-ms", b"1234") in record.headers()
    log.close(record)
    now[0] += 40_000_000  # it waits to be written
    log.flush()
    ((line,),) = pages
    assert (line.ts, line.duration_ms) == ("2023-11-14T22:13:26.234+00:00", 1234.567)


async def test_a_long_path_is_cut() -> None:
    pages = Pages()
    log = AccessLog(GatewayMetrics(), pages.write)
    serve(log, 404, "/" + "x" * 5000, "unmatched")
    log.flush()
    assert len(pages[0][0].path) == access_log.MAX_PATH
    assert len(pages[0][0].message) < 300


async def test_log_lines_of_the_task_carry_the_request_id() -> None:
    record = AccessLog(GatewayMetrics()).open("POST", CHAT)
    assert request_id.get() == record.request_id
    assert re.fullmatch("req_[0-9a-f]{32}", record.request_id)
    assert record.headers()[0] == (b"x-request-id", record.request_id.encode())


async def test_a_path_can_not_write_to_a_terminal() -> None:
    pages = Pages()
    log = AccessLog(GatewayMetrics(), pages.write)
    serve(log, 404, "/v1/größe\x1b[2J\x9b31m\u202e\n", "unmatched")
    log.flush()
    assert pages[0][0].path == "/v1/größe%1B[2J%C2%9B31m%E2%80%AE%0A"
    assert pages[0][0].message == f"POST {pages[0][0].path} 404"
