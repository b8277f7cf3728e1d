"""Models as applications of Ray Serve: the reconciler's `Runtime` in the engine door.

`poll` reads Serve's details once; everything else answers from them. Calls into Ray block and may never return, so they
run in threads of their own with a timeout.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from quarterdeck import processes
from quarterdeck.engine import shared_memory
from quarterdeck.engine.deployer import Deployer, machine_fields
from quarterdeck.engine.endpoints import failure, remembered_urls, word
from quarterdeck.engine.machine import Machine
from quarterdeck.engine.replica_client import ReplicaClient
from quarterdeck.engine.replica_logs import ReplicaLogs
from quarterdeck.engine.sources import Sources
from quarterdeck.engine.threads import in_thread
from quarterdeck.model_lifecycle.desired import Desired, slug
from quarterdeck.model_lifecycle.gpus import Gpu, Gpus, held_by
from quarterdeck.model_lifecycle.memory import free_memory, resident_bytes
from quarterdeck.model_lifecycle.runtime import (
    Observed,
    Prepared,
    Progress,
    Report,
    RuntimeUnavailableError,
)

log = logging.getLogger(__name__)

ANSWER_SECONDS = 10.0
"""Timeout of a call to Serve's controller; a dead Ray never answers."""
STOP_SECONDS = 60.0
"""For Serve to end an application, and for its processes then; then they are killed."""
MEMORY_SECONDS = 2.0
"""Between two looks at the processes' memory, which read /proc."""
_POLL_S = 0.25


class Ray(Protocol):
    """What the runtime needs of `engine/cluster.py`. Every call blocks."""

    is_ours: bool
    host: str | None
    address: str

    def details(self) -> dict[str, Any]: ...

    def delete(self, app: str) -> None: ...


