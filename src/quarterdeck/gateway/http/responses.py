"""Successful responses of FastAPI's routes; errors are in `error_responses`."""

from typing import Any

import msgspec
from starlette.responses import Response


def json_response(value: Any, status: int = 200) -> Response:
    """Encoded by msgspec."""
    return Response(msgspec.json.encode(value), status, media_type="application/json")
