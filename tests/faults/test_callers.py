"""Clients that disconnect or do not read: the engine stops, memory is bounded, and received tokens are billed."""

import asyncio
import contextlib
import json
import socket
from collections.abc import Iterator

import httpx
import pytest
from tests.faults import ledger_check
from tests.faults.client import Answer, Shape, ask
from tests.faults.stack import Key, Stack, resident_mib, until

pytestmark = pytest.mark.faults

ENDLESS = Shape("chat", stream=True, max_tokens=3000)
"""A stream of twelve seconds if not stopped."""


async def test_a_caller_who_hangs_up_stops_the_engine_and_pays_for_what_came(stack: Stack) -> None:
    key = await stack.key("hung-up")
    async with stack.client(key) as client:
        asking = await _begun(client, ENDLESS)
        assert stack.a.running() + stack.b.running() == 5
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)
        await until(lambda: stack.a.running() + stack.b.running() == 0, seconds=2)
    await stack.all_settled()
    for row in await stack.rows(key):
        assert (row.status, row.http_status, row.usage_source) == ("cancelled", 200, "counted"), row
        assert 0 < row.output_tokens < 3000 and row.input_tokens > 0
        assert row.cost == ledger_check.price_of(row)
    assert len(await stack.rows(key)) == 5


async def test_a_caller_who_hangs_up_before_the_first_token_pays_nothing(stack: Stack) -> None:
    key = await stack.key("hung-up-early")
    async with stack.client(key) as client:
        await stack.fault(stack.a, "slow=1h")
        asking = asyncio.create_task(ask(client, Shape("chat"), "mixed-one"))
        await until(lambda: stack.under_way() == 1)
        await until(lambda: stack.a.get("/load")[1]["server_load"] == 1)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        await until(lambda: stack.under_way() == 0, seconds=2)
    await stack.all_settled()
    (row,) = await stack.rows(key)
    assert (row.status, row.http_status, row.usage_source) == ("cancelled", 499, "none")
    assert (row.input_tokens, row.output_tokens) == (0, 0) and not row.cost


async def test_callers_who_read_nothing_cost_bounded_memory_and_are_hung_up_on(stack: Stack) -> None:
    """Each stream would be about nine megabytes."""
    key = await stack.key("slow-readers")
    count = 5
    async with stack.client(key) as client:
        assert (await ask(client, Shape("chat", stream=True), "mixed-one")).outcome == "ok"
        before = most = resident_mib(stack.gateway)
        with contextlib.ExitStack() as readers:
            for _ in range(count):
                readers.enter_context(_unread(stack, key, n=30, max_tokens=1200))
            await until(lambda: stack.under_way() == count)
            assert (await ask(client, Shape("chat"), "mixed-two")).outcome == "ok", "others are served meanwhile"
            while stack.under_way():
                most = max(most, resident_mib(stack.gateway))
                await asyncio.sleep(0.1)
    assert most - before < 3 * count, f"{most - before:.0f} MiB for {count} streams that nobody reads"
    await until(lambda: stack.a.running() == 0, seconds=5)
    await stack.all_settled()
    rows = [row for row in await stack.rows(key) if row.user is None]
    assert len(rows) == count
    for row in rows:
        assert (row.status, row.usage_source) in (("cancelled", "counted"), ("cancelled", "estimated")), row
        assert row.output_tokens > 0 and row.cost > 0


@contextlib.contextmanager
def _unread(stack: Stack, key: Key, **fields: int) -> Iterator[None]:
    """A stream that is requested but never read, by a client with small buffers."""
    asked = {"model": "mixed-one", "stream": True, "ignore_eos": True, "messages": [{"role": "user", "content": "hi"}]}
    body = json.dumps(asked | fields).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key.secret}\r\n"
    head += f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    with socket.socket() as caller:
        caller.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        caller.connect(("127.0.0.1", stack.gateway.port))
        caller.sendall(head.encode() + body)
        yield


async def _begun(client: httpx.AsyncClient, shape: Shape, count: int = 5) -> list["asyncio.Task[Answer]"]:
    """Streams that have started."""
    begun = [asyncio.Event() for _ in range(count)]
    tasks = [asyncio.create_task(ask(client, shape, "mixed-two", begun=event)) for event in begun]
    for event in begun:
        await event.wait()
    return tasks
