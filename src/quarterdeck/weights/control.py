"""`/weights` of a door: downloads without a model, for `quarterdeck models pull` elsewhere. No HTTP here."""

import json
from typing import Any

from quarterdeck.errors import BadRequestError, ServiceUnavailableError
from quarterdeck.weights.pulls import MAX_KEPT, Pulls, TooManyPullsError

MAX_LENGTH = 300


def list_downloads(pulls: Pulls) -> dict[str, Any]:
    return {"downloads": pulls.listing()}


def control_download(pulls: Pulls, body: bytes) -> dict[str, Any]:
    """Start or cancel a download, as the body of `POST /weights` says: `{"source", "revision", "cancel"}`. Raises
    BadRequestError, ServiceUnavailableError."""
    try:
        fields = json.loads(body)
    except ValueError:
        raise BadRequestError("The request body is not valid JSON.") from None
    source = fields.get("source") if isinstance(fields, dict) else None
    if not isinstance(source, str) or not 0 < len(source) <= MAX_LENGTH:
        raise BadRequestError("'source' must be a non-empty string.", param="source")
    revision = fields.get("revision")
    if revision is not None and not (isinstance(revision, str) and 0 < len(revision) <= MAX_LENGTH):
        raise BadRequestError("'revision' must be a non-empty string or null.", param="revision")
    if fields.get("cancel"):
        return {"source": source, "revision": revision, "was_running": pulls.cancel(source, revision)}
    try:
        return pulls.start(source, revision)
    except TooManyPullsError:
        raise ServiceUnavailableError(
            f"{MAX_KEPT} downloads are running. Try again later.", code="overloaded"
        ) from None
