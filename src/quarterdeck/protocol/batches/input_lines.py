"""The input of a batch: JSON lines, each a request. They are all checked before the first is executed. Pure."""

from collections.abc import AsyncIterable, AsyncIterator
from typing import Any

import msgspec

ENDPOINTS = ("/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/responses")
MAX_LINES = 50_000
MAX_BYTES = 200 * 1024 * 1024
MAX_LINE_BYTES = 16 * 1024 * 1024
"""Of one line: more than a gateway takes of a request without pictures."""
MAX_CUSTOM_ID = 512
MAX_ERRORS = 50
"""That are listed. Further ones would be of the same kinds."""
_BOM = b"\xef\xbb\xbf"


class LineError(msgspec.Struct, frozen=True):
    """OpenAI's error of a batch."""

    code: str
    message: str
    line: int | None = None
    param: str | None = None


class InvalidLineError(Exception):
    def __init__(self, code: str, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.code, self.message, self.param = code, message, param


class Line(msgspec.Struct, frozen=True):
    """A request of a batch. `number` counts lines from 1, empty ones included."""

    number: int
    custom_id: str
    model: str
    body: bytes


class _Wanted(msgspec.Struct, frozen=True):
    custom_id: Any = None
    method: Any = None
    url: Any = None
    body: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


def read_line(number: int, text: bytes, endpoint: str) -> Line:
    """Raises InvalidLineError."""
    try:
        wanted = msgspec.json.decode(text, type=_Wanted)
        text.decode()
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        message = "This line is not parseable as valid JSON."
        if isinstance(error, msgspec.ValidationError):
            message = "This line is not a JSON object."
        raise InvalidLineError("invalid_json_line", message) from error
    for name in ("custom_id", "method", "url"):
        _check_text(name, getattr(wanted, name))
    custom_id: str = wanted.custom_id
    if not 0 < len(custom_id) <= MAX_CUSTOM_ID or "\0" in custom_id:
        raise InvalidLineError(
            "invalid_custom_id", f"'custom_id' must have 1 to {MAX_CUSTOM_ID} characters.", "custom_id"
        )
    if wanted.method != "POST":
        raise InvalidLineError("invalid_method", "Only the method 'POST' is supported.", "method")
    if wanted.url != endpoint:
        raise InvalidLineError("mismatched_url", f"The URL must be the endpoint of the batch, '{endpoint}'.", "url")
    return Line(number, custom_id, *_read_body(wanted.body, endpoint))


def _check_text(name: str, value: object) -> None:
    if value is None:
        raise InvalidLineError("missing_required_parameter", f"Missing required parameter: '{name}'.", name)
    if not isinstance(value, str):
        raise InvalidLineError("invalid_type", f"Invalid type for '{name}': expected a string.", name)


def _read_body(raw: msgspec.Raw | msgspec.UnsetType, endpoint: str) -> tuple[str, bytes]:
    """The model, and the body that is sent."""
    if raw is msgspec.UNSET:
        raise InvalidLineError("missing_required_parameter", "Missing required parameter: 'body'.", "body")
    try:
        members = msgspec.json.decode(raw, type=dict[str, msgspec.Raw])
        model = msgspec.json.decode(members.get("model", b"null"))
    except (msgspec.DecodeError, RecursionError) as error:
        raise InvalidLineError("invalid_type", "Invalid type for 'body': expected an object.", "body") from error
    _check_text("body.model", model)
    for name in ("stream", "background"):
        if bytes(members.get(name, b"false")) not in (b"false", b"null"):
            raise InvalidLineError(f"{name}_not_supported", f"'{name}' is not supported in a batch.", f"body.{name}")
    if endpoint == "/v1/responses" and "store" not in members:
        # The same line may be executed again after a failure: one response of it would be left over.
        members["store"] = msgspec.Raw(b"false")
        return model, msgspec.json.encode(members)
    return model, bytes(raw)


class Validation:
    """Checks the lines of one input, in their order. `most`: lines that it may have. None: any number."""

    def __init__(self, endpoint: str, *, most: int | None = MAX_LINES) -> None:
        self.endpoint = endpoint
        self._most = most
        self.errors: list[LineError] = []
        self.total = 0
        self.model: str | None = None
        self._seen: set[str] = set()

    def add(self, number: int, text: bytes) -> None:
        self.total += 1
        if len(self.errors) >= MAX_ERRORS or self._has_too_many:
            return
        try:
            line = read_line(number, text, self.endpoint)
            if line.custom_id in self._seen:
                raise InvalidLineError(
                    "duplicate_custom_id",
                    "The 'custom_id' of this request is a duplicate of another request. It must be unique in a batch.",
                    "custom_id",
                )
            self._seen.add(line.custom_id)
            if self.model is None:
                self.model = line.model
            elif line.model != self.model:
                raise InvalidLineError(
                    "mismatched_model", "All requests of a batch must be for the same model.", "body.model"
                )
        except InvalidLineError as error:
            self.errors.append(LineError(error.code, error.message, number, error.param))

    def finish(self) -> None:
        if self.total == 0:
            self.errors.append(LineError("empty_file", "The input file has no requests."))
        elif self._has_too_many:
            message = f"The input file has {self.total} requests, more than the maximum of {self._most}."
            self.errors.insert(0, LineError("too_many_requests", message))

    @property
    def _has_too_many(self) -> bool:
        return self._most is not None and self.total > self._most


class LineTooLongError(Exception):
    """A line has more than MAX_LINE_BYTES."""

    def __init__(self, number: int) -> None:
        super().__init__(f"line {number} is too long")
        self.number = number


async def numbered_lines(pieces: AsyncIterable[bytes]) -> AsyncIterator[tuple[int, bytes]]:
    """Lines with their numbers, without empty ones and without a byte order mark. Holds one line and one piece.
    Raises LineTooLongError."""
    number, begun = 0, b""
    async for piece in pieces:
        first, *others = piece.split(b"\n")
        begun += first
        if len(begun) > MAX_LINE_BYTES:
            raise LineTooLongError(number + 1)
        for each in others:
            number += 1
            if text := _clean(begun, number):
                yield number, text
            begun = each
    if text := _clean(begun, number + 1):
        yield number + 1, text


def _clean(text: bytes, number: int) -> bytes:
    return (text.removeprefix(_BOM) if number == 1 else text).strip(b" \t\r")
