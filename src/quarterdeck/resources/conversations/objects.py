"""Conversations as the API shows them, and the bodies that make and change them. Pure."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from quarterdeck.errors import BadRequestError
from quarterdeck.ids import object_id
from quarterdeck.resources.responses.items import Item, read_items
from quarterdeck.resources.responses.requests import check_metadata
from quarterdeck.store.conversations import ConversationRow

MAX_NEW_ITEMS = 20
"""Items of one request, as OpenAI's."""


class ConversationCreate(BaseModel):
    model_config = ConfigDict(extra="forbid")

    items: list[dict[str, Any]] | None = None
    metadata: dict[str, str] | None = None


class ConversationUpdate(BaseModel):
    model_config = ConfigDict(extra="forbid")

    metadata: dict[str, str] | None = Field(...)


class ItemsCreate(BaseModel):
    model_config = ConfigDict(extra="forbid")

    items: list[dict[str, Any]]


def new_items(given: list[dict[str, Any]] | None) -> list[Item]:
    """Raises BadRequestError."""
    if given is not None and len(given) > MAX_NEW_ITEMS:
        raise BadRequestError(
            f"Invalid 'items': array too long. Expected an array with maximum length {MAX_NEW_ITEMS}, but got an array "
            f"with length {len(given)} instead.",
            param="items",
            code="array_above_max_length",
        )
    items = read_items(given, object_id, where="items")
    for index, item in enumerate(items):
        if item["type"] == "item_reference":
            raise BadRequestError(
                "Item references can't be added to a conversation. Send the item itself.",
                param=f"items[{index}].type",
                code="unsupported_item",
            )
    return items


def checked(metadata: dict[str, str] | None) -> dict[str, str]:
    """Raises BadRequestError."""
    check_metadata(metadata)
    return metadata or {}


def conversation_object(row: ConversationRow) -> dict[str, Any]:
    return {
        "id": row.id,
        "object": "conversation",
        "created_at": int(row.created),
        "metadata": dict(row.metadata),
    }
