"""Streams and bodies that faults change."""

from typing import Any

import httpx2
import msgspec
import pytest
from tests.simulator.fake_clock import FakeClock
from tests.simulator.harness import events, http, user

from quarterdeck.simulator import SimulatorConfig, create_app
from quarterdeck.simulator.app import App
from quarterdeck.simulator.client_connection import ConnectionFault
from quarterdeck.simulator.engine import Engine

CHAT: dict[str, Any] = {"messages": user("hello"), "max_tokens": 8, "ignore_eos": True}


STREAM = CHAT | {"stream": True, "stream_options": {"include_usage": True}}


async def ask(fault: str, body: dict[str, Any] | None = None, **options: Any) -> httpx2.Response:
    async with http(create_app(SimulatorConfig(**options))) as client:
        return await client.post("/v1/chat/completions", json=body or CHAT, headers={"x-fault": fault})


async def test_an_error_inside_a_stream() -> None:
    found = events((await ask("error=3", STREAM)).content)
    assert len(found) == 1 + 3 + 2
    assert found[-2]["error"]["code"] == 500
    assert found[-1] == "[DONE]"
    assert (await ask("error")).status_code == 500


async def test_an_answer_shorter_than_the_fault_fails_at_its_end() -> None:
    found = events((await ask("error=100", STREAM)).content)
    assert "error" in found[-2]
    assert found[-3]["choices"][0]["finish_reason"] == "length"


async def test_malformed() -> None:
    with pytest.raises(msgspec.DecodeError):
        msgspec.json.decode((await ask("malformed")).content)
    found = events((await ask("garbage=2", STREAM)).content)
    assert isinstance(found[3], str), "after the opening and two tokens"
    assert found[-1] == "[DONE]" and len([event for event in found if isinstance(event, dict)]) == 10
    assert isinstance(events((await ask("malformed", STREAM)).content)[0], str)


async def test_a_huge_event() -> None:
    found = events((await ask("huge=1,5000", STREAM)).content)
    assert len(found[2]["choices"][0]["delta"]["content"]) == 5000
    assert len((await ask("huge=0,5000")).content) > 5000


async def test_silence_that_ends() -> None:
    clock = FakeClock()
    async with http(App(Engine(SimulatorConfig(), clock=clock))) as client:
        answer = await client.post("/v1/chat/completions", json=STREAM, headers={"x-fault": "stall=2,50ms"})
    assert clock.now() >= 0.05
    assert len(events(answer.content)) == 1 + 8 + 2
    assert (await ask("stall=2,20ms")).status_code == 200


@pytest.mark.parametrize("fault", ["cut=2", "reset=2", "refused", "wrong-length"])
async def test_without_a_connection_a_cut_is_an_exception(fault: str) -> None:
    with pytest.raises(ConnectionFault):
        await ask(fault)


async def test_a_crash_ends_the_process() -> None:
    ended: list[int] = []
    app = App(Engine(SimulatorConfig(), exit_process=ended.append))
    async with http(app) as client:
        for body in (CHAT, STREAM):
            with pytest.raises(AssertionError):  # nothing was answered, or not to its end
                await client.post("/v1/chat/completions", json=body, headers={"x-fault": "crash=2"})
    assert ended == [137, 137]
