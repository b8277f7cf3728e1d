"""Both sides of one prompt, read for a plan (`resources/prompts/sync`)."""

import asyncio
import re

from quarterdeck.resources.prompts.langfuse_content import to_langfuse, to_quarterdeck
from quarterdeck.resources.prompts.sync import Ours, Theirs, Version
from quarterdeck.settings.prompts import LABEL_PATTERN
from quarterdeck.store.prompt_links import LinkedVersion, LinkRow, PromptLinkStore
from quarterdeck.store.prompt_rows import LabelRow, PromptRow, VersionRow
from quarterdeck.store.prompts import PromptStore
from quarterdeck.templating.mustache import UnmappedError
from quarterdeck.worker.langfuse_prompts import LangfusePrompt, LangfusePrompts, LangfuseVersion

PAGE = 100


class PromptSides:
    """Contents are read only of versions that have no pair yet, or of all where a decision may copy them again."""

    def __init__(
        self, api: LangfusePrompts, prompts: PromptStore, links: PromptLinkStore, name: str, link: LinkRow | None
    ) -> None:
        self._api = api
        self._prompts = prompts
        self._links = links
        self._name = name
        self._link = link
        self._reads_all = link is not None and link.keep is not None
        self.pairs: dict[int, LinkedVersion] = {}
        """By their number."""
        self.here: dict[int, VersionRow] = {}
        self.labels_here: dict[str, LabelRow] = {}
        self.there: dict[int, LangfuseVersion] = {}
        self.numbers_there: frozenset[int] = frozenset()
        self.notes: list[str] = []

    async def read(self, prompt: PromptRow | None, listed: LangfusePrompt | None) -> tuple[Ours | None, Theirs | None]:
        """Raises LangfuseUnavailableError and LangfuseRefusedError."""
        if self._link is not None:
            self.pairs = {each.theirs: each for each in await self._links.versions(self._link)}
            if listed is not None:
                await self._drop_reused_numbers(self._link, listed)
        theirs = None if listed is None else await self._read_theirs(listed)
        ours = None if prompt is None else await self._read_ours(prompt)
        return ours, theirs

    async def _drop_reused_numbers(self, link: LinkRow, listed: LangfusePrompt) -> None:
        """The number of a deleted newest version is used again there. Below a version that is still itself, none is."""
        for number in sorted(self.pairs.keys() & set(listed.versions), reverse=True):
            pair = self.pairs[number]
            found = await self._api.version(self._name, number)
            if found is None or not found.id or not pair.their_id or found.id == pair.their_id:
                return
            self.there[number] = found
            del self.pairs[number]
            await self._links.unpair(link, number)

    async def _read_theirs(self, listed: LangfusePrompt) -> Theirs:
        versions: dict[int, Version] = {}
        labels: dict[str, int] = {}
        ignored = {number for side, number in self._link.ignored if side == "theirs"} if self._link else set()
        for number in listed.versions:
            if number in ignored or (number in self.pairs and not self._reads_all):
                versions[number] = Version()
                continue
            found = self.there.get(number) or await self._api.version(self._name, number)
            if found is not None:
                self.there[number] = found
                versions[number] = await asyncio.to_thread(_version_there, found)
        for label in listed.labels:
            if not _is_label(label):
                self.notes.append(f"the label {label} can't be used here")
                continue
            found = await self._api.labelled(self._name, label)
            if found is not None and found.number in versions:
                labels[label] = found.number
        self.numbers_there = frozenset(versions)
        return Theirs(versions, labels)

    async def _read_ours(self, prompt: PromptRow) -> Ours:
        paired = {each.ours for each in self.pairs.values()}
        versions: dict[int, Version] = {}
        after: int | None = None
        while True:
            page = await self._prompts.versions(prompt.id, org=prompt.org, limit=PAGE, after=after)
            for row in page.rows:
                versions[row.version] = await self._version_here(row, is_paired=row.version in paired)
            if not page.has_more:
                break
            after = page.rows[-1].version
        found = (await self._prompts.labels([prompt.id])).get(prompt.id, ())
        self.labels_here = {each.label: each for each in found}
        labels = {each.label: each.spec.version for each in found}
        return Ours(versions, labels, prompt.archived is not None)

    async def _version_here(self, row: VersionRow, *, is_paired: bool) -> Version:
        if is_paired and not self._reads_all:
            return Version(frozenset({f"ours {row.digest}"}))
        self.here[row.version] = row
        return await asyncio.to_thread(_version_here, row)


# In threads: compiling the templates of a large version takes 0.2 s.


def _version_there(found: LangfuseVersion) -> Version:
    try:
        keys = {f"theirs {found.content.fingerprint}"}
        spec, _ = to_quarterdeck(found.content)
    except UnmappedError as error:
        return Version(frozenset(keys), str(error))
    except (ValueError, RecursionError):
        return Version(problem="a text has a lone surrogate, or a value is nested too deeply")
    return Version(frozenset(keys | {f"ours {spec.digest}"}))


def _version_here(row: VersionRow) -> Version:
    keys = {f"ours {row.digest}"}
    try:
        keys.add(f"theirs {to_langfuse(row.spec).fingerprint}")
    except UnmappedError as error:
        return Version(frozenset(keys), str(error))
    return Version(frozenset(keys))


def _is_label(label: str) -> bool:
    return re.fullmatch(LABEL_PATTERN, label) is not None
