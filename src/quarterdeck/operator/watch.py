"""Watches: kopf follows the objects of the namespace and hands each event to the operator's event loop.

kopf runs in a thread with a loop of its own: it cancels every task of its loop when it ends, and it is started again
when kinds appear (KubeRay installed later) or when it fails. Only `on.event` handlers are registered, so kopf writes
nothing: no finalizers, no annotations, no events.
"""

import asyncio
import logging
import threading
from collections.abc import Callable, Iterable
from typing import Any

import kopf

from quarterdeck.operator.manifests import Kind, Manifest
from quarterdeck.operator.watch_session import Login

log = logging.getLogger(__name__)

RESTART_SECONDS = 2.0
STOP_SECONDS = 5.0

OnEvent = Callable[[str | None, Manifest], None]
"""Takes the event's type (None: listed, ADDED, MODIFIED, DELETED) and the object."""


class Watch:
    """Follows `kinds()` in one namespace until stopped."""

    def __init__(self, namespace: str, kinds: Callable[[], Iterable[Kind]], on_event: OnEvent) -> None:
        self._namespace, self._kinds, self._on_event = namespace, kinds, on_event
        self._stop = threading.Event()
        self._restarts = 0
        self.is_running = False

    def restart(self) -> None:
        """Follow the kinds that there are now."""
        self._restarts += 1
        self._stop.set()

    async def run(self) -> None:
        """Run until cancelled."""
        loop = asyncio.get_running_loop()
        try:
            while True:
                self._stop, known = threading.Event(), self._restarts
                ended = asyncio.Event()
                thread = threading.Thread(
                    target=self._follow, args=(self._stop, loop, ended), name="watch", daemon=True
                )
                thread.start()
                self.is_running = True
                await ended.wait()
                self.is_running = False
                if known == self._restarts:
                    log.error("the watch has ended, starting it again")
                    await asyncio.sleep(RESTART_SECONDS)
        finally:
            self._stop.set()

    def _follow(self, stop: threading.Event, loop: asyncio.AbstractEventLoop, ended: asyncio.Event) -> None:
        own = asyncio.new_event_loop()
        try:
            asyncio.set_event_loop(own)
            own.run_until_complete(self._operate(self._registry(loop), stop))
        except Exception as error:  # an error boundary: the thread's end starts the next one
            log.error("the watch failed: %s", error)
        finally:
            own.close()
            if not loop.is_closed():
                loop.call_soon_threadsafe(ended.set)

    async def _operate(self, registry: kopf.OperatorRegistry, stop: threading.Event) -> None:
        """Run kopf's tasks until one of them ends, which they do only to stop or because one has failed.

        Not `kopf.operator`: after a failure it waits for all tasks of its loop, and one that re-authenticates over a
        closed connection never ends.
        """
        tasks = await kopf.spawn_tasks(
            registry=registry, settings=_settings(), standalone=True, namespaces=[self._namespace], stop_flag=stop
        )
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        await asyncio.wait(tasks, timeout=STOP_SECONDS)
        for task in done:
            if not task.cancelled() and (error := task.exception()) is not None:
                raise error

    def _registry(self, loop: asyncio.AbstractEventLoop) -> kopf.OperatorRegistry:
        registry = kopf.OperatorRegistry()
        kopf.on.login(registry=registry, id="login")(Login().log_in)
        on_event = self._on_event

        async def forward(event: Any, **_: Any) -> None:
            loop.call_soon_threadsafe(on_event, event["type"], dict(event["object"]))

        for kind in self._kinds():
            group, _, version = kind.api.rpartition("/")
            kopf.on.event(group, version, kind.plural, registry=registry, id=f"watch-{kind.plural}")(forward)
        return registry


def _settings() -> kopf.OperatorSettings:
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    settings.scanning.disabled = True  # listing CRDs and namespaces needs rights of the whole cluster
    settings.process.ultimate_exiting_timeout = None
    settings.queueing.exit_timeout = 0.5
    settings.queueing.idle_timeout = 1.0
    settings.watching.server_timeout = 300
    return settings
