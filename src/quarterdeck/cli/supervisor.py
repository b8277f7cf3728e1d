"""`up`'s state machine: starting → up → stopping, and every way out of each.

    starting   Redis and database → worker and gateway;  models → engine, beside them
    up         a child that ends is started again, with back-off
    stopping   gateway (drains) → worker and engine → Redis → whatever is left of the tree

Each child is in a session of its own, so Ctrl-C reaches this process alone, which then knows the order. We are a
subreaper: what Ray forgets becomes our child and ends with us.
"""

import asyncio
import contextlib
import os
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quarterdeck import processes
from quarterdeck.cli import health, readiness
from quarterdeck.cli.child import LOG_BYTES, Child, StartError, last_lines, rotate
from quarterdeck.cli.doors import Door, Doors
from quarterdeck.cli.terminal import Terminal

BACKOFF_S = (0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
"""Before the first, second, … start again. A child that then runs for STEADY_S begins at the first again."""
STEADY_S = 60.0
USAGE_STATUS = 2
"""A door that ends with it was told something wrong: it would end so again."""
FIRST_TRIES = 3
"""How often the engine may be started before it first served: Ray gives its own parts 30 s to come up, which a busy
machine exceeds now and then."""
LOOK_S = 0.5
CHORES_S = 10.0


@dataclass(frozen=True, slots=True)
class Work:
    """What is done once, before the doors that need it."""

    database: Door
    """Migrations and the user's keys."""
    models: Door | None
    """The packaged models; its output's lines are shown. None: nothing to prepare."""


@dataclass(frozen=True, slots=True)
class Platform:
    """Everything the supervisor is told."""

    doors: Doors
    work: Work
    redis_socket: Path | None
    logs: Path
    models: tuple[str, ...]
    """Models with an engine of ours."""
    chat_models: tuple[str, ...]
    usable: Callable[[str | None], str]
    """The text to show once the platform can be used, given the chat model that is ready."""


class Supervisor:
    """One run of the platform. `run` returns the exit status when everything has ended."""

    def __init__(self, platform: Platform, terminal: Terminal) -> None:
        self._platform = platform
        self._terminal = terminal
        self._stop = asyncio.Event()
        self._hurry = asyncio.Event()
        self._is_started = False
        """Gateway and worker serve."""
        self._is_up = False
        """And a chat has somebody to answer it."""
        doors = platform.doors
        self._redis = self._child(doors.redis) if doors.redis else None
        self._engine = self._child(doors.engine) if doors.engine else None
        self._worker = self._child(doors.worker)
        self._gateway = self._child(doors.gateway)
        self._once: list[Child] = []

    def interrupt(self) -> None:
        """A signal: the first one stops the platform in order, the second one at once."""
        if self._stop.is_set():
            self._hurry.set()
        self._stop.set()

    async def run(self) -> int:
        """Start, watch, stop. 0: it was asked to stop; 1: a part did not start."""
        tasks = [
            asyncio.create_task(self._start_and_watch()),
            asyncio.create_task(self._stop.wait()),
            asyncio.create_task(self._chores()),
        ]
        status = 0
        try:
            await asyncio.wait(tasks[:2], return_when=asyncio.FIRST_COMPLETED)
            if tasks[0].done() and (error := tasks[0].exception()):
                raise error
        except* StartError as failed:
            status = 1
            self._terminal.step("error", str(_first(failed)))
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._end()
        return status

    # ---- starting ----------------------------------------------------------------------------------------------------

    async def _start_and_watch(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._start_data_plane(group))
            if self._engine:
                group.create_task(self._start_engine(self._engine, group))
            group.create_task(self._tell_of_models())

    async def _start_data_plane(self, group: asyncio.TaskGroup) -> None:
        async with asyncio.TaskGroup() as stores:
            if self._redis:
                stores.create_task(self._bring_up(self._redis, group))
            stores.create_task(self._prepare_database())
        async with asyncio.TaskGroup() as doors:
            doors.create_task(self._bring_up(self._worker, group))
            doors.create_task(self._bring_up(self._gateway, group))
        self._is_started = True

    async def _prepare_database(self) -> None:
        await self._run_once(self._platform.work.database)
        self._terminal.step("database", "ready")

    async def _start_engine(self, engine: Child, group: asyncio.TaskGroup) -> None:
        if models := self._platform.work.models:
            await self._run_once(models, show=True)
        await self._bring_up(engine, group)

    async def _bring_up(self, child: Child, group: asyncio.TaskGroup) -> None:
        self._terminal.step(child.door.name, "starting")
        await child.start()
        await child.ready()
        self._terminal.step(child.door.name, f"up (process {child.pid})")
        group.create_task(self._keep_up(child))

    async def _run_once(self, work: Door, *, show: bool = False) -> None:
        """A step that ends by itself. Raises StartError with its last words where it fails."""
        log = self._platform.logs / f"{work.name}.log"
        rotate(log, 0)
        child = Child(work, self._platform.logs, _never)
        self._once.append(child)
        await child.start()
        shown = 0
        try:
            ending = asyncio.ensure_future(child.ended())
            while not ending.done():
                await asyncio.wait([ending], timeout=0.2)
                if show:
                    shown = self._show_new_lines(work.name, log, shown)
        finally:
            if child.is_running:
                await child.stop(self._hurry)
        if child.outcome != "ended with status 0":
            raise StartError(child.epitaph())

    def _show_new_lines(self, name: str, log: Path, shown: int) -> int:
        lines = last_lines(log, 1000).splitlines() if log.exists() and log.stat().st_size else []
        for line in lines[shown:]:
            self._terminal.step(name, line)
        return max(shown, len(lines))

    # ---- up ----------------------------------------------------------------------------------------------------------

    async def _keep_up(self, child: Child) -> None:
        failures, deaths, started = 0, 0, time.monotonic()
        while True:
            await child.ended()
            if time.monotonic() - started > STEADY_S:
                failures = 0
            deaths += 1
            if child is self._engine and not self._is_up and (deaths == FIRST_TRIES or child.status == USAGE_STATUS):
                raise StartError(child.epitaph())
            wait = BACKOFF_S[min(failures, len(BACKOFF_S) - 1)]
            failures += 1
            self._terminal.step(child.door.name, f"{child.outcome}: starting again in {wait:g} s ({child.log})")
            if child is self._engine:
                await self._end_orphans()
            await asyncio.sleep(wait)
            started = time.monotonic()
            try:
                await child.start()
                await child.ready()
                self._terminal.step(child.door.name, f"up again (process {child.pid})")
            except StartError as error:
                self._terminal.step(child.door.name, str(error).splitlines()[0])
                await child.stop(self._hurry)

    async def _end_orphans(self) -> None:
        """A killed engine leaves Ray's and vLLM's processes, which are ours now: gigabytes that its successor needs."""
        mine = self._pids()
        for process in processes.descendants(os.getpid()):
            if process.parent == os.getpid() and process.pid not in mine:
                await asyncio.to_thread(processes.end_tree, process.pid, grace_s=2.0)

    async def _tell_of_models(self) -> None:
        """Say each change of a model, and once how the platform is used."""
        platform = self._platform
        known: dict[str, readiness.ModelState] = {}
        elsewhere = [name for name in platform.chat_models if name not in platform.models]
        engine_url = platform.doors.engine.health if platform.doors.engine else None
        gateway_url = (platform.doors.gateway.health or "").removesuffix("/healthz")
        while True:
            if engine_url and self._engine and self._engine.is_running:
                answer = await health.ask(engine_url)
                if answer.status == 200:
                    now = readiness.read(answer.body, platform.models)
                    for name, text in readiness.changes(known, now):
                        hint = f" ({self._engine.log})" if text.startswith("failed") else ""
                        self._terminal.step("model", f"{name}: {text}{hint}")
                    known = now
            if self._is_started and not self._is_up:
                ready = [n for n in platform.chat_models if n in elsewhere or (n in known and known[n].is_ready)]
                nothing_to_wait_for = not platform.chat_models or not (platform.models or elsewhere)
                if (ready or nothing_to_wait_for) and await self._gateway_knows(gateway_url, ready):
                    self._is_up = True
                    self._terminal.block(platform.usable(ready[0] if ready else None))
                    for name in platform.models:
                        if name in known and not known[name].is_ready:
                            self._terminal.step("model", f"{name}: {known[name].detail}, ready later")
            await asyncio.sleep(LOOK_S)

    async def _gateway_knows(self, url: str, ready: Sequence[str]) -> bool:
        """Whether the gateway itself would send a chat there now: it polls the engine door once a second."""
        answer = await health.ask(f"{url}/readyz")
        models = answer.body.get("models") if isinstance(answer.body, dict) else None
        if not ready:
            return answer.status != 0
        return answer.status == 200 and isinstance(models, dict) and any(_is_ready(models.get(n)) for n in ready)

    async def _chores(self) -> None:
        """Keep logs small, and bury orphans: a subreaper's adopted children stay zombies until somebody waits."""
        while True:
            await asyncio.sleep(CHORES_S)
            for child in self._children():
                await asyncio.to_thread(rotate, child.log, LOG_BYTES)
            _bury(self._pids())

    # ---- stopping ----------------------------------------------------------------------------------------------------

    async def _end(self) -> None:
        self._terminal.step("stopping", "requests under way may finish (Ctrl-C again: at once)")
        await self._end_child(self._gateway)
        await asyncio.gather(*(self._end_child(child) for child in (self._worker, self._engine) if child))
        if self._redis:
            await self._end_child(self._redis)
        left = await asyncio.to_thread(processes.end_tree, os.getpid(), grace_s=0.0 if self._hurry.is_set() else 2.0)
        if left:
            self._terminal.step("stopped", f"these won't end: {', '.join(f'{p.name} ({p.pid})' for p in left)}")
        else:
            self._terminal.step("stopped", "no process left")

    async def _end_child(self, child: Child) -> None:
        was_running = child.is_running
        await child.stop(self._hurry)
        if was_running:
            self._terminal.step(child.door.name, "ended")

    def _children(self) -> list[Child]:
        return [child for child in (self._redis, self._engine, self._worker, self._gateway) if child]

    def _pids(self) -> set[int | None]:
        """Those whose end asyncio waits for: nobody else may."""
        return {child.pid for child in [*self._children(), *self._once]}

    def _child(self, door: Door) -> Child:
        return Child(door, self._platform.logs, self._health_of(door))

    def _health_of(self, door: Door) -> Callable[[], Awaitable[bool]]:
        socket, url = self._platform.redis_socket, door.health
        if url is not None:
            return lambda: health.serves(url)
        if socket is not None:
            return lambda: health.redis_serves(socket)
        return _never


def _never() -> Coroutine[Any, Any, bool]:
    return asyncio.sleep(0, result=False)


def _is_ready(model: Any) -> bool:
    """A model in the gateway's `/readyz`."""
    return isinstance(model, dict) and model.get("state") == "ready"


def _bury(ours: set[int | None]) -> None:
    """Wait for adopted children that ended; asyncio waits for our own."""
    for process in processes.process_table().values():
        if process.parent == os.getpid() and not process.is_alive and process.pid not in ours:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(process.pid, os.WNOHANG)


def _first(group: BaseExceptionGroup[StartError]) -> BaseException:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
