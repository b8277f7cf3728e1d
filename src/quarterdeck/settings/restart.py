"""Settings that a reload can't apply: which fields they are, and which of them differ between two configurations."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo


@dataclass(frozen=True, slots=True)
class NeedsRestart:
    """Annotates a field that a process reads only when it starts: `Annotated[int, NeedsRestart("gateway")]`."""

    process: str


@dataclass(frozen=True, slots=True)
class PendingChange:
    """A setting whose new value is not in force yet."""

    setting: str
    """Its path in quarterdeck.yaml; items of a list that have a name are called by it: `models.chat.engine`."""
    process: str
    """The process to restart."""


def process_to_restart(field: FieldInfo) -> str | None:
    """The process that must be restarted for a change of the field. None: a reload applies it."""
    return next((each.process for each in field.metadata if isinstance(each, NeedsRestart)), None)


def changes_needing_restart(old: BaseModel, new: BaseModel) -> list[PendingChange]:
    """The settings that differ and that a reload can't apply, in the order of the file."""
    return list(_changes(old, new, ""))


def _changes(old: BaseModel | None, new: BaseModel | None, path: str) -> Iterator[PendingChange]:
    """`None`: the section is only in the other configuration."""
    some = new if new is not None else old
    if old == new or some is None:
        return
    for name, field in type(some).model_fields.items():
        before, after = getattr(old, name, None), getattr(new, name, None)
        if before == after:
            continue
        where = f"{path}.{name}".lstrip(".")
        process = process_to_restart(field)
        if process is not None:
            yield PendingChange(where, process)
        else:
            yield from _changes_within(before, after, where)


def _changes_within(before: Any, after: Any, where: str) -> Iterator[PendingChange]:
    """Of a section, or of a list of sections that have names."""
    if isinstance(before, tuple) or isinstance(after, tuple):
        old, new = _by_name(before), _by_name(after)
        for name in old | new:
            yield from _changes(old.get(name), new.get(name), f"{where}.{name}")
    elif isinstance(before, BaseModel) or isinstance(after, BaseModel):
        yield from _changes(_section(before), _section(after), where)


def _by_name(items: Any) -> dict[str, BaseModel]:
    return {item.name: item for item in items or () if isinstance(item, BaseModel) and hasattr(item, "name")}


def _section(value: Any) -> BaseModel | None:
    return value if isinstance(value, BaseModel) else None
