"""`/v1/responses`: created by any key, and read, listed and deleted by the keys of its team."""

from collections.abc import Awaitable, Callable
from typing import Annotated, Literal
from urllib.parse import parse_qsl

import msgspec
from fastapi import APIRouter, Query, Response

from quarterdeck.accounting.principal import Principal
from quarterdeck.errors import BadRequestError
from quarterdeck.gateway.dependencies import MemberDep, PartsDep
from quarterdeck.gateway.http.registry import Route
from quarterdeck.gateway.http.request_head import RequestHead
from quarterdeck.gateway.http.responses import json_response
from quarterdeck.gateway.routes.inference import pipeline_head
from quarterdeck.inference.cache.replay import Replay
from quarterdeck.inference.call import Operation, Reply
from quarterdeck.protocol import sse
from quarterdeck.resources.responses.background import Background
from quarterdeck.resources.responses.compaction import Compaction
from quarterdeck.resources.responses.items import is_id
from quarterdeck.resources.responses.objects import interrupted
from quarterdeck.resources.responses.replay import replay
from quarterdeck.resources.responses.requests import INCLUDABLE
from quarterdeck.resources.responses.service import Responses, owner_of
from quarterdeck.resources.tenancy.objects import page
from quarterdeck.store.responses import ResponseStore, no_such_response

PATH = "/v1/responses"

router = APIRouter(prefix=PATH)

Limit = Annotated[int, Query(ge=1, le=100)]
Cursor = Annotated[str | None, Query(max_length=200)]
Order = Literal["asc", "desc"]
Include = Annotated[list[str] | None, Query(alias="include[]")]


def routes(
    responses: Responses,
    background: Background,
    compaction: Compaction,
    store: ResponseStore,
    confirm: Callable[[Principal], Awaitable[Principal]],
) -> list[Route]:
    """`background` executes responses for workers. `confirm` reads the key as it is now. Raises AuthenticationError."""

    async def create(head: RequestHead, body: bytes) -> Reply:
        made = pipeline_head(head, Operation.CHAT)
        if head.job is not None and head.job.response is not None:
            return await background.execute(made, head.job, body)
        return await responses.create(made, body)

    async def count_tokens(head: RequestHead, body: bytes) -> Reply:
        return await responses.count_tokens(pipeline_head(head, Operation.TOKENIZE), body)

    async def compact(head: RequestHead, body: bytes) -> Reply:
        """Compact a conversation into one item."""
        owner = owner_of(await confirm(head.principal))
        return await compaction.compact(pipeline_head(head, Operation.CHAT), owner, body)

    async def retrieve(head: RequestHead, body: bytes) -> Reply:
        """Retrieve a response, or with `stream=true` its events again, those after `starting_after`."""
        owner = owner_of(await confirm(head.principal))
        is_streaming, after, obfuscates = _read_query(head.query)
        response_id = (head.parameters or {})["response_id"]
        if not is_id(response_id):
            raise no_such_response(response_id)
        stored = await store.retrieve(response_id, owner)
        shown = interrupted(stored.body) if stored.is_interrupted else stored.body
        if not is_streaming:
            return Reply(200, ((b"content-type", b"application/json"),), msgspec.json.encode(shown))
        if shown["background"] and shown["status"] in ("queued", "in_progress"):
            return responses.follow(shown, owner, after, obfuscates=obfuscates)
        if shown["status"] == "in_progress":
            raise BadRequestError(
                "The response is still in progress. Its events can be streamed again when it has ended.",
                param="stream",
                code="response_in_progress",
            )
        steps, shows_logprobs = await store.steps(response_id, owner)
        events = replay(shown, steps, shows_logprobs=shows_logprobs, obfuscates=obfuscates)
        return Reply(200, sse.HEADERS, stream=Replay(b"".join(events[after + 1 :])))

    return [
        Route.buffered(PATH, create, takes_media=True),
        Route.buffered(f"{PATH}/input_tokens", count_tokens, takes_media=True),
        Route.buffered(f"{PATH}/compact", compact, takes_media=True),
        Route.buffered(f"{PATH}/{{response_id}}", retrieve, method="GET", max_bytes=1024),
    ]


@router.delete("/{response_id}")
async def delete_response(response_id: str, parts: PartsDep, member: MemberDep) -> Response:
    """Delete a response with its items; one that runs is stopped. Responses that continue it can't be continued."""
    await parts.response_store.delete(response_id, owner_of(member))
    parts.responses.stop(response_id)
    return json_response({"id": response_id, "object": "response", "deleted": True})


@router.post("/{response_id}/cancel")
async def cancel_response(response_id: str, parts: PartsDep, member: MemberDep) -> Response:
    """Cancel a background response. Cancelling it again, or one that has ended, changes nothing. Other responses are
    stopped by closing their connection: 400."""
    return json_response(await parts.responses.cancel(response_id, owner_of(member)))


@router.get("/{response_id}/input_items")
async def list_input_items(
    response_id: str,
    parts: PartsDep,
    member: MemberDep,
    limit: Limit = 20,
    order: Order = "desc",
    after: Cursor = None,
    include: Include = None,
) -> Response:
    """List the items of a response's input, the last one first."""
    check_include(include)
    found = await parts.response_store.input_items(
        response_id, owner_of(member), after=after, limit=limit, is_descending=order == "desc"
    )
    return json_response(page(found.items, limit, has_more=found.has_more))


def check_include(include: list[str] | None) -> None:
    """Raises BadRequestError."""
    for index, name in enumerate(include or ()):
        if name not in INCLUDABLE:
            raise BadRequestError(
                f"Invalid value: '{name[:100]}'. Supported values are: {', '.join(sorted(INCLUDABLE))}.",
                param=f"include[{index}]",
                code="invalid_value",
            )


def _read_query(query: bytes) -> tuple[bool, int, bool]:
    """Whether the events are asked for, the number of the last one that the client has, and whether they are
    obfuscated. Raises BadRequestError."""
    is_streaming, after, obfuscates = False, -1, False
    for name, value in parse_qsl(query.decode("latin-1"), keep_blank_values=True):
        if name in ("stream", "include_obfuscation"):
            if value not in ("true", "false"):
                raise BadRequestError(f"`{name}` must be `true` or `false`.", param=name, code="invalid_value")
            is_streaming = is_streaming or (name == "stream" and value == "true")
            obfuscates = obfuscates or (name == "include_obfuscation" and value == "true")
        elif name == "starting_after":
            if not value.isdecimal() or len(value) > 9:
                raise BadRequestError("`starting_after` must be a number.", param=name, code="invalid_value")
            after = int(value)
        elif name in ("include", "include[]"):
            check_include([value])
        else:
            raise BadRequestError(f"Unknown parameter: '{name[:100]}'.", param=name[:100], code="unknown_parameter")
    if after >= 0 and not is_streaming:
        raise BadRequestError("`starting_after` needs `stream=true`.", param="starting_after", code="invalid_value")
    return is_streaming, after, obfuscates
