"""Rows of prompts, their versions, labels and events. Times are Unix seconds."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypeVar

from sqlalchemy import Row

from quarterdeck.settings.prompts import LabelSpec, PromptSpec

R = TypeVar("R")


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptRow:
    """A prompt without its versions."""

    id: str
    org: str
    name: str
    description: str
    teams: tuple[str, ...] | None
    """The teams whose keys may use it. None: all of the organisation."""
    latest: int
    """The number of its newest version."""
    revision: int
    """Counted up with each change."""
    author: str
    created: float
    updated: float
    archived: float | None
    deleted: float | None = None

    def is_for(self, team: str) -> bool:
        """Whether keys of this team may use it."""
        return self.teams is None or team in self.teams


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionRow:
    """A version; it never changes."""

    prompt: str
    """The prompt's id."""
    version: int
    content: dict[str, Any] = field(repr=False)
    """A PromptSpec as JSON."""
    digest: str
    message: str
    author: str
    created: float

    @property
    def spec(self) -> PromptSpec:
        return PromptSpec.model_validate(self.content)


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelRow:
    """What a label points at, since `updated`."""

    prompt: str
    """The prompt's id."""
    label: str
    target: dict[str, Any]
    """A LabelSpec as JSON."""
    author: str
    updated: float

    @property
    def spec(self) -> LabelSpec:
        return LabelSpec.model_validate(self.target)


@dataclass(frozen=True, slots=True, kw_only=True)
class EventRow:
    """A change of a prompt."""

    id: str
    prompt: str
    kind: str
    """version.created, updated, archived, unarchived, deleted, label.set, label.deleted,
    label.rolled_back or sync.conflict."""
    label: str | None
    before: dict[str, Any] | None
    after: dict[str, Any] | None
    reason: str
    author: str
    created: float


@dataclass(frozen=True, slots=True)
class PromptChanges:
    """Changes of a prompt; what has its default stays."""

    description: str | None = None
    teams: Sequence[str] | Literal[False] | None = False
    archived: bool | None = None


@dataclass(frozen=True, slots=True)
class Page(Generic[R]):
    """A page of a list."""

    rows: tuple[R, ...]
    has_more: bool


def prompt_of(row: Row[Any]) -> PromptRow:
    fields = row._asdict()  # public in spite of its name, as in every namedtuple
    fields["teams"] = None if row.teams is None else tuple(row.teams)
    return PromptRow(**fields)


def version_of(row: Row[Any]) -> VersionRow:
    return VersionRow(**row._asdict())


def label_of(row: Row[Any]) -> LabelRow:
    fields = row._asdict()
    del fields["is_guarded"]
    return LabelRow(**fields)


def event_of(row: Row[Any]) -> EventRow:
    fields = row._asdict()
    del fields["position"]
    return EventRow(**fields)
