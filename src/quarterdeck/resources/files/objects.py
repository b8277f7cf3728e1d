"""Files and uploads as OpenAI's objects, and the values that make them. Pure."""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from quarterdeck.errors import BadRequestError
from quarterdeck.store.files import FileRow
from quarterdeck.store.uploads import UploadRow

PURPOSES = ("assistants", "batch", "fine-tune", "vision", "user_data", "evals")
"""Of files that clients send."""
OUTPUT_PURPOSES = ("assistants_output", "batch_output", "fine-tune-results")
"""Of files that the platform makes. They don't count toward the quota."""
MIN_EXPIRY_SECONDS, MAX_EXPIRY_SECONDS = 3600, 30 * 24 * 3600
MISSING = "The content is missing from the storage."


class ExpiresAfter(BaseModel):
    model_config = ConfigDict(extra="forbid")

    anchor: str
    seconds: int


class UploadCreate(BaseModel):
    model_config = ConfigDict(extra="forbid")

    bytes: int = Field(strict=True)
    filename: str = Field(min_length=1, max_length=4096)
    mime_type: str = Field(min_length=1, max_length=255)
    purpose: str
    expires_after: ExpiresAfter | None = None


class UploadComplete(BaseModel):
    model_config = ConfigDict(extra="forbid")

    part_ids: list[str] = Field(min_length=1)
    md5: str | None = Field(default=None, max_length=64)


def check_purpose(purpose: str | None) -> str:
    """Raises BadRequestError."""
    if purpose is None or purpose == "":
        raise BadRequestError(
            "Missing required parameter: 'purpose'.", param="purpose", code="missing_required_parameter"
        )
    if purpose not in PURPOSES:
        names = ", ".join(f"'{name}'" for name in PURPOSES)
        raise BadRequestError(
            f"'{purpose[:100]}' is not one of [{names}] - 'purpose'", param="purpose", code="invalid_value"
        )
    return purpose


def check_expiry(anchor: str | None, seconds: int | None) -> int | None:
    """The seconds after which a file expires. Raises BadRequestError."""
    if anchor is None and seconds is None:
        return None
    if anchor != "created_at":
        raise BadRequestError(
            "'expires_after.anchor' must be 'created_at'.", param="expires_after.anchor", code="invalid_value"
        )
    if seconds is None or not MIN_EXPIRY_SECONDS <= seconds <= MAX_EXPIRY_SECONDS:
        raise BadRequestError(
            f"'expires_after.seconds' must be a number from {MIN_EXPIRY_SECONDS} to {MAX_EXPIRY_SECONDS}.",
            param="expires_after.seconds",
            code="invalid_value",
        )
    return seconds


def form_expiry(fields: Mapping[str, str]) -> int | None:
    """The same of a form's fields. Raises BadRequestError."""
    seconds = fields.get("expires_after[seconds]")
    if seconds is not None and not (seconds.isascii() and seconds.isdecimal() and len(seconds) <= 9):
        seconds = "0"  # out of range, which the error says
    return check_expiry(fields.get("expires_after[anchor]"), None if seconds is None else int(seconds))


def file_object(row: FileRow) -> dict[str, Any]:
    return {
        "id": row.id,
        "object": "file",
        "bytes": row.bytes,
        "created_at": int(row.created),
        "expires_at": None if row.expires is None else int(row.expires),
        "filename": row.filename,
        "purpose": row.purpose,
        "status": "error" if row.is_missing else "processed",
        "status_details": MISSING if row.is_missing else None,
    }


def upload_object(row: UploadRow, file: FileRow | None = None) -> dict[str, Any]:
    return {
        "id": row.id,
        "object": "upload",
        "bytes": row.bytes,
        "created_at": int(row.created),
        "expires_at": int(row.expires),
        "filename": row.filename,
        "purpose": row.purpose,
        "status": row.status,
        "file": None if file is None else file_object(file),
    }


def part_object(id: str, upload: str, created: float) -> dict[str, Any]:
    return {"id": id, "object": "upload.part", "created_at": int(created), "upload_id": upload}