class ServeRuntime:
    """Built once, in the door."""

    def __init__(
        self,
        ray: Ray,
        deployer: Deployer,
        sources: Sources,
        replicas: ReplicaClient,
        logs: ReplicaLogs,
        *,
        base: Path,
        prefix: str,
        thread_binding: str | None,
        read_gpus: Callable[[], tuple[Gpu, ...]],
    ) -> None:
        """`prefix`: of the names of this door's apps. `read_gpus`: those of this machine; blocks."""
        self._ray, self._deployer, self._sources = ray, deployer, sources
        self._replicas, self._logs = replicas, logs
        self._base, self._prefix, self._thread_binding = base, prefix, thread_binding
        self.machine: Machine | None = None
        """Set once Ray has started."""
        self.details: dict[str, Any] = {}
        self.urls: dict[str, str] = {}
        """Of replicas, by the name of their actor."""
        self._models: dict[str, str] = {}
        """Slugs of models, by app."""
        self._observed: dict[str, Observed] = {}
        self._memory: dict[str, int] = {}
        self._gpu_memory: dict[str, int | None] = {}
        self._read_gpus = read_gpus
        self._gpus: tuple[Gpu, ...] = ()
        self._measured = 0.0

    @property
    def max_starting(self) -> int | None:
        """On CPUs one: it has all cores to itself, and the chat model, which goes first, is ready sooner."""
        return None if self.machine is not None and self.machine.gpus else 1

    def observed(self) -> Mapping[str, Observed]:
        return self._observed

    def free_bytes(self) -> int | None:
        return free_memory() if self._ray.is_ours else None

    def gpus(self) -> Gpus | None:
        return Gpus(self.machine.gpus, self._gpus) if self.machine is not None and self.machine.gpus else None

    async def poll(self) -> None:
        """Read Serve's details, and with a local Ray its processes. Raises what Ray raises, and TimeoutError."""
        self.details = await in_thread(self._ray.details, ANSWER_SECONDS)
        self.urls = remembered_urls(self.details, self.urls, self._ray.host)
        apps = {name: app for name, app in self._apps().items() if name.startswith(self._prefix)}
        if self._ray.is_ours:
            await in_thread(partial(self._look_at_processes, apps), ANSWER_SECONDS)
        self._observed = {name: self._observe(name, app) for name, app in apps.items()}

    async def prepare(self, model: Desired, report: Report) -> Prepared:
        return await self._sources.prepare(model, self._known_machine(), report)

    async def start(self, app: str, model: Desired, prepared: Prepared) -> None:
        self._models[app] = slug(model.name)
        await self._deployer.deploy(
            {
                "address": self._ray.address,
                "machine": machine_fields(self._known_machine()),
                "base": str(self._base),
                "thread_binding": self._thread_binding,
                "app": app,
                "name": model.name,
                "source": prepared.source,
                "engine": model.engine.model_dump(mode="json"),
            }
        )

    async def stop(self, app: str) -> None:
        tree = await in_thread(partial(self._tree, app), ANSWER_SECONDS)
        segments = await in_thread(partial(shared_memory.segments, tree), ANSWER_SECONDS)
        deadline = time.monotonic() + STOP_SECONDS
        try:
            await in_thread(partial(self._ray.delete, app), ANSWER_SECONDS)
            while app in (details := await in_thread(self._ray.details, ANSWER_SECONDS)).get("applications", {}):
                if time.monotonic() > deadline:
                    raise RuntimeUnavailableError(f"Serve has not ended it within {STOP_SECONDS:.0f} s")
                await asyncio.sleep(_POLL_S)
        except RuntimeUnavailableError:
            raise
        # Ray raises many kinds of errors, a dying Ray others still; the door's watch decides whether it is lost.
        except Exception as error:
            raise RuntimeUnavailableError(str(error) or type(error).__name__) from error
        await in_thread(partial(_end, tree), 2 * STOP_SECONDS)
        shared_memory.remove(segments)
        self.details = details
        self._observed.pop(app, None)
        self._models.pop(app, None)

    async def active_requests(self, app: str) -> int:
        urls = [self.urls[name] for name in self._actors(app) if name in self.urls]
        return sum(await asyncio.gather(*map(self._replicas.active_requests, urls)))

    def _known_machine(self) -> Machine:
        if self.machine is None:
            raise RuntimeError("Ray has not started")
        return self.machine

    def _apps(self) -> Mapping[str, Any]:
        found: Mapping[str, Any] = self.details.get("applications", {})
        return found

    def _actors(self, app: str) -> list[str]:
        return [str(each["actor_name"]) for each in replicas_of(self._apps().get(app))]

    def _tree(self, app: str) -> list[processes.Process]:
        """The processes of an app on this machine. Blocks."""
        if not self._ray.is_ours:
            return []
        table = processes.process_table()
        pids = [pid for each in replicas_of(self._apps().get(app)) if (pid := each.get("pid")) in table]
        return [*(table[pid] for pid in pids), *processes.under(pids, table)]

    def _look_at_processes(self, apps: Mapping[str, Any]) -> None:
        pids = {
            int(replica["pid"]): self._models.get(name, name)
            for name, app in apps.items()
            for replica in replicas_of(app)
            if replica.get("pid")
        }
        self._logs.follow(pids)
        now = time.monotonic()
        if now - self._measured >= MEMORY_SECONDS:
            self._measured = now
            trees = {name: {each.pid for each in self._tree(name)} for name in apps}
            self._memory = {name: resident_bytes(tree) for name, tree in trees.items()}
            if self.machine is not None and self.machine.gpus:
                self._gpus = self._read_gpus()
                self._gpu_memory = {name: held_by(tree, self._gpus) for name, tree in trees.items()}

    def _observe(self, name: str, app: Mapping[str, Any]) -> Observed:
        log_path = str(self._logs.path_of(self._models[name])) if name in self._models and self._ray.is_ours else None
        seen = partial(
            Observed, memory_bytes=self._memory.get(name), gpu_memory_bytes=self._gpu_memory.get(name), log=log_path
        )
        replicas = replicas_of(app)
        if any(word(each["state"]) == "RUNNING" and each["actor_name"] in self.urls for each in replicas):
            return seen("ready")
        if word(app["status"]) == "DEPLOY_FAILED":
            return seen("failed", detail=failure(app) or "")
        phases = [
            progress for each in replicas if each.get("pid") and (progress := self._logs.progress_of(int(each["pid"])))
        ]
        progress = phases[-1] if phases else Progress("loading", "starting its processes")
        return seen("starting", progress)


def replicas_of(app: Mapping[str, Any] | None) -> list[Mapping[str, Any]]:
    """The replicas of an application in Serve's details."""
    return [each for deployment in (app["deployments"].values() if app else ()) for each in deployment["replicas"]]


def _end(tree: list[processes.Process]) -> None:
    """Wait for processes, and end those that remain: vLLM's outlive a replica that was killed. Blocks."""
    deadline = time.monotonic() + STOP_SECONDS
    while (left := _living(tree)) and time.monotonic() < deadline:
        if not any(each.name.startswith("ray::") for each in left):
            for each in left:  # their replica has ended without them
                processes.end_tree(each.pid, grace_s=0.5)
        time.sleep(_POLL_S)
    for each in _living(tree):
        log.warning("killing %s (%d), which did not end by itself", each.name, each.pid)
        processes.end_tree(each.pid, grace_s=0.0)


def _living(tree: list[processes.Process]) -> list[processes.Process]:
    table = processes.process_table()
    return [each for each in tree if (now := table.get(each.pid)) and now.started == each.started and now.is_alive]
