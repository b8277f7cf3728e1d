"""The routes of probes and scrapers."""

from tests.gateway.fakes import Client, parts

from quarterdeck.gateway.app import create_app


async def test_health_asks_nobody() -> None:
    answer = await Client(create_app(parts()), key=None).get("/healthz")
    assert (answer.status, answer.json) == (200, {"status": "ok"})


async def test_readiness_tells_part_by_part() -> None:
    answer = await Client(create_app(parts()), key=None).get("/readyz")
    assert answer.status == 200
    assert answer.json == {
        "status": "degraded",
        "parts": {"redis": "ready", "database": "ready", "config": "ready"},
        "models": {
            "chat": {"state": "ready", "task": "generate"},
            "org/emb": {"state": "starting", "task": "embed"},
            "pirate": {"state": "unavailable", "detail": "no endpoint answers for it"},
        },
    }


async def test_metrics_are_prometheus_text() -> None:
    made = parts()
    app = create_app(made)
    await Client(app, key=None).get("/healthz")
    answer = await Client(app, key=None).get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert b'quarterdeck_http_requests_total{http_status="200",route="/healthz"} 1.0' in answer.body


async def test_a_head_request_is_answered() -> None:
    for path in ("/healthz", "/readyz", "/metrics"):
        assert (await Client(create_app(parts()), key=None).request("HEAD", path)).status == 200
