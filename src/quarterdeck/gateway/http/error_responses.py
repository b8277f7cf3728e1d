"""The gateway's one translator of errors: an APIError becomes a status, headers and OpenAI's error object.

Whatever refuses a request raises an APIError, or FastAPI's own errors, which are first turned into APIErrors here. The
result leaves in four ways: as headers and body (`encode`, for the request lifecycle), over ASGI (`send`), as FastAPI's
Response (`add_handlers`), or as bytes on a connection that closes (`closing`). After an answer has begun, an error is
an SSE event (`protocol.sse.error_event`).
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import msgspec
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from quarterdeck.errors import APIError, BadRequestError, MethodNotAllowedError, NotFoundError, envelope
from quarterdeck.net.asgi import Send, send_response

HeaderList = list[tuple[bytes, bytes]]

RECORD = "quarterdeck.record"
"""The member of a scope that holds its AccessRecord."""
JSON = (b"content-type", b"application/json")

_CODES = {
    "missing": "missing_required_parameter",
    "json_invalid": "invalid_json",
    "extra_forbidden": "unknown_parameter",
}
SERVED = (
    "This gateway serves /v1/chat/completions, /v1/completions, /v1/responses, /v1/conversations, /v1/messages, "
    "/v1/embeddings, /v1/audio, /v1/images, /v1/files, /v1/uploads, /v1/batches, /v1/moderations, /v1/rerank, "
    "/v1/models, /v1/score, /tokenize and /detokenize."
)
_ELSEWHERE = re.compile(
    r"(?:/openai)?(?:/v1)*/(?P<name>fine_tuning|vector_stores|assistants|threads|images|audio|realtime|evals|containers"
    r"|videos|organization|engines|edits|graders|chatkit|skills)(?=/|$)"
    r"|/api/(?:chat|generate|tags|embed|embeddings|show|version)$|/v2/(?:chat|embed)$"
)
"""Paths of OpenAI's API, of Ollama's and of Cohere's."""
_NOT_IN_HEADERS = re.compile(r"[^\t\x20-\x7e]")


def encode(error: APIError, form: Callable[[APIError], object] = envelope) -> tuple[HeaderList, bytes]:
    """Headers (without the content-length) and body of the response; its status is `error.status`.

    `form`: makes the body's object. OpenAI's, but for routes of another API.
    """
    body = msgspec.json.encode(form(error))
    headers = [JSON]
    if error.status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    own = error.headers if error.retry_after is None else {"retry-after": str(error.retry_after), **error.headers}
    for name, value in own.items():
        # retry-after may be an engine's own words, which must not end the line.
        headers.append((name.lower().encode("latin-1"), _NOT_IN_HEADERS.sub("", value).encode("ascii")))
    return headers, body


async def send(send: Send, error: APIError) -> None:
    headers, body = encode(error)
    await send_response(send, error.status, body, headers)


def closing(error: APIError, more: Sequence[tuple[bytes, bytes]] = ()) -> bytes:
    """The response without its status line and with `more` headers, for a connection that closes after it."""
    headers, body = encode(error)
    headers += [*more, (b"content-length", b"%d" % len(body)), (b"connection", b"close")]
    return b"".join(b"%b: %b\r\n" % header for header in headers) + b"\r\n" + body


def add_handlers(api: FastAPI) -> None:
    """Have FastAPI answer its own errors and ours by this module."""
    api.add_exception_handler(APIError, _on_api_error)
    api.add_exception_handler(HTTPException, _on_http_error)
    api.add_exception_handler(RequestValidationError, _on_validation_error)


def internal_error(request_id: str) -> APIError:
    """For an unexpected exception: the client learns where to find it in the logs, and nothing of the exception."""
    return APIError(
        f"The gateway failed to process this request. Details are in its log under the request id {request_id}.",
        code="internal_error",
    )


def from_http(error: HTTPException, path: str = "") -> APIError:
    """Starlette's errors: 404, 405, and others by their status. `path` is the request's."""
    headers = dict(error.headers or {})
    if error.status_code == 404:
        return NotFoundError(f"{_unknown(path)} {SERVED}", code="unknown_url", headers=headers)
    if error.status_code == 405:
        return MethodNotAllowedError("Method not allowed.", headers=headers)
    refused = BadRequestError(str(error.detail), headers=headers)
    refused.status = error.status_code
    return refused


def _unknown(path: str) -> str:
    # The path itself is not repeated: a caller chose it.
    found = _ELSEWHERE.match(path)
    if found is None:
        return "Unknown request URL. Please check it for typos."
    name = f"/v1/{found['name']}" if found["name"] else found[0]
    return f"{name} is not served here yet."


def from_validation(error: RequestValidationError) -> APIError:
    """The first of FastAPI's validation errors, in OpenAI's words."""
    found: Mapping[str, Any] = error.errors()[0]
    param = _path(found["loc"][1:])
    kind, reason = found["type"], found["msg"].removeprefix("Value error, ")
    code = _CODES.get(kind, "invalid_type" if kind.endswith("_type") else "invalid_value")
    if code == "invalid_json":
        return BadRequestError(f"We could not parse the JSON body of your request: {reason}.", code=code)
    if code == "missing_required_parameter":
        message = f"Missing required parameter: '{param}'." if param else "Missing request body."
    elif code == "unknown_parameter":
        message = f"Unknown parameter: '{param}'."
    else:
        about = "Invalid request body" if kind == "value_error" else "The body must be a JSON object"
        message = f"Invalid value for '{param}': {reason}." if param else f"{about}: {reason}."
    return BadRequestError(message, param=param or None, code=code)


def _path(parts: Sequence[str | int]) -> str:
    path = ""
    for part in parts:
        path += f"[{part}]" if isinstance(part, int) else f".{part}"
    return path.removeprefix(".")


async def _on_api_error(request: Request, error: Exception) -> Response:
    refused = cast(APIError, error)
    if (record := request.scope.get(RECORD)) is not None:
        record.error = refused.code or refused.type
    headers, body = encode(refused)
    response = Response(body, refused.status)
    response.raw_headers = [*headers, (b"content-length", b"%d" % len(body))]
    return response


async def _on_http_error(request: Request, error: Exception) -> Response:
    return await _on_api_error(request, from_http(cast(HTTPException, error), request.scope["path"]))


async def _on_validation_error(request: Request, error: Exception) -> Response:
    return await _on_api_error(request, from_validation(cast(RequestValidationError, error)))
