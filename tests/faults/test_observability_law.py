"""Thousands of mixed requests to two gateways: every book of the platform has the same sums.

Ledger, traces as Langfuse reads them, OpenAI's usage API, `/admin/usage`, Prometheus' counters, budgets in Redis, the
request log and stored contents are compared, to the token and to the last decimal.
"""

import asyncio
import contextlib
import json
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest
from tests.faults import books, ledger_check, phoenix_check, totals
from tests.faults.budgeted import AWAY, LIMITED, SHORT
from tests.faults.client import Answer, ask
from tests.faults.engine_list import FakeEngineList
from tests.faults.mixed_requests import LABEL, PROMPT, USE, VERSION, Caller, send
from tests.faults.observed import Platform
from tests.faults.random_faults import FAULTS, MAY_BE
from tests.faults.stack import ORG, Stack, until
from tests.phoenix import PhoenixProcess
from tests.platform import SimulatorProcess
from tests.prometheus import Prometheus
from tests.servers import PostgresServer, RedisServer
from tests.telemetry.otlp_sink import OTLPSink, ReceivedSpan

from quarterdeck.accounting.layouts import read_money
from quarterdeck.net.redis import Redis
from quarterdeck.record import RequestRecord

pytestmark = [pytest.mark.faults, pytest.mark.timeout(3000)]

REDIS_DATABASE = 2
BUDGET = {"amount": "10000", "period": "total"}
NEW = "404 prompt_not_found"
"""At a gateway that does not know the prompt yet."""
REFUSED = {"404 model_not_found", "400 invalid_prompt_variables", "408 request_timeout", NEW}
"""Before admission. A busy machine may take more than the three seconds that a body has here."""


@pytest.fixture
async def new_database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """SQLite, or PostgreSQL where the test's parameter says so."""
    if request.param == "sqlite":
        return f"sqlite+aiosqlite:///{tmp_path}/law.db"
    server: PostgresServer = request.getfixturevalue("postgres_server")
    connection = await asyncpg.connect(server.dsn())
    await connection.execute("DROP DATABASE IF EXISTS observability_law")
    await connection.execute("CREATE DATABASE observability_law TEMPLATE template0")
    await connection.close()
    return server.url("observability_law")


@pytest.fixture
def sink() -> Iterator[OTLPSink]:
    made = OTLPSink().start()
    yield made
    made.stop()


