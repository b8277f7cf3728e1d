"""The operator's composition root and lifecycle: every object is built here, once, and handed down."""

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from typing import Any

import httpx
import uvicorn

from quarterdeck.kube.resources.adapter import ModelAdapter
from quarterdeck.kube.resources.model import Model
from quarterdeck.kube.resources.prompt import Prompt
from quarterdeck.kube.resources.route import ModelRoute
from quarterdeck.kube.resources.team import Team
from quarterdeck.net.sockets import BACKLOG, listen
from quarterdeck.net.tasks import BackgroundTasks, keep_running
from quarterdeck.net.uvicorn_server import EmbeddedServer
from quarterdeck.operator.adapters.controller import KEY_KIND as ADAPTERS
from quarterdeck.operator.adapters.controller import AdapterController
from quarterdeck.operator.apply import Applier
from quarterdeck.operator.autoscaler import Autoscaler
from quarterdeck.operator.cache import ObjectCache
from quarterdeck.operator.cluster import Cluster, ClusterError
from quarterdeck.operator.compiled_status import CompiledStatus
from quarterdeck.operator.demand import DemandReader, gateway_addresses
from quarterdeck.operator.diagnosis.diagnose import diagnose
from quarterdeck.operator.diagnosis.evidence import Evidence
from quarterdeck.operator.endpoint_keys import EndpointKeys
from quarterdeck.operator.event_log import EventLog
from quarterdeck.operator.event_recorder import EventRecorder
from quarterdeck.operator.exposition import count_objects
from quarterdeck.operator.gateway_client import GatewayClient
from quarterdeck.operator.health import HealthApp
from quarterdeck.operator.leader import Leader
from quarterdeck.operator.listing import Listing
from quarterdeck.operator.manifests import (
    DEPLOYMENT,
    ENDPOINT_SLICE,
    RAY_SERVICE,
    Key,
    Manifest,
    uid_of,
)
from quarterdeck.operator.nodes import Nodes
from quarterdeck.operator.probe import Capabilities, Probe
from quarterdeck.operator.prompts.client import PromptClient
from quarterdeck.operator.prompts.reconcile import PromptReconciler
from quarterdeck.operator.prompts.record import PromptRecord
from quarterdeck.operator.publish import Owner, Publisher
from quarterdeck.operator.ray_tokens import RayTokens
from quarterdeck.operator.ray_workers import EngineDoors, RayWorkers
from quarterdeck.operator.reconcile import ModelReconciler
from quarterdeck.operator.rollout import Canaries
from quarterdeck.operator.router import Router
from quarterdeck.operator.scale_loop import ScaleLoop
from quarterdeck.operator.settings import OperatorSettings
from quarterdeck.operator.team_usage import TeamUsageWriter
from quarterdeck.operator.watch import Watch
from quarterdeck.operator.work_queue import WorkQueue
from quarterdeck.telemetry.operator_metrics import OperatorMetrics

log = logging.getLogger(__name__)

WORKERS = 8
"""Reconciles at once; each waits for the API server most of its time."""
STUCK_SECONDS = 300.0
"""A leader whose queue has not moved for so long is restarted by its liveness probe."""

Reconcile = Callable[[str], Coroutine[Any, Any, float | None]]
"""Reconciles the object of a kind with this name; returns the seconds until the next call."""


