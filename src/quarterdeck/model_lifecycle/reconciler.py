"""Makes the running models equal to the configuration, and keeps them so.

`follow` takes each new configuration; `step` compares it with what the runtime observes and acts: at once for a changed
configuration, else every half second. Whatever takes time is a task of one instance, so a model that downloads, hangs
or fails holds up no other. A failed one is tried again with back-off, and at once when its configuration changes.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import msgspec

from quarterdeck.model_lifecycle import statuses
from quarterdeck.model_lifecycle.desired import Desired, app_name, changed
from quarterdeck.model_lifecycle.fitting import no_room
from quarterdeck.model_lifecycle.instance import Failure, Instance
from quarterdeck.model_lifecycle.plan import Plan, make_plan
from quarterdeck.model_lifecycle.runtime import Observed, Progress, Runtime, RuntimeUnavailableError, StartFailure
from quarterdeck.model_lifecycle.start_times import StartTimes
from quarterdeck.model_lifecycle.status import WORDS, ModelStatus

log = logging.getLogger(__name__)

POLL_SECONDS = 0.5
GONE_SECONDS = 20.0
"""After which an app that the runtime does not list has ended: Serve lists a new one after a second or two."""
STOP_RETRY_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds."""

    drain: float = 20.0
    """For requests in flight when a model is removed or replaced."""
    settle: float = 2.5
    """From the moment an instance is listed as draining until it is looked whether requests are left: gateways read
    the list every second."""


@dataclass(slots=True)
class _Since:
    state: str = ""
    at: float = field(default_factory=time.time)


