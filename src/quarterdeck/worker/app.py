"""The worker's composition root and lifecycle: every object is built here, once, and handed down."""

import asyncio
import importlib.metadata
import logging
import re
import socket
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

import uvicorn

from quarterdeck.accounting.redis_keys import stream_key
from quarterdeck.ids import object_id
from quarterdeck.net.browser_guard import BrowserGuard
from quarterdeck.net.proxies import Proxies
from quarterdeck.net.redis import Redis, RedisError, RedisUnavailableError
from quarterdeck.net.sockets import BACKLOG, listen
from quarterdeck.net.tasks import keep_running
from quarterdeck.net.uvicorn_server import EmbeddedServer
from quarterdeck.redaction.redactor import Redactor
from quarterdeck.resources.prompts.changes import PromptAnnouncer
from quarterdeck.resources.tenancy.budgets import Budgets
from quarterdeck.settings.config import Config
from quarterdeck.settings.environment import Environment
from quarterdeck.settings.live import Live
from quarterdeck.settings.loading import ConfigError
from quarterdeck.settings.source import ConfigSource
from quarterdeck.settings.telemetry import ENVIRONMENT_PATTERN, TelemetryConfig
from quarterdeck.settings.webhooks import WebhooksConfig
from quarterdeck.store.contents import ContentStore
from quarterdeck.store.database import Database, DatabaseUnavailableError
from quarterdeck.store.keys import KeyStore
from quarterdeck.store.leases import LeaseStore
from quarterdeck.store.ledger import Ledger
from quarterdeck.store.ledger_retention import LedgerRetention
from quarterdeck.store.migration import MigrationError
from quarterdeck.store.orgs import DEFAULT_ORG, OrgStore
from quarterdeck.store.prompt_links import PromptLinkStore
from quarterdeck.store.prompt_results import PromptResults
from quarterdeck.store.prompts import PromptStore
from quarterdeck.store.scores import ScoreStore
from quarterdeck.store.stored_objects import StoredObjects
from quarterdeck.store.teams import TeamStore
from quarterdeck.store.usage_rollups import Rollups
from quarterdeck.store.webhook_outbox import WebhookOutbox
from quarterdeck.store.webhooks import WebhookStore
from quarterdeck.telemetry.langfuse_scores import LangfuseScores
from quarterdeck.telemetry.saturation import sample
from quarterdeck.telemetry.traces.prompt_numbers import PromptNumbers
from quarterdeck.telemetry.worker_metrics import WorkerMetrics
from quarterdeck.worker.budget_alert_loop import BudgetAlertLoop
from quarterdeck.worker.budget_rebuild import BudgetLoop
from quarterdeck.worker.conditions import Backoff, Condition, pause
from quarterdeck.worker.contents import ContentIntake
from quarterdeck.worker.expiry_loop import ExpiryLoop
from quarterdeck.worker.langfuse_prompts import LangfusePrompts
from quarterdeck.worker.ledger_loop import LedgerLoop
from quarterdeck.worker.prompt_guard_loop import PromptGuardLoop
from quarterdeck.worker.prompt_sync_loop import PromptSyncLoop
from quarterdeck.worker.retention_loop import RetentionLoop
from quarterdeck.worker.rollup_loop import RollupLoop
from quarterdeck.worker.score_loop import ScoreLoop
from quarterdeck.worker.sinks import sinks_of
from quarterdeck.worker.status import StatusApp
from quarterdeck.worker.streams import LEDGER_GROUP, Consumer, backlog, dead_key
from quarterdeck.worker.trace_making import TraceMaker
from quarterdeck.worker.trace_sinks import TraceSinks
from quarterdeck.worker.webhook_loop import WebhookLoop
from quarterdeck.worker.webhook_sender import WebhookSender

log = logging.getLogger(__name__)

ORGS_SECONDS = 10.0
"""Between two reads of the organisations: how long a new one's records may wait."""
IDLE_MS = 5000
"""An entry that was not acknowledged for so long is claimed by another worker. Claiming too early is harmless: the row
exists already, and only one of the two workers passes it on to the traces."""
REPLY_SECONDS = 10.0
"""Without a reply for so long, Redis counts as unavailable. Long: a worker is not in a hurry, and retries cost work."""
STOP_SECONDS = 15.0
"""How long the loops may take to finish their batches after a stop."""


