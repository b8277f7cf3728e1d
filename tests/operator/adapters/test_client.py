"""The client, with the simulated engine and with what vLLM 0.29 answered (fixtures/adapter_answers.json)."""

import json
from pathlib import Path

import httpx
import pytest

from quarterdeck.kube.conditions import Reason
from quarterdeck.operator.adapters.client import AdapterClient, AdapterError, EngineUnreachableError
from quarterdeck.simulator import create_app

ANSWERS = json.loads((Path(__file__).parent.parent / "fixtures" / "adapter_answers.json").read_text())
REASONS = {
    "rank64": Reason.ADAPTER_RANK_TOO_LARGE,
    "otherbase": Reason.ADAPTER_MISMATCH,
    "othermods": Reason.ADAPTER_MISMATCH,
    "dora": Reason.ADAPTER_MISMATCH,
    "damaged": Reason.ADAPTER_MISMATCH,
    "noweights": Reason.ADAPTER_MISMATCH,
    "notjson": Reason.ADAPTER_MISMATCH,
    "empty": Reason.ADAPTER_NOT_FOUND,
    "missing": Reason.ADAPTER_NOT_FOUND,
}
URL = "http://engine"


def answering(status: int, body: str) -> AdapterClient:
    return AdapterClient(httpx.AsyncClient(transport=httpx.MockTransport(lambda _: httpx.Response(status, text=body))))


@pytest.fixture
def simulated() -> AdapterClient:
    return AdapterClient(httpx.AsyncClient(transport=httpx.ASGITransport(create_app())))


@pytest.mark.parametrize("name", sorted(REASONS))
async def test_a_refusal_has_its_reason_and_the_workers_words(name: str) -> None:
    with pytest.raises(AdapterError) as caught:
        await answering(ANSWERS[name]["status"], ANSWERS[name]["body"]).load(URL, "poet@0123456789", "/a")
    assert caught.value.reason == REASONS[name]
    assert "stack trace" not in caught.value.message and caught.value.message.endswith((".", "…"))


async def test_an_adapter_is_loaded_listed_probed_and_unloaded(simulated: AdapterClient) -> None:
    await simulated.load(URL, "poet@0123456789", "/a/poet")
    await simulated.load(URL, "poet@0123456789", "/a/poet")  # after an answer that was lost
    assert await simulated.loaded(URL) == {"poet@0123456789"}
    await simulated.probe(URL, "poet@0123456789")
    await simulated.unload(URL, "poet@0123456789")
    await simulated.unload(URL, "poet@0123456789")
    assert await simulated.loaded(URL) == set()


async def test_an_adapter_that_is_loaded_and_fails_its_probe(simulated: AdapterClient) -> None:
    await simulated.load(URL, "poet@0123456789", "/a/fail-probe")
    with pytest.raises(AdapterError) as caught:
        await simulated.probe(URL, "poet@0123456789")
    assert caught.value.reason == Reason.ADAPTER_PROBE_FAILED


async def test_an_engine_that_does_not_answer() -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("connection refused", request=request)

    client = AdapterClient(httpx.AsyncClient(transport=httpx.MockTransport(refuse)))
    for call in (
        client.load(URL, "a@0", "/a"),
        client.probe(URL, "a@0"),
        client.unload(URL, "a@0"),
        client.loaded(URL),
    ):
        with pytest.raises(EngineUnreachableError, match="connection refused"):
            await call


async def test_an_engine_without_the_route_and_one_that_answers_nonsense() -> None:
    with pytest.raises(AdapterError) as caught:
        await answering(404, '{"detail":"Not Found"}').load(URL, "a@0", "/a")
    assert caught.value.reason == Reason.ADAPTERS_DISABLED
    for body in ("", "[]", '{"data": 7}', '{"choices": []}', "<html>"):
        with pytest.raises(AdapterError):
            await answering(200, body).loaded(URL)
        with pytest.raises(AdapterError):
            await answering(200, body).probe(URL, "a@0")
