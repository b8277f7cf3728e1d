"""Replicas that engine doors list are those in the Model's own worker pods."""

import httpx

from quarterdeck.operator.adapters.replicas import ray_replicas


def pod(name: str, address: str, kind: str) -> dict[str, object]:
    ready = {"type": "Ready", "status": "True"}
    labels = {"ray.io/node-type": kind}
    return {"metadata": {"name": name, "labels": labels}, "status": {"podIP": address, "conditions": [ready]}}


async def test_a_door_can_not_send_the_operator_elsewhere() -> None:
    urls = [
        "http://10.0.0.2:30000",
        "http://10.0.0.9:30000",
        "http://169.254.169.254/latest",
        "http://10.0.0.2:8265",
        "",
    ]
    rows = [{"id": str(at), "state": "ready", "url": url} for at, url in enumerate(urls)]
    transport = httpx.MockTransport(lambda _: httpx.Response(200, json={"endpoints": [*rows, "no row"]}))
    pods = [pod("head", "10.0.0.1", "head"), pod("worker", "10.0.0.2", "worker")]
    async with httpx.AsyncClient(transport=transport) as client:
        found = await ray_replicas(pods, client)
    assert found is not None and [each.url for each in found] == ["http://10.0.0.2:30000"]


async def test_a_door_that_answers_anything_is_silent() -> None:
    for answer in (b"[]", b"[" * 5000, b'{"endpoints": 1}', b"\xff"):
        transport = httpx.MockTransport(lambda _, answer=answer: httpx.Response(200, content=answer))
        async with httpx.AsyncClient(transport=transport) as client:
            assert await ray_replicas([pod("head", "10.0.0.1", "head")], client) is None
