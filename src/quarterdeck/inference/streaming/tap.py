"""Inspects a stream as it passes: usage, finish reason, errors, the end.

It searches for byte patterns and parses only the events where one is found: a token costs about 1 µs, a burst of 16 KB
about 12 µs. Searches run from the end of a piece: the patterns are near it, and where a pattern is absent CPython's
search skips by the pattern's length.
"""

import msgspec

from quarterdeck.inference.metering.meter import Meter
from quarterdeck.inference.metering.transcript import Transcript
from quarterdeck.inference.streaming.collector import Collects
from quarterdeck.protocol import sse
from quarterdeck.protocol.error_bodies import is_error
from quarterdeck.protocol.requests import choice_count
from quarterdeck.protocol.stream_usage import split_usage

COMPACT_FINISH, SPACED_FINISH = b'"finish_reason":"', b'"finish_reason": "'
"""As compact JSON and as Python's default format. Inside a JSON string the quotes would be escaped."""


class StreamTap:
    """Updates the meter from each piece of a stream, and removes what the client must not see.

    `collector` receives all valid events, including those hidden from the client.
    """

    __slots__ = (
        "_choices",
        "_collector",
        "_meter",
        "_shows_usage",
        "_transcript",
        "error",
        "is_broken",
        "is_done",
        "is_open",
        "is_unfinished",
    )

    def __init__(self, meter: Meter, *, shows_usage: bool, collector: Collects | None = None) -> None:
        self._meter = meter
        self._collector = collector
        self._shows_usage = shows_usage
        self._choices = _Choices() if choice_count(meter.request) != 1 else None
        self._transcript = meter.transcript = Transcript()
        self.is_open = True
        """More events may come: none of the outcomes below has occurred."""
        self.is_done = False
        """`[DONE]` has come, after a finish reason for each choice."""
        self.error: bytes | None = None
        """The data of an error event. It and what follows is hidden from the client."""
        self.is_broken = False
        """An event is not valid JSON. It and what follows is hidden from the client."""
        self.is_unfinished = False
        """`[DONE]` has come before each choice had its finish reason. It is hidden from the client."""

    def look(self, whole: bytes) -> bytes:
        """Inspect whole events. Returns those that the client sees."""
        if (
            whole.find(b"\n") != len(whole) - 2
            or not whole.startswith(b"data: {")
            or not whole.endswith(b"}\n\n")
            or whole.rfind(b'"error"') >= 0
            or (whole.rfind(b'"usage"') >= 0 and sse.usage_before(whole, len(whole)) >= 0)
            or whole.rfind(COMPACT_FINISH) >= 0
            or whole.rfind(SPACED_FINISH) >= 0
            or self._choices is not None
        ):
            return self._look_closely(whole)
        # One object with nothing but text: usually a token.
        if self._collector is not None:
            self._collector.add(whole)
        self._transcript.add(whole)
        return whole

    def _look_closely(self, whole: bytes) -> bytes:
        meter, choices = self._meter, self._choices
        if (end := sse.end_of_objects(whole)) >= 0:
            self.is_done = end < len(whole)
            if whole.rfind(b'"error"') >= 0:
                whole = self._until_error(whole)
        else:
            whole = self._valid_part(whole)
        for pattern in (COMPACT_FINISH, SPACED_FINISH):
            if (finish := whole.rfind(pattern)) >= 0:
                finish += len(pattern)
                reason = whole[finish : whole.find(b'"', finish)].decode("utf-8", "replace")
                meter.finish_reason = reason or meter.finish_reason
                break
        if choices is not None:
            choices.look(whole)
        if self._collector is not None:
            self._collector.add(whole)
        if whole.rfind(b'"usage"') >= 0:
            whole = self._take_usage(whole)
        if self.is_done and (meter.finish_reason is None or (choices is not None and not choices.are_finished())):
            self.is_done, self.is_unfinished = False, True
            whole = whole[: sse.bounds(whole, len(whole) - 3)[0]]
        if not self.is_done or meter.usage is None:  # otherwise the text will not be needed
            self._transcript.add(whole)
        self.is_open = not (self.is_done or self.is_broken or self.is_unfinished or self.error is not None)
        return whole

    def reopen(self) -> None:
        """Another stream continues the answer."""
        self.error = None
        self.is_broken = self.is_unfinished = False
        self.is_open = True

    def _valid_part(self, whole: bytes) -> bytes:
        """The events up to `[DONE]`, an error or an invalid event. For pieces that are not a plain row of objects:
        with comments, other fields, or `[DONE]` in the middle."""
        start = 0
        for event in sse.events(whole):
            if data := sse.data(event):
                if data == b"[DONE]":
                    self.is_done = True
                    return whole[: start + len(event)]
                if (chunk := sse.parse_json(data)) is None:
                    self.is_broken = True
                    return whole[:start]
                if is_error(chunk):
                    self.error = data
                    return whole[:start]
            start += len(event)
        return whole

    def _until_error(self, whole: bytes) -> bytes:
        """The events before the first error event. All of them if there is none."""
        start = 0
        for event in sse.events(whole):
            if b'"error"' in event:
                chunk = sse.parse(event)
                if chunk is not None and is_error(chunk):
                    self.error, self.is_done = sse.data(event), False
                    return whole[:start]
            start += len(event)
        return whole

    def _take_usage(self, whole: bytes) -> bytes:
        usage, response_id, visible = split_usage(whole, shows_usage=self._shows_usage)
        self._meter.take_usage(usage)
        if response_id is not None:
            self._meter.response_id = response_id
        return visible


class _Choice(msgspec.Struct, gc=False):
    index: int = 0
    finish_reason: str | None = None


class _Chunk(msgspec.Struct, gc=False):
    choices: list[_Choice] | None = None


class _Choices:
    """Which choices have started and finished. It parses every event, so it is used only for requests with more than
    one choice."""

    __slots__ = ("_finished", "_started")

    def __init__(self) -> None:
        self._started: set[int] = set()
        self._finished: set[int] = set()

    def look(self, whole: bytes) -> None:
        for event in sse.events(whole):
            try:
                chunk = msgspec.json.decode(sse.data(event), type=_Chunk)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                continue
            for choice in chunk.choices or ():
                self._started.add(choice.index)
                if choice.finish_reason:
                    self._finished.add(choice.index)

    def are_finished(self) -> bool:
        return self._started == self._finished
