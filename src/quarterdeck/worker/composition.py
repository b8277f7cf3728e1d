"""The worker's composition root: every object is built here, once, and handed down."""

import asyncio
import importlib.metadata
import socket
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

import uvicorn

from quarterdeck.ids import object_id
from quarterdeck.net.browser_guard import BrowserGuard
from quarterdeck.net.proxies import Proxies
from quarterdeck.net.redis import Redis, RedisError, RedisUnavailableError
from quarterdeck.net.sockets import BACKLOG, listen
from quarterdeck.net.uvicorn_server import EmbeddedServer
from quarterdeck.resources.batches.result_deletion import ResultDeletion
from quarterdeck.resources.files.service import Files
from quarterdeck.resources.prompts.changes import PromptAnnouncer
from quarterdeck.resources.tenancy.budgets import Budgets
from quarterdeck.resources.webhooks.object_events import ObjectEvents
from quarterdeck.settings.config import Config
from quarterdeck.settings.environment import Environment
from quarterdeck.settings.source import ConfigSource
from quarterdeck.settings.telemetry import TelemetryConfig
from quarterdeck.store.background_responses import BackgroundStore
from quarterdeck.store.batch_contents import BatchContents
from quarterdeck.store.batch_retention import BatchRetention
from quarterdeck.store.batches import BatchStore
from quarterdeck.store.blobs.factory import open_blobs
from quarterdeck.store.contents import ContentStore
from quarterdeck.store.database import Database, DatabaseUnavailableError
from quarterdeck.store.files import FileStore
from quarterdeck.store.jobs import JobStore
from quarterdeck.store.keys import KeyStore
from quarterdeck.store.leases import LeaseStore
from quarterdeck.store.ledger import Ledger
from quarterdeck.store.ledger_retention import LedgerRetention
from quarterdeck.store.orgs import OrgStore
from quarterdeck.store.platform_secrets import PlatformSecret
from quarterdeck.store.prompt_links import PromptLinkStore
from quarterdeck.store.prompt_results import PromptResults
from quarterdeck.store.prompts import PromptStore
from quarterdeck.store.scores import ScoreStore
from quarterdeck.store.stored_objects import StoredObjects
from quarterdeck.store.teams import TeamStore
from quarterdeck.store.uploads import UploadStore
from quarterdeck.store.usage_rollups import Rollups
from quarterdeck.store.webhook_outbox import WebhookOutbox
from quarterdeck.store.webhooks import WebhookStore
from quarterdeck.telemetry.langfuse_scores import LangfuseScores
from quarterdeck.telemetry.saturation import sample
from quarterdeck.telemetry.traces.prompt_numbers import PromptNumbers
from quarterdeck.telemetry.worker_metrics import WorkerMetrics
from quarterdeck.worker.batch_handler import BatchHandler
from quarterdeck.worker.budget_alert_loop import BudgetAlertLoop
from quarterdeck.worker.budget_rebuild import BudgetLoop
from quarterdeck.worker.conditions import Condition
from quarterdeck.worker.contents import ContentIntake
from quarterdeck.worker.expiry_loop import ExpiryLoop
from quarterdeck.worker.file_sweep_loop import FileSweepLoop
from quarterdeck.worker.gateway_client import GatewayClient, unverified
from quarterdeck.worker.gauges import Gauges
from quarterdeck.worker.job_loop import JobLoop
from quarterdeck.worker.known_orgs import KnownOrgs
from quarterdeck.worker.langfuse_prompts import LangfusePrompts
from quarterdeck.worker.ledger_loop import LedgerLoop
from quarterdeck.worker.lifecycle import Job, Worker
from quarterdeck.worker.live_config import LiveConfig
from quarterdeck.worker.prompt_guard_loop import PromptGuardLoop
from quarterdeck.worker.prompt_sync_loop import PromptSyncLoop
from quarterdeck.worker.response_jobs import ResponseJobs
from quarterdeck.worker.result_deletion_jobs import ResultDeletionJobs
from quarterdeck.worker.retention_loop import RetentionLoop
from quarterdeck.worker.rollup_loop import RollupLoop
from quarterdeck.worker.score_loop import ScoreLoop
from quarterdeck.worker.sinks import sinks_of
from quarterdeck.worker.status import StatusApp
from quarterdeck.worker.streams import LEDGER_GROUP, Consumer
from quarterdeck.worker.trace_making import TraceMaker
from quarterdeck.worker.trace_sinks import TraceSinks
from quarterdeck.worker.webhook_loop import WebhookLoop
from quarterdeck.worker.webhook_sender import WebhookSender

