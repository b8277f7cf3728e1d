"""Stored chat completions (`store: true`): read, labelled and deleted by the keys of their team."""

import re
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from quarterdeck.accounting.principal import Principal
from quarterdeck.errors import BadRequestError, NotFoundError
from quarterdeck.gateway.dependencies import MemberDep, PartsDep, PrincipalDep
from quarterdeck.gateway.http.responses import json_response
from quarterdeck.resources.chat_completions.service import store_messages
from quarterdeck.resources.conversations.objects import checked
from quarterdeck.resources.responses.service import owner_of
from quarterdeck.resources.tenancy.objects import page

router = APIRouter(prefix="/v1/chat/completions")

Limit = Annotated[int, Query(ge=1, le=100)]
Cursor = Annotated[str | None, Query(max_length=200)]
Order = Literal["asc", "desc"]
_METADATA = re.compile(r"metadata\[(?P<key>[^\[\]]{1,64})\]")
_LISTED = frozenset({"after", "limit", "model", "order"})


class ChatCompletionUpdate(BaseModel):
    model_config = ConfigDict(extra="forbid")

    metadata: dict[str, str] | None = Field(...)
    """Replaces the metadata; null removes it."""


async def _lister(request: Request, parts: PartsDep, principal: PrincipalDep) -> tuple[Principal, dict[str, str]]:
    """The key as it is now, and the metadata that is asked for: its parameters have names of their own."""
    wanted = {}
    for name, value in request.query_params.items():
        if (found := _METADATA.fullmatch(name)) is not None:
            wanted[found["key"]] = value
        elif name not in _LISTED:
            raise BadRequestError(f"Unknown parameter: '{name[:100]}'.", param=name[:100], code="unknown_parameter")
    return await parts.authenticator.confirm(principal), wanted


@router.get("")
async def list_chat_completions(
    parts: PartsDep,
    asked: Annotated[tuple[Principal, dict[str, str]], Depends(_lister)],
    limit: Limit = 20,
    order: Order = "asc",
    after: Cursor = None,
    model: Annotated[str | None, Query(max_length=200)] = None,
) -> Response:
    """List the team's stored chat completions, the first one first; of `model`, and with each `metadata[key]=value`."""
    principal, metadata = asked
    found = await parts.chat_completions.page(
        owner_of(principal), after=after, limit=limit, is_descending=order == "desc", model=model, metadata=metadata
    )
    return json_response(page(found, limit))


@router.get("/{completion_id}")
async def retrieve_chat_completion(completion_id: str, parts: PartsDep, member: MemberDep) -> Response:
    """Retrieve a stored chat completion."""
    return json_response(await parts.chat_completions.retrieve(completion_id, owner_of(member)))


@router.post("/{completion_id}")
async def update_chat_completion(
    completion_id: str, body: ChatCompletionUpdate, parts: PartsDep, member: MemberDep
) -> Response:
    """Replace a stored chat completion's metadata."""
    return json_response(await parts.chat_completions.update(completion_id, owner_of(member), checked(body.metadata)))


@router.delete("/{completion_id}")
async def delete_chat_completion(completion_id: str, parts: PartsDep, member: MemberDep) -> Response:
    """Delete a stored chat completion."""
    await parts.chat_completions.delete(completion_id, owner_of(member))
    return json_response({"id": completion_id, "object": "chat.completion.deleted", "deleted": True})


@router.get("/{completion_id}/messages")
async def list_chat_completion_messages(
    completion_id: str,
    parts: PartsDep,
    member: MemberDep,
    limit: Limit = 20,
    order: Order = "asc",
    after: Cursor = None,
) -> Response:
    """List the messages of a stored chat completion's request."""
    messages = store_messages(await parts.chat_completions.messages(completion_id, owner_of(member)), completion_id)
    if order == "desc":
        messages.reverse()
    return json_response(page(_after(messages, after)[: limit + 1], limit))


def _after(messages: list[dict[str, Any]], after: str | None) -> list[dict[str, Any]]:
    """Raises NotFoundError."""
    if after is None:
        return messages
    for index, message in enumerate(messages):
        if message["id"] == after:
            return messages[index + 1 :]
    raise NotFoundError(f"Message with id '{after}' not found.", param="after")
