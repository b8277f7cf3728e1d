"""Prompts, versions, labels and events as the API shows them. Pure."""

from collections.abc import Sequence
from typing import Any

from quarterdeck.store.prompt_rows import EventRow, LabelRow, PromptRow, VersionRow


def prompt_object(row: PromptRow, labels: Sequence[LabelRow]) -> dict[str, Any]:
    return {
        "id": row.id,
        "object": "prompt",
        "name": row.name,
        "org": row.org,
        "description": row.description,
        "teams": None if row.teams is None else list(row.teams),
        "latest_version": row.latest,
        "labels": {each.label: _target(each) for each in labels},
        "author": row.author,
        "created": int(row.created),
        "updated": int(row.updated),
        "archived": None if row.archived is None else int(row.archived),
    }


def version_object(row: VersionRow, prompt: PromptRow) -> dict[str, Any]:
    """`id` is the cursor of lists."""
    return {
        "id": f"{row.prompt}_v{row.version}",
        "object": "prompt.version",
        "prompt": row.prompt,
        "name": prompt.name,
        "version": row.version,
        "type": "text" if "text" in row.content else "chat",
        **row.content,
        "message": row.message,
        "author": row.author,
        "digest": row.digest,
        "created": int(row.created),
    }


def label_object(row: LabelRow, prompt: PromptRow) -> dict[str, Any]:
    return {
        "id": row.label,
        "object": "prompt.label",
        "prompt": row.prompt,
        "name": prompt.name,
        **_target(row),
        "author": row.author,
        "updated": int(row.updated),
    }


def event_object(row: EventRow) -> dict[str, Any]:
    return {
        "id": row.id,
        "object": "prompt.event",
        "prompt": row.prompt,
        "kind": row.kind,
        "label": row.label,
        "before": row.before,
        "after": row.after,
        "reason": row.reason,
        "author": row.author,
        "created": int(row.created),
    }


def _target(row: LabelRow) -> dict[str, Any]:
    """A version, or a split in full."""
    spec = row.spec
    if spec.version is not None:
        return {"version": spec.version}
    guard = None if spec.guard is None else spec.guard.model_dump(mode="json", exclude_none=True)
    split = [each.model_dump(mode="json") for each in spec.targets]
    return {"split": split, "sticky": spec.sticky, "guard": guard}
