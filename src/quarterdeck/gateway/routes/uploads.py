"""`/v1/uploads`: large files in parts, for the keys of a team."""

from collections.abc import AsyncIterator
from typing import Any

import msgspec
from fastapi import APIRouter, Response
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError

from quarterdeck.gateway.dependencies import MemberDep, PartsDep
from quarterdeck.gateway.http.body_stream import BodyStream
from quarterdeck.gateway.http.error_responses import from_validation
from quarterdeck.gateway.http.multipart import Form, read_form
from quarterdeck.gateway.http.registry import Route
from quarterdeck.gateway.http.request_head import RequestHead
from quarterdeck.gateway.http.responses import json_response
from quarterdeck.gateway.routes.files import FORM_BYTES, JSON, NO_LIMIT, Confirm, bound, check_fields
from quarterdeck.inference.call import Reply
from quarterdeck.resources.files.objects import UploadComplete, UploadCreate
from quarterdeck.resources.files.service import Files
from quarterdeck.resources.files.uploads import Uploads
from quarterdeck.resources.responses.items import is_id
from quarterdeck.resources.responses.service import owner_of
from quarterdeck.store.uploads import no_such_upload

PATH = "/v1/uploads"
MAX_COMPLETE_BYTES = 1024 * 1024
"""Ids of 10,000 parts."""

router = APIRouter(prefix=PATH)


def routes(uploads: Uploads, files: Files, confirm: Confirm, *, holds_bytes: int) -> list[Route]:
    """`confirm` reads the key as it is now. `holds_bytes`: memory of a part on its way to the storage."""

    async def add_part(head: RequestHead, body: BodyStream) -> Reply:
        owner = owner_of(await confirm(head.principal))
        upload_id = _id(head)

        async def take(filename: str, pieces: AsyncIterator[bytes], form: Form) -> dict[str, Any]:
            return await uploads.add_part(upload_id, _checked(pieces, form), owner)

        await bound(head, body, files.config.max_part_bytes + FORM_BYTES)
        part = await read_form(body, head.header(b"content-type"), "data", take)
        return Reply(200, JSON, msgspec.json.encode(part))

    async def complete(head: RequestHead, body: bytes) -> Reply:
        """Join the parts to a file, in the order of their ids. Takes as long as the storage takes to copy them."""
        owner = owner_of(await confirm(head.principal))
        try:
            asked = UploadComplete.model_validate_json(body)
        except ValidationError as error:
            raise from_validation(
                RequestValidationError([{**each, "loc": ("body", *each["loc"])} for each in error.errors()])
            ) from None
        upload = await uploads.complete(_id(head), asked, owner)
        return Reply(200, JSON, msgspec.json.encode(upload))

    return [
        Route.streamed(f"{PATH}/{{upload_id}}/parts", add_part, max_bytes=NO_LIMIT, holds_bytes=holds_bytes),
        Route.buffered(f"{PATH}/{{upload_id}}/complete", complete, max_bytes=MAX_COMPLETE_BYTES),
    ]


@router.post("")
async def create_upload(body: UploadCreate, parts: PartsDep, member: MemberDep) -> Response:
    """Begin an upload; it expires after an hour."""
    return json_response(await parts.uploads.create(body, owner_of(member)))


@router.post("/{upload_id}/cancel")
async def cancel_upload(upload_id: str, parts: PartsDep, member: MemberDep) -> Response:
    """Cancel an upload, and delete its parts."""
    return json_response(await parts.uploads.cancel(upload_id, owner_of(member)))


async def _checked(pieces: AsyncIterator[bytes], form: Form) -> AsyncIterator[bytes]:
    async for piece in pieces:
        yield piece
    check_fields(form, frozenset())


def _id(head: RequestHead) -> str:
    """Raises NotFoundError."""
    found = (head.parameters or {})["upload_id"]
    if not is_id(found):
        raise no_such_upload(found)
    return found
