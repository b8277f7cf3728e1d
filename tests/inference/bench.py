"""A pipeline with a real Redis, spool and sockets; engines are servers that answer what a test wants."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pytest
from tests.inference.making import CHAT, a_head, an_endpoint, as_json
from tests.inference.prompts.stored import StoredPrompts
from tests.inference.reading import read
from tests.net.upstream import SOON, Upstream

from quarterdeck.accounting import redis_keys
from quarterdeck.accounting.principal import Principal
from quarterdeck.accounting.settlement import Settlement
from quarterdeck.errors import APIError
from quarterdeck.inference.cache.answers import AnswerCache
from quarterdeck.inference.cache.embedding import Embedder
from quarterdeck.inference.call import Head, Operation, Reply
from quarterdeck.inference.closing import MAX_TO_COUNT
from quarterdeck.inference.endpoints.endpoint import Endpoint
from quarterdeck.inference.engine.client import EngineClient
from quarterdeck.inference.media_calls.engine import MediaEngines
from quarterdeck.inference.media_calls.pipeline import MediaPipeline
from quarterdeck.inference.mirror import MAX_RUNNING
from quarterdeck.inference.pipeline import Pipeline
from quarterdeck.inference.prompts.execution import PromptExecutor
from quarterdeck.inference.routing.directory import Directory
from quarterdeck.model_lifecycle.status import ModelStatus
from quarterdeck.net.http_client import HttpClient
from quarterdeck.net.http_connection import Timeouts
from quarterdeck.net.redis import Redis
from quarterdeck.net.tasks import BackgroundTasks
from quarterdeck.record import RequestRecord, decode
from quarterdeck.settings.config import Config
from quarterdeck.settings.live import Live
from quarterdeck.settings.loading import parse
from quarterdeck.store.spool import Spool

CONFIG = """
models:
  - name: m
    aliases: [gpt-4o-mini]
    endpoints: [{url: "http://unused"}]
    price: {input: "1", cached_input: "0.5", output: "2"}
"""
ROUTED = """
models:
  - {name: m, endpoints: [{url: "http://unused"}], price: {input: "1", output: "2"}}
  - {name: n, endpoints: [{url: "http://unused"}], price: {input: "10", output: "20"}}
  - {name: cold, engine: {source: ./cold}}
"""
"""Models for routes to choose from."""
BACKED = "routes: [{name: r, targets: [{model: m}], fallbacks: [{model: n, after: [error, context_length, queue]}]}]"

E = TypeVar("E", bound=APIError)


@dataclass
class Listed:
    """A fixed list of endpoints."""

    endpoints: list[Endpoint] = field(default_factory=list)
    reasons: dict[str, str] = field(default_factory=dict)
    """Why no endpoint will become ready, by model."""
    statuses: dict[str, ModelStatus] = field(default_factory=dict)
    """What the engine's door says, by model."""

    def all(self) -> Sequence[Endpoint]:
        return self.endpoints

    def status(self, name: str) -> ModelStatus | None:
        return self.statuses.get(name)

    def unavailable(self, name: str) -> str:
        return self.reasons.get(name, "")

    def serving(self, name: str) -> Sequence[Endpoint]:
        return [each for each in self.endpoints if each.spec.state == "ready" and each.spec.serves(name)]


