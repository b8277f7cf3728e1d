"""Synchronised prompts as the admin API shows them. Pure."""

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from quarterdeck.store.prompt_links import LinkedVersion, LinkRow


class LinkDecision(BaseModel):
    """The body of `POST /admin/prompt_links/{link}`."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    keep: Literal["ours", "theirs"]
    """The side that wins all of the prompt's conflicts, carried out by the worker within seconds. `ours`: this
    platform's. `theirs`: Langfuse's. Of a prompt that was deleted on one side: whether that one is kept, which ends its
    synchronisation, or the other, which creates it again."""


def link_object(row: LinkRow, versions: Sequence[LinkedVersion] | None = None) -> dict[str, Any]:
    """`versions`: None: they are not shown, as in a list."""
    shown: dict[str, Any] = {
        "id": row.id,
        "object": "prompt.link",
        "name": row.name,
        "prompt": row.prompt,
        "project": row.project,
        "state": state_of(row),
        "origin": row.origin,
        "labels": dict(row.labels),
        "tags": list(row.tags),
        "conflicts": [dict(each) for each in row.conflicts],
        "notes": list(row.notes),
        "keep": row.keep,
        "checked": int(row.checked) or None,
    }
    if versions is not None:
        pairs = sorted(versions, key=lambda each: each.theirs)
        shown["versions"] = [{"ours": each.ours, "theirs": each.theirs} for each in pairs]
        shown["unsynchronised_versions"] = [{"side": side, "version": number} for side, number in row.ignored]
    return shown


def state_of(row: LinkRow) -> str:
    """detached; pending: a decision is not carried out yet; conflict; partial: something can't be mapped; else
    synchronised."""
    if row.is_detached:
        return "detached"
    if row.keep is not None:
        return "pending"
    if row.conflicts:
        return "conflict"
    return "partial" if row.notes else "synchronised"
