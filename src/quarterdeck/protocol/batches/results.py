"""Results of a batch in OpenAI's form of its output and error files, and what an answer means for its line. Pure."""

import re
from collections.abc import Collection, Mapping
from typing import Any, Literal

import msgspec

from quarterdeck import ids

Verdict = Literal["done", "retry", "wait", "stop"]
"""done: the answer is the line's result. retry: it may be another next time. wait: there was no room, which does not
count as a try. stop: the key is no longer valid, and neither are the other lines."""
MAX_TRIES = 6
"""Of a line that fails in a way that may pass. Then the failure is its result."""
NO_ROOM = frozenset(
    (
        *("no_idle_capacity", "rate_limit_exceeded", "queue_full", "queue_timeout", "model_not_ready", "overloaded"),
        *("shutting_down", "limits_unavailable", "records_unavailable", "auth_unavailable", "insufficient_quota"),
        "database_unavailable",
    )
)
"""Codes of refusals before the request was executed."""


class Tokens(msgspec.Struct, frozen=True):
    """What a line used."""

    input: int = 0
    cached: int = 0
    output: int = 0
    reasoning: int = 0


class Result(msgspec.Struct, frozen=True):
    """A finished line."""

    line: int
    is_error: bool
    text: bytes
    """The line of the output or error file, without its end."""
    tokens: Tokens = Tokens()


def verdict(status: int, code: str | None, tries: int) -> Verdict:
    """What an answer means. `tries`: earlier ones of this line that counted."""
    if status == 401:
        return "wait" if code == "invalid_job_credential" else "stop"  # clocks differ, or a secret was changed
    if status == 429 or (status == 503 and code in NO_ROOM):
        return "wait"
    if status in (408, 409) or status >= 500:
        return "retry" if status != 501 and tries + 1 < MAX_TRIES else "done"
    return "done"


def retry_pause(tries: int, retry_after: float | None, chance: float) -> float:
    """Seconds before the next try. `chance`: 0 to 1."""
    return max(min(2.0 ** min(tries, 6), 60.0) * (0.75 + 0.5 * chance), min(retry_after or 0.0, 300.0))


def answered(batch: str, line: int, custom_id: str, *, status: int, request: str, body: bytes) -> Result:
    """The result of a line that the gateway has answered."""
    try:
        shown: Any = msgspec.json.decode(body, type=msgspec.Raw)
    except (msgspec.DecodeError, UnicodeDecodeError):
        shown = {"error": {"message": body[:1000].decode(errors="replace"), "type": "server_error", "code": None}}
    response = {"status_code": status, "request_id": request, "body": shown}
    is_error = not 200 <= status < 300
    return Result(
        line,
        is_error,
        _text(batch, line, custom_id, response, None),
        Tokens() if is_error else tokens_of(body),
    )


def unexecuted(batch: str, line: int, custom_id: str | None, *, code: str, message: str) -> Result:
    """The result of a line that was not executed. `custom_id` None: it is not known, as the input was lost."""
    return Result(line, True, _text(batch, line, custom_id, None, {"code": code, "message": message}))


_REQUEST_ID = re.compile(rb'"request_id":"([^"\\\\]*)"')
"""In a line of ours, the first is that of its request: an id in a string has its quotes escaped."""


class _WrittenResponse(msgspec.Struct):
    status_code: int
    request_id: str
    body: msgspec.Raw


class _Written(msgspec.Struct):
    id: str
    custom_id: str | None
    response: _WrittenResponse | None


def without_content(text: bytes, requests: Collection[str]) -> bytes | None:
    """A line of an output or error file without the answer of its request. None: it has none, or its request is not
    among these."""
    found = _REQUEST_ID.search(text)
    if found is None or found[1].decode(errors="replace") not in requests:
        return None
    line = msgspec.json.decode(text, type=_Written)
    if line.response is None or bytes(line.response.body) == b"null":
        return None
    response = {"status_code": line.response.status_code, "request_id": line.response.request_id, "body": None}
    error = {"code": "content_deleted", "message": "The content of this request was deleted."}
    return msgspec.json.encode({"id": line.id, "custom_id": line.custom_id, "response": response, "error": error})


def _text(batch: str, line: int, custom_id: str | None, response: object, error: object) -> bytes:
    id = ids.derived_id("batch_req", batch, line)
    return msgspec.json.encode({"id": id, "custom_id": custom_id, "response": response, "error": error})


class _Answer(msgspec.Struct, frozen=True):
    usage: Any = None


def tokens_of(body: bytes) -> Tokens:
    """The usage that an answer states: of chats, completions, embeddings and responses."""
    try:
        usage = msgspec.json.decode(body, type=_Answer).usage
    except (msgspec.DecodeError, UnicodeDecodeError):
        return Tokens()
    if not isinstance(usage, Mapping):
        return Tokens()
    return Tokens(
        _count(usage, "prompt_tokens", "input_tokens"),
        _detail(usage, "cached_tokens", "prompt_tokens_details", "input_tokens_details"),
        _count(usage, "completion_tokens", "output_tokens"),
        _detail(usage, "reasoning_tokens", "completion_tokens_details", "output_tokens_details"),
    )


def _count(usage: Mapping[str, Any], *names: str) -> int:
    return next((usage[name] for name in names if type(usage.get(name)) is int and usage[name] > 0), 0)


def _detail(usage: Mapping[str, Any], name: str, *places: str) -> int:
    return next((_count(usage[place], name) for place in places if isinstance(usage.get(place), Mapping)), 0)
