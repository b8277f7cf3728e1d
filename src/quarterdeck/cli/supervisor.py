"""Runs the processes of `up`: starting → up → stopping.

    starting   Redis and database → worker and gateway; in parallel models → engine, and the trace backend
    up         a process that exits is restarted with back-off
    stopping   gateway (drains) → worker and engine → traces, Redis → remaining processes of the tree

Each process has its own session, so Ctrl-C reaches only this process, which stops the others in order. It is a
subreaper: orphans of Ray become its children and end with it.
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
from quarterdeck.cli import health, model_readiness, readiness
from quarterdeck.cli.managed_process import LOG_BYTES, ManagedProcess, StartError, last_lines, rotate
from quarterdeck.cli.process_plan import ProcessPlan, ProcessSpec
from quarterdeck.cli.terminal import Terminal

BACKOFF_S = (0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
"""Seconds before the first, second, … restart. Resets after a process has run for STEADY_S."""
STEADY_S = 60.0
USAGE_STATUS = 2
"""Exit status for a wrong configuration. An engine that exits with it before it has served is not restarted."""
FIRST_TRIES = 3
"""Start attempts of the engine before a model has served: on a busy machine a start of Ray may fail."""
POLL_S = 0.5
PROBLEMS_POLL_S = 2.0
MAINTENANCE_S = 10.0


@dataclass(frozen=True, slots=True)
class Preparation:
    """Steps that run once, before the processes that depend on them."""

    database: ProcessSpec
    """Migrates the database and registers the user's keys."""
    models: ProcessSpec | None
    """Prepares the packaged models; its output is shown. None: nothing to prepare."""


@dataclass(frozen=True, slots=True)
class Platform:
    """Everything the supervisor runs."""

    plan: ProcessPlan
    preparation: Preparation
    redis_socket: Path | None
    logs: Path
    models: tuple[str, ...]
    """Models served by the platform's engine."""
    chat_models: tuple[str, ...]
    usable: Callable[[str | None], str]
    """Returns the text to show once the platform is usable, given the chat model that is ready. Empty: none."""


