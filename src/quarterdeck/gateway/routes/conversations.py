"""`/v1/conversations`: made, read and changed by the keys of a team."""

from typing import Annotated, Literal

from fastapi import APIRouter, Query, Response

from quarterdeck.gateway.dependencies import MemberDep, PartsDep
from quarterdeck.gateway.http.responses import json_response
from quarterdeck.gateway.routes.responses import check_include
from quarterdeck.resources.conversations.objects import (
    ConversationCreate,
    ConversationUpdate,
    ItemsCreate,
    checked,
    conversation_object,
    new_items,
)
from quarterdeck.resources.responses.service import owner_of
from quarterdeck.resources.tenancy.objects import page

router = APIRouter(prefix="/v1/conversations")

Limit = Annotated[int, Query(ge=1, le=100)]
Cursor = Annotated[str | None, Query(max_length=200)]
Include = Annotated[list[str] | None, Query(alias="include[]")]


@router.post("")
async def create_conversation(parts: PartsDep, member: MemberDep, body: ConversationCreate | None = None) -> Response:
    """Create a conversation, with up to 20 items."""
    body = body or ConversationCreate()
    items, metadata = new_items(body.items), checked(body.metadata)
    row = await parts.conversations.create(owner_of(member), metadata, items)
    return json_response(conversation_object(row))


@router.get("/{conversation_id}")
async def retrieve_conversation(conversation_id: str, parts: PartsDep, member: MemberDep) -> Response:
    """Retrieve a conversation; its items are listed on their own."""
    return json_response(conversation_object(await parts.conversations.retrieve(conversation_id, owner_of(member))))


@router.post("/{conversation_id}")
async def update_conversation(
    conversation_id: str, body: ConversationUpdate, parts: PartsDep, member: MemberDep
) -> Response:
    """Replace a conversation's metadata."""
    row = await parts.conversations.update(conversation_id, owner_of(member), checked(body.metadata))
    return json_response(conversation_object(row))


@router.delete("/{conversation_id}")
async def delete_conversation(conversation_id: str, parts: PartsDep, member: MemberDep) -> Response:
    """Delete a conversation with its items. Responses that were made in it stay."""
    await parts.conversations.delete(conversation_id, owner_of(member))
    return json_response({"id": conversation_id, "object": "conversation.deleted", "deleted": True})


@router.post("/{conversation_id}/items")
async def create_conversation_items(
    conversation_id: str, body: ItemsCreate, parts: PartsDep, member: MemberDep, include: Include = None
) -> Response:
    """Add up to 20 items at the end of a conversation."""
    check_include(include)
    items = new_items(body.items)
    await parts.conversations.append(conversation_id, items, owner_of(member))
    return json_response(page(items, len(items)))


@router.get("/{conversation_id}/items")
async def list_conversation_items(
    conversation_id: str,
    parts: PartsDep,
    member: MemberDep,
    limit: Limit = 20,
    order: Literal["asc", "desc"] = "desc",
    after: Cursor = None,
    include: Include = None,
) -> Response:
    """List a conversation's items, the last one first."""
    check_include(include)
    found = await parts.conversations.page(
        conversation_id, owner_of(member), after=after, limit=limit, is_descending=order == "desc"
    )
    return json_response(page(found.items, limit, has_more=found.has_more))


@router.get("/{conversation_id}/items/{item_id}")
async def retrieve_conversation_item(
    conversation_id: str, item_id: str, parts: PartsDep, member: MemberDep, include: Include = None
) -> Response:
    """Retrieve an item of a conversation."""
    check_include(include)
    return json_response(await parts.conversations.item(conversation_id, item_id, owner_of(member)))


@router.delete("/{conversation_id}/items/{item_id}")
async def delete_conversation_item(conversation_id: str, item_id: str, parts: PartsDep, member: MemberDep) -> Response:
    """Delete an item of a conversation. Returns the conversation."""
    row = await parts.conversations.delete_item(conversation_id, item_id, owner_of(member))
    return json_response(conversation_object(row))
