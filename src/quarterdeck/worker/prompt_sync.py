"""Synchronises one prompt with Langfuse: reads both sides, plans (`resources/prompts/sync`), and carries the plan out.

Each step is recorded when it is done. A worker that dies in between, or a server that goes away, leaves a state from
which the next turn plans what is left.
"""

import dataclasses
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter, ValidationError

from quarterdeck.errors import BadRequestError, ConflictError, NotFoundError
from quarterdeck.resources.prompts.changes import PromptAnnouncer, PromptChange
from quarterdeck.resources.prompts.langfuse_content import to_langfuse, to_quarterdeck
from quarterdeck.resources.prompts.sync import (
    Action,
    Conflict,
    Copy,
    Detach,
    Establish,
    Ignore,
    Link,
    Mode,
    Pair,
    Plan,
    Remember,
    SetLabel,
    Unpair,
    make_plan,
)
from quarterdeck.settings.prompts import LabelSpec, PromptName
from quarterdeck.store.prompt_links import LinkedVersion, LinkRow, PromptLinkStore
from quarterdeck.store.prompt_rows import PromptRow
from quarterdeck.store.prompts import PromptStore
from quarterdeck.telemetry.traces.prompt_numbers import PromptNumbers
from quarterdeck.telemetry.worker_metrics import WorkerMetrics
from quarterdeck.worker.langfuse_prompts import (
    LangfusePrompt,
    LangfusePrompts,
    LangfuseRefusedError,
)
from quarterdeck.worker.prompt_sides import PromptSides

log = logging.getLogger(__name__)

AUTHOR = "langfuse"
"""Of what is taken from there."""
MAX_MESSAGE = 1000
MAX_NOTES = 50
PAGE = 100

_names = TypeAdapter[str](PromptName)


@dataclass(frozen=True, slots=True)
class Target:
    """What is synchronised with what."""

    org: str
    project: str
    mode: Mode


