"""The routes of probes and scrapers."""

from tests.gateway.fakes import Client, parts

from quarterdeck.gateway.app import create_app
from quarterdeck.telemetry.metrics import HELD_SECONDS


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
    assert b'quarterdeck_http_requests_total{route="/healthz",http_status="200"} 1\n' in answer.body


async def test_metrics_are_rendered_once_a_second_however_often_they_are_scraped() -> None:
    made = parts()
    app = create_app(made)
    renders = []
    render = made.metrics.render
    made.metrics.render = lambda: renders.append(1) or render()  # type: ignore[method-assign,func-returns-value]
    answers = [await Client(app, key=None).get("/metrics") for _ in range(50)]
    assert len(renders) <= 2, "the test may take longer than a second"
    made.metrics._held_at -= HELD_SECONDS
    later = await Client(app, key=None).get("/metrics")
    assert b'route="/metrics"' in later.body and answers[0].body != later.body


async def test_a_head_request_is_answered() -> None:
    for path in ("/healthz", "/readyz", "/metrics"):
        assert (await Client(create_app(parts()), key=None).request("HEAD", path)).status == 200
