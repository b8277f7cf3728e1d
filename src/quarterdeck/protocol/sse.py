"""Server-sent events as OpenAI streams them: `data: {json}`, a blank line, at last `data: [DONE]`.

Bytes are cut into whole events and looked at, never rewritten: what passes is what the engine sent, but for line ends,
which become LF. The checks below are searches for byte patterns, so that a token costs a microsecond; only what they
find is parsed.
"""

from collections.abc import Iterator
from typing import Any

import msgspec

from quarterdeck.errors import APIError, envelope

CONTENT_TYPE = b"text/event-stream; charset=utf-8"
UNBUFFERED = ((b"cache-control", b"no-cache"), (b"x-accel-buffering", b"no"))
"""Headers that keep proxies (nginx among them) from holding events back."""
HEADERS = ((b"content-type", CONTENT_TYPE), *UNBUFFERED)
"""Headers of every streamed answer."""
DONE = b"data: [DONE]\n\n"
MAX_EVENT_BYTES = 4 * 1024 * 1024
"""An event may not be longer; an engine that never ends one is broken."""


class EventTooLongError(ValueError):
    """More than MAX_EVENT_BYTES came without the end of an event."""


class EventSplitter:
    """Pieces as they arrive in, pieces of whole events out."""

    __slots__ = ("_rest",)

    def __init__(self) -> None:
        self._rest = b""

    @property
    def rest(self) -> bytes:
        """What came after the last whole event."""
        return self._rest

    def feed(self, piece: bytes) -> bytes:
        """The whole events that are complete with this piece; b"" where none is. Raises EventTooLongError."""
        if self._rest:
            piece = self._rest + piece
            self._rest = b""
        held = b""
        if b"\r" in piece:  # JSON holds no raw carriage return, so these are line ends of another kind
            if piece.endswith(b"\r"):  # its line feed comes with the next piece
                held, piece = b"\r", piece[:-1]
            piece = piece.replace(b"\r\n", b"\n")
        if piece.endswith(b"\n\n") and not held:
            return piece
        end = piece.rfind(b"\n\n") + 2
        if end == 1:
            end = 0
        self._rest = piece[end:] + held
        if len(self._rest) > MAX_EVENT_BYTES:
            raise EventTooLongError(f"an event of more than {MAX_EVENT_BYTES} bytes")
        return piece[:end]


def events(whole: bytes) -> Iterator[bytes]:
    """Cut whole events apart, each with its blank line."""
    start = 0
    while (end := whole.find(b"\n\n", start)) >= 0:
        yield whole[start : end + 2]
        start = end + 2


def first_object(whole: bytes) -> bytes:
    """The first of these events that has data; b"" where none has."""
    if whole.startswith(b"data: "):
        return whole[: whole.find(b"\n\n") + 2]
    return next((event for event in events(whole) if data(event)), b"")


def data(event: bytes) -> bytes:
    """The event's data, its lines joined; b"" for a comment."""
    if event.startswith(b"data: ") and event.find(b"\n") == len(event) - 2:
        return event[6:-2]
    lines = (line[5:].removeprefix(b" ") for line in event.split(b"\n") if line.startswith(b"data:"))
    return b"\n".join(lines)


def end_of_objects(whole: bytes) -> int:
    """Where a row of objects ends, one a line, each `data: {…}` and its blank line, with nothing between them, and at
    most `[DONE]` after the last; -1 where these events are of any other make. Taken apart between objects, no line ends
    before the last one does.
    """
    end = len(whole)
    if whole.endswith(DONE):
        end -= len(DONE)
        if not end:
            return 0
    if not whole.startswith(b"data: {") or not whole.startswith(b"}\n\n", end - 3):
        return -1
    objects = b"".join(whole.rsplit(b"}\n\ndata: {"))  # twice as fast as counting them
    return end if objects.find(b"\n") == len(objects) - (len(whole) - end + 2) else -1


def end_of_done(whole: bytes) -> int:
    """Where the event `[DONE]` ends among these; -1 where it is not. No line inside a JSON text begins like it."""
    at = whole.find(b"[DONE]\n\n")
    while at >= 0:
        if whole[whole.rfind(b"\n", 0, at) + 1 : at] in (b"data: ", b"data:"):
            return at + 8
        at = whole.find(b"[DONE]\n\n", at + 8)
    return -1


def usage_before(whole: bytes, end: int) -> int:
    """Where the last `usage` before `end` that is not null may be, -1: nowhere. A false yes is possible, a false no
    is not."""
    while (at := whole.rfind(b'"usage"', 0, end)) >= 0 and whole.startswith((b":null", b": null"), at + 7):
        end = at
    return at


def may_hold_error(whole: bytes) -> bool:
    """Whether an event may be an error. A false yes is possible, a false no is not."""
    return whole.rfind(b'"error"') >= 0


def may_hold_garbage(whole: bytes) -> bool:
    """Whether an event may be something that no client can read. A false yes is possible (`[DONE]`, a comment); a false
    no only where garbage ends as an object does."""
    return whole.count(b"}\n\n") != whole.count(b"\n\n")


def garbage_at(whole: bytes) -> int:
    """Where the first event begins that is neither an object nor `[DONE]` nor a comment; -1: all are sound."""
    start = 0
    for event in events(whole):
        if not event.endswith(b"}\n\n") and data(event) not in (b"", b"[DONE]") and parse(event) is None:
            return start
        start += len(event)
    return -1


def bounds(whole: bytes, at: int) -> tuple[int, int]:
    """Start and end of the event that holds the byte `at`."""
    before = whole.rfind(b"\n\n", 0, at)
    return (before + 2 if before >= 0 else 0), whole.find(b"\n\n", at) + 2


def parse(event: bytes) -> dict[str, Any] | None:
    """The event's JSON object; None for comments, `[DONE]` and what is no object."""
    return parse_json(data(event))


def parse_json(text: bytes) -> dict[str, Any] | None:
    """None for what is no JSON object."""
    try:
        value = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def event(value: object) -> bytes:
    """A value as an event."""
    return b"data: " + msgspec.json.encode(value) + b"\n\n"


def raw_event(text: bytes) -> bytes:
    """Encoded JSON as an event."""
    return b"data: " + text.replace(b"\n", b" ") + b"\n\n"


def error_event(error: APIError) -> bytes:
    """The failure of an answer under way. The SDK raises openai.APIError with this message, and no `[DONE]` follows."""
    return event(envelope(error))
