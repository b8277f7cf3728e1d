"""Database unavailable: known keys are served, unknown ones get a retryable error, and no row is lost."""

import asyncio
import signal

import pytest
from tests.faults import ledger_check
from tests.faults.client import Shape, ask
from tests.faults.stack import Key, Stack, mixed, signal_to, until
from tests.faults.traffic import Traffic
from tests.servers import PostgresServer

pytestmark = pytest.mark.faults

SHORT = Shape("chat", max_tokens=3)
PATIENCE = 20.0
"""Seconds within which a request that requires a paused database is rejected; its timeout is five."""


async def test_without_a_database_known_keys_go_on_and_their_rows_come_later(
    postgres_stack: Stack, postgres_server: PostgresServer
) -> None:
    stack = postgres_stack
    key = await stack.key("database-stopped")
    async with (
        stack.client(key) as client,
        Traffic(client, mixed) as traffic,
        traffic.around("the database was stopped and came back"),
    ):
        await asyncio.to_thread(postgres_server.stop)
        await traffic.answered(25)
        assert (await stack.left())["stream"] >= 20, "records wait in Redis"
        assert stack.gateway.get("/readyz")[0] == 200, "it serves, and says what is away"
        assert stack.ready()["parts"]["database"] == "away"
        await stack.start(postgres_server)
    assert set(traffic.outcomes()) == {"ok"}
    assert traffic.slowest < 2.5
    await stack.all_settled(seconds=30)
    ledger_check.check(traffic.answers, await stack.rows(key))


@pytest.mark.parametrize("how", ["stopped", pytest.param("paused", marks=pytest.mark.long)])
async def test_a_key_that_nobody_can_look_up_is_not_called_wrong(
    postgres_stack: Stack, postgres_server: PostgresServer, how: str
) -> None:
    stack = postgres_stack
    fresh = await stack.key(f"unseen {how}")
    wrong = Key("", f"sk-qd-nobody-has-this-key-{how}")
    known = await stack.key(f"seen {how}")
    async with stack.client(fresh) as unseen, stack.client(wrong) as nobody, stack.client(known) as seen:
        assert (await ask(seen, SHORT, "mixed-two")).outcome == "ok"
        if how == "stopped":
            await asyncio.to_thread(postgres_server.stop)
        else:
            signal_to(postgres_server, signal.SIGSTOP, children=True)
        answers = await asyncio.gather(
            ask(unseen, SHORT, "mixed-two", deadline=PATIENCE), ask(nobody, SHORT, "mixed-two", deadline=PATIENCE)
        )
        assert {answer.outcome for answer in answers} == {"503 auth_unavailable"}
        assert all(answer.headers["retry-after"] == "1" for answer in answers)
        assert (await ask(seen, SHORT, "mixed-two")).outcome == "ok"
        if how == "stopped":
            await stack.start(postgres_server)
        else:
            signal_to(postgres_server, signal.SIGCONT, children=True)
        await until(lambda: stack.ready()["parts"]["database"] == "ready")
        assert (await ask(unseen, SHORT, "mixed-two")).outcome == "ok"
        assert (await ask(nobody, SHORT, "mixed-two")).outcome == "401 invalid_api_key"
    await stack.all_settled(seconds=30)


async def test_the_admin_api_says_that_the_database_is_away(
    postgres_stack: Stack, postgres_server: PostgresServer
) -> None:
    stack = postgres_stack
    admin = await stack.key("admin", is_admin=True)
    async with stack.client(admin) as client:
        assert (await client.get("/admin/keys")).status_code == 200
        await asyncio.to_thread(postgres_server.stop)
        refused = await client.get("/admin/keys")
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "database_unavailable")
        await stack.start(postgres_server)
        await until(lambda: stack.ready()["parts"]["database"] == "ready")
        assert (await client.get("/admin/keys")).status_code == 200
