"""A real Prometheus scrapes the platform under load and faults: every panel and every rule gets an answer with data."""

import asyncio
import contextlib
import math
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from observability.dashboards import DASHBOARDS, OPERATOR
from observability.ray_dashboard import RAY
from observability.rules import ALERTS, RECORDINGS, alert_rules, recording_rules
from tests.faults.client import Shape, ask
from tests.faults.stack import FIXED, KEPT, Key, Stack, mixed, until
from tests.faults.traffic import Traffic
from tests.prometheus import Prometheus
from tests.telemetry.otlp_sink import OTLPSink

from quarterdeck.accounting.redis_keys import stream_key
from quarterdeck.net.redis import Redis
from quarterdeck.settings.limits import Budget, Limits

pytestmark = pytest.mark.faults


@contextlib.asynccontextmanager
async def scraping(stack: Stack, folder: Path) -> AsyncIterator[Prometheus]:
    rules = []
    for name, text in (("recording.yaml", recording_rules()), ("alerts.yaml", alert_rules())):
        made = yaml.safe_load(text)
        for group in made["groups"]:
            group.pop("interval", None)  # that of the test
        (folder / name).write_text(yaml.safe_dump(made))
        rules.append(folder / name)
    jobs = {
        "quarterdeck-gateway": [f"127.0.0.1:{stack.gateway.port}"],
        "quarterdeck-worker": [f"127.0.0.1:{stack.worker.port}"],
        "vllm": [f"127.0.0.1:{engine.port}" for engine in (stack.a, stack.b)],
    }
    server = Prometheus(folder, jobs, rules)
    await stack.start(server)
    try:
        yield server
    finally:
        server.stop()


def queuing(stack: Stack) -> str:
    """The stack's configuration with a queue, and a model that runs one request at a time."""
    made: dict[str, Any] = yaml.safe_load(stack.configuration()) | {"queue": {"max_waiting": 20}}
    for model in made["models"]:
        if model["name"] == FIXED:
            for endpoint in model["endpoints"]:
                endpoint["max_running"] = 1
    return yaml.safe_dump(made)


async def all_kinds(stack: Stack, keys: dict[str, Key]) -> None:
    """Requests of every outcome once: refused, unknown, cached, cancelled, failed."""
    chat = Shape("chat")
    async with contextlib.AsyncExitStack() as entered:
        clients = {name: await entered.enter_async_context(stack.client(key)) for name, key in keys.items()}
        for name in ("limited", "spent", "warned"):
            for _ in range(3):
                await ask(clients[name], chat, "mixed-two")
        unknown = await entered.enter_async_context(httpx.AsyncClient(base_url=stack.gateway.url))
        await unknown.get("/v1/models", headers={"authorization": "Bearer sk-qd-unknown"})
        question: dict[str, Any] = {"messages": [{"role": "user", "content": "the same question"}]}
        for _ in range(3):
            await ask(clients["free"], chat, KEPT, **question)
        await ask(clients["free"], Shape("chat", stream=True, max_tokens=200), "mixed-two", leaves_after=3)
        await stack.fault(stack.a, "500")
        await ask(clients["free"], chat, "mixed-one")


@contextlib.asynccontextmanager
async def waiting(client: httpx.AsyncClient) -> AsyncIterator[None]:
    """Six callers of a model that runs two requests at a time."""

    async def call() -> None:
        while True:
            await ask(client, Shape("chat"), FIXED)

    callers = [asyncio.create_task(call()) for _ in range(6)]
    try:
        yield
    finally:
        for caller in callers:
            caller.cancel()
        await asyncio.gather(*callers, return_exceptions=True)


async def test_every_panel_and_rule_has_data(stack: Stack, fault_sink: OTLPSink, tmp_path: Path) -> None:
    keys = {
        "free": await stack.key("observed"),
        "limited": await stack.key("observed, limited", Limits(requests_per_minute=1)),
        "spent": await stack.key("observed, spent", budget=Budget(amount=Decimal("0.0001"), period="total")),
        "warned": await stack.key(
            "observed, warned", budget=Budget(amount=Decimal("0.0001"), period="total", on_exhausted="warn")
        ),
    }
    await stack.configure(queuing(stack))
    async with scraping(stack, tmp_path) as prometheus, stack.client(keys["free"]) as client:
        redis = Redis(stack.redis_url)
        try:
            await redis.call("XADD", stream_key("default"), "*", "record", "no record")
        finally:
            await redis.close()
        missing: list[str] = []

        def is_complete() -> bool:
            missing[:] = _without_data(prometheus)
            return not missing

        async with Traffic(client, mixed, rate=10), waiting(client):
            for _ in range(3):  # a rate needs two samples of a series
                await all_kinds(stack, keys)
                await asyncio.sleep(1)
            await until(is_complete, seconds=60, what=lambda: f"without data: {missing}")
        unhealthy = [rule["name"] for rule in prometheus.rules() if rule["health"] != "ok"]
        assert not unhealthy
        assert len(prometheus.rules()) == len(RECORDINGS) + len(ALERTS)


def _without_data(prometheus: Prometheus) -> list[str]:
    """Titles of panels and names of recordings whose queries return nothing, or no number. Left out: the operator's
    dashboard, as no operator runs outside a cluster, and Ray's, which has a test with a real Ray."""
    boards = [board for board in DASHBOARDS.values() if board not in (OPERATOR, RAY)]
    asked = [
        (f"{board.title}: {panel.title}", query.expr.replace("$__rate_interval", "1m"))
        for board in boards
        for panel in board.panels
        for query in panel.queries
    ]
    for board in boards:
        for variable in board.variables:
            asked = [(title, expr.replace(f"${variable.name}", ".*")) for title, expr in asked]
    asked += [(each.record, each.record) for each in RECORDINGS]
    return [title for title, expr in asked if not any(map(_is_number, prometheus.query(expr)))]


def _is_number(series: dict[str, Any]) -> bool:
    return not math.isnan(float(series["value"][1]))
