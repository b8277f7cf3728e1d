"""The engine door: starts Ray, keeps the running models equal to the configuration, watches and drains them.
`__main__` ends the process tree.

start      HTTP at once (models are "waiting") · with the first model, the deployer's imports and Ray in parallel · then
           the reconciler
reconcile  models of the configuration, which may change, against Serve's applications (`model_lifecycle`)
watch      once or twice a second: the state of Serve's replicas, missing adapters, orphaned processes
stop       endpoints are "draining", active requests finish; then `__main__` ends Ray and every descendant
"""

import asyncio
import logging
import os
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from quarterdeck import processes
from quarterdeck.engine import shared_memory
from quarterdeck.engine.adapter_store import AdapterStore
from quarterdeck.engine.adapters import Adapters, Replica
from quarterdeck.engine.deployer import Deployer
from quarterdeck.engine.endpoints import DeployedModel, EndpointRow, endpoint_rows
from quarterdeck.engine.machine import Machine
from quarterdeck.engine.profile import max_running
from quarterdeck.engine.replica_client import ReplicaClient
from quarterdeck.engine.replica_logs import ReplicaLogs
from quarterdeck.engine.scrape_targets import scrape_targets
from quarterdeck.engine.serve_runtime import ServeRuntime
from quarterdeck.engine.sources import Sources
from quarterdeck.engine.threads import in_thread
from quarterdeck.model_lifecycle.desired import app_prefix, desired_models
from quarterdeck.model_lifecycle.gpus import Gpu
from quarterdeck.model_lifecycle.reconciler import Reconciler, Timing
from quarterdeck.model_lifecycle.start_times import StartTimes
from quarterdeck.model_lifecycle.status import ModelStatus
from quarterdeck.settings.engine import EngineDoorSettings
from quarterdeck.settings.models import ModelConfig

log = logging.getLogger(__name__)

_POLL_S = 0.5
_READY_POLL_S = 1.0
"""Poll interval while every endpoint is ready: a poll costs the door and Serve's controller a few milliseconds."""
_RAY_START_S = 240.0
"""On a busy machine with cold caches, Ray's start has taken a minute."""
_ANSWER_S = 10.0
"""Timeout of a call to Serve's controller; a dead Ray never answers."""
_RAY_AWAY_S = 20.0
"""How long Serve's controller may be unreachable (Ray restarts it) before the door exits, to be restarted."""


class Ray(Protocol):
    """What the door needs of `engine/cluster.py`. Every call blocks."""

    is_ours: bool
    host: str | None
    address: str

    def start(self, machine: Machine) -> None: ...

    def with_gpus(self, machine: Machine) -> Machine: ...

    def details(self) -> dict[str, Any]: ...

    def delete(self, app: str) -> None: ...

    def nodes(self) -> list[dict[str, Any]]: ...


class RayLostError(Exception):
    """Ray has ended, and all replicas with it."""


