"""The gateway's process: what it is made of, how it begins and how it ends.

Everything is built here once and handed down. SIGTERM ends it in order: nothing new is taken, what is under way may end
for a while, the rest is told and cancelled, and when every record is in Redis or on disk the process ends.
"""

import asyncio
import logging
import signal
import socket
import time
from collections.abc import Coroutine
from contextvars import Context
from pathlib import Path
from typing import Any

from quarterdeck.accounting.budget_status import BudgetReader
from quarterdeck.accounting.settlement import Settlement
from quarterdeck.gateway.app import create_app
from quarterdeck.gateway.auth.authenticator import Authenticator
from quarterdeck.gateway.auth.invalidation import CHANNEL, Follower, RedisRevisions
from quarterdeck.gateway.dependencies import Parts
from quarterdeck.gateway.gauges import watch
from quarterdeck.gateway.http.access_log import AccessLog
from quarterdeck.gateway.http.callers import Callers
from quarterdeck.gateway.http.request_lifecycle import RequestLifecycle
from quarterdeck.gateway.http.server import create_server
from quarterdeck.gateway.kept_answers import KeptAnswers
from quarterdeck.gateway.live_config import ConfigFile
from quarterdeck.gateway.readiness import Readiness
from quarterdeck.inference.cache.answers import AnswerCache
from quarterdeck.inference.cache.embedding import Embedder
from quarterdeck.inference.endpoints.health_checks import HealthChecks
from quarterdeck.inference.endpoints.registry import EndpointRegistry
from quarterdeck.inference.endpoints.sources import EndpointSource, PolledEndpoints, StaticEndpoints
from quarterdeck.inference.engine.client import EngineClient
from quarterdeck.inference.pipeline import Pipeline
from quarterdeck.inference.routing.directory import Directory, timeouts_of
from quarterdeck.net.http_client import HttpClient
from quarterdeck.net.redis import Redis
from quarterdeck.net.redis_pubsub import Subscription
from quarterdeck.net.signals import on_signals
from quarterdeck.net.tasks import BackgroundTasks
from quarterdeck.net.uvicorn_server import EmbeddedServer
from quarterdeck.settings.config import Config
from quarterdeck.settings.environment import Environment
from quarterdeck.settings.live import Live
from quarterdeck.store.database import Database, DatabaseUnavailableError
from quarterdeck.store.keys import KeyStore
from quarterdeck.store.ledger import Ledger
from quarterdeck.store.orgs import OrgStore
from quarterdeck.store.spool import Spool
from quarterdeck.store.teams import TeamStore
from quarterdeck.telemetry.access_lines import LineWriter
from quarterdeck.telemetry.gateway_metrics import GatewayMetrics

log = logging.getLogger(__name__)

WORK_SECONDS = 5.0
"""For post-request tasks (counting tokens) at shutdown. Then they are cancelled, and their records carry estimates:
Kubernetes kills after 30 s in all."""
FLUSH_SECONDS = 10.0
"""For the last records to reach Redis or the disk."""
MIGRATE_RETRY_SECONDS = 1.0
SPOOL_LOOK_SECONDS = 5.0


