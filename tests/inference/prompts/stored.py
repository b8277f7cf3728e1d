"""Prompts in memory instead of a database, and a catalogue that reads them."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from quarterdeck.inference.prompts.catalogue import PromptCatalogue
from quarterdeck.settings.prompts import LabelSpec, PromptSpec
from quarterdeck.store.database import DatabaseUnavailableError
from quarterdeck.store.prompt_rows import LabelRow, PromptRow, VersionRow


@dataclass(frozen=True)
class Changed:
    prompt: str


class StoredPrompts:
    """A database of prompts that can be away (`is_away`), and counts its reads."""

    def __init__(self, **catalogue: Any) -> None:
        self.rows: dict[str, PromptRow] = {}
        self.versions: dict[tuple[str, int], VersionRow] = {}
        self.label_rows: dict[str, dict[str, LabelRow]] = {}
        self.is_away = False
        self.reads: Counter[str] = Counter()
        self.catalogue = PromptCatalogue(self, **catalogue)

    def put(
        self,
        name: str,
        *specs: dict[str, Any],
        org: str = "default",
        teams: tuple[str, ...] | None = None,
        **labels: Any,
    ) -> str:
        """Store or replace a prompt. Labels are a version or a LabelSpec's members. Returns its id."""
        id = f"prompt_{org}_{name}"
        before = self.rows.get(id)
        self.rows[id] = PromptRow(
            id=id,
            org=org,
            name=name,
            description="",
            teams=teams,
            latest=len(specs),
            revision=1 if before is None else before.revision + 1,
            author="key_1",
            created=1.0,
            updated=1.0,
            archived=None,
        )
        for number, fields in enumerate(specs, 1):
            spec = PromptSpec.model_validate(fields)
            self.versions[id, number] = VersionRow(
                prompt=id,
                version=number,
                content=spec.content(),
                digest=spec.digest,
                message="",
                author="",
                created=1.0,
            )
        self.label_rows[id] = {}
        for label, target in labels.items():
            made = LabelSpec.model_validate({"version": target} if isinstance(target, int) else target)
            dumped = made.model_dump(mode="json", exclude_defaults=True)
            self.label_rows[id][label] = LabelRow(prompt=id, label=label, target=dumped, author="", updated=1.0)
        return id

    def touch(self, id: str) -> None:
        self.rows[id] = replace(self.rows[id], revision=self.rows[id].revision + 1)

    async def load(self) -> None:
        await self.catalogue.catch_up(None)

    async def revisions(self) -> dict[str, int]:
        self._read("revisions")
        return {id: row.revision for id, row in self.rows.items()}

    async def retrieve_all(self, prompt_ids: Sequence[str]) -> Sequence[PromptRow]:
        self._read("prompts")
        return [self.rows[id] for id in prompt_ids if id in self.rows]

    async def labels(self, prompt_ids: Sequence[str]) -> dict[str, tuple[LabelRow, ...]]:
        self._read("labels")
        return {id: tuple(self.label_rows[id].values()) for id in prompt_ids if id in self.label_rows}

    async def contents(self, versions: Sequence[tuple[str, int]]) -> Sequence[VersionRow]:
        self._read("contents")
        return [self.versions[key] for key in versions if key in self.versions]

    def _read(self, what: str) -> None:
        self.reads[what] += 1
        if self.is_away:
            raise DatabaseUnavailableError("away")
