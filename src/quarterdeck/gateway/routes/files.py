"""`/v1/files`: created by any key, and read, listed and deleted by the keys of its team."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Annotated, Literal

import msgspec
from fastapi import APIRouter, Query, Response

from quarterdeck.accounting.principal import Principal
from quarterdeck.errors import BadRequestError
from quarterdeck.gateway.dependencies import MemberDep, PartsDep
from quarterdeck.gateway.http.body_stream import BodyStream
from quarterdeck.gateway.http.download import Download, read_range
from quarterdeck.gateway.http.multipart import Form, read_form
from quarterdeck.gateway.http.registry import Route
from quarterdeck.gateway.http.request_head import RequestHead
from quarterdeck.gateway.http.responses import json_response
from quarterdeck.inference.call import Headers, Reply
from quarterdeck.resources.files.filenames import content_disposition
from quarterdeck.resources.files.objects import check_purpose, file_object, form_expiry
from quarterdeck.resources.files.service import Files, SizeLimit
from quarterdeck.resources.responses.items import is_id
from quarterdeck.resources.responses.service import owner_of
from quarterdeck.resources.tenancy.objects import page
from quarterdeck.store.files import FileRow, no_such_file

PATH = "/v1/files"
MAX_LISTED = 10_000

router = APIRouter(prefix=PATH)

JSON = ((b"content-type", b"application/json"),)
NO_LIMIT = 1 << 50
"""The handler has a limit of its own, by the settings in force."""
FORM_BYTES = 256 * 1024
"""What the form around a file may have."""
_FIELDS = frozenset(("purpose", "expires_after[anchor]", "expires_after[seconds]"))

Confirm = Callable[[Principal], Awaitable[Principal]]


def routes(files: Files, confirm: Confirm, *, holds_bytes: int) -> list[Route]:
    """`confirm` reads the key as it is now. `holds_bytes`: memory of a file on its way to the storage."""

    async def create(head: RequestHead, body: BodyStream) -> Reply:
        owner = owner_of(await confirm(head.principal))
        limit = SizeLimit(files.config.max_file_bytes, "files.max_file_mb")

        async def take(filename: str, pieces: AsyncIterator[bytes], form: Form) -> FileRow:
            def purpose() -> str:
                check_fields(form, _FIELDS)
                return check_purpose(form.fields.get("purpose"))

            return await files.create(
                owner,
                pieces,
                filename=filename,
                purpose=purpose,
                expires_seconds=lambda: form_expiry(form.fields),
                limit=limit,
            )

        await bound(head, body, limit.bytes + FORM_BYTES)
        row = await read_form(body, head.header(b"content-type"), "file", take)
        return Reply(200, JSON, msgspec.json.encode(file_object(row)))

    async def content(head: RequestHead, body: bytes) -> Reply:
        """The content of a file, or the range of it that a Range header asks for."""
        owner = owner_of(await confirm(head.principal))
        file_id = (head.parameters or {})["file_id"]
        if not is_id(file_id):
            raise no_such_file(file_id)
        row = await files.retrieve(file_id, owner)
        etag = b'"%b"' % row.sha256.encode("ascii")
        condition = head.header(b"if-range")
        wanted = read_range(head.header(b"range"), row.bytes) if condition in (None, etag) else None
        start, end = wanted or (0, row.bytes)
        headers: Headers = (
            # Never its own type, and never shown: a page in a file would be one of this origin.
            (b"content-type", b"application/octet-stream"),
            (b"x-content-type-options", b"nosniff"),
            (b"content-security-policy", b"default-src 'none'; sandbox"),
            (b"content-disposition", content_disposition(row.filename)),
            (b"cache-control", b"private, no-store"),
            (b"accept-ranges", b"bytes"),
            (b"etag", etag),
            (b"content-length", b"%d" % (end - start)),
        )
        if wanted is not None:
            headers = (*headers, (b"content-range", b"bytes %d-%d/%d" % (start, end - 1, row.bytes)))
        status = 200 if wanted is None else 206
        return Reply(status, headers, stream=Download(await files.open(row, start, end), end - start))

    return [
        Route.streamed(PATH, create, max_bytes=NO_LIMIT, holds_bytes=holds_bytes),
        Route.buffered(f"{PATH}/{{file_id}}/content", content, method="GET", max_bytes=1024),
    ]


@router.get("")
async def list_files(
    parts: PartsDep,
    member: MemberDep,
    purpose: Annotated[str | None, Query(max_length=100)] = None,
    limit: Annotated[int, Query(ge=1, le=MAX_LISTED)] = MAX_LISTED,
    order: Literal["asc", "desc"] = "desc",
    after: Annotated[str | None, Query(max_length=200)] = None,
) -> Response:
    """List the team's files, the latest first; of one `purpose`."""
    found = await parts.files.store.page(
        owner_of(member), purpose=purpose, after=after, limit=limit, is_descending=order == "desc"
    )
    return json_response(page([file_object(row) for row in found], limit))


@router.get("/{file_id}")
async def retrieve_file(file_id: str, parts: PartsDep, member: MemberDep) -> Response:
    """Retrieve a file's object; its content is a route of its own."""
    return json_response(file_object(await parts.files.retrieve(file_id, owner_of(member))))


@router.delete("/{file_id}")
async def delete_file(file_id: str, parts: PartsDep, member: MemberDep) -> Response:
    """Delete a file and its content."""
    await parts.files.delete(file_id, owner_of(member))
    return json_response({"id": file_id, "object": "file", "deleted": True})


async def bound(head: RequestHead, body: BodyStream, limit: int) -> None:
    """Raises RequestTooLargeError where the stated size is above the limit; else bounds what arrives."""
    body.limit_to(limit)
    if head.content_length is not None and head.content_length > limit:
        await body.refuse()


def check_fields(form: Form, known: frozenset[str]) -> None:
    """Raises BadRequestError for a field that the form does not have."""
    for name in form.fields:
        if name not in known:
            raise BadRequestError(f"Unknown parameter: '{name[:100]}'.", param=name[:100], code="unknown_parameter")
