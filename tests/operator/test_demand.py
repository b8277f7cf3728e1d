"""Demand of the gateways, asked over HTTP."""

import asyncio
import json
from typing import Any

import httpx

from quarterdeck.operator.demand import STALE_SECONDS, DemandReader, gateway_addresses
from quarterdeck.operator.scaling import Demand


def endpoint_slice(*endpoints: dict[str, Any], service: str = "gw") -> dict[str, Any]:
    return {
        "kind": "EndpointSlice",
        "metadata": {"name": "s", "labels": {"kubernetes.io/service-name": service}},
        "ports": [{"name": "metrics", "port": 9}, {"name": "http", "port": 8000}],
        "endpoints": list(endpoints),
    }


def endpoint(name: str, address: str, **conditions: bool) -> dict[str, Any]:
    return {"targetRef": {"name": name}, "addresses": [address], "conditions": conditions}


def test_gateways_are_found_by_their_service_and_terminating_ones_are_asked_too() -> None:
    slices = [
        endpoint_slice(
            endpoint("a", "10.0.0.1", ready=True),
            endpoint("b", "fd00::1", ready=False, serving=True, terminating=True),
            endpoint("c", "10.0.0.3", ready=False, serving=False),
        ),
        endpoint_slice(endpoint("x", "10.0.0.9", ready=True), service="other"),
    ]
    assert gateway_addresses(slices, "gw", "http") == {"a": "http://10.0.0.1:8000", "b": "http://[fd00::1]:8000"}


class Gateways:
    """Answers of gateways by host."""

    def __init__(self) -> None:
        self.answers: dict[str, Any] = {}
        self.seen: list[httpx.Request] = []
        self.now = 0.0
        self.read = asyncio.Event()
        transport = httpx.MockTransport(self._answer)
        self.client = httpx.AsyncClient(transport=transport)
        self.reader = DemandReader(self.client, "secret", self.read.set, pause_seconds=0.01, clock=lambda: self.now)

    async def follow(self, **answers: Any) -> None:
        self.answers = answers
        self.reader.follow({name: f"http://{name}:8000" for name in answers})
        for gateway in self.reader._gateways.values():
            try:
                await self.reader._ask(gateway)
            except (httpx.HTTPError, ValueError):
                continue

    def _answer(self, request: httpx.Request) -> httpx.Response:
        self.seen.append(request)
        found = self.answers[request.url.host]
        return found if isinstance(found, httpx.Response) else httpx.Response(200, text=json.dumps(found))


def models(**counts: dict[str, int]) -> dict[str, Any]:
    return {"version": 3, "models": {name.replace("_at_", "@"): each for name, each in counts.items()}}


async def test_demand_is_summed_over_gateways_revisions_and_adapters() -> None:
    gateways = Gateways()
    await gateways.follow(
        a=models(chat={"in_flight": 3, "waiting": 1}, lora={"in_flight": 2}),
        b=models(chat_at_r1={"in_flight": 4}, unknown={"in_flight": 9}),
    )
    found = gateways.reader.by_owner({"chat": "m", "lora": "m", "idle": "other"})
    gateways.reader.close()
    assert found == {"m": Demand(9, 1, True), "other": Demand(0, 0, True)}
    assert gateways.seen[0].headers["authorization"] == "Bearer secret"


async def test_without_an_answer_from_every_gateway_demand_is_incomplete() -> None:
    gateways = Gateways()
    assert not gateways.reader.is_complete  # there is none: nobody knows
    await gateways.follow(a=models(), b=httpx.Response(503))
    assert not gateways.reader.is_complete
    await gateways.follow(a=models())
    assert gateways.reader.is_complete
    gateways.now += STALE_SECONDS + 1
    assert not gateways.reader.is_complete
    gateways.reader.close()


async def test_answers_that_are_none_are_ignored() -> None:
    gateways = Gateways()
    await gateways.follow(a=models(chat={"in_flight": 1}), b=[1], c={"models": 7}, d=httpx.Response(200, text="x"))
    assert gateways.reader.by_owner({"chat": "m"})["m"] == Demand(1, 0, False)
    await gateways.follow(a={"models": {"chat": {"in_flight": "many", "waiting": -3}, "b": None}})
    assert gateways.reader.by_owner({"chat": "m"})["m"] == Demand(0, 0, True)
    gateways.reader.close()


async def test_a_gateway_is_asked_again_with_the_version_it_gave() -> None:
    gateways = Gateways()
    await gateways.follow(a=models())
    gateways.read.clear()
    await gateways.read.wait()
    gateways.reader.close()
    assert gateways.seen[-1].url.params["after"] == "3"