class Door:
    """The state behind the control port. Built once, in `__main__`."""

    def __init__(
        self,
        models: Sequence[ModelConfig],
        settings: EngineDoorSettings,
        machine: Machine,
        cluster: Ray,
        replicas: ReplicaClient,
        sources: Sources,
        logs: ReplicaLogs,
        *,
        base: Path,
        times: StartTimes,
        owner: str = "",
        deployer: Deployer | None = None,
        read_gpus: Callable[[], tuple[Gpu, ...]] = tuple,
    ) -> None:
        """`owner`: part of the names of this door's Serve applications, in a cluster that it shares with others.
        `read_gpus`: this machine's GPUs and their memory; blocks. None are known by default."""
        self._settings = settings
        self._machine = machine
        self._cluster = cluster
        self._replicas = replicas
        self._base = base
        self._is_draining = False
        self._is_needed = asyncio.Event()
        """Whether there is a model to run, so that Ray must be started. Ray then stays: it takes 1.5 GB, and a minute
        to start."""
        self.is_answering = False
        """Whether Serve answers."""
        self._deployer = deployer or Deployer()
        self._runtime = ServeRuntime(
            cluster,
            self._deployer,
            sources,
            replicas,
            logs,
            base=base,
            prefix=app_prefix(owner),
            thread_binding=settings.thread_binding,
            read_gpus=read_gpus,
        )
        self._reconciler = Reconciler(self._runtime, times, timing=Timing(drain=settings.drain_seconds), owner=owner)
        self._reconciler.waiting_for = "Ray"
        store = AdapterStore(settings.adapter_copies)
        self.adapters = Adapters(replicas, {}, settings.adapter_roots, store)
        self.follow(models)

    def follow(self, models: Sequence[ModelConfig]) -> None:
        """Take a new configuration: its engines, and the adapters that running engines load."""
        desired = desired_models(models)
        self._reconciler.follow(desired)
        if not self._cluster.is_ours or any(not model.is_stopped for model in desired.values()):
            self._is_needed.set()
        self.adapters.follow(
            {name: model.engine.max_adapters for name, model in desired.items()},
            {
                name: {
                    adapter.name: (self._base / Path(adapter.source).expanduser()).resolve()
                    for adapter in model.engine.adapters
                }
                for name, model in desired.items()
            },
        )

    @property
    def is_healthy(self) -> bool:
        """Whether Serve answers, or no model needs it."""
        return self.is_answering or not self._is_needed.is_set()

    def statuses(self) -> list[ModelStatus]:
        return self._reconciler.statuses()

    def retry(self, name: str) -> bool:
        """Try a failed model again now. False: it has not failed."""
        return self._reconciler.retry(name)

    async def scrape_targets(self) -> list[dict[str, Any]]:
        """Where Ray's metrics are. Empty while Ray does not answer."""
        if not self.is_answering:
            return []
        return scrape_targets(await in_thread(self._cluster.nodes, _ANSWER_S), self._cluster.host)

    def endpoints(self) -> list[EndpointRow]:
        incomplete = {
            replica.key
            for model, replicas in self._generating().items()
            for replica in replicas
            if self.adapters.lacks_adapters(model, replica)
        }
        return self._rows(incomplete)

    def generating(self, model: str) -> list[Replica]:
        """Return a model's ready replicas, whether or not they have all adapters. Of an embedding model: none, because
        only models that generate have adapters."""
        return self._generating().get(model, [])

    async def run(self, *, on_ray_started: Callable[[], None]) -> None:
        """Serve until cancelled. Raises an ExceptionGroup if a part fails: of RayLostError if Ray has ended."""
        if not self._is_needed.is_set():
            log.info("no model to run: Ray is started with the first one")
        await self._is_needed.wait()
        try:
            await self._deployer.start()
            began = time.monotonic()
            await in_thread(partial(self._cluster.start, self._machine), _RAY_START_S, stays=True)
            on_ray_started()
            self._runtime.machine = await in_thread(partial(self._cluster.with_gpus, self._machine), _ANSWER_S)
            log.info("Ray started after %.1f s", time.monotonic() - began, extra={"address": self._cluster.address})
            await self._runtime.poll()
            self.is_answering = True
            self._reconciler.waiting_for = ""
            async with asyncio.TaskGroup() as group:
                group.create_task(self._reconciler.run())
                group.create_task(self._watch())
                group.create_task(self._keep_adapters())
        finally:
            await self._deployer.close()

    async def drain(self) -> None:
        """Report draining and wait for active requests. A joined cluster outlives the door: returns at once."""
        self._is_draining = True
        if not self._cluster.is_ours:
            return
        deadline = time.monotonic() + self._settings.drain_seconds
        while time.monotonic() < deadline:
            draining_urls = [row.url for row in self.endpoints() if row.state == "draining" and row.url]
            active = sum(await asyncio.gather(*map(self._replicas.active_requests, draining_urls)))
            if active == 0:
                return
            await asyncio.sleep(0.2)
        log.warning("requests still active after draining for %.0f s", self._settings.drain_seconds)

    async def _watch(self) -> None:
        answered = time.monotonic()
        while True:
            try:
                await self._runtime.poll()
            # Ray raises many kinds of errors, a dying Ray others still; each means that Serve is unreachable now.
            except Exception as error:
                self.is_answering = False
                log.warning("Serve is unreachable: %s", error)
                if time.monotonic() - answered > _RAY_AWAY_S:
                    raise RayLostError(f"Serve has been unreachable for {_RAY_AWAY_S:.0f} s") from error
            else:
                self.is_answering, answered = True, time.monotonic()
            if self._cluster.is_ours:
                if missing := missing_daemons(processes.descendants(os.getpid())):
                    raise RayLostError(f"Ray has died: {missing} not running")
                await in_thread(end_orphans, 60)
            await asyncio.sleep(_READY_POLL_S if all(row.state == "ready" for row in self.endpoints()) else _POLL_S)

    async def _keep_adapters(self) -> None:
        """Reconcile apart from `_watch`: loading an adapter may take a minute."""
        while True:
            if self.is_answering and not self._is_draining:
                await self.adapters.reconcile(self._generating())
            await asyncio.sleep(_READY_POLL_S)

    def _rows(self, incomplete: Collection[str] = ()) -> list[EndpointRow]:
        statuses = {each.name: each for each in self._reconciler.statuses()}
        models = [
            DeployedModel(
                each.model.name,
                each.app,
                each.model.engine.task,
                max_running(each.model.engine),
                _words(statuses.get(each.model.name)),
                each.prepared.version if each.prepared is not None else "",
                each.is_leaving,
            )
            for each in self._reconciler.instances
        ]
        known = {each.name for each in models}
        for name, model in self._reconciler.desired.items():
            if name not in known and not model.is_stopped:
                engine = model.engine
                models.append(DeployedModel(name, "", engine.task, max_running(engine), _words(statuses.get(name))))
        return endpoint_rows(
            models,
            self._runtime.details,
            self._runtime.urls,
            self.adapters,
            incomplete=incomplete,
            is_draining=self._is_draining,
        )

    def _generating(self) -> dict[str, list[Replica]]:
        keys = {url: name for name, url in self._runtime.urls.items()}
        found: dict[str, list[Replica]] = {}
        for row in self._rows():
            if row.state == "ready" and row.task == "generate":
                found.setdefault(row.model, []).append(Replica(keys[row.url], row.url))
        return found


def _words(status: ModelStatus | None) -> str:
    """What a model without a replica waits for."""
    if status is None:
        return ""
    return f"failed: {status.detail}" if status.state == "failed" else status.detail


def missing_daemons(tree: Iterable[processes.Process]) -> str:
    """Return the names of Ray's two essential processes that are not running."""
    return " and ".join(sorted({"raylet", "gcs_server"} - {process.name for process in tree}))


def end_orphans() -> None:
    """End vLLM processes whose replica died: they are reparented to this process and hold gigabytes."""
    for process in processes.process_table().values():
        if process.parent != os.getpid() or not process.name.startswith("VLLM::"):
            continue
        if process.is_alive:
            log.warning("ending %s (%d): its replica has died", process.name, process.pid)
            segments = shared_memory.segments([process, *processes.descendants(process.pid)])
            processes.end_tree(process.pid, grace_s=0.5)
            shared_memory.remove(segments)
        try:
            os.waitpid(process.pid, os.WNOHANG)
        except ChildProcessError:
            continue  # reaped elsewhere meanwhile
