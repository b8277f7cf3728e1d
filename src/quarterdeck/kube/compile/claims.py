"""Which object has a public name. Models, their aliases, adapters and routes share one name space."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from quarterdeck.kube.resources.object import Metadata

PLATFORM = "the platform's configuration"
"""Owner of the names in the base configuration (the chart's `config`), which goes before all objects."""


@dataclass(frozen=True, slots=True)
class Claimant:
    """An object and the names it claims."""

    ref: str
    """Names it in messages: `Model llama`."""
    metadata: Metadata
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Conflict:
    """Why a claim failed."""

    name: str
    winner: str

    def __str__(self) -> str:
        return f"the name {self.name!r} belongs to {self.winner}"


def settle(claimants: Iterable[Claimant], taken: Mapping[str, str]) -> dict[str, Conflict | None]:
    """Give names to the oldest claimant, all or none of an object's; an object that gets none leaves them to others.

    Returns a conflict or None for each object, by its `ref`. `taken`: names that are given away, with their owners.
    """
    owners = dict(taken)
    found: dict[str, Conflict | None] = {}
    for each in sorted(claimants, key=lambda each: (*each.metadata.age_key, each.ref)):
        conflict = next((Conflict(name, owners[name]) for name in each.names if name in owners), None)
        found[each.ref] = conflict
        if conflict is None:
            owners |= dict.fromkeys(each.names, each.ref)
    return found