@pytest.fixture
def phoenix(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[PhoenixProcess | None]:
    """None, unless the test asks for it."""
    if not getattr(request, "param", False):
        yield None
        return
    made = PhoenixProcess(tmp_path)
    made.launch()  # it starts while the platform does
    yield made
    made.stop()


@pytest.fixture
async def platform(
    tmp_path: Path,
    new_database: str,
    sink: OTLPSink,
    phoenix: PhoenixProcess | None,
    fault_redis: RedisServer,
    fault_engines: Mapping[str, SimulatorProcess],
    fault_engine_list: FakeEngineList,
) -> AsyncIterator[Platform]:
    stack = Stack(
        tmp_path,
        fault_redis,
        fault_engines,
        fault_engine_list,
        new_database,
        index=REDIS_DATABASE,
        environ={**sink.environment, **({"PHOENIX_COLLECTOR_ENDPOINT": phoenix.url} if phoenix else {})},
    )
    async with contextlib.AsyncExitStack() as entered:
        entered.callback(stack.stop)
        await _empty(stack)
        await stack.whole()
        second = stack.another_gateway("second")
        entered.callback(second.stop)
        await stack.start(second)
        ports = (stack.gateway.port, second.port)
        prometheus = Prometheus(tmp_path, {"quarterdeck-gateway": [f"127.0.0.1:{port}" for port in ports]}, [])
        entered.callback(prometheus.stop)
        await stack.start(prometheus)
        admin = await entered.enter_async_context(stack.client(await stack.key("admin", is_admin=True)))
        yield Platform(stack, second, sink, prometheus, phoenix, admin)


async def _empty(stack: Stack) -> None:
    if stack.redis.process is None:
        await stack.start(stack.redis)
    redis = Redis(stack.redis_url)
    try:
        await redis.call("FLUSHDB")
    finally:
        await redis.close()


@pytest.mark.parametrize("new_database", ["sqlite"], indirect=True)
async def test_all_books_of_mixed_requests_agree(platform: Platform) -> None:
    await _law(platform, 250)


@pytest.mark.long
@pytest.mark.parametrize(
    ("new_database", "phoenix"),
    [("sqlite", True), ("postgres", False)],
    indirect=True,
    ids=["sqlite-phoenix", "postgres"],
)
async def test_all_books_of_ten_thousand_mixed_requests_agree(platform: Platform) -> None:
    await _law(platform, 10_000)


async def _law(platform: Platform, count: int) -> None:
    stack, started = platform.stack, int(time.time())
    chance = random.Random(13)
    callers = await _callers(platform)
    await _canary(platform, callers[0])
    if platform.phoenix is not None:
        await phoenix_check.priced(platform, callers[0])
    async with httpx.AsyncClient() as client:
        for engine in (stack.a, stack.b):
            config = {"failure-injection-rate": 12, "failure-types": FAULTS, "inter-token-latency": "1ms"}
            (await client.post(engine.url + "/admin/config", json=config)).raise_for_status()
    await send(chance, callers, count // 2)
    stack.worker.kill()  # entries that it held are delivered again
    await stack.start(stack.worker)
    await send(chance, callers, count - count // 2)
    await stack.all_settled(seconds=180)
    for caller in callers:
        await caller.close()

    rows = await _checked_rows(platform, callers)
    expected = books.of_rows(rows)
    spans = await _spans(platform, rows)
    assert books.of_spans(spans) == expected
    _check_links(rows, spans)
    assert await books.of_usage_api(platform.admin, started) == expected
    assert await books.of_usage_api(platform.admin, started, bucket_width="1m", limit=2) == expected
    assert await books.of_admin_usage(platform.admin, started) == expected
    await _check_counters(platform, rows)
    await _check_budgets(platform, callers, rows)
    await _check_log(platform, callers, rows)
    if platform.phoenix is not None:
        await phoenix_check.check(platform, rows)
    _say(rows)


async def _callers(platform: Platform) -> list[Caller]:
    for team in ("red", "blue"):
        await platform.post("/admin/teams", {"id": team, "budget": BUDGET})
    return [
        await platform.caller("red off", "red", content="off", share=6),
        await platform.caller("red full", "red", content="full", share=4, budget=BUDGET),
        await platform.caller("blue hashed", "blue", content="hashed", share=2, budget=BUDGET),
        await platform.caller("blue off", "blue", content="off", share=5, budget=BUDGET),
        await platform.caller("blue limited", "blue", content="off", share=1, limits={"requests_per_minute": 20}),
    ]


async def _canary(platform: Platform, caller: Caller) -> None:
    """A prompt with two versions that share a label, known to both gateways."""
    first = {"messages": [{"role": "system", "content": "Greet {{ who }}."}], **VERSION}
    second = {"messages": [{"role": "system", "content": "Greet {{ who }} at length, and go."}], **VERSION, "base": 1}
    path = f"/v1/prompts/{(await platform.post('/v1/prompts', {'name': PROMPT, **first}))['id']}"
    await platform.post(f"{path}/versions", second)
    split = [{"version": 1, "weight": 80}, {"version": 2, "weight": 20}]
    await platform.post(f"{path}/labels/{LABEL}", {"split": split})
    for client in caller.clients:

        async def is_known(client: httpx.AsyncClient = client) -> bool:
            caller.answers.append(await ask(client, SHORT, "mixed-two", **USE))
            return caller.answers[-1].outcome == "ok"

        await until(is_known)


async def _checked_rows(platform: Platform, callers: Sequence[Caller]) -> list[RequestRecord]:
    """The ledger's rows, after each was compared with its answer."""
    all_rows: list[RequestRecord] = []
    for caller in callers:
        rows = await platform.stack.rows(caller.key)
        by_tag = {row.user or "": row for row in rows}
        plain, special = [], set()
        for answer in caller.answers:
            row = by_tag.get(answer.tag)
            if answer.outcome in REFUSED:
                special.add(answer.tag)
            elif answer.outcome == "left":
                assert row is not None and row.status in ("cancelled", "ok", "error"), (answer, row)
                assert row.output_tokens >= answer.pieces or row.usage_source == "estimated", (answer, row)
                assert row.cost == ledger_check.price_of(row), (answer, row)
                special.add(answer.tag)
            elif answer.headers.get("x-cache") == "hit":
                assert row is not None and row.cache == "hit" and answer.outcome == "ok", (answer, row)
                assert not (row.cost or row.input_tokens or row.output_tokens) and row.saved > 0, row
                special.add(answer.tag)
            else:
                assert answer.outcome in MAY_BE | {AWAY, LIMITED}, answer
                assert row is None or row.cache != "hit", (answer, row)
                plain.append(answer)
            if row is not None:
                _check_version(answer, row)
        ledger_check.check(plain, [row for row in rows if row.user not in special], counters_fail=True)
        assert all(row.team == caller.team and row.content == caller.content for row in rows)
        all_rows += rows
    assert len({row.id for row in all_rows}) == len(all_rows)
    return all_rows


def _check_version(answer: Answer, row: RequestRecord) -> None:
    stated = answer.headers.get("x-quarterdeck-prompt")
    assert stated == (f"{row.prompt}@{row.prompt_version}" if row.prompt else None), (answer, row)


async def _spans(platform: Platform, rows: Sequence[RequestRecord]) -> dict[str, ReceivedSpan]:
    """All spans by id, once each row has its trace and nothing waits."""
    traces = {row.trace_id for row in rows}

    def have_come(sink: OTLPSink) -> bool:
        return traces <= {span.trace_id for span in sink.spans}

    await asyncio.to_thread(platform.sink.wait_for, have_come, 120)
    stack = platform.stack
    await until(lambda: stack.metric("quarterdeck_traces_waiting_records", stack.worker, sink="otlp") == 0, seconds=60)
    assert platform.sink.complaints == []
    spans = {span.span_id: span for span in platform.sink.spans}
    assert {span.trace_id for span in spans.values()} == traces
    return spans


def _check_links(rows: Sequence[RequestRecord], spans: Mapping[str, ReceivedSpan]) -> None:
    """Each call's prompt, user and content are its row's."""
    calls = {s.trace_id: s for s in spans.values() if s.observation.type in ("GENERATION", "EMBEDDING")}
    for row in rows:
        call = calls[row.trace_id].observation
        assert call.prompt == ((row.prompt, int(row.prompt_version or 0)) if row.prompt else None), (call, row)
        assert (call.user_id, call.metadata["request_id"]) == (row.user, row.id)
        has_input = "langfuse.observation.input" in calls[row.trace_id].attributes
        if row.content == "off":
            assert not has_input, row


async def _check_counters(platform: Platform, rows: Sequence[RequestRecord]) -> None:
    expected = books.expected_counters(rows)
    found: dict[str, Any] = {}

    def is_scraped() -> bool:
        found.update(books.of_counters(platform.prometheus))
        return found == expected

    def difference() -> str:
        return str({name: (found[name], expected[name]) for name in expected if found[name] != expected[name]})

    await until(is_scraped, seconds=60, what=difference)


async def _check_budgets(platform: Platform, callers: Sequence[Caller], rows: Sequence[RequestRecord]) -> None:
    redis = Redis(platform.stack.redis_url)
    try:
        scopes = {f"team:{team}": [row for row in rows if row.team == team] for team in ("red", "blue")}
        for caller in callers:
            if caller.name not in ("red off", "blue limited"):
                scopes[f"key:{caller.key.id}"] = [row for row in rows if row.key == caller.key.id]
        for scope, its in scopes.items():
            money = await read_money(redis, ORG, scope)
            assert money is not None and not money.is_cold and money.held == 0, (scope, money)
            assert money.spent == totals.rounded(its), scope
    finally:
        await redis.close()


async def _check_log(platform: Platform, callers: Sequence[Caller], rows: Sequence[RequestRecord]) -> None:
    """The request log has each row once; contents exist for those, and only those, whose key asks for them."""
    found = {each["id"]: each for each in await books.logged(platform.admin, content=True)}
    assert found.keys() == {row.id for row in rows}
    answers = {answer.tag: answer for caller in callers for answer in caller.answers}
    without = [row for row in rows if row.content != "off" and found[row.id]["content_details"] is None]
    assert not without, f"{len(without)} rows without content: " + "\n".join(map(repr, without[:5]))
    for row in rows:
        each = found[row.id]
        assert (each["status"], each["cost"], each["output_tokens"]) == (
            row.status,
            f"{row.cost:f}".rstrip("0").rstrip(".") or "0",
            row.output_tokens,
        )
        _check_content(row, each, answers[row.user or ""])
    for row in random.Random(1).sample(list(rows), 10):
        (one,) = await books.logged(platform.admin, user=row.user)
        assert one["id"] == row.id
    stack = platform.stack
    kept = sum(row.content != "off" for row in rows)
    # The worker was restarted, and a record may be delivered twice.
    assert 0 < stack.metric("quarterdeck_contents_total", stack.worker, outcome="stored") <= kept
    assert stack.metric("quarterdeck_contents_total", stack.worker, outcome="failed") == 0


def _check_content(row: RequestRecord, each: Mapping[str, Any], answer: Answer) -> None:
    details = each["content_details"]
    if row.content == "off":
        assert (each["input"], each["output"], details) == (None, None, None), row
        return
    assert details is not None and details["level"] == row.content and details["input_bytes"] > 0, (row, each)
    if row.content == "hashed":
        assert (each["input"], each["output"]) == (None, None) and len(details["input_sha256"]) == 64
        return
    assert each["input"], row
    if row.operation == "embeddings":
        assert each["output"] is None
    elif answer.outcome in ("ok", "left"):
        (choice,) = each["output"]
        text = choice["text"] if "text" in choice else choice["message"].get("content", "")
        assert text.startswith(answer.text) if answer.outcome == "left" else text == answer.text, (row, each, answer)
    if answer.model != "kept-two" and row.operation != "embeddings":
        assert answer.tag in json.dumps(each["input"]), (row, each)


def _say(rows: Sequence[RequestRecord]) -> None:
    kinds = Counter(str(row.status) for row in rows)
    kinds.update({"resumed": sum(row.resumed for row in rows), "hits": sum(row.cache == "hit" for row in rows)})
    kinds.update(f"{row.prompt}@{row.prompt_version}" for row in rows if row.prompt)
    kinds.update(f"content {row.content}" for row in rows)
    print(f"{len(rows)} requests, ${totals.total(rows)}: {dict(kinds)}")
