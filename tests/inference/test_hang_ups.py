"""After any storm of hang-ups nothing is held: no place at an endpoint, no reservation, no turn in a queue."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from tests.inference.bench import Bench
from tests.inference.making import CHAT, COMPLETION, DONE, SAID, STREAM, answer, usage
from tests.inference.reading import Collected
from tests.net.upstream import Peer, Upstream, chunk, response, stream_head, until

from quarterdeck.inference.call import Operation
from quarterdeck.net.http_client import HttpClient
from quarterdeck.net.redis import Redis

CLIENTS = 8
REQUESTS = 480
MODELS = """
models:
  - name: m
    endpoints: [{url: "http://unused"}]
    price: {input: "1", output: "2"}
  - {name: n, endpoints: [{url: "http://unused"}], price: {input: "1", output: "2"}}
  - {name: cold, engine: {source: ./cold}}
"""
QUEUE = "queue: {max_waiting: 100, heartbeat_after_seconds: 0.003, heartbeat_seconds: 0.002}\n"
ROUTE = "routes: [{name: r, targets: [{model: m}], fallbacks: [{model: n, after: [error, queue]}], "
SETTINGS = {
    "no queue": MODELS,
    "a queue": MODELS + QUEUE,
    "a queue, comments late": MODELS + QUEUE.replace("0.003", "30"),
    "a queue and a cache": MODELS + QUEUE + "cache: {default: {exact: true, temperature: any}}\n",
    "a cache": MODELS + "cache: {default: {exact: true, temperature: any}}\n",
    "a queue and a mirror": MODELS + QUEUE + ROUTE + "mirror: {model: n, share: 1}}]\n",
    "a fallback": MODELS + ROUTE + "mirror: {model: n, share: 0.5}}]\n",
    "a cold start": MODELS + QUEUE.replace("{", "{cold_wait_seconds: 0.05, "),
}
ASKED: list[tuple[Operation, dict[str, Any]]] = [
    (Operation.CHAT, CHAT),
    (Operation.CHAT, STREAM),
    (Operation.CHAT, STREAM | {"stream_options": {"include_usage": True}}),
    (Operation.COMPLETIONS, COMPLETION),
    (Operation.COMPLETIONS, COMPLETION | {"stream": True}),
    (Operation.EMBEDDINGS, {"model": "m", "input": "Hi"}),
    (Operation.TOKENIZE, {"model": "m", "prompt": "Hi"}),
    (Operation.SCORE, {"model": "m", "text_1": "a", "text_2": "b"}),
]


def engine(chance: random.Random, *, breaks: float) -> Callable[[Peer], Awaitable[None]]:
    """Answers at any speed; breaks off so many of its streams, before or after they have begun."""

    async def script(peer: Peer) -> None:
        while True:
            try:
                seen = await peer.request()
            except (asyncio.IncompleteReadError, ConnectionError):
                return
            await asyncio.sleep(chance.choice((0, 0, 0.001, 0.004)))
            if chance.random() < breaks:
                peer.reset()
                return
            try:
                if not seen.json.get("stream"):
                    await peer.say(response(answer("x" * chance.choice((5, 100_000)))))
                    continue
                await peer.say(stream_head())
                for event in (*SAID, usage(), DONE):
                    await peer.say(chunk(event))
                    await asyncio.sleep(chance.choice((0, 0, 0.001, 0.002)))
                    if chance.random() < breaks / 4:
                        peer.reset()
                        return
                await peer.say(chunk(b""))
            except (ConnectionError, RuntimeError):  # the gateway hung up
                return

    return script


async def request(bench: Bench, operation: Operation, asked: dict[str, Any]) -> None:
    """As the request lifecycle does it."""
    reply = await bench.ask(asked, operation=operation)
    if reply.stream is not None:
        try:
            await reply.stream.pump(Collected())
        finally:
            await reply.stream.aclose()
    elif reply.on_end is not None:
        reply.on_end()


async def hang_up(chance: random.Random, task: "asyncio.Task[None]") -> None:
    """Cancel the request at any of the loop's next turns, or within some milliseconds."""
    if chance.random() < 0.5:
        for _ in range(chance.randrange(40)):
            await asyncio.sleep(0)
    else:
        await asyncio.sleep(chance.random() * 0.015)
    task.cancel()


@pytest.mark.parametrize("breaks", [0.0, 0.3])
@pytest.mark.parametrize("settings", SETTINGS)
async def test_after_a_storm_of_hang_ups_nothing_is_held(
    redis: Redis, tmp_path: Path, client: HttpClient, settings: str, breaks: float
) -> None:
    chance = random.Random(f"{settings} {breaks}")
    bench = Bench(redis, tmp_path, client, config=SETTINGS[settings])
    name = "cold" if settings == "a cold start" else "r" if "routes" in SETTINGS[settings] else "m"
    outcomes: set[str] = set()

    async def storm() -> None:
        for _ in range(REQUESTS // CLIENTS):
            operation, asked = chance.choice(ASKED)
            asked = asked | {"model": name, "user": str(chance.randrange(4))}
            task = asyncio.create_task(request(bench, operation, asked))
            await hang_up(chance, task)
            (result,) = await asyncio.gather(task, return_exceptions=True)
            outcomes.add(type(result).__name__)

    async def come_and_go() -> None:
        """The only endpoint of a model that starts and stops."""
        listed = list(bench.listed.endpoints)
        while True:
            await asyncio.sleep(chance.random() * 0.02)
            bench.listed.endpoints[:] = [] if bench.listed.endpoints else listed

    script = engine(chance, breaks=breaks)
    async with Upstream(script) as first, Upstream(script) as second, Upstream(script) as other:
        model = "cold" if name == "cold" else "m"
        bench.add(first, second, model=model, max_running=2)
        if name == "r":
            bench.add(other, model="n", max_running=2)
        endpoints = list(bench.listed.endpoints)
        going = asyncio.create_task(come_and_go()) if name == "cold" else None
        async with asyncio.timeout(60):
            await asyncio.gather(*[storm() for _ in range(CLIENTS)])
        if going is not None:
            going.cancel()
        bench.listed.endpoints[:] = endpoints
        await bench.drain()
        assert "CancelledError" in outcomes and len(outcomes) > 1
        assert [each.load.requests for each in endpoints] == [0] * len(endpoints)
        assert [each.load.tokens for each in endpoints] == [0] * len(endpoints)
        assert await bench.reservations() == 0
        assert not any(bench.settlement._leases._in_flight.values())
        assert bench.pipeline.queues.waiting() == {}
        assert not bench.cache.flights and bench.pipeline._mirror.running == 0
        await until(lambda: not client._busy)  # the end of a body may come after `[DONE]`
