"""Batches as the API shows them, and the body that makes one. Pure."""

import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from quarterdeck.protocol.batches.input_lines import ENDPOINTS
from quarterdeck.resources.responses.requests import check_metadata
from quarterdeck.store.batches import BatchRow, NewBatch
from quarterdeck.store.files import FileRow

_WINDOW = re.compile(r"([1-9]\d{0,3})(m|h|d)")
_UNIT_SECONDS = {"m": 60, "h": 3600, "d": 86_400}
MAX_WINDOW_SECONDS = 7 * 86_400


class OutputExpiry(BaseModel):
    """When the output and error file of a batch expire."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    anchor: Literal["created_at"]
    """The files' creation."""
    seconds: int = Field(ge=3600, le=2_592_000)
    """An hour to 30 days after it."""


class BatchCreate(BaseModel):
    """The body of `POST /v1/batches`."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    input_file_id: Annotated[str, Field(min_length=1, max_length=200)]
    """A file of purpose `batch`: JSON lines with `custom_id`, `method`, `url` and `body`."""
    endpoint: str
    """/v1/chat/completions, /v1/completions, /v1/embeddings or /v1/responses: of all its requests."""
    completion_window: str
    """`24h`, as OpenAI's, or any other time of minutes (`30m`), hours or days up to 7 days: what is not executed by
    then expires."""
    metadata: dict[str, str] | None = None
    """Up to 16 pairs."""
    output_expires_after: OutputExpiry | None = None
    """When the output files expire. null: after `batches.retention_days`, which no file outlives."""

    @field_validator("endpoint")
    @classmethod
    def _is_served(cls, endpoint: str) -> str:
        if endpoint not in ENDPOINTS:
            raise ValueError(f"supported are {', '.join(ENDPOINTS)}")
        return endpoint

    @field_validator("completion_window")
    @classmethod
    def _is_a_time(cls, window: str) -> str:
        if not 0 < window_seconds(window) <= MAX_WINDOW_SECONDS:
            raise ValueError("expected a time such as 24h, of at most 7d")
        return window


def window_seconds(window: str) -> int:
    """0: it is no time."""
    found = _WINDOW.fullmatch(window)
    return 0 if found is None else int(found[1]) * _UNIT_SECONDS[found[2]]


def new_batch(body: BatchCreate, file: FileRow) -> NewBatch:
    """`file`: its input. Raises BadRequestError for metadata that is too large."""
    check_metadata(body.metadata)
    return NewBatch(
        endpoint=body.endpoint,
        input_file=file.id,
        input_blob=file.blob,
        input_bytes=file.bytes,
        window=body.completion_window,
        window_seconds=window_seconds(body.completion_window),
        output_expires=None if body.output_expires_after is None else body.output_expires_after.seconds,
        metadata=body.metadata,
    )


def batch_object(row: BatchRow) -> dict[str, Any]:
    """OpenAI's batch."""
    errors = None
    if row.errors is not None:
        errors = {"object": "list", "data": [dict(each) for each in row.errors]}
    return {
        "id": row.id,
        "object": "batch",
        "endpoint": row.endpoint,
        "model": row.model,
        "errors": errors,
        "input_file_id": row.input_file,
        "completion_window": row.window,
        "status": row.status,
        "output_file_id": row.output_file,
        "error_file_id": row.error_file,
        "created_at": int(row.created),
        "in_progress_at": _second(row.in_progress_at),
        "expires_at": int(row.expires),
        "finalizing_at": _second(row.finalizing_at),
        "completed_at": _second(row.finished_at) if row.status == "completed" else None,
        "failed_at": _second(row.finished_at) if row.status == "failed" else None,
        "expired_at": _second(row.finished_at) if row.status == "expired" else None,
        "cancelling_at": _second(row.cancelling_at),
        "cancelled_at": _second(row.finished_at) if row.status == "cancelled" else None,
        "request_counts": {"total": row.total, "completed": row.completed, "failed": row.failed},
        "usage": {
            "input_tokens": row.input_tokens,
            "input_tokens_details": {"cached_tokens": row.cached_tokens},
            "output_tokens": row.output_tokens,
            "output_tokens_details": {"reasoning_tokens": row.reasoning_tokens},
            "total_tokens": row.input_tokens + row.output_tokens,
        },
        "metadata": None if row.metadata is None else dict(row.metadata),
    }


def _second(time: float | None) -> int | None:
    return None if time is None else int(time)