class Operator:
    """One operator process; any number may run, one leads."""

    def __init__(
        self,
        settings: OperatorSettings,
        cluster: Cluster,
        metrics: OperatorMetrics,
    ) -> None:
        self._settings, self._cluster = settings, cluster
        config, namespace = settings.config, settings.namespace
        self.metrics = metrics
        self._tasks = BackgroundTasks()
        self._events = EventLog()
        self.queue: WorkQueue[Key] = WorkQueue(
            self._handle,
            on_failure=self._on_failure,
            on_wait=metrics.queue_wait_seconds.observe,
        )
        self.cache = ObjectCache()
        self.router = Router(
            self.cache,
            self._events,
            gateway_service=config.gateway_service,
            config_map=config.config_map,
            add=self._add,
            publish=lambda: self.publisher.mark(),
            on_gateways=self._follow_gateways,
        )
        self.cache.on_change = self.router.on_change
        self.applier = Applier(cluster, self.cache, namespace)
        self.publisher = Publisher(
            self.cache,
            self.applier,
            EndpointKeys(cluster, namespace, config.endpoint_keys_secret),
            namespace=namespace,
            config_map=config.config_map,
            base=config.base_config,
            reserved=config.reserved,
            on_verdict=self._add,
            on_write=metrics.published.add,
        )
        self.autoscaler = Autoscaler(config.scaling.down_seconds)
        self.recorder = EventRecorder(cluster, namespace, settings.identity, self._tasks.spawn)
        self.probe = Probe(cluster, self._on_capabilities)
        self.nodes = Nodes(cluster)
        self._http = httpx.AsyncClient()
        workers = RayWorkers(cluster, namespace, EngineDoors(self._http))
        self.models = ModelReconciler(
            cluster=cluster,
            cache=self.cache,
            applier=self.applier,
            publisher=self.publisher,
            autoscaler=self.autoscaler,
            recorder=self.recorder,
            events=self._events,
            config=config,
            namespace=namespace,
            capabilities=lambda: self.probe.current,
            diagnose=lambda pods, events, others: diagnose(
                Evidence(pods, events, others, self.nodes.current, datetime.now(UTC))
            ),
            on_scaling=lambda before, after: metrics.scalings.add(("up" if after > before else "down",)),
            canaries=Canaries(lambda: self.demand.counters(), has_name=self.publisher.has_name),
            preparations={RAY_SERVICE.name: RayTokens(cluster, namespace).prepare},
            follow_ups={RAY_SERVICE.name: workers.follow},
        )
        self.prompts = PromptReconciler(
            cluster,
            self.cache,
            PromptClient(self._http, lambda: list(self._gateway_addresses().values()), settings.admin_key_file),
            PromptRecord(cluster, namespace, f"{config.config_map}-prompts", lambda: self.publisher.owner),
            namespace,
        )
        self.adapters = AdapterController(
            cluster=cluster,
            cache=self.cache,
            publisher=self.publisher,
            recorder=self.recorder,
            http=self._http,
            namespace=namespace,
            parse=self.models.parse,
            add=self._add_after,
            spawn=self._tasks.spawn,
        )
        gateways = GatewayClient(self._http, lambda: list(self._gateway_addresses().values()), settings.admin_key_file)
        self.team_usage = TeamUsageWriter(cluster, self.cache, gateways, namespace)
        self.reconcilers: dict[str, Reconcile] = {
            Prompt.kind: self.prompts.reconcile,
            Model.kind: self.models.reconcile,
            ADAPTERS: self.adapters.reconcile,
            ModelRoute.kind: CompiledStatus(ModelRoute, cluster, self.cache, self.publisher, namespace).reconcile,
            Team.kind: CompiledStatus(Team, cluster, self.cache, self.publisher, namespace).reconcile,
        }
        """By kind of custom resource. Kinds without one are only compiled."""
        self.scale_loop = ScaleLoop(
            self.cache,
            self.models,
            is_leading=lambda: self.leader.is_leader,
            observe=lambda models: self.autoscaler.observe(self.demand.by_owner(self.publisher.names), models),
            add=self.queue.add,
        )
        self.demand = DemandReader(
            self._http, settings.token, self.scale_loop.mark, pause_seconds=config.scaling.poll_seconds
        )
        self.leader = Leader(cluster, namespace, config.lease, settings.identity, self._on_leader)
        self.listing = Listing(
            cluster,
            namespace,
            self.cache,
            self.router.concerns,
            has_kuberay=lambda: self.probe.current.has_kuberay,
            groups=lambda: self.probe.current.groups,
            on_missed=lambda: self._watch.restart(),
            on_corrections=lambda count: metrics.corrections.add((), count),
        )
        self._watch = Watch(namespace, self.listing.kinds, self._on_event)
        self._leading: asyncio.Task[None] | None = None
        self._moved_at = time.monotonic()

    async def run(self, stop: asyncio.Event) -> None:
        """Run until `stop` is set. Raises ClusterError if the API server can't be reached at the start."""
        socket = listen(self._settings.host, self._settings.port)
        app = HealthApp(self._is_alive, self._parts, self._facts, self._render)
        server = EmbeddedServer(uvicorn.Config(app, log_config=None, access_log=False, lifespan="off", backlog=BACKLOG))
        jobs: list[asyncio.Task[None]] = [asyncio.create_task(server.serve(sockets=[socket]))]
        try:
            await self._start(stop)
            for name, job in (
                ("watch", self._watch.run),
                ("probe", self.probe.run),
                ("nodes", self.nodes.run),
                ("relist", self.listing.run),
                ("demand", self.scale_loop.run),
                ("lead", self.leader.run),
            ):
                jobs.append(asyncio.create_task(keep_running(name, job)))
            log.info("operator is running in namespace %s", self._settings.namespace)
            await stop.wait()
        finally:
            self._stop_leading()
            server.should_exit = True
            for task in jobs[1:]:
                task.cancel()
            await asyncio.gather(*jobs, return_exceptions=True)
            self.demand.close()
            await self._tasks.drain(cancel_after=3)
            await self._http.aclose()
            self._cluster.close()

    async def _start(self, stop: asyncio.Event) -> None:
        """Probe and list. The API server may come later than the operator."""
        while not stop.is_set():
            try:
                await self.probe.once()
                await self.listing.once()
                await self._find_owner()
                return
            except ClusterError as error:
                log.warning("could not list the namespace's objects, trying again: %s", error)
                await asyncio.sleep(2)

    async def _find_owner(self) -> None:
        name = self._settings.config.operator_deployment
        if name is None:
            return
        found = await self._cluster.get(DEPLOYMENT, self._settings.namespace, name)
        if found is None:
            log.warning("there is no Deployment '%s' that could own the configuration", name)
        else:
            self.publisher.owner = Owner(name, uid_of(found))

    # ---- what is followed ----

    def _on_event(self, type: str | None, manifest: Manifest) -> None:
        self.metrics.watch_events.add((manifest["kind"],))
        self.listing.heard(manifest["kind"])
        self.router.take(type, manifest)

    def _on_capabilities(self, capabilities: Capabilities) -> None:
        self._watch.restart()
        for key in self.cache.keys(Model.kind):
            self._add(key)

    # ---- leading ----

    def _on_leader(self, is_leader: bool) -> None:
        self.metrics.is_leader.set(int(is_leader))
        if not is_leader:
            self._stop_leading()
            return
        self._moved_at = time.monotonic()
        self._leading = asyncio.create_task(self._lead())

    async def _lead(self) -> None:
        keys = [key for kind in self.reconcilers for key in self.cache.keys(kind)]
        keys += [Key(ADAPTERS, model) for model in self.adapters.models()]
        self.publisher.begin(keys)
        for key in keys:
            self.queue.add(key)
        self.prompts.begin()
        self.queue.add(Key(Prompt.kind, ""))  # archives the prompts of objects that were deleted meanwhile
        async with asyncio.TaskGroup() as group:
            group.create_task(self.queue.run(WORKERS))
            group.create_task(self.publisher.run())
            if self._settings.admin_key_file is not None:
                group.create_task(self.team_usage.run())

    def _stop_leading(self) -> None:
        if self._leading is not None:
            self._leading.cancel()
            self._leading = None

    def _add(self, key: Key) -> None:
        if not self.leader.is_leader:
            return
        if key.kind in self.reconcilers:
            self.queue.add(key)
        if key.kind == ModelAdapter.kind and (model := self.adapters.model_of(key.name)) is not None:
            self.queue.add(Key(ADAPTERS, model))
            self.queue.add(Key(Model.kind, model))  # its volumes
        elif key.kind == Model.kind and self.adapters.concerns(key.name):
            self.queue.add(Key(ADAPTERS, key.name))

    def _add_after(self, key: Key, seconds: float) -> None:
        if self.leader.is_leader:
            self.queue.add_after(key, seconds)

    async def _handle(self, key: Key) -> float | None:
        started = time.monotonic()
        again = await self.reconcilers[key.kind](key.name)
        self._moved_at = time.monotonic()
        if again is None or self.is_compiled(key):
            self.publisher.seen(key)
        self.metrics.reconciles.add((key.kind, "ok"))
        self.metrics.reconcile_seconds.observe(self._moved_at - started, (key.kind,))
        if again is None:
            self.queue.forget(key)
        return again

    def is_compiled(self, key: Key) -> bool:
        """Whether the object's present generation was compiled, so that its reconcile was a whole one."""
        manifest = self.cache.get(*key)
        generation = int(manifest["metadata"].get("generation", 0)) if manifest is not None else 0
        return self.publisher.verdict(key, generation) is not None or key.kind in (Prompt.kind, ADAPTERS)

    def _on_failure(self, key: Key, error: Exception) -> None:
        self._moved_at = time.monotonic()
        self.metrics.reconciles.add((key.kind, "failed"))
        if isinstance(error, ClusterError):
            log.warning("reconcile of %s %s failed, trying again: %s", key.kind, key.name, error)
        else:
            log.error("reconcile of %s %s failed, trying again", key.kind, key.name, exc_info=error)

    # ---- demand ----

    def _follow_gateways(self) -> None:
        self.demand.follow(self._gateway_addresses())

    def _gateway_addresses(self) -> dict[str, str]:
        config = self._settings.config
        slices = self.cache.of_kind(ENDPOINT_SLICE.name)
        return gateway_addresses(slices, config.gateway_service, config.gateway_port)

    # ---- what it says about itself ----

    def _is_alive(self) -> bool:
        return not self.leader.is_leader or self.queue.depth == 0 or time.monotonic() - self._moved_at < STUCK_SECONDS

    def _parts(self) -> dict[str, str]:
        return {
            "objects": "ok" if self.listing.is_done else "not listed yet",
            "watch": "ok" if self._watch.is_running else "not running",
        }

    def _facts(self) -> dict[str, object]:
        return {"leader": self.leader.is_leader, "holder": self.leader.holder}

    def _render(self) -> bytes:
        self.metrics.queue_depth.set(self.queue.depth)
        self.metrics.gateways.set(self.demand.count)
        count_objects(self.metrics, self.cache)
        return self.metrics.scrape()
