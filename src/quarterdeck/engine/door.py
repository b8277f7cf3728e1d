"""The engine door: starts Ray, has the models deployed, watches and drains them. `__main__` ends the process tree.

start    HTTP at once (endpoints are "starting") · the deployer's imports and Ray in parallel · then the models in order
watch    once or twice a second: the state of Serve's replicas, missing adapters, orphaned processes
stop     endpoints are "draining", active requests finish; then `__main__` ends Ray and every descendant
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
from quarterdeck.engine.deployer import Deployer, deployment_request
from quarterdeck.engine.endpoints import DeployedModel, EndpointRow, endpoint_rows, remembered_urls
from quarterdeck.engine.fingerprint import fingerprint
from quarterdeck.engine.machine import Machine
from quarterdeck.engine.profile import max_running, slug
from quarterdeck.engine.replica_client import ReplicaClient
from quarterdeck.engine.threads import in_thread
from quarterdeck.settings.engine import EngineDoorSettings
from quarterdeck.settings.models import ModelConfig

log = logging.getLogger(__name__)

_POLL_S = 0.5
_READY_POLL_S = 1.0
"""Poll interval while every endpoint is ready: a poll costs the door and Serve's controller a few milliseconds."""
_RAY_START_S = 240.0
"""On a busy machine with cold caches, Ray's start has taken a minute."""
_FINGERPRINT_S = 60.0
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
        *,
        base: Path,
        cache: Path,
    ) -> None:
        self._models = [model for model in models if model.engine is not None]
        self._settings = settings
        self._machine = machine
        self._cluster = cluster
        self._replicas = replicas
        self._base, self._cache = base, cache
        self._details: dict[str, Any] = {}
        self._urls: dict[str, str] = {}
        self._versions: dict[str, str] = {}
        self._progress = {model.name: "waiting for Ray" for model in self._models}
        self._is_draining = False
        self.is_healthy = False
        capacity = {model.name: model.engine.max_adapters for model in self._models if model.engine}
        store = AdapterStore(settings.adapter_copies)
        self.adapters = Adapters(replicas, capacity, settings.adapter_roots, store)
        for model in self._models:
            for adapter in model.engine.adapters if model.engine else ():
                path = (base / Path(adapter.source).expanduser()).resolve()
                self.adapters.desire(model.name, adapter.name, path)

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
        deployer = Deployer(self._progress.__setitem__)
        await deployer.start()
        began = time.monotonic()
        await in_thread(partial(self._cluster.start, self._machine), _RAY_START_S, stays=True)
        on_ray_started()
        machine = await in_thread(partial(self._cluster.with_gpus, self._machine), _ANSWER_S)
        log.info("Ray started after %.1f s", time.monotonic() - began, extra={"address": self._cluster.address})
        self.is_healthy = True
        await self._read_versions()
        for name in self._progress:
            self._progress[name] = "waiting for deployment"
        request = deployment_request(
            self._models,
            address=self._cluster.address,
            machine=machine,
            base=self._base,
            cache=self._cache,
            thread_binding=self._settings.thread_binding,
        )
        async with asyncio.TaskGroup() as group:
            group.create_task(deployer.deploy(request))
            group.create_task(self._watch())
            group.create_task(self._keep_adapters())

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
                self._details = await in_thread(self._cluster.details, _ANSWER_S)
            # Ray raises many kinds of errors, a dying Ray others still; each means that Serve is unreachable now.
            except Exception as error:
                self.is_healthy = False
                log.warning("Serve is unreachable: %s", error)
                if time.monotonic() - answered > _RAY_AWAY_S:
                    raise RayLostError(f"Serve has been unreachable for {_RAY_AWAY_S:.0f} s") from error
            else:
                self.is_healthy, answered = True, time.monotonic()
                self._urls = remembered_urls(self._details, self._urls, self._cluster.host)
            if self._cluster.is_ours:
                if missing := missing_daemons(processes.descendants(os.getpid())):
                    raise RayLostError(f"Ray has died: {missing} not running")
                await in_thread(end_orphans, 60)
            await asyncio.sleep(_READY_POLL_S if all(row.state == "ready" for row in self.endpoints()) else _POLL_S)

    async def _read_versions(self) -> None:
        """Fingerprint the models' files as they are deployed. A model that can't be read has none, and fails later."""
        for model in self._models:
            if model.engine is not None:
                try:
                    version = await in_thread(partial(fingerprint, model.engine, self._base), _FINGERPRINT_S)
                except (OSError, TimeoutError) as error:
                    log.warning("can't read the files of %s: %s", model.name, str(error) or type(error).__name__)
                else:
                    self._versions[model.name] = version

    async def _keep_adapters(self) -> None:
        """Reconcile apart from `_watch`: loading an adapter may take a minute."""
        while True:
            if self.is_healthy and not self._is_draining:
                await self.adapters.reconcile(self._generating())
            await asyncio.sleep(_READY_POLL_S)

    def _rows(self, incomplete: Collection[str] = ()) -> list[EndpointRow]:
        models = [
            DeployedModel(
                model.name,
                slug(model.name),
                model.engine.task,
                max_running(model.engine),
                self._progress[model.name],
                self._versions.get(model.name, ""),
            )
            for model in self._models
            if model.engine is not None
        ]
        return endpoint_rows(
            models,
            self._details,
            self._urls,
            self.adapters,
            incomplete=incomplete,
            is_draining=self._is_draining,
        )

    def _generating(self) -> dict[str, list[Replica]]:
        keys = {url: name for name, url in self._urls.items()}
        found: dict[str, list[Replica]] = {}
        for row in self._rows():
            if row.state == "ready" and row.task == "generate":
                found.setdefault(row.model, []).append(Replica(keys[row.url], row.url))
        return found


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
