"""Keeps prompts equal with the Langfuse project of the environment, at one worker at a time.

The worker that holds the lease synchronises; the others only follow which number a version has there, for their traces.
A server that is away or limits the rate is asked again after a pause that doubles, or as long as it says.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping

from quarterdeck.net.redis import RedisError, RedisUnavailableError
from quarterdeck.resources.prompts.changes import PromptAnnouncer
from quarterdeck.settings.langfuse import LangfuseConfig
from quarterdeck.store.database import DatabaseUnavailableError
from quarterdeck.store.leases import LeaseStore
from quarterdeck.store.prompt_links import LinkRow, PromptLinkStore
from quarterdeck.store.prompt_rows import PromptRow
from quarterdeck.store.prompts import PromptStore
from quarterdeck.telemetry.traces.prompt_numbers import PromptNumbers
from quarterdeck.telemetry.worker_metrics import WorkerMetrics
from quarterdeck.worker.conditions import Condition, pause
from quarterdeck.worker.langfuse_prompts import (
    LangfusePrompts,
    LangfuseRefusedError,
    LangfuseUnavailableError,
)

log = logging.getLogger(__name__)

LEASE = "langfuse prompts"
LEASE_SECONDS = 60.0
"""After which another worker takes over from one that died; longer than a request to Langfuse may take."""
TICK_SECONDS = 5.0
"""Between two looks at decisions, at new numbers and at the lease."""
MAX_PAUSE_SECONDS = 600.0
"""The longest pause after failures."""
RECHECK_SECONDS = 3600.0
"""After which a prompt is compared again although neither side says that it changed."""
PAGE = 100


_OUTAGES = (LangfuseUnavailableError, DatabaseUnavailableError, RedisUnavailableError, RedisError)


class LeaseLostError(Exception):
    """Another worker took over, as this one was too slow."""


class PromptSyncLoop:
    """`connect` makes the client, or is None where the environment names no project. `config` is what is in force."""

    def __init__(
        self,
        connect: Callable[[], LangfusePrompts] | None,
        prompts: PromptStore,
        links: PromptLinkStore,
        leases: LeaseStore,
        announcer: PromptAnnouncer,
        numbers: PromptNumbers,
        config: Callable[[], LangfuseConfig | None],
        condition: Condition,
        metrics: WorkerMetrics,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._connect = connect
        self._prompts = prompts
        self._links = links
        self._leases = leases
        self._announcer = announcer
        self._numbers = numbers
        self._config = config
        self._condition = condition
        self._metrics = metrics
        self._clock = clock
        self._wall = wall
        self._api: LangfusePrompts | None = None
        self._project = ""
        self._known: tuple[int, float] | None = None
        self._due = 0.0
        self._failures = 0
        self._renewed = 0.0

    async def run(self, stop: asyncio.Event) -> None:
        try:
            while not stop.is_set():
                await self.turn()
                await pause(stop, TICK_SECONDS)
        finally:
            await self._close()

    async def turn(self) -> None:
        """Synchronise, if it is time to and this worker's task."""
        config = self._config()
        if config is None or config.prompts == "off":
            self._numbers.replace(None)
            self._known = None
            self._condition.ok()
            return
        if self._known is None:
            self._numbers.replace({})
        try:
            await self._turn(config)
        except (LangfuseUnavailableError, LangfuseRefusedError) as error:
            self._failures += 1
            wait = min(TICK_SECONDS * 2**self._failures, MAX_PAUSE_SECONDS)
            self._due = self._clock() + max(wait, getattr(error, "retry_after", 0.0))
            self._condition.failed(str(error))
        except ImportError as error:
            self._condition.failed(f"the extra `langfuse` is not installed ({error})")
        except (DatabaseUnavailableError, RedisUnavailableError, RedisError, LeaseLostError) as error:
            self._condition.failed(str(error))
        except Exception as error:  # an error boundary, as in org_loop: an unexpected error must not end the worker
            self._due = self._clock() + config.interval_seconds
            self._condition.failed(f"{type(error).__name__}: {error}", trace=error)

    async def _turn(self, config: LangfuseConfig) -> None:
        if self._connect is None:
            self._condition.failed("LANGFUSE_BASE_URL, LANGFUSE_PUBLIC_KEY and LANGFUSE_SECRET_KEY are not all set")
            return
        now = self._clock()
        is_paused = self._failures > 0 and now < self._due
        if not self._project:
            if is_paused:
                return
            self._project = await (await self._client(self._connect)).project()
        has_changed = await self._follow_numbers()
        if is_paused or not await self._leases.take(LEASE, LEASE_SECONDS):
            return
        self._renewed = self._clock()
        # A decision changes its link. One that can't be carried out does not, and waits for its turn like all else.
        if now < self._due and not (has_changed and await self._links.has_decisions(self._project, org=config.org)):
            return
        failed = await self._synchronise(config)
        self._failures = 0
        self._due = now + config.interval_seconds
        await self._follow_numbers()
        if failed:
            self._condition.failed(f"prompts that could not be synchronised: {len(failed)}, such as {failed[0]}")
        else:
            self._condition.ok()

    async def _client(self, connect: Callable[[], LangfusePrompts]) -> LangfusePrompts:
        if self._api is None:
            # 0.2 s of imports, in a thread: the loop goes on with records.
            self._api = await asyncio.to_thread(connect)
        return self._api

    async def _synchronise(self, config: LangfuseConfig) -> list[str]:
        """Returns the names of prompts that failed."""
        # Jinja is part of the extra, and takes 0.1 s to import.
        from quarterdeck.worker.prompt_sync import PromptSync, Target

        assert self._api is not None and config.prompts != "off"  # noqa: S101  # `_turn` has seen to it
        api = self._api
        sync = PromptSync(
            api,
            self._prompts,
            self._links,
            self._announcer,
            self._numbers,
            self._metrics,
            Target(config.org, self._project, config.prompts),
            wall=self._wall,
        )
        theirs = {each.name: each async for each in api.list()}
        ours = {row.name: row async for row in self._every_prompt(config.org)}
        links = {link.name: link async for link in self._every_link(config.org)}
        sources = {"pull": theirs.keys(), "push": ours.keys(), "both": theirs.keys() | ours.keys()}
        failed: list[str] = []
        for name in sorted(links.keys() | sources[config.prompts]):
            prompt, listed, link = ours.get(name), theirs.get(name), links.get(name)
            if link is not None and link.keep is None and self._is_done(link, sync.seen(prompt, listed)):
                continue
            await self._renew()
            if listed is None and link is not None:
                listed = await api.find(name)  # pages shift while prompts are created and deleted
            try:
                await sync.run(name, prompt, listed, link)
            except LangfuseRefusedError as error:
                log.warning("prompt %s can't be read at Langfuse: %s", name, error, extra={"org": config.org})
                failed.append(name)
            except _OUTAGES:
                raise
            except Exception:  # an error boundary: one prompt must not stop the others
                log.exception("prompt %s could not be synchronised", name, extra={"org": config.org})
                failed.append(name)
        found = [link async for link in self._every_link(config.org)]
        self._metrics.prompt_sync_conflicts.set(sum(len(link.conflicts) for link in found))
        self._metrics.prompt_sync_linked.set(sum(not link.is_detached for link in found))
        return failed

    def _is_done(self, link: LinkRow, seen: str) -> bool:
        return link.is_detached or (link.seen == seen and self._wall() - link.checked < RECHECK_SECONDS)

    async def _renew(self) -> None:
        """Raises LeaseLostError."""
        if self._clock() - self._renewed < LEASE_SECONDS / 4:
            return
        if not await self._leases.take(LEASE, LEASE_SECONDS):
            raise LeaseLostError("another worker took over")
        self._renewed = self._clock()

    async def _follow_numbers(self) -> bool:
        """Returns whether anything changed."""
        state = await self._links.state()
        if state == self._known:
            return False
        found = await self._links.numbers(self._project)
        self._numbers.replace(_as_text(found))
        self._known = state
        return True

    async def _every_prompt(self, org: str) -> AsyncIterator[PromptRow]:
        after: str | None = None
        while True:
            page = await self._prompts.list(org=org, limit=PAGE, after=after, archived=True)
            for row in page.rows:
                yield row
            if not page.has_more:
                return
            after = page.rows[-1].id

    async def _every_link(self, org: str) -> AsyncIterator[LinkRow]:
        after: str | None = None
        while True:
            rows, has_more = await self._links.page(org=org, project=self._project, limit=PAGE, after=after)
            for row in rows:
                yield row
            if not has_more:
                return
            after = rows[-1].id

    async def _close(self) -> None:
        if self._api is not None:
            await self._api.close()
        try:
            await self._leases.release(LEASE)
        except DatabaseUnavailableError as error:
            log.debug("could not release the lease, which expires: %s", error)


def _as_text(numbers: Mapping[tuple[str, str, int], int]) -> dict[tuple[str, str, str], str]:
    """As records have them."""
    return {(org, name, str(ours)): str(theirs) for (org, name, ours), theirs in numbers.items()}