class Worker:
    """One worker process; any number may run at once. `telemetry` is what `source` holds now, or the defaults if it is
    invalid. `config` is all that it holds; None: it is invalid."""

    def __init__(
        self,
        environment: Environment,
        source: ConfigSource,
        telemetry: TelemetryConfig,
        config: Config | None = None,
        follow: Callable[[], Coroutine[Any, Any, None]] | None = None,
    ) -> None:
        """`follow` runs as long as the worker, so that `source` sees changes. None: it needs nothing."""
        self._follow = follow
        self._environment = environment
        self._metrics_token = environment.metrics_token.read_token() if environment.metrics_token else None
        self._source = source
        self._telemetry = Live(with_otel(telemetry, environment))
        self._config = Live(config)
        self._redactor = self._config.select(lambda each: None if each is None else Redactor(each.content.redaction))
        self._name = object_id("worker")
        self._known_orgs: tuple[str, ...] = (DEFAULT_ORG,)
        self._is_migrated = asyncio.Event()
        self.metrics = metrics = WorkerMetrics()
        self._database_condition = Condition("the database", lambda up: metrics.database_up.set(int(up)))
        metrics.redis_up.set(1)
        self.database = Database(environment.database_url, on_state=lambda up: metrics.database_up.set(int(up)))
        self._org_store = OrgStore(self.database)
        self._redis = Redis(
            environment.redis_url, reply_timeout=REPLY_SECONDS, on_state=lambda up: metrics.redis_up.set(int(up))
        )
        # Connections of their own: a blocking read delays every later command on its connection.
        self._ledger_reads = Redis(environment.redis_url, reply_timeout=REPLY_SECONDS)
        self._ledger_condition = Condition("the ledger")
        self._budgets_condition = Condition("recounting budgets")
        self._expiry_condition = Condition("settling lost requests")
        self._retention_condition = Condition("deleting contents")
        self._scores_condition = Condition("scores")
        self._webhooks_condition = Condition("webhooks")
        self._alerts_condition = Condition("budget alerts")
        contents = ContentStore(self.database)
        is_synchronised = config is not None and config.langfuse.prompts != "off"
        prompt_numbers = PromptNumbers({} if is_synchronised else None)
        self._sinks = TraceSinks(
            sinks_of(environment, telemetry),
            redis=self._redis,
            connect=lambda: Redis(environment.redis_url, reply_timeout=REPLY_SECONDS),
            consumer=self._name,
            idle_ms=3 * IDLE_MS,
            orgs=self.orgs,
            environment=environment,
            telemetry=self._telemetry,
            version=_version(),
            metrics=metrics,
        )
        self._ledger_loop = LedgerLoop(
            Consumer(self._redis, LEDGER_GROUP, self._name, idle_ms=IDLE_MS),
            self._ledger_reads,
            self.orgs,
            self._ledger_condition,
            ledger=Ledger(self.database),
            metrics=metrics,
            contents=ContentIntake(self._redis, contents, lambda: self._redactor.current, metrics),
            traces=TraceMaker(self._sinks.names, self._telemetry, metrics, prompt_numbers),
        )
        self._budget_loop = BudgetLoop(self._redis, self.database, self.orgs, self._budgets_condition)
        self._expiry_loop = ExpiryLoop(self._redis, self.orgs, self._expiry_condition, metrics)
        self._rollup_loop = RollupLoop(Rollups(self.database), self.orgs, Condition("rolling up usage"))
        self._score_loop = self._make_score_loop()
        outbox = WebhookOutbox(self.database)
        self._sender = WebhookSender(
            proxies=Proxies(environment.variables), allows_private=lambda: self._webhooks().allow_private_addresses
        )
        self._webhook_loop = WebhookLoop(outbox, self._sender, self._webhooks, self._webhooks_condition, metrics)
        self._alert_loop = BudgetAlertLoop(
            self._redis,
            Budgets(KeyStore(self.database), TeamStore(self.database), self._org_store),
            WebhookStore(self.database),
            outbox,
            lambda: self._config.current,
            self._alerts_condition,
            metrics,
        )
        self._retention_loop = RetentionLoop(
            contents,
            StoredObjects(self.database),
            LedgerRetention(self.database),
            self._org_store,
            self._redis,
            self._sinks.names,
            lambda: self._config.current,
            self.orgs,
            self._retention_condition,
        )
        self._sync_loop = self._make_sync_loop(prompt_numbers)
        self._guard_loop = PromptGuardLoop(
            PromptStore(self.database),
            PromptResults(self.database),
            PromptAnnouncer(self._redis),
            Condition("guarding canaries of prompts"),
            metrics,
        )

    def _make_score_loop(self) -> ScoreLoop:
        """Scores go to the Langfuse project that the environment names, if it names one."""
        project = self._environment.langfuse
        return ScoreLoop(
            ScoreStore(self.database),
            self.orgs,
            self._scores_condition,
            self.metrics,
            sink=LangfuseScores(project.url, project.public_key, project.secret_key) if project else None,
            sink_condition=Condition("scores at Langfuse"),
            environment=lambda: self._telemetry.current.environment,
        )

    def _webhooks(self) -> WebhooksConfig:
        """The settings in force; the defaults while the configuration is invalid."""
        config = self._config.current
        return WebhooksConfig() if config is None else config.webhooks

    def _make_sync_loop(self, numbers: PromptNumbers) -> PromptSyncLoop:
        """Prompts are those of the Langfuse project that the environment names."""
        project = self._environment.langfuse
        self._sync_condition = Condition(
            "prompts at Langfuse", lambda up: self.metrics.prompt_sync_up.set(int(up)), then="trying again later"
        )
        return PromptSyncLoop(
            partial(LangfusePrompts, project.url, project.public_key, project.secret_key) if project else None,
            PromptStore(self.database),
            PromptLinkStore(self.database),
            LeaseStore(self.database, self._name),
            PromptAnnouncer(self._redis),
            numbers,
            lambda: None if (config := self._config.current) is None else config.langfuse,
            self._sync_condition,
            self.metrics,
        )

    def orgs(self) -> tuple[str, ...]:
        """The organisations, as last read from the database."""
        return self._known_orgs

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop` is set, then finish the batches that were started."""
        server, listening = self._server()
        loops: dict[str, Callable[[], Coroutine[Any, Any, None]]] = {
            "books": partial(self._keep_books, stop),
            "orgs": partial(self._watch_orgs, stop),
            "expiry": partial(self._expiry_loop.run, stop),
        }
        for name, loop in self._sinks.loops.items():
            loops[f"sink {name}"] = partial(loop.run, stop)
        endless = {
            asyncio.create_task(keep_running("configuration", self._follow_config)),
            asyncio.create_task(keep_running("saturation", self._sample)),
        }
        if self._follow is not None:
            endless.add(asyncio.create_task(keep_running("ConfigMap", self._follow)))
        serving = asyncio.create_task(server.serve(sockets=[listening]))
        tasks = {asyncio.create_task(keep_running(name, loop, fatal=(MigrationError,))) for name, loop in loops.items()}
        port = listening.getsockname()[1]
        sinks = self._sinks.names
        log.info("worker started", extra={"consumer": self._name, "port": port, "trace_sinks": sinks})
        try:
            await self._until(stop, tasks, endless)
        finally:
            stop.set()
            server.should_exit = True
            for task in (*endless, *tasks):
                task.cancel()
            await asyncio.gather(*endless, *tasks, serving, return_exceptions=True)
            await self._close()
            log.info("worker stopped")

    async def _until(
        self, stop: asyncio.Event, tasks: "set[asyncio.Task[None]]", endless: "set[asyncio.Task[None]]"
    ) -> None:
        """Wait for `stop`, then for the loops. Raises what a task raised before."""
        stopping = asyncio.create_task(_wait(stop))
        await asyncio.wait({stopping, *endless, *tasks}, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        for task in endless:
            if task.done():
                task.result()
        if stop.is_set():
            await asyncio.wait(tasks, timeout=STOP_SECONDS)
        for task in tasks:
            if task.done():
                task.result()
        if not all(task.done() for task in tasks):
            log.warning("stopping before all loops finished; their records stay in Redis")

    async def _keep_books(self, stop: asyncio.Event) -> None:
        """Migrate, then insert records and rebuild budgets. Raises MigrationError if the tables are newer."""
        backoff = Backoff(stop)
        while not stop.is_set():
            try:
                await self.database.migrate()
                break
            except DatabaseUnavailableError as error:
                self._database_condition.failed(error.message)
                await backoff.pause()
        if stop.is_set():
            return
        self._database_condition.ok()
        self._is_migrated.set()
        loops = (
            self._ledger_loop,
            self._budget_loop,
            self._retention_loop,
            self._score_loop,
            self._rollup_loop,
            self._guard_loop,
            self._webhook_loop,
            self._alert_loop,
            self._sync_loop,
        )
        await asyncio.gather(*(loop.run(stop) for loop in loops))

    async def _watch_orgs(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            if self._is_migrated.is_set():
                try:
                    found = await self._org_store.list()
                    self._known_orgs = tuple(sorted({DEFAULT_ORG, *found}))
                except DatabaseUnavailableError as error:
                    log.debug("could not read organisations: %s", error)  # the ledger loop's condition logs the outage
            await pause(stop, ORGS_SECONDS if self._is_migrated.is_set() else 0.5)

    async def _sample(self) -> None:
        probes = {"redis": self._redis.probe, "database": self.database.ping}
        await sample(self.metrics.saturation, probes, (RedisError, RedisUnavailableError, DatabaseUnavailableError))

    async def _refresh_gauges(self) -> None:
        """Called before a scrape. While Redis is unavailable the values are old, and `quarterdeck_redis_up` is 0."""
        metrics = self.metrics
        try:
            async with asyncio.timeout(1.0):
                for org in self.orgs():
                    ledger = await backlog(self._redis, stream_key(org))
                    metrics.waiting.set(ledger.entries, (org,))
                    metrics.lag_seconds.set(ledger.age_seconds, (org,))
                    metrics.dead_waiting.set((await backlog(self._redis, dead_key(org))).entries, (org,))
                    await self._sinks.refresh_gauges(org)
                if not self._redis.is_cluster:  # its nodes have one each
                    await self._read_redis_memory()
        except (TimeoutError, RedisUnavailableError, RedisError) as error:
            log.debug("could not read the backlog: %s", error)

    async def _read_redis_memory(self) -> None:
        lines = bytes(await self._redis.call("INFO", "memory")).decode().splitlines()
        found = dict(line.split(":", 1) for line in lines if ":" in line)
        self.metrics.redis_memory.set(int(found["used_memory"]))
        self.metrics.redis_memory_limit.set(int(found["maxmemory"]))

    async def _follow_config(self) -> None:
        """Apply changed labels and sampling of traces, and what is redacted and deleted of contents."""
        while True:
            try:
                config = await self._source.changed()
            except ConfigError as error:
                log.error("invalid configuration refused, keeping the previous one: %s", error)
                continue
            self._config.replace(config)
            telemetry = with_otel(config.telemetry, self._environment)
            if telemetry != self._telemetry.current:
                self._telemetry.replace(telemetry)
                log.info("trace settings changed", extra=telemetry.model_dump(exclude={"sinks"}))

    def _server(self) -> tuple[EmbeddedServer, socket.socket]:
        listening = listen(self._environment.host, self._environment.worker_port)
        app = StatusApp(
            {"redis": self._check_redis, "database": self._check_database},
            self._refresh_gauges,
            self.metrics.render,
            jobs={
                "ledger": self._ledger_condition,
                "budgets": self._budgets_condition,
                "lost requests": self._expiry_condition,
                "prompts at Langfuse": self._sync_condition,
                "deleting contents": self._retention_condition,
                "scores": self._scores_condition,
                "webhooks": self._webhooks_condition,
                "budget alerts": self._alerts_condition,
                **self._sinks.jobs(),
            },
            sinks=self._sinks.states,
            metrics_token=self._metrics_token,
        )
        guarded = BrowserGuard(app, is_loopback=self._environment.is_loopback)
        config = uvicorn.Config(
            guarded, log_config=None, access_log=False, lifespan="off", timeout_graceful_shutdown=1, backlog=BACKLOG
        )
        return EmbeddedServer(config), listening

    async def _check_redis(self) -> None:
        await self._redis.probe()

    async def _check_database(self) -> None:
        await self.database.ping()
        if not self._is_migrated.is_set():
            raise DatabaseUnavailableError("migration pending")

    async def _close(self) -> None:
        await self._sinks.close()
        await self._sender.close()
        for redis in (self._ledger_reads, self._redis):
            await redis.close()
        await self.database.close()


def with_otel(telemetry: TelemetryConfig, environment: Environment) -> TelemetryConfig:
    """The labels of traces, as OpenTelemetry's variables change them. Pure."""
    labels = {}
    if environment.otel_service_name:
        labels["service_name"] = environment.otel_service_name
    attributes = environment.otel_attributes
    stage = attributes.get("deployment.environment.name") or attributes.get("deployment.environment")
    if stage and re.fullmatch(ENVIRONMENT_PATTERN, stage):  # else it is part of the resource only
        labels["environment"] = stage
    return telemetry.model_copy(update=labels)


async def _wait(event: asyncio.Event) -> None:
    await event.wait()


def _version() -> str:
    try:
        return importlib.metadata.version("quarterdeck")
    except importlib.metadata.PackageNotFoundError:
        return ""  # run from a source tree without installing it
