"""Server-sent events as OpenAI streams them: `data: {json}` and a blank line each, and `data: [DONE]` at the end.

Bytes are split into whole events and inspected, not rewritten: the client receives what the engine sent, except that
line ends become LF. Functions here search for byte patterns, so that a token costs a microsecond; events are parsed
only where a pattern was found.
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
"""The longest event. An engine that exceeds it has failed."""


class EventTooLongError(ValueError):
    """More than the splitter's bound arrived without the end of an event."""


class EventSplitter:
    """Turns pieces of a stream, as received, into pieces of whole events."""

    __slots__ = ("_max_bytes", "_rest")

    is_finished = False
    """Whether the answer is known to be complete without `[DONE]`: never, for an engine that sends it."""

    def __init__(self, max_bytes: int = MAX_EVENT_BYTES) -> None:
        self._rest = b""
        self._max_bytes = max_bytes

    @property
    def rest(self) -> bytes:
        """The bytes after the last whole event."""
        return self._rest

    def finish(self) -> bytes:
        """The last event, at the end of the body. Some servers omit the blank line after `[DONE]`; any other incomplete
        event is dropped."""
        return self.feed(b"\n\n") if self._rest.strip() == DONE.strip() else b""

    def feed(self, piece: bytes) -> bytes:
        """The events that this piece completes. b"": none. Raises EventTooLongError."""
        if self._rest:
            piece = self._rest + piece
            self._rest = b""
        held = b""
        if b"\r" in piece:  # JSON has no raw carriage returns, so these are line ends
            if piece.endswith(b"\r"):  # its line feed may be in the next piece
                held, piece = b"\r", piece[:-1]
            piece = piece.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        if piece.endswith(b"\n\n") and not held:
            return piece
        end = piece.rfind(b"\n\n") + 2
        if end == 1:
            end = 0
        self._rest = piece[end:] + held
        if len(self._rest) > self._max_bytes:
            raise EventTooLongError(f"an event of more than {self._max_bytes} bytes")
        return piece[:end]


def events(whole: bytes) -> Iterator[bytes]:
    """Split whole events, each with its blank line."""
    start = 0
    while (end := whole.find(b"\n\n", start)) >= 0:
        yield whole[start : end + 2]
        start = end + 2


def first_object(whole: bytes) -> bytes:
    """The first of these events with data. b"": none."""
    if whole.startswith(b"data: "):
        return whole[: whole.find(b"\n\n") + 2]
    return next((event for event in events(whole) if data(event)), b"")


def data(event: bytes) -> bytes:
    """The event's data, its lines joined. b"" for a comment."""
    if event.startswith(b"data: ") and event.find(b"\n") == len(event) - 2:
        return event[6:-2]
    lines = (line[5:].removeprefix(b" ") for line in event.split(b"\n") if line.startswith(b"data:"))
    return b"\n".join(lines)


def end_of_objects(whole: bytes) -> int:
    """The end of a plain row of objects: `data: {…}` and a blank line each, on one line each, nothing between them, and
    nothing but `[DONE]` after the last. -1: these events are anything else. Without the separators of such a row, its
    first line break is at its end.
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
    """The end of the event `[DONE]`. -1: there is none. No line of a JSON text looks like it."""
    at = whole.find(b"[DONE]\n\n")
    while at >= 0:
        if whole[whole.rfind(b"\n", 0, at) + 1 : at] in (b"data: ", b"data:"):
            return at + 8
        at = whole.find(b"[DONE]\n\n", at + 8)
    return -1


def usage_before(whole: bytes, end: int) -> int:
    """The position of the last `usage` before `end` that is not null. -1: none. It may be a false positive (inside a
    text), never a false negative."""
    while (at := whole.rfind(b'"usage"', 0, end)) >= 0 and whole.startswith((b":null", b": null"), at + 7):
        end = at
    return at


def may_hold_error(whole: bytes) -> bool:
    """Whether an event may be an error. False positives are possible, false negatives are not."""
    return whole.rfind(b'"error"') >= 0


def may_hold_garbage(whole: bytes) -> bool:
    """Whether an event may be invalid. False positives are possible (`[DONE]`, comments); false negatives only for
    garbage that ends like an object."""
    return whole.count(b"}\n\n") != whole.count(b"\n\n")


def garbage_at(whole: bytes) -> int:
    """The start of the first event that is not an object, `[DONE]` or a comment. -1: all are valid."""
    start = 0
    for event in events(whole):
        if not event.endswith(b"}\n\n") and data(event) not in (b"", b"[DONE]") and parse(event) is None:
            return start
        start += len(event)
    return -1


def bounds(whole: bytes, at: int) -> tuple[int, int]:
    """Start and end of the event around position `at`."""
    before = whole.rfind(b"\n\n", 0, at)
    return (before + 2 if before >= 0 else 0), whole.find(b"\n\n", at) + 2


def parse(event: bytes) -> dict[str, Any] | None:
    """The event's JSON object. None for comments, `[DONE]` and anything else."""
    return parse_json(data(event))


def parse_json(text: bytes) -> dict[str, Any] | None:
    """None if the text is not a JSON object."""
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
    """The event for a failure after the answer has begun: the only place where one is made. No `[DONE]` follows it.

    OpenAI's SDK raises `openai.APIError` with its message.
    """
    return event(envelope(error))
