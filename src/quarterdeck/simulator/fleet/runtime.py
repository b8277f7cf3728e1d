"""Simulated engines: the reconciler's `Runtime` in the simulator.

Each version of a model is an engine of its own in this process. Its start takes `load-duration` and passes through the
phases of a real one; `fail-start` in the model's `engine.args` plays a failure; `memory-gib` is the machine's memory.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from quarterdeck.model_lifecycle.checkpoint import read_checkpoint
from quarterdeck.model_lifecycle.desired import Desired
from quarterdeck.model_lifecycle.gpus import Gpus
from quarterdeck.model_lifecycle.memory import Need
from quarterdeck.model_lifecycle.runtime import Observed, Prepared, Progress, Report, StartFailure
from quarterdeck.simulator.app import App
from quarterdeck.simulator.config import SimulatorConfig
from quarterdeck.simulator.engine import Engine
from quarterdeck.simulator.fleet.engine_options import engine_config
from quarterdeck.simulator.start_failures import FAILURES
from quarterdeck.weights.downloads import Downloads
from quarterdeck.weights.errors import WeightsError
from quarterdeck.weights.progress import Progress as DownloadProgress

log = logging.getLogger(__name__)

GIB = 1 << 30
PHASES: tuple[tuple[Progress, float], ...] = (
    (Progress("loading", "loading weights 0 %", 0.0), 0.4),
    (Progress("loading", "loading weights 50 %", 0.5), 0.3),
    (Progress("compiling"), 0.2),
    (Progress("warming_up"), 0.1),
)
"""And the share of the start that each takes."""


@dataclass(slots=True)
class _Running:
    app: App
    need: int
    observed: Observed = field(default_factory=lambda: Observed("starting"))
    starting: "asyncio.Task[None] | None" = None


class SimulatedRuntime:
    """Built once, in `__main__`."""

    max_starting: int | None = 1

    def __init__(self, base: SimulatorConfig, folder: Path, downloads: Downloads | None) -> None:
        """`base`: options of every model. `folder`: of relative paths. `downloads`: fetches weights from a hub; None:
        a simulated model needs none."""
        self._base, self._folder, self._downloads = base, folder, downloads
        self._running: dict[str, _Running] = {}
        self.on_ready: Callable[[str], None] = lambda app: None
        self.url = ""
        """Where this process listens; set once it does."""

    def app(self, name: str) -> App | None:
        """The engine that serves an app. None: it is not ready."""
        running = self._running.get(name)
        return running.app if running is not None and running.observed.state == "ready" else None

    def first_ready(self) -> App | None:
        return next((each.app for each in self._running.values() if each.observed.state == "ready"), None)

    def engines(self) -> dict[str, Engine]:
        """By app, whatever their state."""
        return {name: each.app.engine for name, each in self._running.items()}

    def observed(self) -> Mapping[str, Observed]:
        return {name: each.observed for name, each in self._running.items()}

    def free_bytes(self) -> int | None:
        if not self._base.memory_gib:
            return None
        return int(self._base.memory_gib * GIB) - sum(each.need for each in self._running.values())

    def gpus(self) -> Gpus | None:
        return None

    async def prepare(self, model: Desired, report: Report) -> Prepared:
        engine, folder, revision = model.engine, None, None
        if engine.is_hub and self._downloads is not None:
            try:
                found = self._downloads.local(engine.source, engine.revision) or await self._downloads.fetch(
                    engine.source, engine.revision, lambda progress: report(_progress(progress))
                )
            except WeightsError as error:
                raise StartFailure(error.code, str(error), is_permanent=error.is_permanent) from error
            folder, revision = found.folder, found.revision
        elif engine.is_folder:
            folder = _existing(self._folder, engine.source)
        try:
            stored = read_checkpoint(folder).stored_bytes if folder is not None else 0
        except OSError as error:
            raise StartFailure("engine_failed", f"can't read its files: {error}") from error
        kv_cache = int((engine.kv_cache_gib or (1.0 if engine.task == "generate" else 0.25)) * GIB)
        source = str(folder) if folder is not None else engine.source
        return Prepared(source, Need(stored, kv_cache, 0), stored, revision=revision)

    async def start(self, app: str, model: Desired, prepared: Prepared) -> None:
        try:
            config = engine_config(model, self._base)
            running = _Running(App(Engine(config)), prepared.need.total if prepared.need is not None else 0)
        except (ValueError, msgspec.ValidationError) as error:
            raise StartFailure("engine_failed", str(error)) from error
        running.app.engine.url = f"{self.url}/m/{app}"
        self._running[app] = running
        running.observed = Observed("starting", PHASES[0][0], memory_bytes=running.need)
        running.starting = asyncio.create_task(self._load(app, running, config))

    async def stop(self, app: str) -> None:
        running = self._running.pop(app, None)
        if running is not None and running.starting is not None:
            running.starting.cancel()

    async def active_requests(self, app: str) -> int:
        running = self._running.get(app)
        return running.app.engine.load if running is not None else 0

    async def _load(self, app: str, running: _Running, config: SimulatorConfig) -> None:
        failure = config.fail_start
        if failure == "hang":
            return
        for progress, share in PHASES:
            running.observed = Observed("starting", progress, memory_bytes=running.need)
            await asyncio.sleep(config.load_duration * share)
            if failure:
                texts = FAILURES[failure]
                said = (texts.cause or texts.output or f"ended with status {texts.exit_code}").strip().splitlines()
                detail = said[-1].replace("{model}", config.model)
                running.observed = Observed("failed", detail=detail, memory_bytes=running.need)
                return
        running.observed = Observed("ready", memory_bytes=running.need)
        self.on_ready(app)


def _existing(base: Path, source: str) -> Path:
    """Raises StartFailure."""
    folder = base / Path(source).expanduser()
    if not folder.is_dir():
        raise StartFailure("refused", f"no model in {folder}: there is no such folder", is_permanent=True)
    return folder


def _progress(progress: DownloadProgress) -> Progress:
    fraction = progress.done / progress.total if progress.total else None
    return Progress("downloading", progress.text(), fraction, progress.seconds_left)
