"""`/v1/batches`: files of requests that the worker executes when there is room for them."""

from typing import Annotated

from fastapi import APIRouter, Query, Response

from quarterdeck.errors import BadRequestError
from quarterdeck.gateway.dependencies import MemberDep, PartsDep
from quarterdeck.gateway.http.responses import json_response
from quarterdeck.protocol.batches.input_lines import MAX_BYTES
from quarterdeck.resources.batches.objects import BatchCreate, batch_object, new_batch
from quarterdeck.resources.responses.service import owner_of
from quarterdeck.resources.tenancy.objects import page

router = APIRouter(prefix="/v1/batches")

Limit = Annotated[int, Query(ge=1, le=100)]
Cursor = Annotated[str | None, Query(max_length=200)]


@router.post("")
async def create_batch(body: BatchCreate, parts: PartsDep, member: MemberDep) -> Response:
    """Create a batch of a file of purpose `batch`. Its requests are checked first, then executed, and charged to the
    key that creates it."""
    owner = owner_of(member)
    file = await parts.files.retrieve(body.input_file_id, owner)
    new = new_batch(body, file)
    if file.purpose != "batch":
        raise BadRequestError(
            f"The file '{file.id}' has the purpose '{file.purpose}'; expected 'batch'.",
            param="input_file_id",
            code="invalid_purpose",
        )
    if file.bytes > MAX_BYTES:
        raise BadRequestError(
            f"The file '{file.id}' is too large: a batch takes {MAX_BYTES // 1024**2} MiB.",
            param="input_file_id",
            code="file_too_large",
        )
    await parts.files.check_quota(owner)
    row = await parts.batches.create(new, owner, most=parts.config.batches.max_waiting)
    return json_response(batch_object(row))


@router.get("")
async def list_batches(parts: PartsDep, member: MemberDep, limit: Limit = 20, after: Cursor = None) -> Response:
    """List batches, newest first."""
    rows = await parts.batches.page(owner_of(member), after=after, limit=limit)
    return json_response(page([batch_object(row) for row in rows], limit))


@router.get("/{batch_id}")
async def retrieve_batch(batch_id: str, parts: PartsDep, member: MemberDep) -> Response:
    """Retrieve a batch with its progress."""
    return json_response(batch_object(await parts.batches.retrieve(batch_id, owner_of(member))))


@router.post("/{batch_id}/cancel")
async def cancel_batch(batch_id: str, parts: PartsDep, member: MemberDep) -> Response:
    """Cancel a batch. What was executed by then is in its files; it is `cancelling` until they are written."""
    return json_response(batch_object(await parts.batches.cancel(batch_id, owner_of(member))))