class Bench:
    """The pipeline and its parts."""

    def __init__(
        self,
        redis: Redis,
        folder: Path,
        client: HttpClient,
        *,
        timeouts: Timeouts = SOON,
        config: str = "",
        max_mirrored: int = MAX_RUNNING,
        max_to_count: int = MAX_TO_COUNT,
        **gateway: Any,
    ) -> None:
        self.redis = redis
        self.spool = Spool(folder)
        self.tasks = BackgroundTasks()
        self.work_seconds = 5.0
        self.settlement = Settlement(redis, self.spool)
        self.listed = Listed()
        self.seen: list[RequestRecord] = []
        self.reread_by: list[tuple[str, int]] = []
        self.reread_error: Exception | None = None
        self.fresh: Principal | None = None
        self.reread_gate = asyncio.Event()
        self.reread_gate.set()
        self.directory = Live(Directory.of(a_config(config or CONFIG, **gateway)))
        live_config = self.directory.select(lambda each: each.config)
        self.engines = engines = EngineClient(client, Live(timeouts))
        self.cache = AnswerCache(live_config, redis, embed=Embedder(self.listed, engines), spawn=self.tasks.spawn)
        self.prompts = StoredPrompts()
        self.pipeline = Pipeline(
            directory=self.directory,
            endpoints=self.listed,
            engines=engines,
            redis=redis,
            settlement=self.settlement,
            spawn=self.tasks.spawn,
            cache=self.cache,
            prompts=PromptExecutor(self.prompts.catalogue),
            reread=self._reread,
            on_record=self.seen.append,
            max_mirrored=max_mirrored,
            max_to_count=max_to_count,
        )

        pipeline = self.pipeline
        self.media = MediaPipeline(
            directory=self.directory,
            endpoints=self.listed,
            engines=MediaEngines(client, Live(timeouts)),
            router=pipeline.router,
            gate=pipeline.gate,
            attempts=pipeline.attempts,
            closing=pipeline.closing,
            settlement=self.settlement,
            templates=pipeline.templates,
            engine_seconds=pipeline.engine_seconds,
        )

    async def _reread(self, principal: Principal, revision: int) -> Principal:
        self.reread_by.append((principal.key, revision))
        await self.reread_gate.wait()
        if self.reread_error is not None:
            raise self.reread_error
        return self.fresh or principal

    def configure(self, text: str) -> None:
        """Replace the configuration by ROUTED and `text`."""
        self.directory.replace(Directory.of(parse(ROUTED + text)))

    def add(self, *upstreams: Upstream, **fields: Any) -> list[Endpoint]:
        """Add an endpoint for each; while all are idle they are picked in this order."""
        for upstream in upstreams:
            number = len(self.listed.endpoints) + 1
            self.listed.endpoints.append(an_endpoint(**({"id": f"e#{number}", "url": upstream.url} | fields)))
        return self.listed.endpoints

    async def ask(self, asked: dict[str, Any] | bytes | None = None, head: Head | None = None, **changes: Any) -> Reply:
        """Call the pipeline: a chat unless the head says otherwise; `changes` are the head's."""
        body = asked if isinstance(asked, bytes) else as_json(asked or CHAT)
        return await self.pipeline.call(head or a_head(changes.pop("operation", Operation.CHAT), **changes), body)

    async def stream(self, asked: dict[str, Any] | None = None, **changes: Any) -> bytes:
        """A whole streamed chat."""
        reply = await self.ask({**CHAT, "stream": True, **(asked or {})}, **changes)
        assert reply.stream is not None
        try:
            return await read(reply.stream)
        finally:
            await reply.stream.aclose()

    async def drain(self) -> None:
        """End post-request tasks, then bring every record to Redis or to disk, as a gateway does when it shuts down."""
        await self.tasks.drain(cancel_after=self.work_seconds)
        await self.settlement.drain()
        await self.tasks.drain(cancel_after=self.work_seconds)

    async def record(self) -> RequestRecord:
        """The only record, once all is settled."""
        (record,) = await self.records()
        return record

    async def records(self) -> list[RequestRecord]:
        """The records in Redis, once all is settled. They are those that `on_record` got, and nothing is held."""
        await self.drain()
        entries = await self.redis.call("XRANGE", redis_keys.stream_key("default"), "-", "+")
        found = [decode(fields[1]) for _, fields in entries]
        # The first records of a Redis that does not know the script yet may change places.
        assert sorted(found, key=lambda record: record.id) == sorted(self.seen, key=lambda record: record.id)
        assert all(endpoint.load.requests == 0 for endpoint in self.listed.endpoints)
        assert await self.reservations() == 0
        return found

    async def reservations(self) -> int:
        """How many requests hold a reservation in Redis."""
        return int(await self.redis.call("HLEN", redis_keys.reservations_key("default")))


async def refused(kind: type[E], bench: Bench, asked: Any = None, **changes: Any) -> E:
    """The error that the pipeline raises, which is exactly of this class."""
    with pytest.raises(kind) as caught:
        await bench.ask(asked, **changes)
    assert type(caught.value) is kind
    return caught.value


def a_config(text: str = CONFIG, **gateway: Any) -> Config:
    config = parse(text)
    return config.model_copy(update={"gateway": config.gateway.model_copy(update=gateway)})
