"""The engine door: it starts Ray, has the models deployed, looks after them, and ends the whole tree.

start    HTTP at once (it says "starting") · the deployer's imports and Ray side by side · then the models, in order
watch    once or twice a second: what Serve's replicas do, adapters they lack, processes that lost their parent
stop     draining is told, requests under way end, then Ray and every descendant
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
from quarterdeck.engine.adapters import Adapter, Adapters, Replica
from quarterdeck.engine.deployer import Deployer, orders
from quarterdeck.engine.endpoints import Row, Served, rows, urls
from quarterdeck.engine.machine import Machine
from quarterdeck.engine.profile import max_running, slug
from quarterdeck.engine.replica_client import ReplicaClient
from quarterdeck.engine.threads import in_thread
from quarterdeck.settings.engine import EngineDoorSettings
from quarterdeck.settings.models import ModelConfig

log = logging.getLogger(__name__)

_LOOK_S = 0.5
_REST_S = 1.0
"""Between two looks when all is as it should be: each costs the door and Serve's controller a few milliseconds."""
_RAY_START_S = 240.0
"""On a bare and busy machine Ray's start has taken a minute."""
_ANSWER_S = 10.0
"""A call to Serve's controller that takes longer is lost: a Ray that died answers never."""
_RAY_AWAY_S = 20.0
"""So long Serve's controller may not answer (Ray restarts it by itself) before we end, to be started anew."""


class Ray(Protocol):
    """What the door needs of a cluster (`engine/cluster.py`); every call blocks."""

    is_ours: bool
    host: str | None
    address: str

    def start(self, machine: Machine) -> None: ...

    def with_gpus(self, machine: Machine) -> Machine: ...

    def details(self) -> dict[str, Any]: ...


class RayLostError(Exception):
    """Ray is gone, and with it all that we serve."""


class Door:
    """The state behind the control port. Built once, by `__main__`."""

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
        self._told = {model.name: "waiting for Ray" for model in self._models}
        self._is_draining = False
        self.is_healthy = False
        room = {model.name: model.engine.max_adapters for model in self._models if model.engine}
        self.adapters = Adapters(replicas, room, settings.adapter_roots)
        for model in self._models:
            for adapter in model.engine.adapters if model.engine else ():
                path = (base / Path(adapter.source).expanduser()).resolve()
                self.adapters.want(model.name, Adapter(adapter.name, path))

    def endpoints(self) -> list[Row]:
        incomplete = {
            replica.key
            for model, replicas in self._serving().items()
            for replica in replicas
            if self.adapters.incomplete(model, replica)
        }
        return self._rows(incomplete)

    def serving(self, model: str) -> list[Replica]:
        """The replicas that answer for a model, with all of its adapters or not yet."""
        return self._serving().get(model, [])

    async def run(self, *, on_ray_started: Callable[[], None]) -> None:
        """Serve until cancelled. Raises RayLostError."""
        deployer = Deployer(self._told.__setitem__)
        await deployer.start()
        begun = time.monotonic()
        await in_thread(partial(self._cluster.start, self._machine), _RAY_START_S, stays=True)
        on_ray_started()
        machine = await in_thread(partial(self._cluster.with_gpus, self._machine), _ANSWER_S)
        log.info("Ray is up after %.1f s", time.monotonic() - begun, extra={"address": self._cluster.address})
        self.is_healthy = True
        for name in self._told:
            self._told[name] = "waiting for its turn"
        ordered = orders(
            self._models,
            address=self._cluster.address,
            machine=machine,
            base=self._base,
            cache=self._cache,
            thread_binding=self._settings.thread_binding,
        )
        async with asyncio.TaskGroup() as group:
            group.create_task(deployer.deploy(ordered))
            group.create_task(self._watch())

    async def drain(self) -> None:
        """Say that we go, and wait for the requests under way. In a cluster that we joined, engines outlive us."""
        self._is_draining = True
        if not self._cluster.is_ours:
            return
        deadline = time.monotonic() + self._settings.drain_seconds
        while time.monotonic() < deadline:
            ready = [row.url for row in self.endpoints() if row.state == "draining" and row.url]
            in_work = sum(await asyncio.gather(*map(self._replicas.in_work, ready)))
            if in_work == 0:
                return
            await asyncio.sleep(0.2)
        log.warning("drained for %.0f s, requests are still under way", self._settings.drain_seconds)

    async def _watch(self) -> None:
        answered = time.monotonic()
        while True:
            try:
                self._details = await in_thread(self._cluster.details, _ANSWER_S)
            # Whatever Ray raises (it has many kinds, and a dying Ray raises others) means the same: no answer now.
            except Exception as error:
                self.is_healthy = False
                log.warning("Serve does not answer: %s", error)
                if time.monotonic() - answered > _RAY_AWAY_S:
                    raise RayLostError(f"Serve has not answered for {_RAY_AWAY_S:.0f} s") from error
            else:
                self.is_healthy, answered = True, time.monotonic()
                self._remember_urls()
                await self.adapters.reconcile(self._serving())
            if self._cluster.is_ours:
                if gone := missing_daemons(processes.descendants(os.getpid())):
                    raise RayLostError(f"lost Ray: no {gone} among our processes")
                await in_thread(end_orphans, 60)
            await asyncio.sleep(_REST_S if all(row.state == "ready" for row in self.endpoints()) else _LOOK_S)

    def _remember_urls(self) -> None:
        listed = {
            replica["actor_name"]
            for app in self._details.get("applications", {}).values()
            for deployment in app["deployments"].values()
            for replica in deployment["replicas"]
        }
        known = {**self._urls, **urls(self._details, self._cluster.host)}
        self._urls = {name: url for name, url in known.items() if name in listed}

    def _rows(self, incomplete: Collection[str] = ()) -> list[Row]:
        served = [
            Served(model.name, slug(model.name), model.engine.task, max_running(model.engine), self._told[model.name])
            for model in self._models
            if model.engine is not None
        ]
        return rows(
            served,
            self._details,
            self._urls,
            self.adapters.loaded,
            incomplete=incomplete,
            is_draining=self._is_draining,
        )

    def _serving(self) -> dict[str, list[Replica]]:
        keys = {url: name for name, url in self._urls.items()}
        found: dict[str, list[Replica]] = {}
        for row in self._rows():
            if row.state == "ready" and row.task == "generate":
                found.setdefault(row.model, []).append(Replica(keys[row.url], row.url))
        return found


def missing_daemons(tree: Iterable[processes.Process]) -> str:
    """Which of the two processes without which there is no Ray does not live, by name."""
    return " and ".join(sorted({"raylet", "gcs_server"} - {process.name for process in tree}))


def end_orphans() -> None:
    """End vLLM's processes whose replica died: they were left to us, and they hold gigabytes."""
    for process in processes.process_table().values():
        if process.parent != os.getpid() or not process.name.startswith("VLLM::"):
            continue
        if process.is_alive:
            log.warning("ending %s (%d), whose replica is gone", process.name, process.pid)
            segments = shared_memory.segments([process, *processes.descendants(process.pid)])
            processes.end_tree(process.pid, grace_s=0.5)
            shared_memory.remove(segments)
        try:
            os.waitpid(process.pid, os.WNOHANG)
        except ChildProcessError:
            continue  # reaped by someone else in between
