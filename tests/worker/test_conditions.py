"""A failure is logged when it begins and when it ends."""

import asyncio
import logging

import pytest

from quarterdeck.worker.conditions import Backoff, Condition


def test_an_outage_is_two_lines_however_long(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    states: list[bool] = []
    condition = Condition("the database", states.append)
    condition.ok()
    for i in range(100):
        condition.failed(f"no answer {i}")
    assert states == [True, False]
    assert condition.reason == "no answer 99"
    for _ in range(100):
        condition.ok()
    assert [record.message for record in caplog.records] == [
        "the database: no answer 0; retrying",
        "the database: recovered",
    ]
    assert states == [True, False, True]
    assert condition.reason == ""


def test_an_unexpected_error_is_logged_with_its_traceback(caplog: pytest.LogCaptureFixture) -> None:
    Condition("x").failed("odd", trace=ValueError("odd"))
    assert caplog.records[0].exc_info is not None


async def test_pauses_grow_and_end_at_a_stop() -> None:
    stop = asyncio.Event()
    backoff = Backoff(stop, first=0.001, most=60.0)
    loop = asyncio.get_running_loop()
    begin = loop.time()
    await backoff.pause()
    await backoff.pause()
    assert loop.time() - begin >= 0.003
    loop.call_later(0.01, stop.set)
    await backoff.pause(at_least=60.0)
    assert loop.time() - begin < 30
