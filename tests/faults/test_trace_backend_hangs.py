"""A trace backend hangs under load, with time-outs ten times shorter: nothing grows, and only its own traces are lost.

Inputs are captured and incompressible, so that what waits for the backend passes its bound within seconds.
"""

import asyncio
import random
import threading
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from tests.faults.client import Answer, Shape, ask
from tests.faults.engine_list import FakeEngineList
from tests.faults.stack import ORG, Key, Stack, resident_mib, until
from tests.platform import SimulatorProcess
from tests.servers import RedisServer
from tests.telemetry.otlp_sink import OTLPSink

from quarterdeck.net.redis import Redis
from quarterdeck.record import RequestRecord
from quarterdeck.worker.streams import traces_key, traces_size_key

pytestmark = [pytest.mark.faults, pytest.mark.timeout(600)]

REDIS_DATABASE = 3
AT_ONCE = 16
WORDS = 2500
"""Of an input: some 10 KB, compressed."""
MIB = 2**20
MOST_MIB = 1
"""Of what waits for a sink. A round of load is half of it, so that a sink that takes traces loses none."""
ROUND = 50


class TracedStack(Stack):
    """A second sink and small bounds. `other` must be started."""

    other: OTLPSink

    def configuration(self, **gateway: Any) -> str:
        made = yaml.safe_load(super().configuration(**gateway))
        other = {"name": "other", "url": self.other.endpoint, "headers": dict(self.other.headers)}
        made["telemetry"] = {"sinks": [other], "max_waiting_mb": MOST_MIB}
        made["content"] = {"capture": "full"}
        return yaml.safe_dump(made)


@dataclass
class Hanging:
    stack: TracedStack
    hung: OTLPSink
    gate: threading.Event
    other: OTLPSink
    key: Key

    async def load(self, count: int) -> list[Answer]:
        """Send requests with long inputs and bounded concurrency."""
        left, answers = iter(range(count)), list[Answer]()

        async def one_after_another(client: httpx.AsyncClient) -> None:
            while next(left, None) is not None:
                words = " ".join("".join(random.choices("abcdefghijklmnopqrstuvwxyz", k=5)) for _ in range(WORDS))
                message = {"role": "user", "content": words}
                answers.append(
                    await ask(client, Shape("chat", max_tokens=3), "mixed-two", deadline=120, messages=[message])
                )

        async with self.stack.client(self.key) as client:
            await asyncio.gather(*(one_after_another(client) for _ in range(AT_ONCE)))
        return answers

    def count(self, name: str, **labels: str) -> int:
        """A counter of the worker."""
        return int(self.stack.metric(f"quarterdeck_traces_{name}_total", self.stack.worker, **labels))

    async def waiting_mib(self) -> tuple[float, float]:
        """What waits for the hung sink, by its own count, and in Redis' memory."""
        redis = Redis(self.stack.redis_url)
        try:
            size = int(await redis.call("HGET", traces_size_key(ORG, "otlp"), "bytes") or 0)
            used = await redis.call("MEMORY", "USAGE", traces_key(ORG, "otlp"), "SAMPLES", 0) or 0
        finally:
            await redis.close()
        return size / MIB, int(used) / MIB


@pytest.fixture
def sinks() -> Iterator[tuple[OTLPSink, OTLPSink]]:
    made = OTLPSink().start(), OTLPSink().start()
    yield made
    for sink in made:
        sink.stop()


@pytest.fixture
async def hanging(
    tmp_path: Path,
    sinks: tuple[OTLPSink, OTLPSink],
    fault_redis: RedisServer,
    fault_engines: Mapping[str, SimulatorProcess],
    fault_engine_list: FakeEngineList,
) -> AsyncIterator[Hanging]:
    hung, other = sinks
    gate = hung.behaviour.gate = threading.Event()
    TracedStack.other = other
    url = f"sqlite+aiosqlite:///{tmp_path}/quarterdeck.db"
    environ = {**hung.environment, "OTEL_EXPORTER_OTLP_TIMEOUT": "1000"}
    stack = TracedStack(
        tmp_path, fault_redis, fault_engines, fault_engine_list, url, index=REDIS_DATABASE, environ=environ
    )
    if fault_redis.process is None:
        await stack.start(fault_redis)
    redis = Redis(stack.redis_url)
    await redis.call("FLUSHDB")
    await redis.close()
    await stack.whole()
    yield Hanging(stack, hung, gate, other, await stack.key("hanging"))
    gate.set()
    stack.stop()


async def test_a_hung_trace_backend_loses_its_own_traces_only(hanging: Hanging) -> None:
    await _check(hanging, rounds=4)


@pytest.mark.long
async def test_a_minute_of_load_on_a_hung_trace_backend_grows_nothing(hanging: Hanging) -> None:
    await _check(hanging, rounds=160)


async def _check(hanging: Hanging, *, rounds: int) -> None:
    stack, answers = hanging.stack, list[Answer]()
    resident: list[float] = []
    for _ in range(rounds):
        answers += await hanging.load(ROUND)
        await stack.all_settled(seconds=120)  # the ledger does not wait for the sink
        size, used = await hanging.waiting_mib()
        assert size <= MOST_MIB and used <= 2 * MOST_MIB, (size, used)
        await until(lambda: _waiting(stack, "other") == 0, seconds=120)
        resident.append(resident_mib(stack.worker))
    assert {answer.outcome for answer in answers} == {"ok"}
    assert hanging.count("exported", sink="otlp") == 0
    dropped = hanging.count("dropped", sink="otlp", reason="overflow")
    assert dropped > 0
    assert max(resident) < resident[0] + 64, resident
    assert stack.metric("quarterdeck_traces_up", stack.worker, sink="otlp") == 0
    assert stack.worker.get("/readyz")[0] == 200

    rows = await stack.rows(hanging.key)
    assert len(rows) == len(answers)
    assert hanging.count("dropped", sink="other") == 0
    await _all_arrived(hanging.other, rows)

    hanging.gate.set()
    more = await hanging.load(20)
    await stack.all_settled()
    await until(lambda: _waiting(stack) == 0, seconds=120)
    rows = await stack.rows(hanging.key)
    await _all_arrived(hanging.other, rows)
    found = {span.trace_id for span in hanging.hung.spans}
    assert {answer.headers["x-request-id"].removeprefix("req_") for answer in more} <= found
    dropped = hanging.count("dropped", sink="otlp", reason="overflow")
    assert len(rows) - len(found) == dropped
    assert hanging.count("exported", sink="otlp") == len(found)
    assert hanging.hung.complaints == hanging.other.complaints == []
    mib = ", ".join(f"{each:.0f}" for each in resident)
    print(f"{len(rows)} requests, {dropped} traces dropped, {len(found)} arrived; worker's MiB by round: {mib}")


def _waiting(stack: Stack, sink: str = "otlp") -> float:
    return stack.metric("quarterdeck_traces_waiting_records", stack.worker, sink=sink)


async def _all_arrived(sink: OTLPSink, rows: list[RequestRecord]) -> None:
    traces = {row.trace_id for row in rows}
    await asyncio.to_thread(sink.wait_for, lambda s: traces <= {span.trace_id for span in s.spans}, 120)
