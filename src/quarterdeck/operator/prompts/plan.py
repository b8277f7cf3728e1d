"""What differs between a Prompt object and the platform's prompt. Pure.

The rules are those of `quarterdeck prompts apply`, so that a prompt may come from a file today and from an object
tomorrow.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from quarterdeck.kube.resources.prompt import Prompt


@dataclass(frozen=True, slots=True)
class PlatformPrompt:
    """A prompt as the platform has it."""

    id: str
    latest_version: int
    digest: str
    """Of the newest version's content."""
    description: str = ""
    teams: tuple[str, ...] | None = None
    is_archived: bool = False
    labels: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Plan:
    """Changes in the order in which they are made."""

    create: bool = False
    update: Mapping[str, Any] = field(default_factory=dict)
    """Members of the prompt to change; empty: none."""
    add_version: bool = False
    labels: tuple[str, ...] = ()
    """Labels to point at the newest version."""
    notes: tuple[str, ...] = ()
    """What is left alone, and why."""

    @property
    def is_empty(self) -> bool:
        return not (self.create or self.update or self.add_version or self.labels)


def make_plan(prompt: Prompt, known: PlatformPrompt | None) -> Plan:
    """`known`: the platform's prompt of the same name; None: there is none."""
    if known is None:
        return Plan(create=True)
    spec = prompt.spec
    update: dict[str, Any] = {}
    if known.is_archived:
        update["archived"] = False
    if spec.description is not None and spec.description != known.description:
        update["description"] = spec.description
    if spec.teams is not None and set(spec.teams) != set(known.teams or ()):
        update["teams"] = list(spec.teams)
    add_version = prompt.version().digest != known.digest
    latest = known.latest_version + add_version
    labels, notes = [], []
    for label in spec.labels:
        target = known.labels.get(label)
        if target is not None and "split" in target:
            notes.append(f"label {label} is split between versions and is left alone")
        elif target is None or target.get("version") != latest:
            labels.append(label)
    return Plan(False, update, add_version, tuple(labels), tuple(notes))
