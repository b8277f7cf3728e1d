"""The platform's processes on a disk that is full: what they say, that no record is lost, and that they recover."""

import asyncio
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.faults.client import Shape, ask
from tests.faults.conftest import Engines
from tests.faults.engine_list import FakeEngineList
from tests.faults.stack import Stack, signal_to, until
from tests.servers import RedisServer
from tests.small_disk import SmallDisk

pytestmark = [pytest.mark.faults, pytest.mark.long]

FULL = "503 records_unavailable"
CHAT, STREAM = Shape("chat", max_tokens=1), Shape("chat", stream=True, max_tokens=500)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[SmallDisk]:
    disk = SmallDisk(tmp_path / "disk", 2000)
    yield disk
    disk.close()


def a_stack(
    folder: Path, redis: RedisServer, engines: Engines, door: FakeEngineList, *, state: Path, database: Path
) -> Stack:
    made = Stack(folder, redis, engines, door, f"sqlite+aiosqlite:///{database}/quarterdeck.db", index=3)
    for part in (made.gateway, made.worker):
        part._environ = dict(part._environ) | {"QUARTERDECK_STATE": str(state)}
    return made


def status_of(stack: Stack) -> tuple[int, str]:
    """`quarterdeck status` from a shell."""
    told = subprocess.run(
        [sys.executable, "-m", "quarterdeck.cli", "status"],
        env=os.environ
        | {
            "QUARTERDECK_STATE": stack.gateway._environ["QUARTERDECK_STATE"],
            "QUARTERDECK_PORT": str(stack.gateway.port),
            "QUARTERDECK_WORKER_PORT": str(stack.worker.port),
            "QUARTERDECK_ENGINE_URL": stack.door.url,
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return told.returncode, told.stdout + told.stderr


async def test_a_gateway_refuses_what_it_can_not_record_and_loses_nothing(
    tmp_path: Path,
    small_disk: SmallDisk,
    fault_redis: RedisServer,
    fault_engines: Engines,
    fault_engine_list: FakeEngineList,
) -> None:
    stack = a_stack(tmp_path, fault_redis, fault_engines, fault_engine_list, state=small_disk.folder, database=tmp_path)
    await stack.whole()
    try:
        key = await stack.key("disk")
        async with stack.client(key) as client:
            assert (await ask(client, CHAT, "mixed-two")).outcome == "ok"
            begun = [asyncio.Event() for _ in range(5)]
            running = [asyncio.create_task(ask(client, STREAM, "mixed-two", begun=each)) for each in begun]
            await asyncio.gather(*[each.wait() for each in begun])
            small_disk.fill()
            stack.redis.kill()
            answers = await asyncio.gather(*running)
            assert {answer.outcome for answer in answers} == {"ok"}
            refused = await asyncio.gather(*[ask(client, CHAT, "mixed-two") for _ in range(20)])
            assert {answer.outcome for answer in refused} == {FULL}
            status, report = stack.gateway.get("/readyz")
            assert (status, report["parts"]["spool"].partition(":")[0]) == (503, "full")
            await until(lambda: stack.metric("quarterdeck_spool_write_failures_total") >= 1)
            assert any("spool cannot be written" in line["message"] for line in stack.gateway.log_lines())
            code, text = status_of(stack)
            assert (code, "gateway: spool: full" in text) == (1, True), text
            small_disk.free()
            await stack.start(stack.redis)
            await until(lambda: stack.gateway.get("/readyz")[0] == 200)
            answers = list(answers)
            answers.append(await ask(client, CHAT, "mixed-two"))
            assert answers[-1].outcome == "ok"
            await stack.all_settled(seconds=60)
        rows = {row.user for row in await stack.rows(key)}
        assert {answer.tag for answer in answers} <= rows
        assert not {answer.tag for answer in refused} & rows
    finally:
        stack.stop()


@pytest.mark.parametrize("space_returns", [True, False])
async def test_records_that_are_in_memory_only_are_in_its_metrics_and_in_its_exit_status(
    tmp_path: Path,
    small_disk: SmallDisk,
    fault_redis: RedisServer,
    fault_engines: Engines,
    fault_engine_list: FakeEngineList,
    space_returns: bool,
) -> None:
    """A gateway that started on a full disk, so that it has no reserved space."""
    stack = a_stack(tmp_path, fault_redis, fault_engines, fault_engine_list, state=small_disk.folder, database=tmp_path)
    small_disk.fill()
    await stack.whole()
    try:
        assert any("no space could be reserved" in line["message"] for line in stack.gateway.log_lines())
        key = await stack.key("memory")
        async with stack.client(key) as client:
            begun = [asyncio.Event() for _ in range(5)]
            running = [asyncio.create_task(ask(client, STREAM, "mixed-two", begun=each)) for each in begun]
            await asyncio.gather(*[each.wait() for each in begun])
            stack.redis.kill()
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)
            await until(lambda: stack.metric("quarterdeck_spool_waiting_records") >= 5)
            await until(lambda: stack.gateway.get("/readyz")[0] == 503)
            if space_returns:
                small_disk.free()
            signal_to(stack.gateway, signal.SIGTERM)
            code = await stack.ended(stack.gateway)
            assert code == (0 if space_returns else 1)
            if not space_returns:
                lost = [line for line in stack.gateway.log_lines() if "records are lost" in line["message"]]
                assert lost[0]["level"].lower() == "critical"
                assert lost[0]["message"].startswith("5 ")
                return
            await stack.start(stack.redis)
            await stack.start(stack.gateway)
            await stack.all_settled(seconds=60)
        assert len(await stack.rows(key)) == 5
    finally:
        await stack.start(stack.redis) if stack.redis.process is None else None
        stack.stop()


async def test_a_worker_keeps_records_that_its_database_has_no_room_for(
    tmp_path: Path,
    small_disk: SmallDisk,
    fault_redis: RedisServer,
    fault_engines: Engines,
    fault_engine_list: FakeEngineList,
) -> None:
    stack = a_stack(
        tmp_path, fault_redis, fault_engines, fault_engine_list, state=tmp_path / "state", database=small_disk.folder
    )
    await stack.whole()
    try:
        key = await stack.key("ledger")
        async with stack.client(key) as client:
            assert (await ask(client, CHAT, "mixed-two")).outcome == "ok"
            await stack.all_settled()
            small_disk.fill()
            answers = [
                answer
                for _ in range(10)
                for answer in await asyncio.gather(*[ask(client, CHAT, "mixed-two") for _ in range(30)])
            ]
            assert {answer.outcome for answer in answers} == {"ok"}
            await until(lambda: "full" in str(stack.worker.get("/readyz")[1]["parts"]), what=stack.worker.log)
            _, text = status_of(stack)
            assert "worker: ledger: The database is not available: database or disk is full" in text
            assert re.search(r"^worker +degraded", text, re.MULTILINE)
            await until(lambda: stack.metric("quarterdeck_database_up", stack.worker) == 0)
            small_disk.free()
            await stack.all_settled(seconds=60)
            await until(lambda: "full" not in str(stack.worker.get("/readyz")[1]["parts"]))
            assert stack.worker.log.read_text().count("the ledger: ") == 2  # once, and that it has recovered
            assert stack.worker.log.read_text().count("the database is not available") == 1
        rows = {row.user for row in await stack.rows(key)}
        assert {answer.tag for answer in answers} <= rows
        assert stack.metric("quarterdeck_ledger_dead_records_total", stack.worker) == 0
    finally:
        stack.stop()