IDLE_MS = 5000
"""An entry that was not acknowledged for so long is claimed by another worker. Claiming too early is harmless: the row
exists already, and only one of the two workers passes it on to the traces."""
REPLY_SECONDS = 10.0
"""Without a reply for so long, Redis counts as unavailable. Long: a worker is not in a hurry, and retries cost work."""


def compose(
    environment: Environment,
    source: ConfigSource,
    telemetry: TelemetryConfig,
    config: Config | None = None,
    follow: Callable[[], Coroutine[Any, Any, None]] | None = None,
) -> Worker:
    """Build a worker. `telemetry` is what `source` holds now, or the defaults if it is invalid. `config` is all that it
    holds; None: it is invalid. `follow` runs as long as the worker, so that `source` sees changes; None: it needs
    nothing. Raises ValueError for an invalid URL, and OSError for a secret's file that can't be read or a port that is
    in use."""
    metrics_token = environment.metrics_token.read_token() if environment.metrics_token else None
    live = LiveConfig(environment, source, telemetry, config)
    name = object_id("worker")
    is_migrated = asyncio.Event()
    metrics = WorkerMetrics()
    database_condition = Condition("the database", lambda up: metrics.database_up.set(int(up)))
    metrics.redis_up.set(1)
    database = Database(environment.database_url, on_state=lambda up: metrics.database_up.set(int(up)))
    redis = Redis(environment.redis_url, reply_timeout=REPLY_SECONDS, on_state=lambda up: metrics.redis_up.set(int(up)))
    # Connections of their own: a blocking read delays every later command on its connection.
    ledger_reads = Redis(environment.redis_url, reply_timeout=REPLY_SECONDS)
    blobs = open_blobs(environment)
    org_store, contents, outbox = OrgStore(database), ContentStore(database), WebhookOutbox(database)
    orgs = KnownOrgs(org_store, is_migrated)
    prompt_numbers = PromptNumbers({} if config is not None and config.langfuse.prompts != "off" else None)
    sinks = TraceSinks(
        sinks_of(environment, telemetry),
        redis=redis,
        connect=lambda: Redis(environment.redis_url, reply_timeout=REPLY_SECONDS),
        consumer=name,
        idle_ms=3 * IDLE_MS,
        orgs=orgs,
        environment=environment,
        telemetry=live.telemetry,
        version=_version(),
        metrics=metrics,
    )
    sender = WebhookSender(
        proxies=Proxies(environment.variables), allows_private=lambda: live.webhooks.allow_private_addresses
    )
    gateway = GatewayClient(
        environment.job_gateway_url or environment.gateway_url,
        PlatformSecret(database, "jobs"),
        tls=None if environment.job_gateway_url else unverified(),
    )
    jobs = JobStore(database)
    events = ObjectEvents(outbox, lambda: live.webhooks)
    files = Files(FileStore(database), blobs, lambda: live.files)
    job_handlers = (
        ResponseJobs(gateway, BackgroundStore(database, jobs, events)),
        BatchHandler(BatchStore(database, jobs), files, gateway, events, lambda: live.batches, metrics),
        ResultDeletionJobs(ResultDeletion(BatchContents(database), files)),
    )
    conditions = {
        "ledger": Condition("the ledger"),
        "budgets": Condition("recounting budgets"),
        "lost requests": Condition("settling lost requests"),
        "prompts at Langfuse": Condition(
            "prompts at Langfuse", lambda up: metrics.prompt_sync_up.set(int(up)), then="trying again later"
        ),
        "deleting contents": Condition("deleting contents"),
        "scores": Condition("scores"),
        "webhooks": Condition("webhooks"),
        "budget alerts": Condition("budget alerts"),
        "jobs": Condition("jobs"),
        "files": Condition("removing what files leave"),
    }
    ledger_loop = LedgerLoop(
        Consumer(redis, LEDGER_GROUP, name, idle_ms=IDLE_MS),
        ledger_reads,
        orgs,
        conditions["ledger"],
        ledger=Ledger(database),
        metrics=metrics,
        contents=ContentIntake(redis, contents, lambda: live.redactor.current, metrics),
        traces=TraceMaker(sinks.names, live.telemetry, metrics, prompt_numbers),
    )
    alert_loop = BudgetAlertLoop(
        redis,
        Budgets(KeyStore(database), TeamStore(database), org_store),
        WebhookStore(database),
        outbox,
        lambda: live.current,
        conditions["budget alerts"],
        metrics,
    )
    retention_loop = RetentionLoop(
        contents,
        StoredObjects(database),
        BatchRetention(database),
        LedgerRetention(database),
        org_store,
        redis,
        sinks.names,
        lambda: live.current,
        orgs,
        conditions["deleting contents"],
    )
    guard_loop = PromptGuardLoop(
        PromptStore(database),
        PromptResults(database),
        PromptAnnouncer(redis),
        Condition("guarding canaries of prompts"),
        metrics,
    )
    # Scores go to the Langfuse project that the environment names, if it names one; prompts are those of this project.
    project = environment.langfuse
    score_loop = ScoreLoop(
        ScoreStore(database),
        orgs,
        conditions["scores"],
        metrics,
        sink=LangfuseScores(project.url, project.public_key, project.secret_key) if project else None,
        sink_condition=Condition("scores at Langfuse"),
        environment=lambda: live.telemetry.current.environment,
    )
    sync_loop = PromptSyncLoop(
        partial(LangfusePrompts, project.url, project.public_key, project.secret_key) if project else None,
        PromptStore(database),
        PromptLinkStore(database),
        LeaseStore(database, name),
        PromptAnnouncer(redis),
        prompt_numbers,
        lambda: None if (found := live.current) is None else found.langfuse,
        conditions["prompts at Langfuse"],
        metrics,
    )

    async def check_database() -> None:
        await database.ping()
        if not is_migrated.is_set():
            raise DatabaseUnavailableError("migration pending")

    async def close() -> None:
        await sinks.close()
        await sender.close()
        await gateway.close()
        for connection in (ledger_reads, redis):
            await connection.close()
        await database.close()
        await blobs.close()

    endless: dict[str, Job] = {
        "configuration": live.run,
        "saturation": partial(
            sample,
            metrics.saturation,
            {"redis": redis.probe, "database": database.ping},
            (RedisError, RedisUnavailableError, DatabaseUnavailableError),
        ),
    }
    if follow is not None:
        endless["ConfigMap"] = follow
    status = StatusApp(
        {"redis": redis.probe, "database": check_database},
        Gauges(redis, orgs, sinks, metrics).refresh,
        metrics.render,
        jobs={**conditions, **sinks.jobs()},
        sinks=sinks.states,
        metrics_token=metrics_token,
    )
    server, listening = _server(environment, status)
    return Worker(
        name,
        database=database,
        database_condition=database_condition,
        is_migrated=is_migrated,
        books=(
            ledger_loop,
            BudgetLoop(redis, database, orgs, conditions["budgets"]),
            retention_loop,
            score_loop,
            RollupLoop(Rollups(database), orgs, Condition("rolling up usage")),
            guard_loop,
            WebhookLoop(outbox, sender, lambda: live.webhooks, conditions["webhooks"], metrics),
            alert_loop,
            sync_loop,
            JobLoop(jobs, job_handlers, conditions["jobs"], metrics),
            FileSweepLoop(
                FileStore(database),
                UploadStore(database),
                blobs,
                LeaseStore(database, name),
                conditions["files"],
                on_usage=lambda usages: metrics.stored_bytes.replace({(org,): size for org, size in usages.items()}),
            ),
        ),
        loops={
            "orgs": orgs,
            "expiry": ExpiryLoop(redis, orgs, conditions["lost requests"], metrics),
            **{f"sink {sink}": loop for sink, loop in sinks.loops.items()},
        },
        endless=endless,
        server=server,
        listening=listening,
        trace_sinks=sinks.names,
        close=close,
    )


def _server(environment: Environment, status: StatusApp) -> tuple[EmbeddedServer, socket.socket]:
    """Serves `/healthz`, `/readyz` and `/metrics`."""
    listening = listen(environment.host, environment.worker_port)
    guarded = BrowserGuard(status, is_loopback=environment.is_loopback)
    config = uvicorn.Config(
        guarded, log_config=None, access_log=False, lifespan="off", timeout_graceful_shutdown=1, backlog=BACKLOG
    )
    return EmbeddedServer(config), listening


def _version() -> str:
    try:
        return importlib.metadata.version("quarterdeck")
    except importlib.metadata.PackageNotFoundError:
        return ""  # run from a source tree without installing it