class PromptSync:
    """For one organisation and one project."""

    def __init__(
        self,
        api: LangfusePrompts,
        prompts: PromptStore,
        links: PromptLinkStore,
        announcer: PromptAnnouncer,
        numbers: PromptNumbers,
        metrics: WorkerMetrics,
        target: Target,
        *,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._api = api
        self._prompts = prompts
        self._links = links
        self._announcer = announcer
        self._numbers = numbers
        self._metrics = metrics
        self._target = target
        self._wall = wall

    def seen(self, prompt: PromptRow | None, listed: LangfusePrompt | None) -> str:
        """Equal while neither side changes."""
        ours = "-" if prompt is None else f"{prompt.id} {prompt.revision}"
        theirs = "-" if listed is None else f"{listed.updated} {listed.versions} {listed.labels} {listed.tags}"
        return f"{self._target.mode} {ours} {theirs}"

    async def run(
        self, name: str, prompt: PromptRow | None, listed: LangfusePrompt | None, link: LinkRow | None
    ) -> None:
        """Raises LangfuseUnavailableError, and LangfuseRefusedError where a prompt can't be read."""
        run = _Run(self._api, self._prompts, self._links, self._numbers, self._target, name, prompt, link)
        if prompt is None and (fault := _fault_of_name(name)) is not None:
            if link is None or list(link.notes) != [fault]:
                await self._links.save(await run.linked(), notes=[fault], conflicts=[])
            return
        plan = await run.plan(listed)
        if link is None and plan == Plan():
            return
        row = await run.linked()
        for action in plan.actions:
            await run.carry_out(action)
        for action_name, count in run.done.items():
            self._metrics.prompt_syncs.add((action_name,), count)
        if run.is_removed:
            return
        await self._report(row, run.prompt, plan.conflicts)
        if run.has_changed and run.prompt is not None:
            await self._announcer.announce(PromptChange(self._target.org, run.prompt.id))
        await self._links.save(
            row,
            prompt=run.prompt.id if run.prompt is not None else row.prompt,
            tags=list(listed.tags) if listed is not None else list(row.tags),
            conflicts=[dataclasses.asdict(each) for each in plan.conflicts],
            notes=[*plan.notes, *run.notes][:MAX_NOTES],
            keep=None,
            # After a change both sides are compared once more: what was seen is not how they are now.
            seen="" if plan.actions or run.is_incomplete else self.seen(prompt, listed),
            checked=self._wall(),
        )

    async def _report(self, link: LinkRow, prompt: PromptRow | None, conflicts: tuple[Conflict, ...]) -> None:
        """Conflicts that are new: an event, a log line."""
        known = {(each["kind"], each["subject"], each["message"]) for each in link.conflicts}
        for conflict in conflicts:
            if (conflict.kind, conflict.subject, conflict.message) in known:
                continue
            log.warning(
                "prompt %s differs at Langfuse: %s (`quarterdeck prompts sync %s --keep ours|theirs`)",
                *(link.name, conflict.message, link.name),
                extra={"org": link.org},
            )
            if prompt is None:
                continue
            label = conflict.subject if conflict.kind == "label" else None
            try:
                await self._prompts.record_event(
                    prompt.id, "sync.conflict", org=link.org, author=AUTHOR, label=label, reason=conflict.message
                )
            except NotFoundError:  # deleted meanwhile
                log.debug("no event: the prompt was deleted")


class _Run:
    """One prompt, one time."""

    def __init__(
        self,
        api: LangfusePrompts,
        prompts: PromptStore,
        links: PromptLinkStore,
        numbers: PromptNumbers,
        target: Target,
        name: str,
        prompt: PromptRow | None,
        link: LinkRow | None,
    ) -> None:
        self._api = api
        self._prompts = prompts
        self._links = links
        self._numbers = numbers
        self._target = target
        self._name = name
        self.prompt = prompt
        self._link = link
        self._agreed: dict[str, int] = dict(link.labels) if link is not None else {}
        self._ignored = [list(each) for each in link.ignored] if link is not None else []
        self._sides = PromptSides(api, prompts, links, name, link)
        self.notes: list[str] = []
        self.done: dict[str, int] = {}
        """Steps by kind."""
        self.has_changed = False
        self.is_incomplete = False
        self.is_removed = False

    async def linked(self) -> LinkRow:
        if self._link is None:
            target = self._target
            self._link = await self._links.create(org=target.org, project=target.project, name=self._name)
        return self._link

    async def plan(self, listed: LangfusePrompt | None) -> Plan:
        link = self._link
        if link is not None and link.is_detached:
            return Plan()
        ours, theirs = await self._sides.read(self.prompt, listed)
        self.notes += self._sides.notes
        if link is None:
            return make_plan(ours, theirs, None, self._target.mode)
        pairs = {each.theirs: each.ours for each in self._sides.pairs.values()}
        ignored = frozenset((side, number) for side, number in link.ignored)
        before = Link(link.origin, pairs, ignored, link.labels)
        return make_plan(ours, theirs, before, self._target.mode, link.keep)

    async def carry_out(self, action: Action) -> None:
        link = await self.linked()
        if isinstance(action, Establish):
            await self._links.save(link, origin=action.origin)
        elif isinstance(action, Pair):
            await self._pair(action.theirs, action.ours, self._sides.there[action.theirs].id)
        elif isinstance(action, Unpair):
            self._sides.pairs.pop(action.theirs, None)
            await self._links.unpair(link, action.theirs)
        elif isinstance(action, Ignore):
            self._ignored.append(list(action.version))
            await self._links.save(link, ignored=self._ignored)
        elif isinstance(action, Copy):
            await (self._push if action.version[0] == "ours" else self._pull)(action.version[1])
        elif isinstance(action, SetLabel):
            await (self._label_here if action.side == "ours" else self._label_there)(action)
        elif isinstance(action, Remember):
            await self._agree(action.label, action.ours)
        elif isinstance(action, Detach) and self.prompt is None and not self._sides.numbers_there:
            self.is_removed = True
            await self._links.remove(link)
        else:
            await self._links.save(link, is_detached=True)

    async def _pair(self, theirs: int, ours: int, their_id: str) -> None:
        pair = self._sides.pairs[theirs] = LinkedVersion(theirs, ours, their_id)
        await self._links.pair(await self.linked(), pair)
        self._numbers.add(self._target.org, self._name, ours, theirs)

    async def _push(self, number: int) -> None:
        row = self._sides.here[number]
        try:
            made = await self._api.create(self._name, to_langfuse(row.spec), row.message)
        except LangfuseRefusedError as error:
            self.notes.append(f"version {number} here was refused by Langfuse: {error}")
            self._count("refused")
            return
        self._sides.numbers_there |= {made.number}
        await self._pair(made.number, number, made.id)
        self._count("pushed")

    async def _pull(self, number: int) -> None:
        found = self._sides.there[number]
        spec, notes = to_quarterdeck(found.content)
        message = found.message.encode(errors="replace").decode().replace("\0", "")[:MAX_MESSAGE]
        self.notes += [f"version {number} at Langfuse: {note}" for note in notes]
        try:
            if self.prompt is None:
                self.prompt = await self._prompts.create(
                    self._name, spec, org=self._target.org, author=AUTHOR, message=message
                )
                made = self.prompt.latest
            else:
                version, _ = await self._prompts.add_version(
                    self.prompt.id, spec, org=self._target.org, author=AUTHOR, message=message
                )
                made = version.version
        except (ConflictError, BadRequestError, NotFoundError) as error:
            self.notes.append(f"version {number} at Langfuse can't be taken: {error.message}")
            self.is_incomplete = True
            self._count("refused")
            return
        self.has_changed = True
        await self._pair(number, made, found.id)
        self._count("pulled")

    async def _label_here(self, action: SetLabel) -> None:
        before = self._sides.labels_here.get(action.label)
        number = None if action.version is None else self._number_here(action.version)
        if self.prompt is None or (action.version is not None and number is None):
            return  # its version could not be taken, which a note says
        since = 0.0 if before is None else before.updated
        mine: dict[str, Any] = {"org": self._target.org, "author": AUTHOR, "since": since}
        try:
            if number is not None:
                spec = LabelSpec(version=number)
                await self._prompts.set_label(self.prompt.id, action.label, spec, **mine, reason="moved at Langfuse")
            else:
                await self._prompts.delete_label(self.prompt.id, action.label, **mine)
        except (ConflictError, BadRequestError, NotFoundError) as error:
            self.notes.append(f"the label {action.label} stays: {error.message}")
            self.is_incomplete = True
            return
        self.has_changed = True
        await self._agree(action.label, number)
        self._count("label_here")

    async def _label_there(self, action: SetLabel) -> None:
        if action.version is None:
            return
        numbers = [
            each.theirs
            for each in self._sides.pairs.values()
            if each.ours == self._number_here(action.version) and each.theirs in self._sides.numbers_there
        ]
        if not numbers:
            return  # its version was refused, which a note says
        try:
            await self._api.add_labels(self._name, max(numbers), [action.label])
        except LangfuseRefusedError as error:
            self.notes.append(f"the label {action.label} was refused by Langfuse: {error}")
            self._count("refused")
            return
        await self._agree(action.label, self._number_here(action.version))
        self._count("label_there")

    def _number_here(self, version: tuple[str, int]) -> int | None:
        side, number = version
        if side == "ours":
            return number
        pair = self._sides.pairs.get(number)
        return None if pair is None else pair.ours

    async def _agree(self, label: str, number: int | None) -> None:
        if number is None:
            self._agreed.pop(label, None)
        else:
            self._agreed[label] = number
        await self._links.save(await self.linked(), labels=dict(self._agreed))

    def _count(self, step: str) -> None:
        self.done[step] = self.done.get(step, 0) + 1


def _fault_of_name(name: str) -> str | None:
    try:
        _names.validate_python(name)
    except ValidationError:
        return "the name can't be used here: up to 128 letters, digits, '.', '_' and '-', with '/' between parts"
    return None