class Service:
    """One gateway."""

    def __init__(self, environment: Environment, config: Config, path: Path) -> None:
        gateway = config.gateway
        self.environment = environment
        self._is_closing = False
        self.directory = directory = Live(Directory.of(config))
        live_config = directory.select(lambda each: each.config)
        self.metrics = metrics = GatewayMetrics()
        self.redis = Redis(
            environment.redis_url, reply_timeout=gateway.redis_timeout_seconds, on_state=self._on_redis_state
        )
        self.database = Database(environment.database_url, on_state=self._on_database_state)
        self.client = HttpClient()
        sources: list[EndpointSource] = [StaticEndpoints(live_config, environment.variables)]
        if environment.engine_url:
            sources.append(PolledEndpoints(environment.engine_url, self.client))
        self.endpoints = EndpointRegistry(sources)
        self.spool = Spool(environment.state / "spool")
        self.tasks = BackgroundTasks()
        self.settlement = Settlement(
            self.redis,
            self.spool,
            lease_seconds=gateway.reservation_lease_seconds,
            on_spooled=lambda count: metrics.spooled.add((), count),
        )
        keys = KeyStore(self.database)
        self.authenticator = Authenticator(
            keys,
            live_config,
            on_outcome=lambda outcome: metrics.authentications.add((outcome,)),
        )
        metrics.before_reading(self._count_recognised)
        self.follower = Follower(self.authenticator.catch_up)
        self.subscription = Subscription(
            environment.redis_url, CHANNEL, on_state=self._on_listening, on_message=self.follower.hear
        )
        self.engines = EngineClient(self.client, live_config.select(lambda each: timeouts_of(each.gateway)))
        self.cache = AnswerCache(
            live_config, self.redis, embed=Embedder(self.endpoints, self.engines), spawn=self.tasks.spawn
        )
        self.pipeline = Pipeline(
            directory=directory,
            endpoints=self.endpoints,
            engines=self.engines,
            redis=self.redis,
            settlement=self.settlement,
            spawn=self.tasks.spawn,
            cache=self.cache,
            reread=self.authenticator.reread,
            on_record=metrics.observe,
        )
        self.config_file = ConfigFile(path, self.adopt, lambda outcome: metrics.config_reloads.add((outcome,)))
        self.callers = Callers()
        self.access = AccessLog(metrics, LineWriter().write if log.isEnabledFor(logging.INFO) else None)
        self.app = self._app(keys)
        # What the pipeline builds for itself, it need not hand out for anybody else.
        gate, router, queues = self.pipeline.gate, self.pipeline.router, self.pipeline.queues
        watch(metrics, endpoints=self.endpoints, gate=gate, router=router, queues=queues, callers=self.callers)
        metrics.subscription_up.set(0)

    def adopt(self, config: Config) -> None:
        """A new configuration takes over: requests under way keep the one they began with."""
        self.directory.replace(Directory.of(config))

    async def run(self, listener: socket.socket) -> None:
        """Serve until SIGTERM or SIGINT, then end in order."""
        server = create_server(self.app, self.environment.host, self.environment.port)
        stop, hurry = asyncio.Event(), asyncio.Event()
        self._on_signals(stop, hurry)
        background = [asyncio.create_task(work) for work in self._background()]
        serving = asyncio.create_task(server.serve([listener]))
        log.info("listening", extra={"host": self.environment.host, "port": listener.getsockname()[1]})
        stopping = asyncio.create_task(stop.wait())
        try:
            # Whatever ends by itself is a failure: its exception is the process's.
            await asyncio.wait({stopping, serving, *background}, return_when=asyncio.FIRST_COMPLETED)
            for task in (serving, *background):
                if task.done():
                    task.result()
            await self.callers.drain(self.directory.current.config.gateway.drain_seconds, hurry)
        finally:
            stopping.cancel()
            await self._close(server, serving, background)

    def _background(self) -> list[Coroutine[Any, Any, None]]:
        work = [self._migrate_and_watch(), self.settlement.run(), self.config_file.run(), self._watch_spool()]
        work += [self.subscription.run(), self.follower.run()]
        work += [self.endpoints.run(), HealthChecks(self.endpoints.all, self.client).run()]
        return work

    def _on_signals(self, stop: asyncio.Event, hurry: asyncio.Event) -> None:
        def end() -> None:
            (hurry if stop.is_set() else stop).set()

        on_signals(end)
        on_signals(self.config_file.reload, (signal.SIGHUP,))

    async def _close(
        self, server: EmbeddedServer, serving: "asyncio.Task[None]", background: "list[asyncio.Task[None]]"
    ) -> None:
        server.should_exit = True
        await asyncio.wait({serving})
        for task in background:
            task.cancel()
        await asyncio.gather(*background, return_exceptions=True)
        try:
            async with asyncio.timeout(FLUSH_SECONDS):
                # Tasks first: they settle records, which the settlement then brings to Redis or to disk.
                await self.tasks.drain(cancel_after=WORK_SECONDS)
                await self.settlement.drain()
                await self.tasks.drain(cancel_after=WORK_SECONDS)  # writes to the cache that the last responses began
        except TimeoutError:
            log.error("not every record could be brought to Redis or to disk in %g s", FLUSH_SECONDS)
        self._is_closing = True
        await self.authenticator.close()
        await self.client.close()
        await self.redis.close()
        await self.database.close()
        self.access.flush()
        log.info("ended")

    async def _migrate_and_watch(self) -> None:
        """Bring the tables up to date once the database is there; it may come later than we do."""
        while True:
            try:
                await self.database.migrate()
                break
            except DatabaseUnavailableError as error:
                log.warning("the database is not there yet: %s", error)
                await asyncio.sleep(MIGRATE_RETRY_SECONDS)
        self.metrics.database_up.set(1)
        await asyncio.Event().wait()

    async def _watch_spool(self) -> None:
        while True:
            self.metrics.spool_waiting.set(await asyncio.to_thread(self.spool.waiting))
            await asyncio.sleep(SPOOL_LOOK_SECONDS)

    def _app(self, keys: KeyStore) -> RequestLifecycle:
        readiness = Readiness(
            redis=self.redis,
            database=self.database,
            directory=self.directory,
            endpoints=self.endpoints,
            is_draining=lambda: self.callers.is_draining,
            config_error=lambda: self.config_file.error,
        )
        return create_app(
            Parts(
                directory=self.directory,
                pipeline=self.pipeline,
                endpoints=self.endpoints,
                authenticator=self.authenticator,
                keys=keys,
                teams=TeamStore(self.database),
                orgs=OrgStore(self.database),
                ledger=Ledger(self.database),
                revisions=RedisRevisions(self.redis),
                kept=KeptAnswers(self.redis),
                budgets=BudgetReader(self.redis),
                readiness=readiness,
                metrics=self.metrics,
                access=self.access,
                callers=self.callers,
                started=int(time.time()),
            )
        )

    def _count_recognised(self) -> None:
        self.metrics.authentications.add(("cached",), self.authenticator.recognised)
        self.authenticator.recognised = 0

    def _on_listening(self, is_listening: bool) -> None:
        self.metrics.subscription_up.set(int(is_listening))
        self.follower.listen(is_listening)

    def _on_redis_state(self, up: bool) -> None:
        self.metrics.redis_up.set(int(up))
        self._say_state("Redis", up)

    def _on_database_state(self, up: bool) -> None:
        self.metrics.database_up.set(int(up))
        self._say_state("the database", up)

    def _say_state(self, what: str, up: bool) -> None:
        if self._is_closing:
            return  # we hung up
        # In a context of its own: the connection was opened in some request's, and the line is not about that request.
        if up:
            Context().run(log.info, "%s answers again", what)
        else:
            Context().run(log.error, "%s does not answer", what)