class Reconciler:
    """Built once in a door. `run` must run, once the runtime can be used."""

    def __init__(
        self,
        runtime: Runtime,
        times: StartTimes,
        *,
        timing: Timing | None = None,
        owner: str = "",
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """`owner`: part of the apps' names, where several doors share a runtime."""
        self._runtime, self._times, self._now = runtime, times, now
        self._timing = timing or Timing()
        self._owner = owner
        self._desired: dict[str, Desired] = {}
        self._instances: dict[str, Instance] = {}
        self._failures: dict[str, Failure] = {}
        self._makes_room: set[str] = set()
        self._strays: dict[str, asyncio.Task[None]] = {}
        """Apps without an instance that are being ended."""
        self._since: dict[str, _Since] = {}
        self._plan = Plan()
        self._wake = asyncio.Event()
        self.waiting_for = ""
        """What the runtime waits for before any model can be started. Empty: nothing."""

    # ---- what others read --------------------------------------------------------------------------------------------

    @property
    def instances(self) -> list[Instance]:
        """Every version of a model that has processes, or is about to."""
        return list(self._instances.values())

    @property
    def desired(self) -> Mapping[str, Desired]:
        return self._desired

    def statuses(self) -> list[ModelStatus]:
        """One for each model that is configured or being removed, in the order of their start."""
        found = statuses.of_models(
            self._desired,
            self.instances,
            self._failures,
            self._runtime.observed(),
            self._times,
            self._now(),
            waiting_for=self.waiting_for,
        )
        return [msgspec.structs.replace(each, since=round(self._since_of(each), 1)) for each in found]

    def status(self, name: str) -> ModelStatus | None:
        return next((each for each in self.statuses() if each.name == name), None)

    # ---- what others call --------------------------------------------------------------------------------------------

    def follow(self, desired: Mapping[str, Desired]) -> None:
        """Take a new configuration. The latest counts, whatever is under way for an earlier one."""
        before, self._desired = self._desired, dict(desired)
        for name in changed(before, self._desired):
            failure, model = self._failures.get(name), self._desired.get(name)
            if failure is not None and (model is None or model.is_stopped or failure.digest != model.digest):
                del self._failures[name]
            self._makes_room.discard(name)
        for instance in self._instances.values():  # what a running engine follows
            model = self._desired.get(instance.model.name)
            if model is not None and model.digest == instance.model.digest:
                instance.model = model
        self._note_changes()
        self._wake.set()

    def retry(self, name: str) -> bool:
        """Try a failed model again now. False: it has not failed."""
        self._wake.set()
        return self._failures.pop(name, None) is not None

    async def run(self) -> None:
        """Reconcile until cancelled. Tasks under way are cancelled with it; processes stay."""
        try:
            while True:
                self.step()
                try:
                    async with asyncio.timeout(POLL_SECONDS):
                        await self._wake.wait()
                except TimeoutError:
                    continue
                finally:
                    self._wake.clear()
        finally:
            tasks = [task for each in self._instances.values() for task in each.tasks()] + list(self._strays.values())
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def step(self) -> None:
        """Observe, plan, act. Never waits."""
        observed = self._runtime.observed()
        self._adopt(observed)
        for instance in list(self._instances.values()):
            self._look_at(instance, observed.get(instance.app))
        self._plan = make_plan(
            self._desired,
            [each.seen() for each in self._instances.values()],
            held_back={name for name, failure in self._failures.items() if self._now() < failure.due},
            makes_room=self._makes_room,
            max_starting=self._runtime.max_starting,
        )
        for app in self._plan.keep:
            self._instances[app].cancel_drain()
        for app in self._plan.remove:
            self._end(self._instances[app])
        for app in self._plan.drain:
            instance = self._instances[app]
            if instance.draining is None:
                log.info("%s: draining %s", instance.model.name, app)
                instance.draining = asyncio.create_task(self._drain(instance))
        for model in self._plan.start:
            self._start(model)
        self._note_changes()

    # ---- steps -------------------------------------------------------------------------------------------------------

    def _adopt(self, observed: Mapping[str, Observed]) -> None:
        """Take over the apps of an earlier door on a cluster that outlived it. Those that are not wanted are ended."""
        wanted = {app_name(each, self._owner): each for each in self._desired.values() if not each.is_stopped}
        for app in observed.keys() - self._instances.keys() - self._strays.keys():
            if (model := wanted.get(app)) is not None:
                log.info("%s: found running as %s", model.name, app)
                self._instances[app] = Instance(app, model, self._now(), has_processes=True, is_started=True)
            else:
                log.warning("ending %s, which no configured model needs", app)
                self._strays[app] = asyncio.create_task(self._end_stray(app))

    async def _end_stray(self, app: str) -> None:
        await self._stop_app(app, app)
        del self._strays[app]

    def _look_at(self, instance: Instance, seen: Observed | None) -> None:
        """Follow what the runtime says of an instance."""
        if instance.stopping is not None or not instance.has_processes:
            return
        now, limit = self._now(), instance.model.engine.start_timeout_seconds
        if not instance.is_ready and limit and now - instance.loading_since > limit and not _is_ready(seen):
            doing = instance.progress.detail or WORDS[instance.progress.phase]
            message = f"not ready after {limit:g} s (start_timeout_seconds), at: {doing}"
            self._fail(instance, StartFailure("start_timeout", message))
            return
        if not instance.is_started:
            return
        if seen is None:
            instance.missing_since = instance.missing_since or now
            if now - instance.missing_since > GONE_SECONDS:
                if instance.is_ready:  # ended by someone else: it is started again
                    self._end(instance)
                else:
                    self._fail(instance, StartFailure("engine_failed", "its application has disappeared"))
            return
        instance.missing_since = None
        if instance.is_ready:
            return
        if seen.state == "ready":
            self._record_ready(instance)
        elif seen.state == "failed":
            self._fail(instance, StartFailure("engine_failed", seen.detail or "the engine failed to start"))
        elif seen.progress is not None:
            instance.progress = seen.progress

    def _record_ready(self, instance: Instance) -> None:
        took = self._now() - instance.loading_since
        instance.is_ready, instance.progress = True, Progress("ready")
        self._failures.pop(instance.model.name, None)
        self._makes_room.discard(instance.model.name)
        if instance.prepared is not None:  # else it was found running
            self._times.record(instance.model.digest, took, instance.prepared.stored_bytes)
        log.info("%s: ready after %.1f s", instance.model.name, took)

    def _start(self, model: Desired) -> None:
        app = app_name(model, self._owner)
        instance = self._instances[app] = Instance(app, model, self._now())
        instance.starting = asyncio.create_task(self._bring_up(instance))

    async def _bring_up(self, instance: Instance) -> None:
        """Fetch the files, see that the model fits, have it started. What follows is observed by `step`."""

        def report(progress: Progress) -> None:
            instance.progress = progress

        try:
            prepared = await self._runtime.prepare(instance.model, report)
            instance.prepared = prepared
            self._check_room(instance)
            instance.loading_since = self._now()
            instance.progress = Progress("loading", "; ".join(["starting its processes", *prepared.notes]))
            instance.has_processes = True
            await self._runtime.start(instance.app, instance.model, prepared)
            instance.is_started = True
        except StartFailure as failure:
            self._fail(instance, failure)
        # A door: an unexpected failure of one model must not end the others. The log has the traceback.
        except Exception as error:
            log.exception("%s: could not be started", instance.model.name)
            self._fail(instance, StartFailure("engine_failed", f"{type(error).__name__}: {error}"))
        finally:
            self._wake.set()

    def _check_room(self, instance: Instance) -> None:
        """Raises StartFailure where the model does not fit. If it does without its previous version, that is ended."""
        others = [each for each in self._instances.values() if each is not instance and each.stopping is None]
        runtime = self._runtime
        found = no_room(instance, others, runtime.observed(), runtime.free_bytes(), runtime.gpus())
        if found is None:
            return
        if found.fits_alone:
            log.info("%s: no room for both versions; ending the previous one first", instance.model.name)
            self._makes_room.add(instance.model.name)
        raise StartFailure("does_not_fit", found.message)

    def _fail(self, instance: Instance, failure: StartFailure) -> None:
        """Remember why, and end what was started."""
        name = instance.model.name
        if instance.stopping is not None:
            return
        known = self._failures.get(name)
        if known is None or known.message != failure.message:
            log.error("%s: %s", name, failure.message)
        is_superseded = name not in self._desired or self._desired[name].digest != instance.model.digest
        if not is_superseded and name not in self._makes_room:
            self._failures[name] = Failure.after(known, instance, failure, self._now())
        self._end(instance)

    def _end(self, instance: Instance) -> None:
        if instance.stopping is None:
            instance.cancel_drain()
            instance.stopping = asyncio.create_task(self._stop(instance))

    async def _drain(self, instance: Instance) -> None:
        """Wait until no request is left; then end it. Cancelled if the instance is wanted again."""
        deadline = self._now() + self._timing.drain
        await asyncio.sleep(self._timing.settle)
        while (active := await self._runtime.active_requests(instance.app)) and self._now() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(0.2)  # the requests end in other processes
        if active:
            log.warning("%s: %d requests are cut after %g s", instance.model.name, active, self._timing.drain)
        instance.draining = None
        instance.stopping = asyncio.create_task(self._stop(instance))

    async def _stop(self, instance: Instance) -> None:
        """End the processes, and forget the instance when they are gone."""
        if (starting := instance.starting) is not None:
            starting.cancel()
            await asyncio.wait({starting})
        if instance.has_processes:
            await self._stop_app(instance.model.name, instance.app)
        del self._instances[instance.app]
        for failure in self._failures.values():
            if failure.reason == "does_not_fit":
                failure.due = self._now()  # memory has become free
        self._wake.set()

    async def _stop_app(self, name: str, app: str) -> None:
        while True:
            try:
                return await self._runtime.stop(app)
            except RuntimeUnavailableError as error:
                log.warning("%s: can't end %s: %s", name, app, error)
                await asyncio.sleep(STOP_RETRY_SECONDS)

    def _since_of(self, status: ModelStatus) -> float:
        since = self._since.get(status.name)
        return since.at if since is not None and since.state == status.state else time.time()

    def _note_changes(self) -> None:
        """Keep the time of each change of a state, and log it."""
        found = self.statuses()
        self._since = {each.name: self._since.get(each.name, _Since()) for each in found}
        for each in found:
            since = self._since[each.name]
            if since.state != each.state:
                self._since[each.name] = _Since(each.state)
                log.info(
                    "%s: %s%s", each.name, each.state.replace("_", " "), f" ({each.detail})" if each.detail else ""
                )


def _is_ready(seen: Observed | None) -> bool:
    return seen is not None and seen.state == "ready"
