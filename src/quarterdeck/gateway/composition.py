"""The gateway's composition root: builds the long-lived parts once and wires them together.

The configuration's cell comes first. A reload replaces its value, and everything that depends on it follows.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from functools import partial

from quarterdeck.accounting.budget_status import BudgetReader
from quarterdeck.gateway.app import create_app
from quarterdeck.gateway.auth.authenticator import Authenticator
from quarterdeck.gateway.auth.bootstrap import BootstrapKey
from quarterdeck.gateway.auth.job_credentials import JobCredentials, keeping_priority
from quarterdeck.gateway.change_following import follow_keys, follow_prompts
from quarterdeck.gateway.cluster.demand import Demand
from quarterdeck.gateway.cluster.membership import Cluster
from quarterdeck.gateway.connectivity import Connectivity
from quarterdeck.gateway.container_memory import fitted, memory_limit
from quarterdeck.gateway.dependencies import DemandDoor, Parts
from quarterdeck.gateway.engine_door import EngineDoor
from quarterdeck.gateway.engine_figures import EngineFigures
from quarterdeck.gateway.gauges import watch
from quarterdeck.gateway.http.access_log import AccessLog
from quarterdeck.gateway.http.connections import Connections
from quarterdeck.gateway.http.requests_in_flight import RequestsInFlight
from quarterdeck.gateway.http.server import create_server
from quarterdeck.gateway.lifecycle import Service
from quarterdeck.gateway.live_config import ConfigReloader
from quarterdeck.gateway.migration import migrate, run_after
from quarterdeck.gateway.model_management import ModelManagement
from quarterdeck.gateway.org_cache import OrgCache
from quarterdeck.gateway.readiness import Readiness
from quarterdeck.gateway.settlement import make_settlement, watch_spool
from quarterdeck.gateway.stateful_composition import compose_stateful
from quarterdeck.inference.cache.answers import AnswerCache
from quarterdeck.inference.cache.embedding import Embedder
from quarterdeck.inference.endpoints.contexts import ContextReader
from quarterdeck.inference.endpoints.health_checks import HealthChecks
from quarterdeck.inference.endpoints.registry import EndpointRegistry
from quarterdeck.inference.endpoints.sources import EndpointSource, PolledEndpoints, StaticEndpoints
from quarterdeck.inference.engine.client import EngineClient
from quarterdeck.inference.media_calls.engine import MediaEngines
from quarterdeck.inference.media_calls.pipeline import MediaPipeline
from quarterdeck.inference.pipeline import Pipeline
from quarterdeck.inference.prompts.catalogue import PromptCatalogue
from quarterdeck.inference.prompts.execution import PromptExecutor
from quarterdeck.inference.routing.directory import Directory, timeouts_of
from quarterdeck.net.descriptors import DescriptorLimit
from quarterdeck.net.http_client import HttpClient
from quarterdeck.net.proxies import Proxies
from quarterdeck.net.redis import Redis, RedisError, RedisUnavailableError
from quarterdeck.net.tasks import BackgroundTasks
from quarterdeck.net.tls import CertificateFiles, ServerCertificate
from quarterdeck.record import RequestRecord
from quarterdeck.redaction.redactor import Redactor
from quarterdeck.resources.models.added import AddedModels
from quarterdeck.resources.prompts.changes import PromptAnnouncer
from quarterdeck.resources.requests.deletion import ContentDeletion
from quarterdeck.resources.responses.tool_loop.costs import RunningCosts
from quarterdeck.resources.tenancy.changes import Announcer, RedisPublisher
from quarterdeck.settings.config import Config
from quarterdeck.settings.drop_in_files import DropInFiles
from quarterdeck.settings.drop_ins import folder_of
from quarterdeck.settings.environment import Environment
from quarterdeck.settings.live import Live
from quarterdeck.settings.shutdown import CLUSTER_DELAY_SECONDS
from quarterdeck.settings.source import ConfigSource
from quarterdeck.store.blobs.factory import open_blobs
from quarterdeck.store.contents import ContentStore
from quarterdeck.store.database import Database, DatabaseUnavailableError
from quarterdeck.store.keys import KeyStore
from quarterdeck.store.ledger import Ledger
from quarterdeck.store.org_deletion import OrgDeletion
from quarterdeck.store.orgs import OrgStore
from quarterdeck.store.platform_secrets import PlatformSecret
from quarterdeck.store.prompt_links import PromptLinkStore
from quarterdeck.store.prompt_results import PromptResults
from quarterdeck.store.prompts import PromptStore
from quarterdeck.store.request_log import RequestLog
from quarterdeck.store.scores import ScoreStore
from quarterdeck.store.spool import Spool
from quarterdeck.store.stored_objects import StoredObjects
from quarterdeck.store.teams import TeamStore
from quarterdeck.store.webhook_outbox import WebhookOutbox
from quarterdeck.store.webhooks import WebhookStore
from quarterdeck.telemetry.access_lines import LineWriter
from quarterdeck.telemetry.gateway_metrics import GatewayMetrics
from quarterdeck.telemetry.saturation import sample

log = logging.getLogger(__name__)


def compose(
    environment: Environment,
    source: ConfigSource,
    config: Config,
    descriptors: DescriptorLimit,
    cluster: Cluster | None = None,
) -> Service:
    """Build a gateway. `config` is what `source` holds now. Raises ValueError for an invalid URL of Redis or of the
    database, and OSError for a secret's file that can't be read."""
    memory = memory_limit()
    directory = Live(Directory.of(fitted(config, memory)))
    live_config = directory.select(lambda each: each.config)
    metrics = GatewayMetrics()
    reloader = ConfigReloader(
        source,
        config,
        apply=lambda new: directory.replace(Directory.of(fitted(new, memory))),
        on_outcome=lambda outcome: metrics.config_reloads.add((outcome,)),
    )

    connectivity = Connectivity(metrics)
    redis = _redis(environment, live_config, connectivity)
    database = Database(environment.database_url, on_state=connectivity.database)
    client = HttpClient(max_connections=descriptors.connections, proxies=Proxies(environment.variables))

    spool = Spool(environment.state / "spool")
    settlement = make_settlement(redis, spool, live_config, metrics)
    tasks = BackgroundTasks()

    keys = KeyStore(database)
    authenticator = Authenticator(keys, live_config, on_outcome=lambda outcome: metrics.authentications.add((outcome,)))
    metrics.before_reading(partial(_count_cached, authenticator, metrics))
    follower, subscription = follow_keys(environment, authenticator, connectivity)

    migrated = asyncio.Event()

    def on_migrated() -> None:
        connectivity.migrated()
        migrated.set()

    prompts = PromptStore(database)
    catalogue = PromptCatalogue(prompts)
    prompt_follower, prompt_subscription = follow_prompts(environment, catalogue)

    endpoints = EndpointRegistry(_endpoint_sources(environment, live_config, client, cluster))
    requests_in_flight = RequestsInFlight()
    demand = _demand(environment, endpoints, lambda: pipeline.queues.waiting(), requests_in_flight)
    costs = RunningCosts()
    engines = EngineClient(client, live_config.select(lambda each: timeouts_of(each.gateway)))
    pipeline = Pipeline(
        directory=directory,
        endpoints=endpoints,
        engines=engines,
        redis=redis,
        settlement=settlement,
        spawn=tasks.spawn,
        cache=AnswerCache(live_config, redis, embed=Embedder(endpoints, engines), spawn=tasks.spawn),
        prompts=PromptExecutor(catalogue),
        reread=keeping_priority(authenticator.reread),
        on_record=_observer(metrics.observe, costs.observe, *(() if demand is None else (demand.counts.observe,))),
    )
    media = MediaPipeline(
        directory=directory,
        endpoints=endpoints,
        engines=MediaEngines(client, live_config.select(lambda each: timeouts_of(each.gateway))),
        router=pipeline.router,
        gate=pipeline.gate,
        attempts=pipeline.attempts,
        closing=pipeline.closing,
        settlement=settlement,
        templates=pipeline.templates,
        engine_seconds=pipeline.engine_seconds,
    )
    if demand is not None:
        pipeline.queues.on_cold = demand.counts.announce
        pipeline.queues.on_refused = demand.counts.refuse

    blobs = open_blobs(environment)
    contents = ContentStore(database)
    outbox = WebhookOutbox(database)
    stateful = compose_stateful(
        environment,
        live_config,
        directory=directory,
        endpoints=endpoints,
        pipeline=pipeline,
        settlement=settlement,
        costs=costs,
        redis=redis,
        database=database,
        blobs=blobs,
        outbox=outbox,
        tasks=tasks,
        requests_in_flight=requests_in_flight,
        metrics=metrics.resources,
        confirm=authenticator.confirm,
    )
    connections = Connections(descriptors.connections)
    lines = LineWriter()
    metrics.access_lines_lost.read = lambda: {(): lines.lost}
    access = AccessLog(metrics, lines.write if log.isEnabledFor(logging.INFO) else None)
    readiness = Readiness(
        redis=redis,
        database=database,
        blobs=blobs,
        directory=directory,
        endpoints=endpoints,
        is_draining=lambda: requests_in_flight.is_leaving,
        config_error=lambda: reloader.error,
        can_record=lambda: settlement.can_record,
        spooled=lambda: metrics.spool_waiting.values.get((), 0),
        cluster=cluster,
    )
    changes = Announcer(authenticator, RedisPublisher(redis))
    certificate = ServerCertificate(CertificateFiles(*environment.tls)) if environment.tls else None
    bootstrap = BootstrapKey(environment.bootstrap_key, keys, changes) if environment.bootstrap_key else None
    app = create_app(
        Parts(
            directory=directory,
            pipeline=pipeline,
            media=media,
            endpoints=endpoints,
            authenticator=authenticator,
            keys=keys,
            teams=TeamStore(database),
            orgs=OrgStore(database),
            org_deletion=OrgDeletion(database),
            prompts=prompts,
            prompt_changes=PromptAnnouncer(redis, catalogue),
            prompt_results=PromptResults(database),
            prompt_links=PromptLinkStore(database),
            ledger=Ledger(database),
            requests=RequestLog(database),
            contents=contents,
            content_deletion=ContentDeletion(contents, StoredObjects(database), redis),
            scores=ScoreStore(database),
            webhooks=WebhookStore(database),
            outbox=outbox,
            redactor=live_config.select(lambda each: Redactor(each.content.redaction)),
            redis=redis,
            changes=changes,
            cache=OrgCache(redis),
            budgets=BudgetReader(redis),
            readiness=readiness,
            metrics=metrics,
            access=access,
            requests_in_flight=requests_in_flight,
            models=ModelManagement(
                added=None if cluster is not None else AddedModels(DropInFiles(folder_of(environment.state))),
                directory=directory,
                refresh=reloader.reload,
                figures=EngineFigures(client),
                door=EngineDoor(environment.engine_url, client) if environment.engine_url else None,
            ),
            responses=stateful.responses,
            response_store=stateful.response_store,
            background=stateful.background,
            compaction=stateful.compaction,
            conversations=stateful.conversations,
            stored_chats=stateful.stored_chats,
            chat_files=stateful.chat_files,
            chat_completions=stateful.chat_completions,
            files=stateful.files,
            uploads=stateful.uploads,
            batches=stateful.batches,
            job_credentials=JobCredentials(authenticator, PlatformSecret(database, "jobs")),
            started=int(time.time()),
            is_loopback=environment.is_loopback,
            demand=demand,
            metrics_token=environment.metrics_token.read_token() if environment.metrics_token else None,
        )
    )
    watch(
        metrics,
        endpoints=endpoints,
        gate=pipeline.gate,
        router=pipeline.router,
        queues=pipeline.queues,
        requests_in_flight=requests_in_flight,
        connections=connections,
    )
    return Service(
        server=create_server(
            app,
            environment.host,
            environment.port,
            connections=connections,
            tls=certificate.context if certificate else None,
        ),
        config=live_config,
        reloader=reloader,
        requests_in_flight=requests_in_flight,
        jobs={
            "migration": partial(migrate, database, on_migrated),
            "settlement": settlement.run,
            "configuration": reloader.run,
            **({} if cluster is None else cluster.jobs),
            **({} if certificate is None else {"certificate": certificate.watch}),
            **({} if bootstrap is None else {"bootstrap key": partial(run_after, migrated, bootstrap.run)}),
            "spool": partial(watch_spool, spool, settlement, metrics),
            "subscription": subscription.run,
            "key changes": follower.run,
            "prompt subscription": prompt_subscription.run,
            "prompt changes": partial(run_after, migrated, prompt_follower.run),
            "endpoints": endpoints.run,
            "health checks": HealthChecks(endpoints.all, client).run,
            "saturation": partial(
                sample,
                metrics.saturation,
                {"redis": redis.probe, "database": database.ping},
                (RedisError, RedisUnavailableError, DatabaseUnavailableError),
            ),
            "responses": stateful.responses.run,
            "background responses": stateful.background.run,
            "contexts": ContextReader(endpoints.all, client).run,
        },
        on_job_failure=lambda name: metrics.job_failures.add((name,)),
        tasks=tasks,
        settlement=settlement,
        connectivity=connectivity,
        connections=(
            *(() if cluster is None else (cluster.close,)),
            *(settlement.close, authenticator.close, stateful.tools.close, client.close, redis.close, database.close),
            blobs.close,
        ),
        access=access,
        shutdown_delay=0.0 if cluster is None else CLUSTER_DELAY_SECONDS,
    )


def _endpoint_sources(
    environment: Environment, config: Live[Config], client: HttpClient, cluster: Cluster | None
) -> list[EndpointSource]:
    """The endpoints of the configuration, then those of the engine door and of the cluster, where there are any."""
    sources: list[EndpointSource] = [StaticEndpoints(config, environment.variables)]
    if environment.engine_url:
        sources.append(PolledEndpoints(environment.engine_url, client))
    if cluster is not None:
        sources.append(cluster.endpoints(client))
    return sources


def _demand(
    environment: Environment,
    endpoints: EndpointRegistry,
    waiting: Callable[[], Mapping[str, int]],
    requests_in_flight: RequestsInFlight,
) -> DemandDoor | None:
    """Raises ValueError for a token that is too short, and OSError."""
    if environment.operator_token is None:
        return None
    token = environment.operator_token.read_token()
    return DemandDoor(Demand(endpoints, waiting, lambda: requests_in_flight.is_draining), token)


def _observer(*observers: Callable[[RequestRecord], None]) -> Callable[[RequestRecord], None]:
    def observe(record: RequestRecord) -> None:
        for each in observers:
            each(record)

    return observe


def _redis(environment: Environment, config: Live[Config], connectivity: Connectivity) -> Redis:
    """The client of everything but the subscription. Its timeout follows the configuration."""
    redis = Redis(
        environment.redis_url,
        reply_timeout=config.current.gateway.redis_timeout_seconds,
        on_state=connectivity.redis,
    )
    config.subscribe(lambda new: redis.set_reply_timeout(new.gateway.redis_timeout_seconds))
    return redis


def _count_cached(authenticator: Authenticator, metrics: GatewayMetrics) -> None:
    """Move the authenticator's own count of cached keys into the metric, when it is read."""
    metrics.authentications.add(("cached",), authenticator.hits)
    authenticator.hits = 0
