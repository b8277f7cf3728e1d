from typing import Any

import httpx2
import pytest
from tests.simulator.harness import events, http, user

from quarterdeck.simulator import SimulatorConfig, create_app
from quarterdeck.simulator.faults import KINDS, Fault, FaultInjector, parse

CHAT: dict[str, Any] = {"messages": user("hello"), "max_tokens": 8, "ignore_eos": True}
STREAM = CHAT | {"stream": True, "stream_options": {"include_usage": True}}


async def ask(fault: str, body: dict[str, Any] | None = None) -> httpx2.Response:
    async with http(create_app()) as client:
        return await client.post("/v1/chat/completions", json=body or CHAT, headers={"x-fault": fault})


def test_faults_are_read() -> None:
    assert parse("cut=5; slow=500ms;429=2;stall=3,2s;huge=0,10") == {
        "cut": Fault("cut", 5),
        "slow": Fault("slow", value=0.5),
        "429": Fault("429", value=2),
        "stall": Fault("stall", 3, 2.0),
        "huge": Fault("huge", 0, 10),
    }
    assert parse("rate_limit") == parse("429")
    with pytest.raises(ValueError, match="unknown fault 'cutt'"):
        parse("cutt=5")


@pytest.mark.parametrize(
    ("fault", "status", "retry_after"),
    [("429", 429, "1"), ("429=7", 429, "7"), ("500", 500, None), ("502", 502, None), ("503=2", 503, "2"),
     ("server_error", 503, None), ("invalid_api_key", 401, None), ("context_length", 400, None),
     ("model_not_found", 404, None), ("invalid_request", 400, None)],
)  # fmt: skip
@pytest.mark.parametrize("body", [CHAT, STREAM])
async def test_a_status(fault: str, status: int, retry_after: str | None, body: dict[str, Any]) -> None:
    answer = await ask(fault, body)
    assert answer.status_code == answer.json()["error"]["code"] == status
    assert answer.headers.get("retry-after") == retry_after


async def test_usage() -> None:
    right = (await ask("slow=0")).json()["usage"]
    wrong = (await ask("wrong-usage=5")).json()["usage"]
    assert wrong["completion_tokens"] == right["completion_tokens"] + 5
    assert (await ask("negative-usage")).json()["usage"]["completion_tokens"] < 0
    assert "usage" not in (await ask("no-usage")).json()
    assert not any("usage" in event for event in events((await ask("no-usage", STREAM)).content)[:-1])
    assert events((await ask("wrong-usage", STREAM)).content)[-2]["usage"]["completion_tokens"] == 1008


async def test_the_queue_goes_before_chance_and_is_seen() -> None:
    async with http(create_app()) as client:
        await client.post("/admin/faults", json={"fault": "503", "count": 2})
        await client.post("/admin/faults", json={"fault": "429"})
        assert (await client.get("/admin/faults")).json()["queued"] == ["503", "503", "429"]
        statuses = [(await client.post("/v1/chat/completions", json=CHAT)).status_code for _ in range(4)]
        done = (await client.get("/admin/faults")).json()["done"]
        await client.post("/admin/faults", json={"fault": "503"})
        assert (await client.delete("/admin/faults")).json()["queued"] == []
        assert (await client.post("/admin/faults", json={"fault": "nonsense"})).status_code == 400
        page = (await client.get("/metrics")).text
    assert statuses == [503, 503, 429, 200]
    assert done == {"503": 2, "429": 1}
    assert 'quarterdeck_simulator_faults_total{model_name="simulated",engine="0",kind="503"} 2.0' in page


def test_chance_repeats() -> None:
    config = SimulatorConfig(failure_injection_rate=25, failure_types=["429", "cut=3"])

    def drawn() -> list[set[str]]:
        book = FaultInjector(5)
        return [set(book.draw(None, config)) for _ in range(400)]

    first = drawn()
    assert first == drawn()
    assert 60 < sum(map(bool, first)) < 140
    assert {kind for kinds in first for kind in kinds} == {"429", "cut"}
    always = SimulatorConfig(failure_injection_rate=100)
    assert all(FaultInjector(0).draw(None, always).keys() <= KINDS for _ in range(20))


async def test_an_unknown_fault_is_told() -> None:
    answer = await ask("sink")
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "x-fault")


async def test_other_routes_have_faults_too() -> None:
    async with http(create_app(SimulatorConfig(task="any"))) as client:
        for path, body in (("/v1/embeddings", {"input": "x"}), ("/tokenize", {"prompt": "x"}), ("/v1/score", {})):
            assert (await client.post(path, json=body, headers={"x-fault": "502"})).status_code == 502