class Supervisor:
    """Runs the platform; `run` returns once every process has exited."""

    def __init__(self, platform: Platform, terminal: Terminal) -> None:
        self._platform = platform
        self._terminal = terminal
        self._stop = asyncio.Event()
        self._stop_now = asyncio.Event()
        self._status = 0
        self._is_started = False
        """Gateway and worker are serving."""
        self._is_up = False
        """The user has been shown how to use the platform: a chat model is ready as well, or there is none."""
        self._models: dict[str, model_readiness.ModelState] = {}
        """Of the engine, as it listed them last."""
        plan = platform.plan
        self._redis = self._child(plan.redis) if plan.redis else None
        self._engine = self._child(plan.engine) if plan.engine else None
        self._worker = self._child(plan.worker)
        self._gateway = self._child(plan.gateway)
        self._traces = self._child(plan.traces) if plan.traces else None
        self._steps: list[ManagedProcess] = []

    def interrupt(self) -> None:
        """Handle a signal: the first stops the platform in order, the second immediately."""
        if self._stop.is_set():
            self._stop_now.set()
        self._stop.set()

    async def run(self) -> int:
        """Start, watch, stop. Returns 0 if stopped by a signal, 1 if a part did not start, or if the gateway
        exited with an error status when it was stopped."""
        tasks = [
            asyncio.create_task(self._start_and_watch()),
            asyncio.create_task(self._stop.wait()),
            asyncio.create_task(self._maintain()),
        ]
        try:
            await asyncio.wait(tasks[:2], return_when=asyncio.FIRST_COMPLETED)
            if tasks[0].done() and (error := tasks[0].exception()):
                raise error
        except* StartError as failed:
            self._status = 1
            self._terminal.step("error", str(_first(failed)))
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._shut_down()
        return self._status

    # ---- starting ----------------------------------------------------------------------------------------------------

    async def _start_and_watch(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._start_data_plane(group))
            if self._engine:
                group.create_task(self._start_engine(self._engine, group))
            if self._traces:
                group.create_task(self._bring_up(self._traces, group))
            group.create_task(self._report_models())
            group.create_task(self._report_problems())

    async def _start_data_plane(self, group: asyncio.TaskGroup) -> None:
        async with asyncio.TaskGroup() as stores:
            if self._redis:
                stores.create_task(self._bring_up(self._redis, group))
            stores.create_task(self._prepare_database())
        async with asyncio.TaskGroup() as servers:
            servers.create_task(self._bring_up(self._worker, group))
            servers.create_task(self._bring_up(self._gateway, group))
        self._is_started = True
        self._terminal.started()

    async def _prepare_database(self) -> None:
        await self._run_step(self._platform.preparation.database)
        self._terminal.step("database", "ready")

    async def _start_engine(self, engine: ManagedProcess, group: asyncio.TaskGroup) -> None:
        if models := self._platform.preparation.models:
            await self._run_step(models, show=True)
        await self._bring_up(engine, group)

    async def _bring_up(self, child: ManagedProcess, group: asyncio.TaskGroup) -> None:
        self._terminal.step(child.spec.name, "starting")
        await child.start()
        await child.ready()
        shows = f": {child.spec.shows}" if child.spec.shows else ""
        self._terminal.step(child.spec.name, f"up (pid {child.pid}){shows}")
        group.create_task(self._keep_up(child))

    async def _run_step(self, spec: ProcessSpec, *, show: bool = False) -> None:
        """Run a step to its end. Raises StartError with the last log lines if it fails."""
        log = self._platform.logs / f"{spec.name}.log"
        rotate(log, 0)
        child = ManagedProcess(spec, self._platform.logs, _never)
        self._steps.append(child)
        await child.start()
        shown = 0
        try:
            ending = asyncio.ensure_future(child.ended())
            while not ending.done():
                await asyncio.wait([ending], timeout=0.2)
                if show:
                    shown = self._show_new_lines(spec.name, log, shown)
        finally:
            if child.is_running:
                await child.stop(self._stop_now)
        if child.status != 0:
            raise StartError(child.exit_report())

    def _show_new_lines(self, name: str, log: Path, shown: int) -> int:
        lines = last_lines(log, 1000).splitlines() if log.exists() and log.stat().st_size else []
        for line in lines[shown:]:
            self._terminal.step(name, line)
        return max(shown, len(lines))

    # ---- up ----------------------------------------------------------------------------------------------------------

    async def _keep_up(self, child: ManagedProcess) -> None:
        failures, deaths, started = 0, 0, time.monotonic()
        while True:
            await child.ended()
            if time.monotonic() - started > STEADY_S:
                failures = 0
            deaths += 1
            if child is self._engine and not self._is_up and (deaths == FIRST_TRIES or child.status == USAGE_STATUS):
                raise StartError(child.exit_report())
            wait = BACKOFF_S[min(failures, len(BACKOFF_S) - 1)]
            failures += 1
            self._terminal.step(child.spec.name, f"{child.outcome}: restarting in {wait:g} s ({child.log})")
            if child is self._engine:
                await self._stop_orphans()
            await asyncio.sleep(wait)
            started = time.monotonic()
            try:
                await child.start()
                await child.ready()
                self._terminal.step(child.spec.name, f"restarted (pid {child.pid})")
            except StartError as error:
                self._terminal.step(child.spec.name, str(error).splitlines()[0])
                await child.stop(self._stop_now)

    async def _stop_orphans(self) -> None:
        """Stop orphans of a killed engine (Ray, vLLM), which hold gigabytes that the next engine needs."""
        managed = self._pids()
        for process in processes.descendants(os.getpid()):
            if process.parent == os.getpid() and process.pid not in managed:
                await asyncio.to_thread(processes.end_tree, process.pid, grace_s=2.0)

    async def _report_models(self) -> None:
        """Print each model's state changes and, once, how to use the platform."""
        platform, known = self._platform, self._models
        external = [name for name in platform.chat_models if name not in platform.models]
        engine_url = platform.plan.engine.health if platform.plan.engine else None
        gateway_url = (platform.plan.gateway.health or "").removesuffix("/healthz")
        while True:
            if engine_url and self._engine and self._engine.is_running:
                answer = await health.get(engine_url)
                if answer.status == 200:
                    now = model_readiness.read(answer.body, platform.models)
                    for name, text in model_readiness.changes(known, now):
                        log = now[name].log if name in now else ""
                        hint = f" ({log or self._engine.log})" if text.startswith("failed") else ""
                        self._terminal.step("model", f"{name}: {text}{hint}")
                    known = self._models = now
            if self._is_started and not self._is_up:
                ready = [n for n in platform.chat_models if n in external or (n in known and known[n].is_ready)]
                has_no_chat = not platform.chat_models or not (platform.models or external)
                if (ready or has_no_chat) and await self._is_routable(gateway_url, ready):
                    self._is_up = True
                    if text := platform.usable(ready[0] if ready else None):
                        self._terminal.block(text)
                    for name in known:
                        if not known[name].is_ready:
                            self._terminal.step("model", f"{name}: {known[name].detail}, not ready yet")
            await asyncio.sleep(POLL_S)

    async def _report_problems(self) -> None:
        """Print what the gateway and the worker say is not ready, when it begins and when it is over.

        While the platform starts, other lines show how far its own engine is: of the models, only those with endpoints
        elsewhere are printed then.
        """
        parts = {self._gateway: readiness.gateway_problems, self._worker: readiness.worker_problems}
        shown: dict[tuple[str, str], str] = {}
        before: dict[tuple[str, str], str] = {}
        while True:
            await asyncio.sleep(PROBLEMS_POLL_S)
            if not self._is_started:
                continue
            now: dict[tuple[str, str], str] = {}
            for child, problems_of in parts.items():
                part, response = child.spec.name, await health.get(_readyz(child.spec.health))
                if response.status == 0 and not child.is_running:  # reported when it exited
                    now |= {key: text for key, text in shown.items() if key[0] == part}
                    continue
                problems = problems_of(response) if response.status else {"": "does not respond"}
                now |= {(part, name): text for name, text in problems.items() if self._is_news(name)}
            # Twice in a row: a probe that was late is no news.
            for key in [key for key in now if key in before and shown.get(key) != now[key]]:
                shown[key] = now[key]
                self._terminal.step(key[0], f"{key[1]}: {now[key]}" if key[1] else now[key])
            for key in [key for key in shown if key not in now]:
                del shown[key]
                self._terminal.step(key[0], f"{key[1]}: ready again" if key[1] else "responds again")
            before = now

    def _is_news(self, name: str) -> bool:
        """Whether no other line shows the state of this part or model."""
        model = name.removeprefix("model ")
        if model == name:
            return True
        is_of_engine = model in self._models or model in self._platform.models
        return not is_of_engine and (self._is_up or model in self._platform.chat_models)

    async def _is_routable(self, url: str, ready: Sequence[str]) -> bool:
        """Whether the gateway would route a chat to a ready model now: it polls the engine once a second."""
        answer = await health.get(f"{url}/readyz")
        models = answer.body.get("models") if isinstance(answer.body, dict) else None
        if not ready:
            return answer.status != 0
        return answer.status == 200 and isinstance(models, dict) and any(_is_ready(models.get(n)) for n in ready)

    async def _maintain(self) -> None:
        """Rotate logs, and reap orphans: adopted children of a subreaper stay zombies until it waits for them."""
        while True:
            await asyncio.sleep(MAINTENANCE_S)
            for child in self._children():
                await asyncio.to_thread(rotate, child.log, LOG_BYTES)
            _reap(self._pids())

    # ---- stopping ----------------------------------------------------------------------------------------------------

    async def _shut_down(self) -> None:
        self._terminal.stopping()
        self._terminal.step("stopping", "waiting for requests in flight (Ctrl-C again to stop now)")
        await self._stop_child(self._gateway)
        await asyncio.gather(*(self._stop_child(child) for child in (self._worker, self._engine) if child))
        for store in (self._traces, self._redis):
            if store:
                await self._stop_child(store)
        left = await asyncio.to_thread(processes.end_tree, os.getpid(), grace_s=0.0 if self._stop_now.is_set() else 2.0)
        if left:
            self._terminal.step("stopped", f"still running: {', '.join(f'{p.name} ({p.pid})' for p in left)}")
        else:
            self._terminal.step("stopped", "all processes have exited")

    async def _stop_child(self, child: ManagedProcess) -> None:
        was_running = child.is_running
        await child.stop(self._stop_now)
        if was_running:
            self._terminal.step(child.spec.name, f"{child.outcome} ({child.log})" if child.status else "stopped")
        if was_running and child is self._gateway and (child.status or 0) > 0:  # it could not save all records
            self._status = 1

    def _children(self) -> list[ManagedProcess]:
        parts = (self._redis, self._engine, self._worker, self._gateway, self._traces)
        return [child for child in parts if child]

    def _pids(self) -> set[int | None]:
        """The pids of the processes that asyncio waits for; `_reap` must not. None: one that was never started."""
        return {child.pid for child in [*self._children(), *self._steps]}

    def _child(self, spec: ProcessSpec) -> ManagedProcess:
        return ManagedProcess(spec, self._platform.logs, self._health_of(spec))

    def _health_of(self, spec: ProcessSpec) -> Callable[[], Awaitable[bool]]:
        socket, url = self._platform.redis_socket, spec.health
        if url is not None:
            return lambda: health.is_serving(url)
        if socket is not None:
            return lambda: health.is_redis_ready(socket)
        return _never


def _never() -> Coroutine[Any, Any, bool]:
    return asyncio.sleep(0, result=False)


def _readyz(health_url: str | None) -> str:
    return f"{(health_url or '').removesuffix('/healthz')}/readyz"


def _is_ready(model: Any) -> bool:
    """Whether a model in the gateway's `/readyz` is ready."""
    return isinstance(model, dict) and model.get("state") == "ready"


def _reap(managed: set[int | None]) -> None:
    """Wait for adopted children that have exited; asyncio waits for the managed ones."""
    for process in processes.process_table().values():
        if process.parent == os.getpid() and not process.is_alive and process.pid not in managed:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(process.pid, os.WNOHANG)


def _first(group: BaseExceptionGroup[StartError]) -> BaseException:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
