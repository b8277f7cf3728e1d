"""The gateway's one translator of errors: an APIError becomes a status, headers and OpenAI's envelope.

FastAPI's own errors (no such path, a method that is not there, a body that is not valid) are first turned into
APIErrors here, so that a caller sees one shape whoever refused.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from quarterdeck.errors import APIError, BadRequestError, MethodNotAllowedError, NotFoundError, envelope

HeaderList = list[tuple[bytes, bytes]]

JSON = (b"content-type", b"application/json")

_CODES = {
    "missing": "missing_required_parameter",
    "json_invalid": "invalid_json",
    "extra_forbidden": "unknown_parameter",
}
_NOT_IN_HEADERS = re.compile(r"[^\t\x20-\x7e]")


def encode(error: APIError) -> tuple[HeaderList, bytes]:
    """Headers (all but the content-length) and body of the answer; its status is the error's."""
    body = msgspec.json.encode(envelope(error))
    headers = [JSON]
    if error.status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    own = error.headers if error.retry_after is None else {"retry-after": str(error.retry_after), **error.headers}
    for name, value in own.items():
        # retry-after may be an engine's own words, which must not end the line.
        headers.append((name.lower().encode("latin-1"), _NOT_IN_HEADERS.sub("", value).encode("ascii")))
    return headers, body


def error_response(error: APIError) -> Response:
    """The same for FastAPI."""
    headers, body = encode(error)
    response = Response(body, error.status)
    response.raw_headers = [*headers, (b"content-length", b"%d" % len(body))]
    return response


def json_response(value: Any, status: int = 200) -> Response:
    """What our routes answer with: encoded by msgspec."""
    return Response(msgspec.json.encode(value), status, media_type="application/json")


def unhandled(request_id: str) -> APIError:
    """What a caller is told of a bug of ours: where to find it in the logs, and nothing else."""
    return APIError(
        f"The gateway failed to handle this request. Its operator finds the cause under the id {request_id}.",
        code="internal_error",
    )


def from_http(error: HTTPException) -> APIError:
    """Starlette's 404 and 405, and whatever else it refuses by a status."""
    headers = dict(error.headers or {})
    if error.status_code == 404:
        return NotFoundError("Unknown request URL. Please check it for typos.", code="unknown_url", headers=headers)
    if error.status_code == 405:
        return MethodNotAllowedError("This URL does not know the request's method.", headers=headers)
    refused = BadRequestError(str(error.detail), headers=headers)
    refused.status = error.status_code
    return refused


def from_validation(error: RequestValidationError) -> APIError:
    """The first of FastAPI's findings, with OpenAI's words for it."""
    found: Mapping[str, Any] = error.errors()[0]
    param = _path(found["loc"][1:])
    kind, reason = found["type"], found["msg"].removeprefix("Value error, ")
    code = _CODES.get(kind, "invalid_type" if kind.endswith("_type") else "invalid_value")
    if code == "invalid_json":
        return BadRequestError(f"We could not parse the JSON body of your request: {reason}.", code=code)
    if code == "missing_required_parameter":
        message = f"Missing required parameter: '{param}'." if param else "The request has no body."
    elif code == "unknown_parameter":
        message = f"Unknown parameter: '{param}'."
    else:
        message = f"Invalid value for '{param}': {reason}." if param else f"The body must be a JSON object: {reason}."
    return BadRequestError(message, param=param or None, code=code)


def _path(parts: Sequence[str | int]) -> str:
    path = ""
    for part in parts:
        path += f"[{part}]" if isinstance(part, int) else f".{part}"
    return path.removeprefix(".")
