"""The routes of probes and scrapers."""

from dataclasses import replace

import pytest
from tests.gateway.fakes import ADMIN, Client, parts

from quarterdeck.gateway.app import create_app
from quarterdeck.telemetry.metrics import HELD_SECONDS

TOKEN = "a-scrapers-token-of-some-length"


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


async def test_on_loopback_another_name_than_localhost_learns_only_whether_it_is_ready() -> None:
    app = create_app(replace(parts(), is_loopback=True))
    for host, is_shown in {"127.0.0.1:8000": 1, "localhost": 1, "[::1]:8000": 1, "evil.example": 0, "": 0}.items():
        client = Client(app, key=None)
        ready = await client.get("/readyz", headers=[("host", host)])
        metrics = await client.get("/metrics", headers=[("host", host)])
        assert ready.status == 200
        assert set(ready.json) == ({"status", "parts", "models"} if is_shown else {"status"})
        assert metrics.status == (200 if is_shown else 403)
        assert is_shown or metrics.json["error"]["code"] == "host_not_allowed"


async def test_elsewhere_any_name_is_a_service_s_name() -> None:
    client = Client(create_app(parts()), key=None)
    assert "models" in (await client.get("/readyz", headers=[("host", "gateway.svc")])).json
    assert (await client.get("/metrics", headers=[("host", "gateway.svc")])).status == 200


@pytest.mark.parametrize("key", [None, ADMIN, "wrong", TOKEN + "x", TOKEN[:-1]])
async def test_with_a_token_metrics_are_for_its_holder_alone(key: str | None) -> None:
    app = create_app(replace(parts(), metrics_token=TOKEN))
    answer = await Client(app, key).get("/metrics")
    assert (answer.status, answer.error["type"]) == (401, "authentication_error")
    assert (await Client(app, TOKEN).get("/metrics")).status == 200
    assert (await Client(app, key).get("/healthz")).status == 200


async def test_the_token_of_metrics_opens_nothing_else() -> None:
    app = create_app(replace(parts(), metrics_token=TOKEN))
    assert (await Client(app, TOKEN).request("GET", "/admin/keys")).status == 401
